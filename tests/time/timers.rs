//! Timers: never early, in order, gone when cancelled, and at home in whichever loop polls them.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::time::{self, Elapsed, Sleep, interval, interval_at, sleep, sleep_until, timeout, timeout_at};
use evbase::{Builder, JoinHandle, Runtime};
use futures::future::{Either, join_all, select};
use futures::{FutureExt, StreamExt};
use tokio_test::{assert_pending, assert_ready, task};

use crate::support::{Drops, Random, SOON, panics, poll_here, turn_until, watchdog};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Sleeps, and says whether the timer had to be armed: whether the deadline was still to come at the first poll.
async fn sleep_by_timer(deadline: Instant) -> bool {
    let mut sleep = sleep_until(deadline);
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        Pin::new(&mut sleep).poll(cx)
    })
    .await;
    assert!(Instant::now() >= deadline);
    polls > 1
}

/// A sleep that was polled once in the runtime that calls this.
async fn armed(duration: Duration) -> Sleep {
    let mut sleep = sleep(duration);
    assert!(poll_here(&mut sleep).await.is_pending());
    sleep
}

#[test]
fn a_timer_never_fires_early() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let mut random = Random::new(1);
    runtime
        .block_on(async {
            // One after the other, where the wait in the kernel is that of the timer; and many at once.
            for _ in 0..300 {
                let duration = Duration::from_nanos(random.below(3_000_000));
                let start = Instant::now();
                sleep(duration).await;
                assert!(start.elapsed() >= duration, "{duration:?}");
            }
            let sleeps =
                (0..1000)
                    .map(|_| Duration::from_nanos(random.below(200_000_000)))
                    .map(|duration| async move {
                        let start = Instant::now();
                        sleep(duration).await;
                        assert!(start.elapsed() >= duration, "{duration:?}");
                        assert!(start.elapsed() < duration + SOON);
                    });
            join_all(sleeps).await;
        })
        .unwrap();
}

#[test]
fn a_deadline_is_never_overtaken_by_the_clock_of_the_waker() {
    let _watchdog = watchdog();
    // Woken by the timer, and only by it: `tokio_test` counts wake-ups.
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let mut random = Random::new(2);
    for _ in 0..100 {
        let deadline = Instant::now() + Duration::from_nanos(random.below(2_000_000));
        let mut sleep = task::spawn(sleep_until(deadline));
        if sleep.poll().is_pending() {
            turn_until(&runtime, || sleep.is_woken());
            assert!(Instant::now() >= deadline);
            assert_ready!(sleep.poll());
        }
        assert!(Instant::now() >= deadline);
    }
}

#[test]
fn a_deadline_that_comes_while_home_is_busy_is_seen_by_the_next_poll() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let busy = runtime.block_on(async {
        // Far enough for a look at a coarser clock to say that it is still to come.
        let mut sleep = armed(Duration::from_millis(50)).await;
        // The loop doesn't turn meanwhile, and fires no timer.
        while poll_here(&mut sleep).await.is_pending() {}
        assert!(sleep.is_elapsed());
    });
    busy.unwrap();
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn timers_fire_in_the_order_of_their_deadlines_and_equal_ones_as_they_were_armed() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut random = Random::new(3);
    let start = Instant::now() + 20 * MS;
    let mut deadlines: Vec<_> = (0..500).map(|n| (start + MS * random.below(30) as u32, n)).collect();
    for &(deadline, n) in &deadlines {
        let order = order.clone();
        drop(runtime.spawn_local(async move {
            let armed = sleep_by_timer(deadline).await;
            order.borrow_mut().push((deadline, n, armed));
        }));
    }
    runtime
        .block_on(async {
            while order.borrow().len() < 500 {
                sleep(MS).await;
            }
        })
        .unwrap();
    // On a busy machine, a deadline may have come before its task was first polled.
    let late: Vec<_> = order
        .borrow()
        .iter()
        .filter(|fired| !fired.2)
        .map(|fired| fired.1)
        .collect();
    let order: Vec<_> = order
        .borrow()
        .iter()
        .filter(|fired| fired.2)
        .map(|fired| (fired.0, fired.1))
        .collect();
    deadlines.sort();
    deadlines.retain(|(_, n)| !late.contains(n));
    assert_eq!(order, deadlines);
}

