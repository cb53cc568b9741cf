//! What the calls of a runtime answer once it was asked to stop, and after its end.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Cause, RunError, Runtime, Shutdown, WaitError, spawn_local, yield_now};

use crate::support::{Drops, Latch, poll_once, rounds, watched};

#[test]
fn run_after_the_end_gives_the_report_on_any_thread() {
    rounds(200, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        runtime.block_on(async {}).unwrap();
        let elsewhere = runtime.clone();
        let error = thread::spawn(move || elsewhere.run().unwrap_err()).join().unwrap();
        assert!(matches!(error, RunError::NotHome { home } if home == thread::current().id()));
        runtime.shutdown_handle().request();
        let report = runtime.run().unwrap();
        assert_eq!(report.cause, Cause::Requested);
        let elsewhere = runtime.clone();
        assert_eq!(thread::spawn(move || elsewhere.run().unwrap()).join().unwrap(), report);
        assert_eq!(runtime.run().unwrap(), report);
        // Inside another loop as well: it drives nothing.
        let inside = Runtime::new()
            .unwrap()
            .block_on(async { runtime.run().unwrap() })
            .unwrap();
        assert_eq!(inside, report);
    });
}

#[test]
fn block_on_turn_and_enter_after_the_end_are_stopped_on_any_thread() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        runtime.shutdown_handle().request();
        runtime.run().unwrap();
        let check = move || {
            let drops = Drops::new();
            let probe = drops.local_probe();
            let result = runtime.block_on(async move {
                let _probe = probe;
                unreachable!("polled after the end")
            });
            assert!(matches!(result, Err::<(), _>(RunError::Stopped)));
            assert_eq!(drops.count(), 1);
            assert!(matches!(runtime.turn(Some(Duration::ZERO)), Err(RunError::Stopped)));
            assert!(matches!(runtime.turn(None), Err(RunError::Stopped)));
            assert!(matches!(runtime.enter(), Err(RunError::Stopped)));
        };
        if round % 2 == 0 {
            check();
        } else {
            thread::spawn(check).join().unwrap();
        }
    });
}

#[test]
fn block_on_gives_its_output_when_it_was_done_in_the_poll_that_was_running() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.local_probe();
        let result = runtime.block_on(async move {
            drop(spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            }));
            Shutdown::current().request();
            21
        });
        // And it returns only after the end.
        drops.assert_on(thread::current().id(), 1);
        assert_eq!(result.unwrap(), 21);
        assert!(matches!(runtime.block_on(async {}), Err(RunError::Stopped)));
    });
}

#[test]
fn block_on_gives_its_output_when_a_foreign_stop_came_in_its_last_poll() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let (entered, release) = (Latch::new(), Latch::new());
        let (is_entered, let_go) = (entered.clone(), release.clone());
        let shutdown = runtime.shutdown_handle();
        let asker = thread::spawn(move || {
            is_entered.wait();
            shutdown.request();
            let_go.open();
        });
        let result = runtime.block_on(async move {
            entered.open();
            release.wait();
            22
        });
        assert_eq!(result.unwrap(), 22);
        asker.join().unwrap();
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn block_on_is_stopped_when_its_future_is_not_done() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.local_probe();
        let result = runtime.block_on(async move {
            let _probe = probe;
            Shutdown::current().request();
            yield_now().await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        drops.assert_on(thread::current().id(), 1);
        assert!(poll_once(&mut runtime.shutdown_handle().terminated()).is_ready());
    });
}

#[test]
fn a_root_that_panics_while_stopping_lets_the_closing_finish_first() {
    rounds(200, |round| {
        let grace = if round % 2 == 0 { Duration::ZERO } else { Duration::MAX };
        let runtime = Builder::new().grace(grace).build().unwrap();
        let drops = Drops::new();
        let (probe, root_probe) = (drops.local_probe(), drops.local_probe());
        let payload = catch_unwind(AssertUnwindSafe(|| {
            drop(runtime.block_on(async move {
                let _probe = root_probe;
                drop(spawn_local(async move {
                    let _probe = probe;
                    yield_now().await;
                }));
                Shutdown::current().request();
                resume_unwind(Box::new("the root, on purpose"));
            }));
        }))
        .unwrap_err();
        assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "the root, on purpose");
        drops.assert_on(thread::current().id(), 2);
        let Poll::Ready(report) = poll_once(&mut runtime.shutdown_handle().terminated()) else {
            panic!("the unwind has overtaken the closing");
        };
        let expected = if round % 2 == 0 { (0, 1, 0) } else { (1, 0, 0) };
        assert_eq!((report.completed, report.cancelled, report.panicked), expected);
    });
}

