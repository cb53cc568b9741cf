//! The end: every future is dropped on home, each behind its own guard, before any `Terminated` resolves; and they all
//! give the same report.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, RunError, Runtime, Shutdown, Terminated, WaitError, spawn_local, yield_now};
use futures::future::FusedFuture;

use crate::support::{Drops, OnDrop, Wakes, parked, poll_once, poll_with, rounds, until};

#[test]
fn every_future_is_dropped_on_home_before_any_terminated_resolves() {
    rounds(100, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let drops = Drops::new();
        for n in 0..20 {
            let (probe, probes) = (drops.probe(), drops.clone());
            if n % 2 == 0 {
                drop(runtime.spawner().spawn(async move {
                    let _probe = probe;
                    pending::<()>().await;
                }));
            } else {
                drop(probe);
                drop(runtime.spawner().spawn_with(move || {
                    let probe = probes.local_probe();
                    async move {
                        let _probe = probe;
                        pending::<()>().await;
                    }
                }));
            }
        }
        let counted = drops.clone();
        let shutdown = runtime.shutdown_handle();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let (terminated, drops) = (shutdown.terminated(), counted.clone());
                thread::spawn(move || (terminated.wait().unwrap(), drops.count()))
            })
            .collect();
        let before = drops.count();
        drop(runtime);
        let cancelled = shutdown.terminated().wait().unwrap().cancelled;
        for waiter in waiters {
            let (report, count) = waiter.join().unwrap();
            assert_eq!(report.cancelled, cancelled);
            assert_eq!(count, counted.count(), "resolved before the last destructor");
        }
        assert_eq!(cancelled, 20);
        // Those that never arrived have made no probe: the closure was dropped unrun.
        let on_home = drops.threads().into_iter().filter(|thread| *thread == home).count();
        assert!((10..=20).contains(&on_home), "{on_home} of {before}");
    });
}

#[test]
fn the_same_report_for_every_terminated_however_it_is_had() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        drop(runtime.spawner().spawn(pending::<()>()));
        drop(runtime.spawner().spawn(async {}).wait().unwrap());
        let (wakes, waker) = Wakes::new();
        let mut polled: Vec<Terminated> = (0..3).map(|_| shutdown.terminated()).collect();
        for terminated in &mut polled {
            assert_eq!(poll_with(terminated, &waker), Poll::Pending);
            assert!(!terminated.is_terminated());
        }
        drop(polled.pop());
        let waiting = shutdown.terminated();
        let waiter = thread::spawn(move || waiting.wait().unwrap());
        let awaiting = shutdown.terminated();
        let other = thread::spawn(move || Runtime::new().unwrap().block_on(awaiting).unwrap());
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        assert_eq!(waiter.join().unwrap(), report);
        assert_eq!(other.join().unwrap(), report);
        crate::support::until(|| wakes.count() == 2);
        for terminated in &mut polled {
            assert_eq!(poll_once(terminated), Poll::Ready(report));
            assert!(terminated.is_terminated());
            assert_eq!(poll_once(terminated), Poll::Ready(report), "fused");
        }
        assert_eq!(shutdown.terminated().wait_timeout(Duration::ZERO), Ok(Some(report)));
    });
}

#[test]
fn a_terminated_that_is_dropped_cancels_nothing_and_keeps_no_waker() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        let mut stays = shutdown.terminated();
        let (wakes, waker) = Wakes::new();
        assert!(poll_with(&mut stays, &waker).is_pending());
        for _ in 0..3 {
            let mut goes = shutdown.terminated();
            let (held, waker) = Wakes::new();
            assert!(poll_with(&mut goes, &waker).is_pending());
            drop((goes, waker));
            assert_eq!(Arc::strong_count(&held), 1, "a waker of what was dropped is kept");
        }
        assert!(!shutdown.is_requested());
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Dropped);
        until(|| wakes.count() == 1);
        assert!(poll_with(&mut stays, &waker).is_ready());
    });
}