#[test]
fn a_past_deadline_is_ready_at_once_and_so_is_no_duration() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let now = Instant::now();
            assert!(sleep(Duration::ZERO).now_or_never().is_some());
            assert!(sleep_until(now).now_or_never().is_some());
            let past = now.checked_sub(HOUR).unwrap_or(now);
            let mut sleep = sleep_until(past);
            assert!(sleep.is_elapsed());
            assert_eq!(sleep.deadline(), past);
            assert!((&mut sleep).now_or_never().is_some());
            assert!(sleep.now_or_never().is_some(), "and again");
        })
        .unwrap();
    assert_eq!(runtime.metrics().timers, 0, "none had to be armed");
}

#[test]
fn the_longest_duration_never_fires_and_is_clamped() {
    let _watchdog = watchdog();
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let now = Instant::now();
            let mut forever = armed(Duration::MAX).await;
            assert!(forever.deadline() > now + 20 * YEAR && forever.deadline() < now + 50 * YEAR);
            let mut centuries = armed(1000 * YEAR).await;
            assert!(centuries.deadline() > now + 20 * YEAR);
            let limited = timeout(5 * MS, select(&mut forever, &mut centuries));
            assert!(limited.await.is_err(), "another timer fires meanwhile");
            assert_eq!(timeout(Duration::MAX, ready(1)).await, Ok(1));
            assert_eq!(timeout(Duration::MAX, sleep(MS)).await, Ok(()));
            assert!(
                poll_here(interval_at(forever.deadline(), Duration::MAX).tick())
                    .await
                    .is_pending()
            );
            // A tick now, and no next one.
            let mut rare = interval(Duration::MAX);
            rare.tick().await;
            assert!(poll_here(rare.tick()).await.is_pending());
            // Brought back from there.
            forever.reset(Instant::now() + MS);
            forever.await;
        })
        .unwrap();
    assert!(runtime.turn(Some(MS)).is_ok());
}

#[test]
fn a_turn_waits_no_longer_than_for_the_first_timer() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let start = Instant::now();
    let handle = runtime.spawn_local(sleep(5 * MS)).unwrap();
    let far = runtime.spawn_local(sleep(HOUR)).unwrap();
    let mut timers = 0;
    while !handle.is_finished() {
        timers += runtime.turn(None).unwrap().timers;
    }
    assert!(timers <= 1);
    assert!(start.elapsed() >= 5 * MS && start.elapsed() < SOON);
    assert!(!far.is_finished());
}

#[test]
fn a_turn_with_the_longest_timeout_waits_for_what_comes() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    runtime.block_on(async {}).unwrap();
    let parks = runtime.metrics().parks;
    thread::scope(|scope| {
        scope.spawn(|| {
            crate::support::until(|| runtime.metrics().parks > parks);
            spawner.spawn(async {}).wait().unwrap().unwrap();
        });
        while runtime.turn(Some(Duration::MAX)).unwrap().polls == 0 {}
    });
}

#[test]
fn a_reset_to_an_earlier_deadline_wakes_earlier() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    for _ in 0..20 {
        let mut sleep = task::spawn(sleep(HOUR));
        assert_pending!(sleep.poll());
        let deadline = Instant::now() + MS;
        sleep.reset(deadline);
        assert_eq!(sleep.deadline(), deadline);
        turn_until(&runtime, || sleep.is_woken());
        assert!(Instant::now() >= deadline);
        assert_ready!(sleep.poll());
    }
}

#[test]
fn a_reset_to_a_later_deadline_does_not_fire_at_the_first() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let mut sleep = armed(50 * MS).await;
            let later = Instant::now() + 100 * MS;
            sleep.reset(later);
            sleep.await;
            assert!(Instant::now() >= later);
        })
        .unwrap();
    assert_eq!(runtime.metrics().timers, 1);
}

