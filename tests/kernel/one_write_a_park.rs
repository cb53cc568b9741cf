//! What a foreign wake-up costs: one write when home is parked, none when it isn't. Counted by `strace`, in a process of
//! the test's own; skipped where there is none.

use std::future::{Future, pending, poll_fn};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::sleep;
use evbase::{Builder, Runtime, spawn_local, yield_now};

use crate::support::{Tid, hold, mark, note, parked, tid_of, traced, until, until_parked, waker_of};

#[test]
fn a_wake_of_a_parked_home_costs_one_write() {
    let trace = traced("write", || {
        let runtime = parked(Builder::new());
        let waker = waker_of(&runtime);
        let tid = tid_of(&runtime);
        until_parked(tid);
        mark(tid);
        for _ in 0..5 {
            let parks = runtime.metrics().parks;
            waker.wake_by_ref();
            until(|| runtime.metrics().parks > parks);
            until_parked(tid);
        }
        mark(tid);
    });
    if let Some(trace) = trace {
        assert_eq!(trace.notify_writes(), 5, "{:#?}", trace.lines());
    }
}

#[test]
fn a_thousand_wakes_while_home_is_busy_cost_none() {
    let trace = traced("write", || {
        let runtime = parked(Builder::new());
        let waker = waker_of(&runtime);
        let tid = tid_of(&runtime);
        let release = hold(&runtime);
        mark(tid);
        let wakers: Vec<_> = (0..4)
            .map(|_| {
                let (waker, spawner) = (waker.clone(), runtime.spawner());
                thread::spawn(move || {
                    for _ in 0..250 {
                        waker.wake_by_ref();
                        drop(spawner.spawn(async {}));
                        spawner.spawn(pending::<()>()).abort();
                    }
                })
            })
            .collect();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        mark(tid);
        release.open();
        until(|| runtime.metrics().completed >= 1000);
    });
    if let Some(trace) = trace {
        assert_eq!(trace.notify_writes(), 0, "{:#?}", trace.lines());
    }
}

#[test]
fn a_stop_of_a_busy_home_costs_no_write() {
    let trace = traced("write", || {
        let runtime = parked(Builder::new());
        let tid = tid_of(&runtime);
        let release = hold(&runtime);
        let shutdown = runtime.shutdown_handle();
        mark(tid);
        shutdown.request();
        shutdown.request_now();
        drop(runtime);
        mark(tid);
        release.open();
        shutdown.terminated().wait().unwrap();
    });
    if let Some(trace) = trace {
        assert_eq!(trace.notify_writes(), 0, "{:#?}", trace.lines());
    }
}

#[test]
fn a_stop_of_a_parked_home_costs_one_write_for_each_level() {
    let trace = traced("write", || {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let tid = tid_of(&runtime);
        drop(runtime.spawner().spawn(pending::<()>()));
        until_parked(tid);
        let shutdown = runtime.shutdown_handle();
        mark(tid);
        let parks = runtime.metrics().parks;
        shutdown.request();
        until(|| runtime.metrics().parks > parks);
        until_parked(tid);
        shutdown.request_now();
        shutdown.terminated().wait().unwrap();
        (0..100).for_each(|_| shutdown.request_now());
        drop(runtime);
        mark(tid);
    });
    if let Some(trace) = trace {
        assert_eq!(trace.notify_writes(), 2, "{:#?}", trace.lines());
    }
}

