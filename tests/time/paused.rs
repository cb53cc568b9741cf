//! Virtual time: it stands still while there is anything to do, and jumps to the next deadline.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::{self, MissedTickBehavior, hold, interval, sleep, timeout};
use evbase::{Builder, Runtime, yield_now};

use crate::support::{turn_when_readable, watchdog};

const HOUR: Duration = Duration::from_secs(3600);

fn paused() -> Runtime {
    Builder::new().paused().build().unwrap()
}

#[test]
fn an_hour_of_ticks_takes_no_time_and_each_is_exact() {
    let _watchdog = watchdog();
    paused()
        .block_on(async {
            let mut seconds = interval(Duration::from_secs(1));
            let first = seconds.tick().await;
            for n in 1..=3600 {
                let planned = first + Duration::from_secs(n);
                assert_eq!(seconds.tick().await, planned);
                assert_eq!(time::now(), planned);
            }
        })
        .unwrap();
}

#[test]
fn time_stands_still_while_there_is_something_to_do() {
    let _watchdog = watchdog();
    paused()
        .block_on(async {
            let start = time::now();
            let far = evbase::spawn_local(sleep(HOUR));
            for _ in 0..1000 {
                yield_now().await;
            }
            thread::sleep(Duration::from_millis(5));
            assert_eq!(time::now(), start);
            assert!(!far.is_finished());
            far.await.unwrap();
            assert_eq!(time::now(), start + HOUR);
        })
        .unwrap();
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines_each_at_its_own() {
    let _watchdog = watchdog();
    let order = Rc::new(RefCell::new(Vec::new()));
    let runtime = paused();
    runtime
        .block_on(async {
            let start = time::now();
            let tasks: Vec<_> = [7, 3, 86_400_000, 5, 31, 1_000_003]
                .into_iter()
                .map(|after| {
                    let order = order.clone();
                    evbase::spawn_local(async move {
                        sleep(Duration::from_nanos(after)).await;
                        order.borrow_mut().push((time::now() - start).as_nanos() as u64);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        })
        .unwrap();
    assert_eq!(*order.borrow(), [3, 5, 7, 31, 1_000_003, 86_400_000]);
}

#[test]
fn intervals_and_timeouts_know_only_that_time() {
    let _watchdog = watchdog();
    paused()
        .block_on(async {
            let start = time::now();
            let mut ticks = interval(Duration::from_secs(10));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks.tick().await;
            sleep(Duration::from_secs(25)).await;
            assert_eq!(ticks.tick().await, start + Duration::from_secs(10));
            assert_eq!(ticks.tick().await, start + Duration::from_secs(30));
            ticks.reset();
            assert_eq!(ticks.tick().await, start + Duration::from_secs(40));
            assert!(timeout(HOUR, pending::<()>()).await.is_err());
            assert_eq!(time::now(), start + Duration::from_secs(40) + HOUR);
            let mut nap = sleep(HOUR);
            assert!(!nap.is_elapsed());
            nap.reset(time::now());
            assert!(nap.is_elapsed());
            nap.await;
        })
        .unwrap();
}

#[cfg(feature = "unblock")]
#[test]
fn blocking_work_is_awaited_in_real_time() {
    let _watchdog = watchdog();
    let runtime = paused();
    let (start, real) = (Instant::now(), Duration::from_millis(100));
    let work = move || evbase::unblock(move || thread::sleep(real));
    runtime
        .block_on(async {
            assert!(timeout(Duration::from_secs(100), work()).await.is_ok());
            // In a task of its own as well.
            let task = evbase::spawn_local(async move { work().await });
            assert!(timeout(Duration::from_millis(1), task).await.unwrap().is_ok());
            // Once nobody awaits it, it keeps nobody.
            drop(work());
            assert!(timeout(HOUR, pending::<()>()).await.is_err());
        })
        .unwrap();
    assert!(start.elapsed() >= 2 * real);
}

#[cfg(feature = "unblock")]
#[test]
fn blocking_work_that_began_outside_of_the_loop_is_awaited_in_real_time_too() {
    let _watchdog = watchdog();
    let work = || evbase::unblock(|| thread::sleep(Duration::from_millis(50)));
    let limit = Duration::from_secs(60);
    // The arguments of `block_on` are made outside; so is what is spawned from abroad.
    let runtime = paused();
    let limited = runtime.block_on(timeout(limit, work()));
    assert!(limited.unwrap().is_ok());
    let task = runtime.spawn_local(timeout(limit, work())).unwrap();
    assert!(runtime.block_on(task).unwrap().unwrap().is_ok());
    // Once nobody awaits it, it keeps nobody.
    let dropped = runtime.block_on(async { crate::support::poll_here(work()).await.is_pending() });
    assert!(dropped.unwrap());
    runtime.block_on(async { sleep(HOUR).await }).unwrap();
    let runtime = Builder::new().paused().start("home").unwrap();
    let task = runtime.spawner().spawn(timeout(limit, work()));
    assert!(task.wait().unwrap().unwrap().is_ok());
}

#[test]
fn while_it_is_held_what_comes_from_outside_beats_a_timeout() {
    let _watchdog = watchdog();
    for n in 0..20 {
        let runtime = paused();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let read = runtime.block_on(async {
            let fd = AsyncFd::new(ours).unwrap();
            let hold = hold();
            let writer = thread::spawn(move || {
                thread::sleep(Duration::from_millis(n));
                theirs.write_all(b"x").unwrap();
                drop(hold);
                theirs
            });
            let read = timeout(
                Duration::from_millis(1),
                fd.read_with(|mut socket| socket.read(&mut [0; 8])),
            )
            .await;
            drop(writer.join().unwrap());
            read
        });
        assert_eq!(read.unwrap().unwrap().unwrap(), 1);
    }
}

#[test]
fn while_it_is_held_home_sleeps_however_near_the_next_deadline_is() {
    let _watchdog = watchdog();
    let long = Duration::from_millis(30);
    let holds_for = move |hold| {
        thread::spawn(move || {
            thread::sleep(long);
            drop(hold);
        })
    };
    let sleeps = || async move {
        let thread = holds_for(hold());
        sleep(Duration::from_micros(1)).await;
        thread.join().unwrap();
    };
    // In its loop, also if hooks ask how long it will sleep.
    for has_hook in [false, true] {
        let runtime = paused();
        let hook = has_hook.then(|| runtime.before_wait(|_| {}).unwrap());
        runtime.block_on(sleeps()).unwrap();
        assert!(runtime.metrics().turns < 10, "{:?}", runtime.metrics());
        drop(hook);
    }
    // In a host's.
    let runtime = paused();
    let embedded = runtime.embed().unwrap();
    let task = runtime.spawn_local(sleeps()).unwrap();
    let mut turns = 0;
    while !task.is_finished() {
        turn_when_readable(&embedded);
        turns += 1;
    }
    assert!(turns < 10, "{turns}");
    // In the grace period, which time has to come to the end of.
    let runtime = Builder::new().paused().grace(Duration::from_micros(1)).build().unwrap();
    let (start, shutdown) = (Instant::now(), runtime.shutdown_handle());
    let task = runtime.spawn_local(async move {
        let thread = holds_for(hold());
        shutdown.request();
        pending::<()>().await;
        drop(thread);
    });
    assert_eq!(runtime.run().unwrap().cancelled, 1);
    assert!(start.elapsed() >= long);
    assert!(runtime.metrics().turns < 10, "{:?}", runtime.metrics());
    drop(task);
}

#[test]
fn the_last_hold_that_goes_lets_a_sleeping_home_jump() {
    let _watchdog = watchdog();
    for n in 0..300 {
        let runtime = paused();
        runtime
            .block_on(async {
                let start = time::now();
                let holds = [hold(), hold()];
                let threads = holds.map(|hold| {
                    thread::spawn(move || {
                        (0..n * 10).for_each(|_| std::hint::spin_loop());
                        drop(hold);
                    })
                });
                sleep(HOUR).await;
                assert_eq!(time::now(), start + HOUR);
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            })
            .unwrap();
    }
}

#[test]
fn a_message_is_taken_before_time_jumps() {
    let _watchdog = watchdog();
    for n in 0..300 {
        let runtime = paused();
        let spawner = runtime.spawner();
        runtime
            .block_on(async {
                let hold = hold();
                let (give, take) = futures::channel::oneshot::channel();
                let thread = thread::spawn(move || {
                    (0..n * 10).for_each(|_| std::hint::spin_loop());
                    drop(spawner.spawn(async move { give.send(42).unwrap() }));
                    drop(hold);
                });
                assert_eq!(timeout(Duration::from_nanos(1), take).await, Ok(Ok(42)));
                thread.join().unwrap();
            })
            .unwrap();
    }
}

#[test]
fn without_a_deadline_home_really_waits() {
    let _watchdog = watchdog();
    let runtime = paused();
    let (give, take) = futures::channel::oneshot::channel();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        give.send(42).unwrap();
    });
    assert_eq!(runtime.block_on(take).unwrap(), Ok(42));
    thread.join().unwrap();
    let start = Instant::now();
    runtime.turn(Some(Duration::from_millis(5))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5));
}

#[test]
fn what_never_comes_does_not_come_in_virtual_time_either() {
    let _watchdog = watchdog();
    // Made before the runtime, whose time begins later.
    let older = sleep(Duration::MAX);
    let builder = Builder::new().paused().grace(Duration::MAX);
    let runtime = builder.build().unwrap();
    let answer = |after: Duration| {
        let (give, take) = futures::channel::oneshot::channel();
        let thread = thread::spawn(move || {
            thread::sleep(after);
            give.send(42)
        });
        async move {
            let answer = take.await;
            thread.join().unwrap().unwrap();
            answer
        }
    };
    let ms = Duration::from_millis(20);
    runtime
        .block_on(async {
            assert_eq!(timeout(Duration::MAX, answer(ms)).await, Ok(Ok(42)));
            // However far time has jumped.
            for _ in 0..3 {
                sleep(10_000 * HOUR).await;
                assert_eq!(timeout(Duration::MAX, answer(ms)).await, Ok(Ok(42)));
            }
            let first = futures::future::select(Box::pin(answer(ms)), older).await;
            assert!(matches!(first, futures::future::Either::Left(_)));
        })
        .unwrap();
    // A grace period without an end.
    let task = runtime.spawn_local(answer(ms)).unwrap();
    runtime.shutdown_handle().request();
    runtime.run().unwrap();
    assert_eq!(task.wait().unwrap().unwrap(), Ok(42));
}

#[test]
fn the_grace_period_is_in_virtual_time() {
    let _watchdog = watchdog();
    let runtime = Builder::new().paused().grace(HOUR).build().unwrap();
    let ticks = Rc::new(Cell::new(0));
    let (counts, task) = (ticks.clone(), runtime.shutdown_handle());
    drop(runtime.spawn_local(async move {
        task.request();
        loop {
            sleep(Duration::from_secs(60)).await;
            counts.set(counts.get() + 1);
        }
    }));
    assert_eq!(runtime.run().unwrap().cancelled, 1);
    assert!((59..=60).contains(&ticks.get()), "{ticks:?}");
}

#[test]
fn a_runtime_beside_it_has_real_time() {
    let _watchdog = watchdog();
    let (virtual_one, real_one) = (paused(), Runtime::new().unwrap());
    let start = Instant::now();
    real_one.block_on(sleep(Duration::from_millis(5))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5));
    let far = virtual_one.spawn_local(sleep(HOUR)).unwrap();
    virtual_one.block_on(far).unwrap().unwrap();
    real_one
        .block_on(async {
            let before = Instant::now();
            let now = time::now();
            assert!(before <= now && now <= Instant::now());
            drop(hold());
        })
        .unwrap();
}

#[test]
fn embedded_time_jumps_between_turns() {
    let _watchdog = watchdog();
    let runtime = paused();
    let embedded = runtime.embed().unwrap();
    let task = runtime
        .spawn_local(async {
            let start = time::now();
            for _ in 0..100 {
                sleep(HOUR).await;
            }
            time::now() - start
        })
        .unwrap();
    while !task.is_finished() {
        turn_when_readable(&embedded);
    }
    assert_eq!(task.wait().unwrap().unwrap(), 100 * HOUR);
}

#[test]
fn a_runtime_on_a_thread_of_its_own_can_be_paused_too() {
    let _watchdog = watchdog();
    let runtime = Builder::new().paused().start("home").unwrap();
    let task = runtime.spawner().spawn(async {
        let start = time::now();
        sleep(HOUR).await;
        time::now() - start
    });
    assert_eq!(task.wait().unwrap().unwrap(), HOUR);
}