#[test]
fn a_sleep_can_be_reset_after_it_fired() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let mut sleep = sleep(MS);
            for _ in 0..10 {
                (&mut sleep).await;
                (&mut sleep).await;
                assert!(sleep.is_elapsed());
                let deadline = Instant::now() + MS;
                sleep.reset(deadline);
                (&mut sleep).await;
                assert!(Instant::now() >= deadline);
            }
            // Fired in the base, but not polled since.
            sleep.reset(Instant::now() + MS);
            assert!(poll_here(&mut sleep).await.is_pending());
            while !sleep.is_elapsed() {
                evbase::yield_now().await;
            }
            evbase::yield_now().await;
            let deadline = Instant::now() + 2 * MS;
            sleep.reset(deadline);
            sleep.await;
            assert!(Instant::now() >= deadline);
        })
        .unwrap();
}

#[test]
fn a_sleep_that_was_reset_abroad_keeps_the_new_deadline() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for to_earlier in [true, false] {
        runtime
            .block_on(async {
                let mut sleep = armed(if to_earlier { HOUR } else { 50 * MS }).await;
                let (sleep, deadline) = thread::spawn(move || {
                    let deadline = Instant::now() + 100 * MS;
                    sleep.reset(deadline);
                    (sleep, deadline)
                })
                .join()
                .unwrap();
                assert_eq!(sleep.deadline(), deadline);
                sleep.await;
                assert!(Instant::now() >= deadline);
            })
            .unwrap();
    }
    assert!(runtime.metrics().timers <= 2, "the first deadlines are gone");
}

/// A sleep that others can reset, and the task that waits for it, which has been polled once.
fn shared(runtime: &Runtime, sleep: Sleep) -> (Arc<Mutex<Sleep>>, JoinHandle<()>) {
    let sleep = Arc::new(Mutex::new(sleep));
    let polled = sleep.clone();
    let task = runtime.spawn_local(poll_fn(move |cx| Pin::new(&mut *polled.lock().unwrap()).poll(cx)));
    assert_eq!(runtime.turn(Some(Duration::ZERO)).unwrap().polls, 1);
    (sleep, task.unwrap())
}

fn reset_abroad(sleep: &Mutex<Sleep>, deadline: Instant) {
    thread::scope(|scope| drop(scope.spawn(|| sleep.lock().unwrap().reset(deadline))));
}

#[test]
fn a_sleep_that_was_reset_abroad_wakes_its_task_at_the_new_deadline() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for _ in 0..20 {
        let (sleep, task) = shared(&runtime, sleep(HOUR));
        let deadline = Instant::now() + MS;
        reset_abroad(&sleep, deadline);
        turn_until(&runtime, || task.is_finished());
        assert!(Instant::now() >= deadline);
    }
}

#[test]
fn the_last_reset_counts_whether_it_was_at_home_or_abroad() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for _ in 0..20 {
        let (sleep, task) = shared(&runtime, sleep(HOUR));
        reset_abroad(&sleep, Instant::now() + 2 * HOUR);
        // What was sent from abroad hasn't arrived yet.
        let deadline = Instant::now() + MS;
        sleep.lock().unwrap().reset(deadline);
        turn_until(&runtime, || task.is_finished());
        assert!(Instant::now() >= deadline);
    }
}

#[test]
fn a_sleep_that_was_reset_abroad_to_a_later_deadline_is_not_ready_at_the_first() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for _ in 0..20 {
        let first = Instant::now() + MS;
        let (sleep, task) = shared(&runtime, sleep_until(first));
        if task.is_finished() {
            // This thread was so late that the first deadline was over.
            continue;
        }
        let later = first + 5 * MS;
        reset_abroad(&sleep, later);
        // The first deadline has come before home hears of the second one.
        while Instant::now() < first {}
        turn_until(&runtime, || task.is_finished());
        assert!(Instant::now() >= later);
    }
}