/// Of another runtime's home, too: its loop listens to the bell of the thread. And of a home that was embedded, and has parked then.
#[test]
fn a_stop_of_a_home_that_is_not_alone_on_its_thread_costs_one_write() {
    let trace = traced("write", || {
        let (ask, asked) = mpsc::channel();
        let (give, given) = mpsc::channel();
        let home = thread::spawn(move || {
            let (one, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
            other.turn(Some(Duration::ZERO)).unwrap();
            other.embed().unwrap().turn().unwrap();
            give.send((Tid::here(), one.shutdown_handle(), other.shutdown_handle()))
                .unwrap();
            one.run().unwrap();
            asked.recv().unwrap();
        });
        let (tid, one, other) = given.recv().unwrap();
        until_parked(tid);
        mark(tid);
        other.request();
        other.terminated().wait().unwrap();
        until_parked(tid);
        one.request();
        one.terminated().wait().unwrap();
        mark(tid);
        ask.send(()).unwrap();
        home.join().unwrap();
    });
    if let Some(trace) = trace {
        assert_eq!(trace.notify_writes(), 2, "{:#?}", trace.lines());
    }
}

#[test]
fn all_pushers_together_cost_one_write_a_park() {
    let parks_are = "evbase parks ";
    let trace = traced("write", || {
        let runtime = parked(Builder::new());
        let tid = tid_of(&runtime);
        until_parked(tid);
        let before = runtime.metrics().parks;
        mark(tid);
        let pushers: Vec<_> = (0..4)
            .map(|_| {
                let spawner = runtime.spawner();
                thread::spawn(move || {
                    for n in 0..300 {
                        drop(spawner.spawn(async {}));
                        if n % 10 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        until(|| runtime.metrics().completed >= 1200);
        // The park that was under way, and those since.
        let parks = runtime.metrics().parks - before + 1;
        note(&format!("{parks_are}{parks};"));
        mark(tid);
    });
    if let Some(trace) = trace {
        let line = trace
            .lines()
            .iter()
            .find_map(|line| line.split_once(parks_are))
            .unwrap();
        let parks: usize = line.1.split_once(';').unwrap().0.parse().unwrap();
        let writes = trace.notify_writes();
        assert!(writes >= 1 && writes <= parks, "{writes} writes, {parks} parks");
    }
}

#[test]
fn home_wakes_itself_without_a_system_call() {
    let trace = traced("all", || {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                let tid = Tid::here();
                let yielder = async || {
                    for _ in 0..1000 {
                        yield_now().await;
                    }
                };
                // Memory first.
                yielder().await;
                mark(tid);
                let task = spawn_local(async move { yielder().await });
                for _ in 0..1000 {
                    yield_now().await;
                }
                task.await.unwrap();
                mark(tid);
            })
            .unwrap();
    });
    if let Some(trace) = trace {
        let calls = trace.calls_at_home();
        assert!(calls.is_empty(), "{calls:#?}");
    }
}

/// The kernel is looked at between polls only if there is something to be seen there: a descriptor.
#[test]
fn a_busy_home_with_a_far_timer_and_no_descriptor_makes_no_system_call() {
    let trace = traced("all", || {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                let tid = Tid::here();
                let far = spawn_local(evbase::time::sleep(Duration::from_secs(3600)));
                for _ in 0..1000 {
                    yield_now().await;
                }
                mark(tid);
                for _ in 0..1000 {
                    yield_now().await;
                }
                mark(tid);
                far.abort();
            })
            .unwrap();
    });
    if let Some(trace) = trace {
        let calls = trace.calls_at_home();
        assert!(
            calls.is_empty(),
            "{} calls: {:#?}",
            calls.len(),
            &calls[..calls.len().min(5)]
        );
    }
}

/// Whatever they do; and home itself deregisters before it closes.
#[test]
#[cfg_attr(evbase_libkqueue, ignore = "libkqueue has threads of its own")]
fn no_foreign_thread_touches_the_kernel_queue() {
    const NUMBER: &str = "evbase number ";
    let trace = traced(
        "write,close,epoll_ctl,epoll_wait,epoll_pwait,epoll_pwait2,epoll_create,epoll_create1",
        || {
            let runtime = parked(Builder::new());
            let (waker, tid) = (waker_of(&runtime), tid_of(&runtime));
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let fd = AsyncFd::new(ours).unwrap();
            mark(tid);
            note(&format!("{NUMBER}{};", fd.as_raw_fd()));
            // In arrays: an output that is a future looks like a mistake.
            let registered = runtime.spawner().spawn(async move {
                let mut sleep = sleep(Duration::from_secs(3600));
                poll_fn(|cx| {
                    assert!(fd.poll_read_ready(cx).is_pending());
                    assert!(Pin::new(&mut sleep).poll(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                ([fd], [sleep])
            });
            let ([fd], [mut sleep]) = registered.wait().unwrap().unwrap();
            until_parked(tid);
            waker.wake_by_ref();
            runtime.spawner().spawn(pending::<()>()).abort();
            sleep.reset(Instant::now() + Duration::from_secs(7200));
            drop(sleep);
            drop(fd);
            runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
            until_parked(tid);
            let shutdown = runtime.shutdown_handle();
            shutdown.request();
            drop(runtime);
            shutdown.terminated().wait().unwrap();
            mark(tid);
        },
    );
    let Some(trace) = trace else {
        return;
    };
    let abroad = trace.calls_abroad();
    assert!(!abroad.is_empty());
    let touches = abroad.iter().find(|line| line.contains("epoll_"));
    assert_eq!(touches, None, "{:#?}", trace.lines());

    let number = trace.lines().iter().find_map(|line| line.split_once(NUMBER)).unwrap();
    let number = number.1.split(';').next().unwrap();
    let home = trace.calls_at_home();
    let at = |what: &str| home.iter().position(|line| line.contains(what));
    let (_, queue) = home.iter().find_map(|line| line.split_once("epoll_ctl(")).unwrap();
    let queue = queue.split(',').next().unwrap();
    let added = at(&format!("epoll_ctl({queue}, EPOLL_CTL_ADD, {number},"));
    let deleted = at(&format!("epoll_ctl({queue}, EPOLL_CTL_DEL, {number},"));
    let closed = at(&format!("close({number}"));
    assert!(added.is_some() && added < deleted && deleted < closed, "{home:#?}");
    // And by home, as the last thing that it does with it.
    let queue_closed = at(&format!("close({queue}"));
    let last_touched = home.iter().rposition(|line| line.contains("epoll_"));
    assert!(last_touched < queue_closed, "{home:#?}");
}