#[test]
fn a_panicking_destructor_does_not_stop_the_closing() {
    crate::support::quiet_panics();
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let mut handles = Vec::new();
        for n in 0..9 {
            let probe = drops.local_probe();
            let guard = OnDrop(move || match n % 3 {
                0 => panic!("a destructor, on purpose"),
                // A payload whose own destructor panics.
                1 => std::panic::panic_any(OnDrop(|| panic!("a payload, on purpose"))),
                _ => {}
            });
            let task = runtime.spawn_local(async move {
                let _guard = (guard, probe);
                pending::<()>().await;
            });
            handles.push(task.unwrap());
        }
        if handles.len() == 9 {
            runtime.block_on(yield_now()).unwrap();
        }
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        let report = shutdown.terminated().wait().unwrap();
        // Such a task is cancelled, for all its panics.
        assert_eq!((report.cancelled, report.panicked, report.completed), (9, 0, 0));
        drops.assert_on(thread::current().id(), 9);
        for handle in handles {
            assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn the_output_and_the_root_may_panic_when_they_are_dropped() {
    crate::support::quiet_panics();
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let root_guard = OnDrop(|| panic!("the root, on purpose"));
        let drops = Drops::new();
        let probe = drops.probe();
        let shutdown = runtime.shutdown_handle();
        let result = runtime.block_on(async move {
            let _guard = (root_guard, probe);
            // Detached: the output is dropped at home.
            drop(spawn_local(async { OnDrop(|| panic!("an output, on purpose")) }));
            yield_now().await;
            yield_now().await;
            shutdown.request();
            pending::<()>().await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        drops.assert_on(thread::current().id(), 1);
        assert_eq!(runtime.run().unwrap().completed, 1);
    });
}

#[test]
fn destructors_that_wake_abort_and_stop_each_other_in_closing() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        let wakers = Rc::new(std::cell::RefCell::new(Vec::new()));
        let drops = Drops::new();
        for _ in 0..10 {
            let (mine, probe, shutdown) = (wakers.clone(), drops.local_probe(), shutdown.clone());
            let woken = wakers.clone();
            let handle = runtime.spawn_local(pending::<()>()).unwrap();
            let guard = OnDrop(move || {
                for waker in woken.borrow().iter() {
                    std::task::Waker::wake_by_ref(waker);
                }
                handle.abort();
                shutdown.request_now();
                assert_eq!(shutdown.terminated().wait(), Err(WaitError::InsideLoop));
                assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
            });
            drop(runtime.spawn_local(poll_fn(move |cx| {
                let _ = (&guard, &probe);
                mine.borrow_mut().push(cx.waker().clone());
                Poll::<()>::Pending
            })));
        }
        runtime.block_on(yield_now()).unwrap();
        drop(runtime);
        drops.assert_on(thread::current().id(), 10);
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.cancelled, report.cause), (20, Cause::Dropped));
        wakers.take();
    });
}

#[test]
fn a_destructor_may_drive_stop_and_drop_other_runtimes() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let (other, third) = (Runtime::new().unwrap(), Builder::new().start("third").unwrap());
        other.block_on(async {}).unwrap();
        let (other_end, third_end) = (other.shutdown_handle(), third.shutdown_handle());
        let mut held = Some((other, third));
        let watch = other_end.clone();
        let guard = OnDrop(move || {
            let (other, third) = held.take().unwrap();
            assert!(matches!(other.block_on(async {}), Err(RunError::Nested)));
            drop((other, third));
            assert!(poll_once(&mut watch.terminated()).is_ready());
        });
        drop(runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 1);
        assert!(poll_once(&mut other_end.terminated()).is_ready());
        third_end.terminated().wait().unwrap();
    });
}