#[test]
fn a_sleep_moves_to_the_loop_that_polls_it() {
    let _watchdog = watchdog();
    let (a, b) = (Runtime::new().unwrap(), Builder::new().start("b").unwrap());
    for _ in 0..50 {
        let deadline = Instant::now() + 3 * MS;
        let mut sleep = sleep_until(deadline);
        let _ = a.block_on(poll_here(&mut sleep)).unwrap();
        let sleep = b
            .spawner()
            .spawn(async move {
                (&mut sleep).await;
                assert!(Instant::now() >= deadline);
                sleep.reset(Instant::now() + HOUR);
                assert!(poll_here(&mut sleep).await.is_pending());
                // In an array: a future that gives a future looks like a mistake.
                [sleep]
            })
            .wait()
            .unwrap()
            .unwrap();
        // And back again.
        let [mut sleep] = sleep;
        sleep.reset(Instant::now() + MS);
        a.block_on(sleep).unwrap();
    }
    a.block_on(evbase::yield_now()).unwrap();
    let fired = a.metrics().timers;
    assert!(fired <= 50, "the timers that moved away were disarmed: {fired}");
    drop(b);
}

#[test]
fn a_sleep_that_moved_away_or_was_dropped_abroad_leaves_no_timer_behind() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let other = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let mut sleeps = Vec::new();
            for _ in 0..100 {
                sleeps.push(armed(300 * MS).await);
            }
            thread::spawn(move || drop(sleeps)).join().unwrap();
        })
        .unwrap();
    let mut moved = runtime.block_on(armed(300 * MS)).unwrap();
    assert!(other.block_on(poll_here(&mut moved)).unwrap().is_pending());
    runtime.block_on(sleep(400 * MS)).unwrap();
    assert_eq!(runtime.metrics().timers, 1, "only the last one's");
    other.block_on(moved).unwrap();
}

#[test]
fn a_sleep_outlives_its_runtime_and_goes_on_in_another() {
    let _watchdog = watchdog();
    let first = Runtime::new().unwrap();
    let deadline = Instant::now() + 3 * MS;
    let mut sleep = sleep_until(deadline);
    assert!(first.block_on(poll_here(&mut sleep)).unwrap().is_pending());
    drop(first);
    Runtime::new().unwrap().block_on(&mut sleep).unwrap();
    assert!(Instant::now() >= deadline);
    sleep.reset(Instant::now());
    drop(sleep);
}

#[test]
fn outside_of_a_loop_a_timer_panics_and_says_what_it_needs() {
    let _watchdog = watchdog();
    for text in [
        panics(|| futures::executor::block_on(sleep(MS))),
        panics(|| task::spawn(sleep(HOUR)).poll()),
        panics(|| futures::executor::block_on(interval(MS).tick())),
        panics(|| futures::executor::block_on(timeout(MS, pending::<()>()))),
    ] {
        assert!(text.contains("evbase") && text.contains("block_on"), "{text}");
    }
    // The future comes first, and needs no timer if it is ready.
    assert_eq!(futures::executor::block_on(timeout(MS, ready(3))), Ok(3));
    // Making, resetting and dropping need no loop.
    sleep(HOUR).reset(Instant::now());
}

#[test]
fn a_sleep_wakes_the_waker_of_its_last_poll_only() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let sleep = Arc::new(Mutex::new(sleep(50 * MS)));
    let poller = || {
        let sleep = sleep.clone();
        task::spawn(poll_fn(move |cx| Pin::new(&mut *sleep.lock().unwrap()).poll(cx)))
    };
    let (mut first, mut second) = (poller(), poller());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    turn_until(&runtime, || second.is_woken());
    assert!(!first.is_woken());
    assert_ready!(second.poll());
}

#[test]
fn a_timeout_polls_the_future_first_and_drops_it_with_itself() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let log = Drops::new();
    let probe = log.probe();
    runtime
        .block_on(async {
            assert_eq!(timeout(Duration::ZERO, ready(1)).await, Ok(1));
            assert_eq!(timeout_at(Instant::now() - MS, ready(2)).await, Ok(2));
            let start = Instant::now();
            let mut limited = Box::pin(timeout(5 * MS, async move {
                let _probe = probe;
                pending::<()>().await;
            }));
            let elapsed: Elapsed = limited.as_mut().await.unwrap_err();
            assert!(start.elapsed() >= 5 * MS);
            assert_eq!(std::io::Error::from(elapsed).kind(), std::io::ErrorKind::TimedOut);
            assert!(!elapsed.to_string().is_empty());
            assert_eq!(log.count(), 0);
            drop(limited);
            assert_eq!(log.count(), 1);
            assert_eq!(timeout(HOUR, sleep(MS)).await, Ok(()));
            assert_eq!(timeout(MS, ready(4)).into_inner().await, 4);
        })
        .unwrap();
    assert!(runtime.metrics().timers <= 2, "that of the hour was disarmed");
}

