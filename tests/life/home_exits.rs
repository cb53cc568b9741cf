//! The home thread exits: its guard closes what is at home there, without grace; what comes from abroad meanwhile, and
//! after that, finds the runtime closing or closed.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::mem::forget;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, RunError, Runtime, Shutdown, SpawnErrorKind, Spawner, WaitError, spawn_local};

use crate::support::{Drops, Latch, OnDrop, Worker, poll_once, rounds};

/// A runtime that is at home on the worker, outside the loop.
fn at_home_on(worker: &Worker, builder: Builder) -> Runtime {
    worker.run(move || {
        let runtime = builder.build().unwrap();
        runtime.block_on(async {}).unwrap();
        runtime
    })
}

/// Runs when its thread-local is destroyed.
type Late = OnDrop<Box<dyn FnMut()>>;

#[test]
fn the_exit_of_home_closes_the_runtime_with_cause_home_exited() {
    rounds(300, |_| {
        let worker = Worker::new();
        let drops = Drops::new();
        let probe_drops = drops.clone();
        let runtime = worker.run(move || {
            let runtime = Runtime::new().unwrap();
            let probe = probe_drops.local_probe();
            drop(runtime.spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            }));
            runtime
        });
        let home = worker.id();
        worker.exit();
        let report = runtime.run().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::HomeExited, 1));
        drops.assert_on(home, 1);
        // The drop does nothing.
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap(), report);
    });
}

#[test]
fn the_exit_of_home_gives_no_grace() {
    rounds(200, |_| {
        let worker = Worker::new();
        let polled = Latch::new();
        let poll = polled.clone();
        let runtime = worker.run(move || {
            let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
            drop(runtime.spawn_local(async move { poll.open() }));
            drop(runtime.spawn_local(pending::<()>()));
            runtime
        });
        worker.exit();
        let report = runtime.run().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::HomeExited, 0, 2)
        );
        assert!(!polled.is_open());
    });
}