#[test]
fn what_arrives_while_home_closes_is_delivered_or_completes_where_it_is() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fds: Vec<_> = (0..10)
            .map(|_| AsyncFd::new(ours.try_clone().unwrap()).unwrap())
            .collect();
        let fds = Arc::new(fds);
        let polled = fds.clone();
        let registered = runtime.spawner().spawn(async move {
            for fd in polled.iter() {
                poll_fn(|cx| Poll::Ready(fd.poll_read_ready(cx).is_pending())).await;
            }
        });
        registered.wait().unwrap().unwrap();
        let mut fds = Arc::into_inner(fds).unwrap();
        let tasks: Vec<_> = (0..10).map(|_| runtime.spawner().spawn(pending::<()>())).collect();
        let terminated = runtime.shutdown();
        while let Some(fd) = fds.pop() {
            drop(fd);
            tasks[fds.len()].abort();
        }
        terminated.wait().unwrap();
        for task in tasks {
            assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn a_registered_descriptor_in_a_task_is_closed_by_the_end() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        drop(runtime.spawner().spawn(async move {
            let _ = fd.readable().await;
        }));
        runtime.shutdown().wait().unwrap();
        theirs.set_nonblocking(true).unwrap();
        // Its peer is gone: EPIPE, not room in the buffer.
        let error = (&theirs).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn the_first_cause_wins() {
    rounds(200, |round| {
        let runtime = Builder::new().grace(Duration::MAX).start("home").unwrap();
        let hold = runtime.spawner().spawn(pending::<()>());
        let shutdown = runtime.shutdown_handle();
        let first_is_request = round % 2 == 0;
        if first_is_request {
            shutdown.request();
        }
        drop(runtime);
        shutdown.request();
        hold.abort();
        let cause = shutdown.terminated().wait().unwrap().cause;
        assert_eq!(
            cause,
            if first_is_request {
                Cause::Requested
            } else {
                Cause::Dropped
            }
        );
    });
}

#[test]
fn a_drop_and_a_request_that_race_give_one_cause_to_all() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        let asker = shutdown.clone();
        let asking = thread::spawn(move || asker.request());
        let cause = runtime.shutdown().wait().unwrap().cause;
        asking.join().unwrap();
        assert!(matches!(cause, Cause::Dropped | Cause::Requested));
        assert_eq!(shutdown.terminated().wait().unwrap().cause, cause);
    });
}

#[test]
fn the_report_counts_accepted_tasks_only() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                spawn_local(async {}).await.unwrap();
                let panics = spawn_local(async { std::panic::resume_unwind(Box::new(1)) });
                assert!(panics.await.unwrap_err().is_panic());
                let aborted = spawn_local(pending::<()>());
                aborted.abort();
                assert!(aborted.await.unwrap_err().is_cancelled());
                drop(spawn_local(pending::<()>()));
            })
            .unwrap();
        // A root that is done, and one that panics, count nowhere.
        let root = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(runtime.block_on(async { std::panic::resume_unwind(Box::new(2)) }));
        }));
        assert!(root.is_err());
        runtime.shutdown_handle().request();
        drop(runtime.spawner().spawn(async {}));
        let report = runtime.run().unwrap();
        assert_eq!((report.completed, report.cancelled, report.panicked), (1, 2, 1));
        let metrics = runtime.metrics();
        assert_eq!((metrics.spawned, metrics.alive()), (4, 0));
    });
}

#[test]
fn a_task_that_completes_on_the_poll_in_which_the_stop_came_is_completed() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let task = runtime.spawn_local(async {
            Shutdown::current().request();
            5
        });
        let report = runtime.run().unwrap();
        assert_eq!((report.completed, report.cancelled), (1, 0));
        assert_eq!(task.unwrap().wait().unwrap().unwrap(), 5);
    });
}

#[test]
fn an_aborted_task_that_is_under_poll_is_cancelled_though_the_stop_came() {
    rounds(100, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let task = runtime.spawn_local(async {
            Shutdown::current().request();
            yield_now().await;
            pending::<()>().await;
        });
        let task = task.unwrap();
        let abort = task.abort_handle();
        drop(runtime.spawn_local(async move {
            yield_now().await;
            abort.abort();
        }));
        let report = runtime.run().unwrap();
        assert_eq!((report.completed, report.cancelled), (1, 1));
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    });
}