#[test]
fn a_timeout_of_a_future_that_is_ready_at_its_last_moment_is_ready() {
    let _watchdog = watchdog();
    let runtime = Builder::new().paused().build().unwrap();
    runtime
        .block_on(async {
            // Both are armed before the deadline, and woken at it.
            for n in 1..1000 {
                let deadline = time::now() + Duration::from_nanos(n);
                assert_eq!(timeout_at(deadline, sleep_until(deadline)).await, Ok(()));
                assert_eq!(time::now(), deadline);
            }
        })
        .unwrap();
}

/// Leaves the other futures of its task no budget, however often it is polled.
async fn spends_the_budget() {
    loop {
        sleep(Duration::ZERO).await;
    }
}

#[test]
fn a_timeout_loses_nothing_of_what_is_ready_when_the_budget_is_spent() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let (sender, mut receiver) = futures::channel::mpsc::unbounded();
            (0..1000).for_each(|n| sender.unbounded_send(n).unwrap());
            for n in 0..1000 {
                let limited = timeout(HOUR, receiver.next());
                assert_eq!(limited.await, Ok(Some(n)));
            }
        })
        .unwrap();
}

#[test]
fn a_timeout_comes_in_time_beside_a_future_that_spends_the_budget() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let mut hog = pin!(spends_the_budget());
            let limited = pin!(timeout(MS, pending::<()>()));
            let first = select(hog.as_mut(), limited).await;
            assert!(matches!(first, Either::Right((Err(_), _))));
            // And what is ready at its last moment is ready.
            let limited = pin!(timeout(Duration::ZERO, ready(42)));
            let first = select(hog, limited).await;
            assert!(matches!(first, Either::Right((Ok(42), _))));
        })
        .unwrap();
}

#[test]
fn an_interval_ticks_at_once_and_then_every_period() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let period = 3 * MS;
            let mut ticks = interval(period);
            assert_eq!(ticks.period(), period);
            let first = poll_here(ticks.tick()).await;
            let Poll::Ready(first) = first else {
                panic!("the first tick comes at once")
            };
            for n in 1..10 {
                let planned = ticks.tick().await;
                assert_eq!(planned, first + n * period);
                assert!(Instant::now() >= planned);
            }
            let start = Instant::now() + 5 * MS;
            let mut ticks = interval_at(start, MS);
            assert_eq!(ticks.tick().await, start);
            assert!(Instant::now() >= start);
        })
        .unwrap();
}

#[test]
fn an_interval_can_be_used_in_one_loop_and_then_another() {
    let _watchdog = watchdog();
    let (a, b) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let mut ticks = interval(MS);
    let first = a.block_on(ticks.tick()).unwrap();
    assert!(a.block_on(poll_here(ticks.tick())).unwrap() != Poll::Ready(first));
    let second = b.block_on(ticks.tick()).unwrap();
    assert!(second > first);
}

#[test]
fn an_interval_without_a_period_panics() {
    let _watchdog = watchdog();
    assert!(panics(|| interval(Duration::ZERO)).contains("period"));
    assert!(panics(|| interval_at(Instant::now(), Duration::ZERO)).contains("period"));
}

#[test]
fn an_earlier_timer_shortens_a_wait_for_a_later_one() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let start = Instant::now();
    let far = runtime.spawner().spawn(sleep(HOUR));
    crate::support::until(|| runtime.metrics().parks > 0);
    for _ in 0..20 {
        // Home is parked until the far one; what comes in arms an earlier one.
        runtime.spawner().spawn(sleep(MS)).wait().unwrap().unwrap();
        // And one that arms another, at home.
        runtime
            .spawner()
            .spawn(async { evbase::spawn_local(sleep(MS)).await.unwrap() })
            .wait()
            .unwrap()
            .unwrap();
    }
    assert!(start.elapsed() < SOON);
    assert!(!far.is_finished());
}