#[test]
fn a_request_that_came_before_the_exit_is_the_cause() {
    rounds(200, |_| {
        let worker = Worker::new();
        let runtime = at_home_on(&worker, Builder::new());
        runtime.shutdown_handle().request();
        worker.exit();
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn a_runtime_whose_home_is_gone_answers_stopped() {
    rounds(100, |_| {
        let worker = Worker::new();
        let runtime = at_home_on(&worker, Builder::new());
        worker.exit();
        assert!(matches!(runtime.block_on(async {}), Err(RunError::Stopped)));
        assert!(matches!(runtime.turn(None), Err(RunError::Stopped)));
        assert!(matches!(runtime.enter(), Err(RunError::Stopped)));
        assert!(matches!(runtime.local_spawner(), Err(RunError::Stopped)));
        assert_eq!(
            runtime.spawn_local(async {}).unwrap_err().kind(),
            SpawnErrorKind::Stopped
        );
        assert_eq!(
            runtime.spawner().try_spawn(async {}).unwrap_err().kind(),
            SpawnErrorKind::Stopped
        );
        let refused: Result<(), _> = runtime.spawner().spawn(async {}).wait().unwrap();
        assert!(refused.unwrap_err().is_cancelled());
        assert!(runtime.shutdown_handle().is_requested());
        assert!(poll_once(&mut runtime.shutdown_handle().requested()).is_ready());
    });
}

#[test]
fn home_exits_while_ten_threads_push() {
    rounds(60, |round| {
        let worker = Worker::new();
        let runtime = Arc::new(at_home_on(&worker, Builder::new()));
        let home = worker.id();
        let drops = Drops::new();
        let started = Arc::new(std::sync::Barrier::new(11));
        let pushers: Vec<_> = (0..10)
            .map(|n| {
                let (runtime, drops, started) = (runtime.clone(), drops.clone(), started.clone());
                thread::spawn(move || {
                    started.wait();
                    let mut accepted = Vec::new();
                    let refused = loop {
                        let probe = drops.probe();
                        let future = async move {
                            let _probe = probe;
                            pending::<()>().await;
                        };
                        match runtime.spawner().try_spawn(future) {
                            Ok(handle) => accepted.push(handle),
                            Err(refused) => {
                                assert_eq!(refused.kind(), SpawnErrorKind::Stopped);
                                // It never left: its probe is counted when it is dropped, after all others.
                                break refused.into_inner();
                            }
                        }
                        if n % 2 == 0 {
                            if let Some(handle) = accepted.last() {
                                handle.abort();
                            }
                        }
                        thread::yield_now();
                    };
                    let count = accepted.len();
                    for handle in accepted {
                        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
                    }
                    (count, refused)
                })
            })
            .collect();
        started.wait();
        for _ in 0..round % 10 {
            thread::yield_now();
        }
        worker.exit();
        let (counts, _refused): (Vec<_>, Vec<_>) = pushers.into_iter().map(|pusher| pusher.join().unwrap()).unzip();
        let accepted: usize = counts.into_iter().sum();
        let report = runtime.run().unwrap();
        assert_eq!(report.cancelled, accepted as u64);
        drops.assert_on(home, accepted);
    });
}

#[test]
fn foreign_waits_end_when_home_exits() {
    rounds(100, |_| {
        let worker = Worker::new();
        let runtime = at_home_on(&worker, Builder::new());
        let task = runtime.spawner().spawn(pending::<()>());
        let terminated = runtime.shutdown_handle().terminated();
        let mut requested = runtime.shutdown_handle().requested();
        let waiters = [
            thread::spawn(move || assert!(task.wait().unwrap().unwrap_err().is_cancelled())),
            thread::spawn(move || assert_eq!(terminated.wait().unwrap().cause, Cause::HomeExited)),
        ];
        let (wakes, waker) = crate::support::Wakes::new();
        assert_eq!(crate::support::poll_with(&mut requested, &waker), Poll::Pending);
        worker.exit();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(wakes.count(), 1, "whoever awaits the request is woken by the end");
        assert!(poll_once(&mut requested).is_ready());
    });
}

#[test]
fn a_thread_that_is_home_of_many_runtimes_closes_them_all() {
    rounds(100, |_| {
        let worker = Worker::new();
        let drops = Drops::new();
        let probe_drops = drops.clone();
        let home = worker.id();
        let runtimes = worker.run(move || {
            let runtimes: Vec<_> = (0..5).map(|_| Runtime::new().unwrap()).collect();
            for (n, runtime) in runtimes.iter().enumerate() {
                // Each holds something of the next one's.
                let next = runtimes[(n + 1) % 5].spawn_local(pending::<()>()).unwrap();
                let (spawner, probe) = (runtimes[(n + 1) % 5].spawner(), probe_drops.probe());
                let guard = OnDrop(move || {
                    next.abort();
                    // Whether that one still takes it depends on which is closed first.
                    drop(spawner.spawn(async {}));
                });
                drop(runtime.spawn_local(async move {
                    let _guard = (guard, probe);
                    pending::<()>().await;
                }));
            }
            runtimes
        });
        worker.exit();
        for runtime in &runtimes {
            assert_eq!(runtime.run().unwrap().cause, Cause::HomeExited);
        }
        drops.assert_on(home, 5);
    });
}

#[test]
fn a_waker_of_a_task_whose_home_is_gone_does_nothing() {
    rounds(200, |_| {
        let worker = Worker::new();
        let place = Arc::new(Mutex::new(None::<Waker>));
        let keep = place.clone();
        let runtime = worker.run(move || {
            let runtime = Runtime::new().unwrap();
            drop(runtime.spawn_local(poll_fn(move |cx| {
                *keep.lock().unwrap() = Some(cx.waker().clone());
                Poll::<()>::Pending
            })));
            runtime.block_on(evbase::yield_now()).unwrap();
            runtime
        });
        worker.exit();
        let waker = place.lock().unwrap().take().unwrap();
        waker.wake_by_ref();
        waker.wake_by_ref();
        drop(runtime);
        waker.wake();
    });
}

#[test]
fn a_runtime_that_is_first_driven_in_a_thread_local_destructor_closes_or_says_why_not() {
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    rounds(100, |round| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let driven = runtime.clone();
        thread::spawn(move || {
            let late = Box::new(move || match driven.block_on(async { 7 }) {
                Ok(7) | Err(RunError::ThreadExiting) => {}
                other => panic!("{other:?}"),
            });
            if round % 2 == 0 {
                LATE.with(|place| *place.borrow_mut() = Some(OnDrop(late)));
                // The guard is younger than the local, and gone before it.
                Runtime::new().unwrap().block_on(async {}).unwrap();
            } else {
                Runtime::new().unwrap().block_on(async {}).unwrap();
                LATE.with(|place| *place.borrow_mut() = Some(OnDrop(late)));
            }
        })
        .join()
        .unwrap();
        if runtime.home().is_some() {
            assert_eq!(runtime.run().unwrap().cause, Cause::HomeExited);
        } else {
            assert_eq!(runtime.block_on(async { 8 }).unwrap(), 8);
        }
    });
}

#[test]
fn a_home_that_is_exiting_says_so() {
    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    rounds(100, |_| {
        let told = Latch::new();
        let tell = told.clone();
        let unbound = Runtime::new().unwrap();
        thread::spawn(move || {
            let late = Box::new(move || {
                // The guard of this thread is gone.
                assert!(matches!(unbound.block_on(async {}), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.turn(None), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.enter(), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.embed(), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.before_wait(|_| {}), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.after_wait(|| {}), Err(RunError::ThreadExiting)));
                assert!(matches!(unbound.dump(), Err(RunError::ThreadExiting)));
                let kind = unbound.spawn_local(async {}).unwrap_err().kind();
                assert_eq!(kind, SpawnErrorKind::ThreadExiting);
                let shutdown = unbound.shutdown_handle();
                shutdown.request();
                assert_eq!(shutdown.terminated().wait(), Err(WaitError::ThreadExiting));
                tell.open();
            });
            LATE.with(|place| *place.borrow_mut() = Some(OnDrop(late)));
            Runtime::new().unwrap().block_on(async {}).unwrap();
        })
        .join()
        .unwrap();
        assert!(told.is_open());
    });
}

#[test]
fn what_is_forgotten_is_never_dropped_and_holds_nobody_up() {
    rounds(50, |_| {
        let shutdown = thread::spawn(|| {
            let runtime: &'static Runtime = Box::leak(Box::new(Runtime::new().unwrap()));
            let shutdown = runtime.shutdown_handle();
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let fd: &'static AsyncFd<_> = Box::leak(Box::new(AsyncFd::new(ours).unwrap()));
            runtime
                .block_on(async {
                    let mut task = spawn_local(async { OnDrop(|| ()) });
                    let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
                    let mut requested = Shutdown::current().requested();
                    let mut terminated = Shutdown::current().terminated();
                    let mut readable = Box::pin(fd.readable());
                    poll_fn(|cx| {
                        assert!(crate::support::poll_with(&mut task, cx.waker()).is_pending());
                        assert!(crate::support::poll_with(&mut sleep, cx.waker()).is_pending());
                        assert!(crate::support::poll_with(&mut requested, cx.waker()).is_pending());
                        assert!(crate::support::poll_with(&mut terminated, cx.waker()).is_pending());
                        assert!(readable.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    forget((task, sleep, requested, terminated, readable));
                })
                .unwrap();
            drop(runtime.spawn_local(pending::<()>()));
            forget(runtime.enter().unwrap());
            forget(runtime.spawn_local(pending::<()>()));
            assert!(
                Spawner::try_current().is_some(),
                "the context of a forgotten guard stays"
            );
            shutdown
        })
        .join()
        .unwrap();
        // The exit of the thread has closed it all the same.
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!(report.cause, Cause::HomeExited);
        assert_eq!((report.completed, report.cancelled), (0, 3));
    });
}
