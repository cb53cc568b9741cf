//! What is counted always, and what is measured if somebody asks.

use std::future::{pending, poll_fn};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::{sleep, sleep_until};
use evbase::{Builder, Histogram, Metrics, Runtime, yield_now};

use crate::support::{once_undisturbed, poll_here, rounds, until, watched};

fn busy_for(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {}
}

#[test]
fn metrics_are_a_copy_that_any_thread_may_take() {
    fn check<T: Copy + Send + Sync>() {}
    check::<Metrics>();
    check::<Histogram>();
}

#[test]
fn what_is_ready_registered_and_armed_is_that_of_the_last_pass() {
    watched(|| {
        let runtime = Builder::new().event_interval(4).build().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let reader = runtime.spawn_local(async move {
            let fd = AsyncFd::new(ours).unwrap();
            let _ = fd.readable().await;
        });
        let sleeper = runtime.spawn_local(sleep(Duration::from_secs(3600)));
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let metrics = runtime.metrics();
        assert_eq!((metrics.ready, metrics.sources, metrics.timers_armed), (0, 1, 1));
        for _ in 0..10 {
            drop(runtime.spawn_local(async {}).unwrap());
        }
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(runtime.metrics().ready, 6);
        reader.unwrap().abort();
        sleeper.unwrap().abort();
        while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
        let metrics = runtime.metrics();
        assert_eq!((metrics.ready, metrics.sources, metrics.timers_armed), (0, 0, 0));
    });
}

#[test]
fn messages_and_looks_that_found_the_descriptor_used_are_counted() {
    rounds(50, |_| {
        let runtime = Builder::new().start("home").unwrap();
        for n in 1..=20 {
            runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
            assert!(runtime.metrics().messages >= n);
        }
        let metrics = runtime.metrics();
        assert!(metrics.notified <= metrics.messages);
        // One that surely finds home asleep.
        let parks = metrics.parks;
        until(|| {
            runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
            let now = runtime.metrics();
            now.notified > 0 && now.parks > parks
        });
    });
}

#[test]
fn what_is_sent_again_and_again_about_one_thing_is_one_message() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let (give, given) = mpsc::channel();
        let woken = runtime.spawn_local(poll_fn(move |cx| {
            let _ = give.send(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let aborted = runtime.spawn_local(pending::<()>()).unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        let mut nap = sleep_until(far);
        runtime
            .block_on(async { assert!(poll_here(&mut nap).await.is_pending()) })
            .unwrap();
        let waker = given.recv().unwrap();
        let sent_by = |send: &mut (dyn FnMut() + Send)| {
            let before = runtime.metrics().messages;
            thread::scope(|scope| {
                scope.spawn(|| (0..1000).for_each(|_| send()));
            });
            while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
            runtime.metrics().messages - before
        };
        assert_eq!(sent_by(&mut || waker.wake_by_ref()), 1);
        assert_eq!(sent_by(&mut || aborted.abort()), 1);
        assert_eq!(sent_by(&mut || nap.reset(far)), 1);
        assert!(aborted.is_finished());
        drop(woken);
    });
}

#[test]
fn a_task_that_has_to_yield_is_counted() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                for _ in 0..1000 {
                    sleep(Duration::ZERO).await;
                }
            })
            .unwrap();
        let yields = runtime.metrics().forced_yields;
        assert!((5..=10).contains(&yields), "{yields}");
        runtime.block_on(yield_now()).unwrap();
        assert_eq!(runtime.metrics().forced_yields, yields, "that one was not forced");
    });
}

#[test]
fn unless_asked_for_nothing_is_measured() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(sleep(Duration::from_millis(2))).unwrap();
        let metrics = runtime.metrics();
        assert_eq!((metrics.busy, metrics.waited), (Duration::ZERO, Duration::ZERO));
        assert_eq!(metrics.poll_times, Histogram::default());
        assert_eq!(metrics.pass_times.total() + metrics.timer_lag.total(), 0);
    });
}

#[test]
fn busy_and_waited_are_within_a_twentieth_of_the_time() {
    once_undisturbed(|| {
        let runtime = Builder::new().measure().build().unwrap();
        // What comes with the first wait is not measured.
        runtime.block_on(sleep(Duration::from_millis(1))).unwrap();
        let before = runtime.metrics();
        let start = Instant::now();
        runtime
            .block_on(async {
                for _ in 0..20 {
                    busy_for(Duration::from_millis(5));
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .unwrap();
        let wall = start.elapsed();
        let after = runtime.metrics();
        let (busy, waited) = (after.busy - before.busy, after.waited - before.waited);
        assert!(
            busy >= Duration::from_millis(100) && waited >= Duration::from_millis(90),
            "{busy:?} {waited:?}"
        );
        // Each is inside of the whole; the rest is the loop's own, and others' that have the processor.
        assert!(busy + waited <= wall, "{busy:?} + {waited:?} of {wall:?}");
        match wall - busy - waited {
            rest if rest <= wall / 20 => Ok(()),
            rest => Err(format!("{rest:?} of {wall:?}")),
        }
    });
}

#[test]
fn a_poll_of_20_ms_is_in_its_bucket() {
    once_undisturbed(|| {
        let runtime = Builder::new().measure().build().unwrap();
        runtime
            .spawn_local(async { busy_for(Duration::from_millis(20)) })
            .unwrap();
        runtime.turn(None).unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let metrics = runtime.metrics();
        let polls = metrics.poll_times;
        assert_eq!(polls.total(), 1);
        let bucket = (0..24).find(|&i| polls.count(i) == 1).unwrap();
        assert!(metrics.busy < polls.bound(bucket) && metrics.busy >= polls.bound(bucket - 1));
        // The pass had that poll in it.
        let passes = metrics.pass_times;
        assert_eq!((bucket..24).map(|i| passes.count(i)).sum::<u64>(), 1, "{passes}");
        // From 16,384 to 32,768 us; with a machine that stops it for 12 ms, it is in a later one.
        assert!(bucket >= 15, "{polls}");
        match bucket {
            15 => Ok(()),
            _ => Err(format!("{:?}", metrics.busy)),
        }
    });
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn a_timer_that_fires_late_is_in_its_bucket() {
    watched(|| {
        let runtime = Builder::new().measure().build().unwrap();
        runtime
            .block_on(async {
                let nap = evbase::spawn_local(sleep(Duration::from_millis(1)));
                yield_now().await;
                thread::sleep(Duration::from_millis(30));
                nap.await.unwrap();
            })
            .unwrap();
        let lag = runtime.metrics().timer_lag;
        let late: u64 = (0..24)
            .filter(|&i| lag.bound(i) > Duration::from_millis(29))
            .map(|i| lag.count(i))
            .sum();
        assert_eq!((late, lag.total()), (1, 1), "{lag}");
    });
}

#[test]
fn a_task_that_never_ends_is_measured_as_well() {
    watched(|| {
        let runtime = Builder::new().measure().start("home").unwrap();
        let task = runtime.spawner().spawn(pending::<()>());
        until(|| runtime.metrics().poll_times.total() == 1);
        task.abort();
        until(|| runtime.metrics().cancelled == 1);
    });
}