#[test]
fn a_timer_that_was_cancelled_wakes_nobody_and_a_later_one_still_fires() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let mut cancelled = task::spawn(sleep(50 * MS));
    let mut later = task::spawn(sleep(100 * MS));
    assert_pending!(cancelled.poll());
    assert_pending!(later.poll());
    cancelled.reset(Instant::now() + HOUR);
    turn_until(&runtime, || later.is_woken());
    assert!(!cancelled.is_woken());
    drop(cancelled);
    assert_ready!(later.poll());
    assert_eq!(runtime.metrics().timers, 1);
}

#[test]
fn a_hundred_thousand_timers_that_were_armed_and_cancelled_wake_nobody() {
    let _watchdog = watchdog();
    const MANY: usize = 100_000;
    let runtime = Runtime::new().unwrap();
    let mut random = Random::new(4);
    for round in 0..3 {
        runtime
            .block_on(async {
                let mut sleeps = Vec::with_capacity(MANY);
                for _ in 0..MANY {
                    sleeps.push(armed(HOUR + Duration::from_nanos(random.below(HOUR.as_nanos() as u64))).await);
                }
                // In another order than they were armed.
                while !sleeps.is_empty() {
                    let at = random.below(sleeps.len() as u64) as usize;
                    drop(sleeps.swap_remove(at));
                }
            })
            .unwrap();
        assert_eq!(runtime.metrics().timers, round, "none of them fired");
        let parks = runtime.metrics().parks;
        runtime.block_on(sleep(50 * MS)).unwrap();
        assert!(runtime.metrics().parks - parks < 20, "nothing is left to wake up for");
    }
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn timers_over_many_scales_all_fire_and_in_order() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let fired = Rc::new(Cell::new(None::<Instant>));
    let mut random = Random::new(5);
    let start = Instant::now() + 5 * MS;
    let handles: Vec<_> = (0..20_000)
        .map(|_| {
            // From nanoseconds to a quarter of a second, with as many of each scale.
            let scale = random.below(28) + 1;
            let nanos = random.below(1 << scale);
            let (deadline, fired) = (start + Duration::from_nanos(nanos), fired.clone());
            let task = async move {
                if !sleep_by_timer(deadline).await {
                    return;
                }
                assert!(
                    fired.get().is_none_or(|last| last <= deadline),
                    "overtaken by a later one"
                );
                fired.set(Some(deadline));
            };
            runtime.spawn_local(task).unwrap()
        })
        .collect();
    let ended = runtime.block_on(join_all(handles)).unwrap();
    assert!(ended.into_iter().all(|task| task.is_ok()));
}

#[test]
fn sleeps_are_dropped_by_the_end_of_the_runtime_without_a_panic() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (tell, told) = mpsc::channel();
    struct Tells(Sleep, mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.reset(Instant::now() + HOUR);
            let _ = self.1.send(());
        }
    }
    for _ in 0..10 {
        let tell = tell.clone();
        drop(runtime.spawn_local(async move {
            let mut tells = Tells(sleep(HOUR), tell);
            (&mut tells.0).await;
        }));
    }
    runtime.block_on(evbase::yield_now()).unwrap();
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!(report.cancelled, 10);
    drop(tell);
    assert_eq!(told.iter().count(), 10);
}

/// Counted in sleeps of the loop: a machine that is busy has fewer.
#[test]
fn many_long_sleeps_share_wake_ups_unless_the_timer_slack_is_zero() {
    let _watchdog = watchdog();
    let parks = |builder: Builder| {
        let runtime = builder.build().unwrap();
        let start = Instant::now() + 150 * MS;
        let sleeps = (0..1000).map(|n| sleep_until(start + Duration::from_micros(20) * n));
        runtime.block_on(join_all(sleeps)).unwrap();
        runtime.metrics().parks
    };
    // They are twenty milliseconds of nine tenths of a millisecond each.
    let few = parks(Builder::new());
    assert!(few <= 35, "{few}");
    let exact = (0..10).map(|_| parks(Builder::new().timer_slack(Duration::ZERO)));
    assert!(exact.into_iter().any(|many| many > few), "no more than {few}");
}
