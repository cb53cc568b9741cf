//! Two runtimes at home on one thread: one after the other, in turns, and one touched inside the loop of the other.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use evbase::{Builder, Cause, RunError, Runtime, Shutdown, Spawner, WaitError, spawn_local, yield_now};

use crate::support::{Drops, Latch, poll_once, rounds, watched};

fn two() -> (Runtime, Runtime) {
    let (a, b) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    a.block_on(async {}).unwrap();
    b.block_on(async {}).unwrap();
    (a, b)
}

#[test]
fn they_take_turns() {
    rounds(200, |_| {
        let (a, b) = two();
        let in_b = a.spawner();
        let task = b
            .spawn_local(async move { in_b.spawn(async { 1 }).await.unwrap() })
            .unwrap();
        while !task.is_finished() {
            a.turn(Some(Duration::ZERO)).unwrap();
            b.turn(Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(a.block_on(task).unwrap().unwrap(), 1);
        drop(a);
        assert_eq!(b.block_on(async { 2 }).unwrap(), 2);
    });
}

#[test]
fn one_is_dropped_inside_the_loop_of_the_other_and_closes_before_the_drop_returns() {
    rounds(200, |_| {
        let (a, b) = two();
        let drops = Drops::new();
        let probe = drops.local_probe();
        drop(a.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let shutdown = a.shutdown_handle();
        b.block_on(async {
            drop(a);
            drops.assert_on(thread::current().id(), 1);
            assert!(poll_once(&mut shutdown.terminated()).is_ready());
            // This loop is the current one again.
            spawn_local(async { 3 }).await.unwrap()
        })
        .unwrap();
        assert_eq!(b.metrics().completed, 1);
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Dropped);
    });
}

#[test]
fn one_is_dropped_with_its_grace_period_inside_the_loop_of_the_other() {
    rounds(100, |_| {
        let a = Builder::new().grace(Duration::MAX).build().unwrap();
        let b = Runtime::new().unwrap();
        let (finished, seen) = (Latch::new(), Rc::new(RefCell::new(None)));
        let (finish, see) = (finished.clone(), seen.clone());
        drop(a.spawn_local(async move {
            evbase::time::sleep(Duration::from_micros(20)).await;
            *see.borrow_mut() = Some(Shutdown::current().is_requested());
            spawn_local(async move { finish.open() }).await.unwrap();
        }));
        b.block_on(async move {
            drop(a);
            assert!(finished.is_open());
            assert_eq!(seen.take(), Some(true), "its own loop was current, and stopping");
            assert!(!Shutdown::current().is_requested());
        })
        .unwrap();
    });
}

#[test]
fn one_is_driven_inside_the_loop_of_the_other_and_says_nested() {
    rounds(200, |_| {
        let (a, b) = two();
        let fresh = Runtime::new().unwrap();
        b.block_on(async {
            for runtime in [&a, &b, &fresh] {
                assert!(matches!(runtime.block_on(async {}), Err(RunError::Nested)));
                assert!(matches!(runtime.run(), Err(RunError::Nested)));
                assert!(matches!(runtime.turn(Some(Duration::ZERO)), Err(RunError::Nested)));
            }
        })
        .unwrap();
        assert_eq!(fresh.home(), None, "a call that was refused has bound it");
        assert_eq!(a.block_on(async { 4 }).unwrap(), 4);
    });
}

#[test]
fn one_is_waited_for_inside_the_loop_of_the_other_and_says_so() {
    rounds(200, |_| {
        let (a, b) = two();
        let task = a.spawn_local(pending::<()>()).unwrap();
        let shutdown = a.shutdown_handle();
        b.block_on(async {
            assert!(matches!(task.wait(), Err(WaitError::InsideLoop)));
            shutdown.request();
            assert_eq!(shutdown.terminated().wait(), Err(WaitError::InsideLoop));
            assert_eq!(
                shutdown.terminated().wait_timeout(Duration::ZERO),
                Err(WaitError::InsideLoop)
            );
            // To await it closes it: nobody else could.
            assert_eq!(shutdown.terminated().await.cause, Cause::Requested);
        })
        .unwrap();
        assert!(matches!(a.block_on(async {}), Err(RunError::Stopped)));
    });
}

#[test]
fn one_is_spawned_into_and_entered_inside_the_loop_of_the_other() {
    rounds(200, |_| {
        let (a, b) = two();
        let task = b
            .block_on(async {
                let guard = a.enter().unwrap();
                let task = spawn_local(async { "in a" });
                let sent = Spawner::current().spawn(async { "in a, too" });
                drop(guard);
                assert_eq!(spawn_local(async { "in b" }).await.unwrap(), "in b");
                assert!(!task.is_finished());
                (task, sent)
            })
            .unwrap();
        assert_eq!((a.metrics().polls, b.metrics().completed), (1, 1));
        assert_eq!(a.block_on(task.0).unwrap().unwrap(), "in a");
        assert_eq!(task.1.wait().unwrap().unwrap(), "in a, too");
        assert_eq!(a.metrics().completed, 2);
    });
}

#[test]
fn one_that_was_dropped_abroad_closes_when_the_other_is_driven_or_dropped() {
    rounds(200, |round| {
        let (a, b) = two();
        let drops = Drops::new();
        let probe = drops.local_probe();
        drop(a.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let shutdown = a.shutdown_handle();
        thread::spawn(move || drop(a)).join().unwrap();
        assert_eq!(drops.count(), 0);
        if round % 2 == 0 {
            b.block_on(async {}).unwrap();
        } else {
            drop(b);
        }
        drops.assert_on(thread::current().id(), 1);
        assert!(poll_once(&mut shutdown.terminated()).is_ready());
    });
}

#[test]
fn one_that_was_dropped_abroad_closes_when_a_third_is_made_inside_the_loop_of_the_other() {
    rounds(200, |_| {
        let (a, b) = two();
        let shutdown = a.shutdown_handle();
        b.block_on(async {
            thread::spawn(move || drop(a)).join().unwrap();
            assert!(!poll_is_ready_abroad(&shutdown));
            drop(Runtime::new().unwrap());
            assert!(poll_is_ready_abroad(&shutdown));
        })
        .unwrap();
    });
}

/// Asked on another thread, where asking closes nothing.
fn poll_is_ready_abroad(shutdown: &Shutdown) -> bool {
    let mut terminated = shutdown.terminated();
    thread::spawn(move || poll_once(&mut terminated).is_ready())
        .join()
        .unwrap()
}

#[test]
fn the_other_is_dropped_while_both_loops_are_on_the_stack() {
    rounds(100, |_| {
        // In the grace period of A, which runs inside B's loop, a task drops B.
        let a = Builder::new().grace(Duration::MAX).build().unwrap();
        let b = Arc::new(Runtime::new().unwrap());
        let (b_end, place) = (b.shutdown_handle(), Rc::new(RefCell::new(None)));
        let (held, watch) = (place.clone(), b_end.clone());
        let told = Rc::new(Cell::new(None));
        let tell = told.clone();
        drop(a.spawn_local(async move {
            yield_now().await;
            let b: Runtime = held.take().unwrap();
            drop(b);
            // Told, not asserted: nobody would hear of a panic in here.
            let is_closed = poll_once(&mut watch.terminated()).is_ready();
            tell.set(Some((watch.is_requested(), is_closed)));
        }));
        drop(b.spawn_local(async move { drop(a) }));
        *place.borrow_mut() = Arc::into_inner(b);
        let report = b_end.terminated().wait().unwrap();
        assert_eq!((report.cause, report.completed), (Cause::Dropped, 1));
        assert_eq!(
            told.get(),
            Some((true, false)),
            "requested, and not closed under a running task"
        );
    });
}

#[test]
fn they_stop_each_other_at_the_exit_of_their_thread() {
    rounds(100, |_| {
        let ends = thread::spawn(|| {
            let (a, b) = two();
            let ends = [a.shutdown_handle(), b.shutdown_handle()];
            let (a, b) = (Arc::new(a), Arc::new(b));
            for (at, held) in [(&a, b.clone()), (&b, a.clone())] {
                drop(at.spawn_local(async move {
                    let _held = held;
                    pending::<()>().await;
                }));
            }
            ends
        })
        .join()
        .unwrap();
        for end in ends {
            let report = end.terminated().wait().unwrap();
            assert_eq!(report.cancelled, 1);
        }
    });
}

#[test]
fn a_turn_of_one_in_the_grace_period_of_the_other_is_nested() {
    rounds(100, |_| {
        let a = Builder::new().grace(Duration::MAX).build().unwrap();
        let b = Rc::new(Runtime::new().unwrap());
        let inner = b.clone();
        let task = a.spawn_local(async move { matches!(inner.turn(None), Err(RunError::Nested)) });
        drop(a);
        assert!(b.block_on(task.unwrap()).unwrap().unwrap());
    });
}

/// The grace period ran inside the other loop's task, for ever if it was for something of that loop's.
#[test]
fn a_poll_or_another_call_inside_the_loop_of_another_runtime_does_not_block_it_for_a_grace_period() {
    type Call = fn(&evbase::Shutdown);
    let poll: Call = |shutdown| {
        let polled = pin!(shutdown.terminated()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
    };
    let make: Call = |_| drop(Runtime::new().unwrap());
    watched(|| {
        for call in [poll, make] {
            let inner = Builder::new().grace(Duration::MAX).build().unwrap();
            let outer = Runtime::new().unwrap();
            let task = inner.spawn_local(std::future::pending::<()>()).unwrap();
            let shutdown = inner.shutdown_handle();
            let asking = async {
                shutdown.request();
                call(&shutdown);
                assert!(task.is_finished());
            };
            outer.block_on(asking).unwrap();
        }
    });
}