#[test]
fn a_root_that_panics_without_a_stop_leaves_the_runtime_usable() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            drop(runtime.block_on(async { resume_unwind(Box::new(1)) }));
        }));
        assert!(panicked.is_err());
        assert_eq!(
            runtime
                .block_on(async { spawn_local(async { 2 }).await.unwrap() })
                .unwrap(),
            2
        );
    });
}

#[test]
fn without_a_stop_block_on_leaves_what_was_spawned_to_the_next_run() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let ran = Latch::new();
        let run = ran.clone();
        runtime
            .block_on(async {
                drop(spawn_local(async move {
                    yield_now().await;
                    run.open();
                }));
            })
            .unwrap();
        assert!(!ran.is_open());
        runtime
            .block_on(async {
                yield_now().await;
                yield_now().await
            })
            .unwrap();
        assert!(ran.is_open());
    });
}

#[test]
fn a_stop_between_two_runs_is_kept() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {}).unwrap();
        let shutdown = runtime.shutdown_handle();
        if round % 2 == 0 {
            shutdown.request();
        } else {
            thread::spawn(move || shutdown.request()).join().unwrap();
        }
        let result = runtime.block_on(async { unreachable!("polled after the stop") });
        assert!(matches!(result, Err::<(), _>(RunError::Stopped)));
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn a_stop_asked_for_twice_or_while_closing_is_no_error() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        let again = shutdown.clone();
        let guard = crate::support::OnDrop(move || {
            again.request();
            again.request_now();
        });
        drop(runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        shutdown.request();
        shutdown.request();
        let report = runtime.run().unwrap();
        shutdown.request_now();
        assert_eq!(shutdown.terminated().wait().unwrap(), report);
        assert_eq!(report.cause, Cause::Requested);
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap(), report);
    });
}

#[test]
fn shutdown_has_cause_dropped_unless_a_stop_came_first() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {}).unwrap();
        let expected = if round % 2 == 0 {
            Cause::Dropped
        } else {
            runtime.shutdown_handle().request();
            Cause::Requested
        };
        let mut terminated = runtime.shutdown();
        let Poll::Ready(report) = poll_once(&mut terminated) else {
            panic!("outside the loop, at home, it is closed at once");
        };
        assert_eq!(report.cause, expected);
    });
}

#[test]
fn waits_inside_a_loop_say_so() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let other = Builder::new().start("other").unwrap();
        let shutdown = runtime.shutdown_handle();
        runtime
            .block_on(async {
                for watched in [&shutdown, &other.shutdown_handle()] {
                    assert_eq!(watched.terminated().wait(), Err(WaitError::InsideLoop));
                    let timed = watched.terminated().wait_timeout(Duration::ZERO);
                    assert_eq!(timed, Err(WaitError::InsideLoop));
                }
                let task = spawn_local(pending::<()>());
                assert!(matches!(task.wait(), Err(WaitError::InsideLoop)));
                let task = other.spawner().spawn(pending::<()>());
                assert!(matches!(task.wait(), Err(WaitError::InsideLoop)));
                assert!(matches!(runtime.block_on(async {}), Err(RunError::Nested)));
                assert!(matches!(runtime.turn(None), Err(RunError::Nested)));
                assert!(matches!(runtime.run(), Err(RunError::Nested)));
            })
            .unwrap();
    });
}

/// It was closed between two looks at the report.
#[test]
fn run_abroad_never_says_stopped() {
    watched(|| {
        for _ in 0..500 {
            let runtime = Arc::new(Builder::new().start("home").unwrap());
            let (began, has_begun) = mpsc::channel();
            let other = runtime.clone();
            let abroad = thread::spawn(move || {
                began.send(()).unwrap();
                loop {
                    match other.run() {
                        Err(RunError::NotHome { .. }) => {}
                        ended => return ended,
                    }
                }
            });
            has_begun.recv().unwrap();
            runtime.shutdown_handle().request();
            abroad.join().unwrap().unwrap();
        }
    });
}