#[test]
fn wakers_of_terminated_run_when_everything_is_freed() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let drops = Drops::new();
        let probe = drops.probe();
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        crate::support::tid_of(&runtime);
        let shutdown = runtime.shutdown_handle();
        let seen = Arc::new(AtomicUsize::new(usize::MAX));
        let (see, watch) = (seen.clone(), shutdown.clone());
        let waker = crate::support::waker_fn(move || {
            assert!(poll_once(&mut watch.terminated()).is_ready());
            see.store(drops.count(), SeqCst);
        });
        let mut terminated = shutdown.terminated();
        assert_eq!(poll_with(&mut terminated, &waker), Poll::Pending);
        drop(runtime);
        crate::support::until(|| seen.load(SeqCst) != usize::MAX);
        assert_eq!(seen.load(SeqCst), 1);
    });
}

/// A future that counts its polls, to tell a drop from a last poll.
struct Counted(Rc<Cell<usize>>);

impl Future for Counted {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.set(self.0.get() + 1);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[test]
fn closing_polls_nothing() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let polls = Rc::new(Cell::new(0));
        drop(runtime.spawn_local(Counted(polls.clone())));
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let before = polls.get();
        assert!(before > 0);
        runtime.shutdown_handle().request();
        assert!(runtime.turn(None).unwrap().closed);
        assert_eq!(polls.get(), before);
    });
}

#[test]
fn a_destructor_in_closing_can_register_nothing_any_more() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let told = crate::support::Latch::new();
        let tell = told.clone();
        let mut held = Some(AsyncFd::new(ours).unwrap());
        let guard = OnDrop(move || {
            let fd = held.take().unwrap();
            let polled = fd.poll_read_ready(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Err(error)) if error.to_string().contains("closed")));
            tell.open();
        });
        drop(runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        drop(runtime);
        assert!(told.is_open());
        // It is closed all the same.
        assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).unwrap(), 0);
    });
}

#[test]
fn two_runtimes_that_await_each_others_end_close_when_one_is_asked_to() {
    rounds(100, |round| {
        let make = || Arc::new(Runtime::new().unwrap());
        let (a, b) = (make(), make());
        let (a_end, b_end) = (a.shutdown_handle(), b.shutdown_handle());
        let run = |runtime: &Arc<Runtime>, other: &Shutdown| {
            let (runtime, other) = (runtime.clone(), other.clone());
            thread::spawn(move || runtime.block_on(async move { other.terminated().await.cause }))
        };
        let (in_a, in_b) = (run(&a, &b_end), run(&b, &a_end));
        until(|| a.home().is_some() && b.home().is_some());
        if round % 2 == 0 {
            // Only one: the other's root gets what it waits for.
            a_end.request();
            let ended = in_a.join().unwrap();
            assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
            assert_eq!(in_b.join().unwrap().unwrap(), Cause::Requested);
        } else {
            a_end.request();
            b_end.request();
            // Whoever is first ends the other's wait, and with it that one's run: its thread may exit before the request.
            for ended in [in_a.join().unwrap(), in_b.join().unwrap()] {
                assert!(matches!(ended, Ok(_) | Err(RunError::Stopped)), "{ended:?}");
            }
            let cause = b_end.terminated().wait().unwrap().cause;
            assert!(matches!(cause, Cause::Requested | Cause::HomeExited));
        }
        assert_eq!(a_end.terminated().wait().unwrap().cause, Cause::Requested);
    });
}

/// A waker that runs something when it is woken.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        if let Some(hook) = self.0.lock().unwrap().take() {
            hook();
        }
    }
}

/// The first task of a batch was polled without a look at the stop bits.
#[test]
fn no_task_is_polled_after_a_stop_that_home_asked_for_outside_of_a_poll() {
    let runtime = Runtime::new().unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    let late = Rc::new(Cell::new(0));
    {
        let (asked, late) = (asked.clone(), late.clone());
        let task = poll_fn(move |cx| {
            if asked.load(Relaxed) {
                late.set(late.get() + 1);
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        drop(runtime.spawn_local(task).unwrap());
    }
    let shutdown = runtime.shutdown_handle();
    let hook = Box::new(move || {
        asked.store(true, Relaxed);
        shutdown.request_now();
    });
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(hook)))));
    let mut sleep = evbase::time::sleep(Duration::from_millis(5));
    {
        let _guard = runtime.enter().unwrap();
        assert!(Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    runtime.run().unwrap();
    assert_eq!(late.get(), 0);
}
