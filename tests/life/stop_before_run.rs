//! A runtime that has no home yet: a drop closes it at once, on any thread; a request is kept, and the first run, drop,
//! poll or wait closes it.

use std::future::pending;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Cause, RunError, Runtime, SpawnErrorKind, Terminated, WaitError, yield_now};

use crate::support::{Drops, poll_once, rounds};

#[test]
fn a_drop_closes_at_once_where_it_was_made() {
    rounds(500, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        let task = runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        let mut terminated = runtime.shutdown_handle().terminated();
        assert_eq!(poll_once(&mut terminated), Poll::Pending);
        drop(runtime);
        let Poll::Ready(report) = poll_once(&mut terminated) else {
            panic!("the drop has not closed it");
        };
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        drops.assert_on(thread::current().id(), 1);
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_drop_closes_at_once_on_any_other_thread() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let mut terminated = runtime.shutdown_handle().terminated();
        let dropper = thread::spawn(move || {
            drop(runtime);
            let Poll::Ready(report) = poll_once(&mut terminated) else {
                panic!("the drop has not closed it");
            };
            (thread::current().id(), report)
        });
        let (dropper, report) = dropper.join().unwrap();
        assert_eq!(
            (report.cause, report.cancelled, report.completed),
            (Cause::Dropped, 1, 0)
        );
        drops.assert_on(dropper, 1);
    });
}

#[test]
fn a_drop_in_a_task_of_another_runtime_closes_at_once() {
    rounds(300, |_| {
        let other = Runtime::new().unwrap();
        other
            .block_on(async {
                let runtime = Runtime::new().unwrap();
                let shutdown = runtime.shutdown_handle();
                drop(runtime);
                assert!(poll_once(&mut shutdown.terminated()).is_ready());
            })
            .unwrap();
    });
}

#[test]
fn first_runs_that_race_bind_it_once() {
    rounds(300, |_| {
        let runtime = std::sync::Arc::new(Runtime::new().unwrap());
        let shutdown = runtime.shutdown_handle();
        let other = runtime.clone();
        let driver = thread::spawn(move || match other.block_on(async { 1 }) {
            Ok(1) | Err(RunError::NotHome { .. }) => {}
            other => panic!("{other:?}"),
        });
        match runtime.block_on(async { 2 }) {
            // Stopped: the other thread was home, and has exited.
            Ok(2) | Err(RunError::NotHome { .. } | RunError::Stopped) => {}
            other => panic!("{other:?}"),
        }
        assert!(runtime.home().is_some());
        drop(runtime);
        driver.join().unwrap();
        let report = shutdown.terminated().wait().unwrap();
        // Home exits before or after the last handle goes.
        assert!(matches!(report.cause, Cause::Dropped | Cause::HomeExited), "{report}");
    });
}

#[test]
fn a_request_is_kept_and_a_run_closes() {
    rounds(500, |_| {
        let runtime = Runtime::new().unwrap();
        let task = runtime
            .spawner()
            .spawn(async { unreachable!("polled after a stop without grace") });
        runtime.shutdown_handle().request();
        assert_eq!(runtime.home(), None);
        let report = runtime.run().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Requested, 1));
        let task: Result<(), _> = task.wait().unwrap();
        assert!(task.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_request_is_kept_and_a_block_on_closes_without_polling_its_future() {
    rounds(500, |_| {
        let runtime = Runtime::new().unwrap();
        runtime.shutdown_handle().request();
        let result = runtime.block_on(async { unreachable!("polled after a stop without grace") });
        assert!(matches!(result, Err::<(), _>(RunError::Stopped)), "{result:?}");
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn a_request_is_kept_and_a_turn_closes() {
    rounds(500, |_| {
        let runtime = Runtime::new().unwrap();
        runtime.shutdown_handle().request();
        let turn = runtime.turn(None).unwrap();
        assert!(turn.closed);
        assert_eq!(turn.polls, 0);
        assert!(matches!(runtime.turn(None), Err(RunError::Stopped)));
    });
}

#[test]
fn a_request_is_kept_and_a_drop_closes_with_the_first_cause() {
    rounds(500, |_| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        drop(runtime);
        let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
            panic!("the drop has not closed it");
        };
        assert_eq!(report.cause, Cause::Requested);
    });
}

#[test]
fn a_request_is_kept_and_a_poll_of_terminated_closes() {
    rounds(300, |round| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        let mut terminated = shutdown.terminated();
        assert_eq!(poll_once(&mut terminated), Poll::Pending, "nobody has asked yet");
        shutdown.request();
        let mut close = move || match poll_once(&mut terminated) {
            Poll::Ready(report) => assert_eq!(report.cause, Cause::Requested),
            Poll::Pending => panic!("the poll has not closed it"),
        };
        if round % 2 == 0 {
            close();
        } else {
            thread::spawn(close).join().unwrap();
        }
        assert!(matches!(runtime.block_on(async {}), Err(RunError::Stopped)));
    });
}

#[test]
fn a_request_is_kept_and_a_wait_closes() {
    rounds(300, |round| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        assert_eq!(shutdown.terminated().wait(), Err(WaitError::Unbound));
        assert_eq!(
            shutdown.terminated().wait_timeout(crate::support::MOMENT),
            Err(WaitError::Unbound)
        );
        shutdown.request();
        let report = match round % 3 {
            0 => shutdown.terminated().wait().unwrap(),
            1 => shutdown
                .terminated()
                .wait_timeout(crate::support::DEADLINE)
                .unwrap()
                .unwrap(),
            _ => thread::spawn(move || shutdown.terminated().wait().unwrap())
                .join()
                .unwrap(),
        };
        assert_eq!(report.cause, Cause::Requested);
        assert_eq!(runtime.run().unwrap(), report);
    });
}

#[test]
fn a_request_is_kept_and_many_threads_that_wait_close_it_once() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let shutdown = shutdown.clone();
                thread::spawn(move || shutdown.terminated().wait().unwrap())
            })
            .collect();
        let reports: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        assert!(reports.iter().all(|report| *report == reports[0]));
    });
}

