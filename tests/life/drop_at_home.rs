//! A drop of the runtime on its home thread: inside one of its tasks, and outside its loop.

use std::cell::RefCell;
use std::future::pending;
use std::panic::{catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Cause, RunError, Runtime, spawn_local, yield_now};

use crate::support::{Drops, Latch, OnDrop, poll_once, rounds, watched};

// ---- Inside a task ----

/// Drives a runtime whose task drops it; gives the report, and what was polled after that.
fn dropped_inside(builder: Builder) -> (evbase::Report, usize) {
    let runtime = builder.build().unwrap();
    let shutdown = runtime.shutdown_handle();
    let polls_after = Rc::new(std::cell::Cell::new(0));
    let place = Rc::new(RefCell::new(None::<Runtime>));
    let (dropper, watch) = (place.clone(), shutdown.clone());
    drop(runtime.spawn_local(async move {
        // The runtime lives in the cell, which outlives the loop.
        let runtime = dropper.borrow_mut().take();
        assert!(runtime.is_some());
        drop(runtime);
        assert!(watch.is_requested());
        assert_eq!(
            poll_once(&mut watch.terminated()),
            Poll::Pending,
            "closed under a running task"
        );
    }));
    let counter = polls_after.clone();
    drop(runtime.spawn_local(async move {
        for _ in 0..3 {
            counter.set(counter.get() + 1);
            yield_now().await;
        }
    }));
    // `turn` and the rest need the runtime, which the task takes: so the loop is that of the wait.
    *place.borrow_mut() = Some(runtime);
    let report = shutdown.terminated().wait().unwrap();
    (report, polls_after.get())
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn dropped_inside_its_own_task_it_closes_after_that_poll() {
    rounds(300, |_| {
        let (report, polls_after) = dropped_inside(Builder::new());
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 1, 1)
        );
        assert_eq!(polls_after, 0);
    });
}

#[test]
fn dropped_inside_its_own_task_it_closes_after_its_grace_period() {
    rounds(300, |_| {
        let (report, polls_after) = dropped_inside(Builder::new().grace(Duration::MAX));
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 2, 0)
        );
        assert_eq!(polls_after, 3);
    });
}

#[test]
fn dropped_by_a_task_that_was_given_it_from_abroad() {
    rounds(200, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
        let task = spawner.spawn(async move {
            drop(runtime);
            "still here"
        });
        assert_eq!(task.wait().unwrap().unwrap(), "still here");
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.cause, report.completed), (Cause::Dropped, 1));
    });
}

#[test]
fn dropped_by_a_destructor_of_a_task_that_the_end_cancels() {
    rounds(300, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let shutdown = runtime.shutdown_handle();
        let drops = Drops::new();
        let (inside, probe) = (runtime.clone(), drops.probe());
        drop(runtime.spawn_local(async move {
            let _held = (inside, probe);
            pending::<()>().await;
        }));
        runtime.block_on(yield_now()).unwrap();
        shutdown.request();
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested);
        drops.assert_on(thread::current().id(), 1);
    });
}

// ---- Outside the loop ----

#[test]
fn dropped_outside_its_loop_it_is_closed_when_the_drop_returns() {
    rounds(500, |_| {
        let drops = Drops::new();
        let runtime = Runtime::new().unwrap();
        let probe = drops.local_probe();
        let task = runtime.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        runtime.block_on(yield_now()).unwrap();
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        drops.assert_on(thread::current().id(), 1);
        assert!(task.unwrap().is_finished());
        let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
            panic!("not closed by the drop");
        };
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
    });
}

#[test]
fn dropped_outside_its_loop_it_runs_the_grace_period_first() {
    rounds(200, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let finished = Latch::new();
        let finish = finished.clone();
        let task = runtime.spawn_local(async move {
            evbase::time::sleep(Duration::from_micros(50)).await;
            finish.open();
        });
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert!(finished.is_open());
        assert!(task.unwrap().is_finished());
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 1, 0)
        );
    });
}

#[test]
fn dropped_outside_its_loop_the_grace_period_ends_with_its_time() {
    rounds(30, |_| {
        let grace = Duration::from_millis(2);
        let runtime = Builder::new().grace(grace).build().unwrap();
        drop(runtime.spawn_local(pending::<()>()));
        let shutdown = runtime.shutdown_handle();
        let start = std::time::Instant::now();
        drop(runtime);
        assert!(start.elapsed() >= grace, "{:?}", start.elapsed());
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 1);
    });
}

#[test]
fn dropped_while_a_guard_of_another_runtime_is_alive() {
    rounds(300, |_| {
        let outer = Runtime::new().unwrap();
        let guard = outer.enter().unwrap();
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {}).unwrap();
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert!(poll_once(&mut shutdown.terminated()).is_ready());
        // The guard still says which runtime this is.
        drop(evbase::spawn_local(async {}));
        drop(guard);
        outer.block_on(yield_now()).unwrap();
        assert_eq!(outer.metrics().completed, 1);
    });
}

#[test]
fn dropped_in_the_unwinding_of_a_panic_it_closes_though_a_destructor_panics_as_well() {
    rounds(100, |_| {
        let drops = Drops::new();
        let probe = drops.probe();
        let guard = OnDrop(|| std::panic::resume_unwind(Box::new("a destructor, on purpose")));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let runtime = Runtime::new().unwrap();
            drop(runtime.spawn_local(async move {
                let _held = (guard, probe);
                pending::<()>().await;
            }));
            runtime.block_on(yield_now()).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
        drops.assert_on(thread::current().id(), 1);
    });
}

#[test]
fn the_root_that_the_end_drops_may_hold_the_runtime() {
    rounds(300, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let shutdown = runtime.shutdown_handle();
        let (held, asker, drops) = (runtime.clone(), shutdown.clone(), Drops::new());
        let probe = drops.probe();
        let result = runtime.block_on(async move {
            let _held = (held, probe);
            asker.request();
            pending::<()>().await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        assert_eq!(Arc::strong_count(&runtime), 1, "the root is gone");
        drops.assert_on(thread::current().id(), 1);
    });
}

#[test]
fn block_on_returns_stopped_when_a_task_asked_for_the_end() {
    rounds(200, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let shutdown = runtime.shutdown_handle();
        let asker = shutdown.clone();
        drop(runtime.spawn_local(async move { asker.request() }));
        let result = runtime.block_on(pending::<()>());
        assert!(matches!(result, Err(RunError::Stopped)));
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn a_runtime_is_made_used_and_dropped_in_a_destructor_while_a_panic_unwinds() {
    rounds(100, |_| {
        let unwound = catch_unwind(|| {
            let _guard = OnDrop(|| {
                assert!(thread::panicking());
                let runtime = Runtime::new().unwrap();
                assert_eq!(
                    runtime
                        .block_on(async { spawn_local(async { 1 }).await })
                        .unwrap()
                        .unwrap(),
                    1
                );
                let panics = runtime.block_on(async { spawn_local(async { resume_unwind(Box::new(2)) }).await });
                assert!(panics.unwrap().map(|(): ()| ()).unwrap_err().is_panic());
                let started = Builder::new().start("home").unwrap();
                assert_eq!(started.spawner().spawn(async { 3 }).wait().unwrap().unwrap(), 3);
                watched(|| started.shutdown().wait().unwrap());
            });
            resume_unwind(Box::new("on purpose"));
        });
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
    });
}