#[test]
fn a_request_refuses_foreign_work_before_there_is_a_home() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        runtime.shutdown_handle().request();
        let error = runtime.spawner().try_spawn(async { 7 }).unwrap_err();
        assert_eq!(error.kind(), SpawnErrorKind::Stopped);
        // The future comes back, and works elsewhere.
        let elsewhere = Runtime::new().unwrap();
        assert_eq!(elsewhere.block_on(error.into_inner()).unwrap(), 7);
    });
}

#[test]
fn a_drop_a_wait_and_a_poll_that_race_close_it_once() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
        }));
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        let (waiting, mut polled) = (shutdown.terminated(), shutdown.terminated());
        let threads = [
            thread::spawn(move || drop(runtime)),
            thread::spawn(move || assert_eq!(waiting.wait().unwrap().cancelled, 1)),
            thread::spawn(move || {
                if round % 2 == 0 {
                    crate::support::until(|| poll_once(&mut polled).is_ready());
                }
            }),
        ];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Requested, 1));
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn what_drives_enters_or_spawns_locally_binds_and_so_does_who_closes_but_nothing_else() {
    type Call = fn(&Runtime);
    let binds: [Call; 8] = [
        |runtime| runtime.block_on(async {}).unwrap(),
        |runtime| assert!(!runtime.turn(Some(Duration::ZERO)).unwrap().closed),
        |runtime| drop(runtime.enter().unwrap()),
        |runtime| drop(runtime.local_spawner().unwrap()),
        |runtime| drop(runtime.spawn_local(async {}).unwrap()),
        |runtime| {
            runtime.shutdown_handle().request();
            runtime.run().unwrap();
        },
        |runtime| {
            runtime.shutdown_handle().request();
            assert!(poll_once(&mut runtime.shutdown_handle().terminated()).is_ready());
        },
        |runtime| {
            runtime.shutdown_handle().request();
            runtime.shutdown_handle().terminated().wait().unwrap();
        },
    ];
    let binds_not: Call = |runtime| {
        let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
        drop(spawner.spawn_with(|| async {}));
        let mut task = spawner.spawn(async {});
        assert!(poll_once(&mut task).is_pending() && !task.is_finished());
        task.abort();
        assert_eq!(task.wait().unwrap_err(), WaitError::Unbound);
        assert!(poll_once(&mut shutdown.requested()).is_pending() && !shutdown.is_requested());
        assert!(poll_once(&mut shutdown.terminated()).is_pending());
        assert_eq!(shutdown.terminated().wait(), Err(WaitError::Unbound));
        assert_eq!(
            shutdown.terminated().wait_timeout(Duration::ZERO),
            Err(WaitError::Unbound)
        );
        assert_eq!(runtime.metrics().alive(), 0);
        assert!(!format!("{runtime:?}").is_empty());
    };
    rounds(100, |_| {
        for bind in binds {
            let runtime = Runtime::new().unwrap();
            binds_not(&runtime);
            thread::scope(|scope| scope.spawn(|| binds_not(&runtime)).join().unwrap());
            assert_eq!(runtime.home(), None);
            let home = thread::scope(|scope| {
                let there = scope.spawn(|| {
                    bind(&runtime);
                    assert_eq!(runtime.home(), Some(thread::current().id()));
                });
                let home = there.thread().id();
                there.join().unwrap();
                home
            });
            assert_eq!(runtime.home(), Some(home), "the first one is home for ever");
        }
    });
}

#[test]
fn its_grace_period_is_run_by_whoever_closes_it_unless_that_is_a_drop() {
    type Close = fn(Runtime) -> Terminated;
    let closes: [(Close, u64); 6] = [
        (
            |runtime| {
                runtime.run().unwrap();
                runtime.shutdown_handle().terminated()
            },
            1,
        ),
        (
            |runtime| {
                runtime.block_on(async {}).unwrap();
                runtime.shutdown_handle().terminated()
            },
            1,
        ),
        (
            |runtime| {
                while !runtime.turn(None).unwrap().closed {}
                runtime.shutdown_handle().terminated()
            },
            1,
        ),
        (
            |runtime| {
                let mut terminated = runtime.shutdown_handle().terminated();
                assert!(poll_once(&mut terminated).is_ready());
                terminated
            },
            1,
        ),
        (
            |runtime| {
                runtime.shutdown_handle().terminated().wait().unwrap();
                runtime.shutdown_handle().terminated()
            },
            1,
        ),
        // Nobody has driven it: there is nothing to wait for.
        (Runtime::shutdown, 0),
    ];
    rounds(100, |_| {
        for (close, completed) in closes {
            let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
            let task = runtime.spawner().spawn(async {
                yield_now().await;
                evbase::time::sleep(Duration::from_micros(50)).await;
            });
            runtime.shutdown_handle().request();
            let mut terminated = close(runtime);
            let Poll::Ready(report) = poll_once(&mut terminated) else {
                panic!("it is not closed");
            };
            let expected = (Cause::Requested, completed, 1 - completed);
            assert_eq!((report.cause, report.completed, report.cancelled), expected);
            assert!(task.is_finished());
        }
    });
}
