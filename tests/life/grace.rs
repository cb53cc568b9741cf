//! The grace period: who may finish in it, and what ends it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, LocalSpawner, RunError, Runtime, Shutdown, spawn_local, yield_now};
use futures::task::Spawn;

use crate::support::{Drops, Latch, MOMENT, OnDrop, hold, parked, poll_once, rounds, until, until_parked, watched};

#[test]
fn grace_lets_tasks_finish() {
    rounds(200, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let (proceed, may_proceed) = futures::channel::oneshot::channel::<i32>();
        let task = runtime.spawner().spawn(async move {
            let n = may_proceed.await.unwrap();
            evbase::time::sleep(Duration::from_micros(10)).await;
            n + 1
        });
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
        // Wakes are delivered in the grace period.
        proceed.send(1).unwrap();
        assert_eq!(task.wait().unwrap().unwrap(), 2);
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.completed, report.cancelled), (2, 0));
    });
}

#[test]
fn grace_lets_descriptors_and_foreign_aborts_in() {
    rounds(100, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let reader = runtime.spawner().spawn(async move {
            fd.readable().await.unwrap().retain_ready();
            7
        });
        let stuck = runtime.spawner().spawn(pending::<()>());
        runtime.shutdown_handle().request();
        theirs.write_all(b"x").unwrap();
        assert_eq!(reader.wait().unwrap().unwrap(), 7);
        assert!(!stuck.is_finished());
        stuck.abort();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(
            (report.completed, report.cancelled, report.cause),
            (2, 1, Cause::Requested)
        );
    });
}

#[test]
fn grace_ends_when_no_task_is_left() {
    rounds(300, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        runtime.shutdown().wait().unwrap();
    });
}

#[test]
fn grace_ends_with_its_time_and_not_before() {
    rounds(20, |_| {
        let grace = Duration::from_millis(5);
        let runtime = parked(Builder::new().grace(grace));
        let stuck = runtime.spawner().spawn(pending::<()>());
        let start = Instant::now();
        let report = runtime.shutdown().wait().unwrap();
        assert!(start.elapsed() >= grace);
        assert_eq!(report.cancelled, 1);
        assert!(stuck.wait().unwrap().unwrap_err().is_cancelled());
    });
}

/// Not when it was asked for: home may be busy, or outside the loop, for longer than the grace period.
#[test]
fn grace_begins_when_home_sees_the_stop() {
    /// What home has to do in it.
    async fn work() {
        for _ in 0..3 {
            yield_now().await;
        }
    }
    let ask_and_wait = |shutdown: &Shutdown, grace: Duration| {
        shutdown.request();
        let asked = Instant::now();
        until(|| asked.elapsed() > grace);
    };
    let busy = |grace: Duration| {
        let runtime = Builder::new().grace(grace).start("home").unwrap();
        let release = hold(&runtime);
        let task = runtime.spawner().spawn(work());
        ask_and_wait(&runtime.shutdown_handle(), grace);
        release.open();
        task.wait().unwrap().is_ok()
    };
    let outside = |grace: Duration| {
        let runtime = Builder::new().grace(grace).build().unwrap();
        let task = runtime.spawn_local(work()).unwrap();
        ask_and_wait(&runtime.shutdown_handle(), grace);
        runtime.run().unwrap();
        task.wait().unwrap().is_ok()
    };
    // Longer and longer: a machine that is busy may not get through three polls in the first ones.
    watched(|| {
        let graces = [5, 50, 500, 2000].map(Duration::from_millis);
        assert!(graces.into_iter().any(busy), "no grace after a busy home");
        assert!(
            graces.into_iter().any(outside),
            "no grace after a home outside the loop"
        );
    });
}

#[test]
fn grace_ends_with_its_time_though_a_task_is_always_ready() {
    rounds(10, |_| {
        let runtime = Builder::new().grace(Duration::from_millis(2)).start("home").unwrap();
        drop(runtime.spawner().spawn(async {
            loop {
                yield_now().await;
            }
        }));
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 1);
    });
}

#[test]
fn request_now_ends_the_grace_period_of_a_home_that_sleeps() {
    rounds(200, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let tid = crate::support::tid_of(&runtime);
        drop(runtime.spawner().spawn(pending::<()>()));
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        until_parked(tid);
        shutdown.request();
        assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
        shutdown.request_now();
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Requested, 1));
    });
}

#[test]
fn request_now_from_a_task_ends_the_grace_period_before_any_other_poll() {
    rounds(300, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let polls = Rc::new(Cell::new(0));
        let counter = polls.clone();
        let result = runtime.block_on(async move {
            Shutdown::current().request();
            yield_now().await;
            drop(spawn_local(async move { counter.set(1) }));
            Shutdown::current().request_now();
            pending::<()>().await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        assert_eq!(polls.get(), 0);
    });
}

#[test]
fn request_now_after_a_drop_does_not_change_the_cause() {
    rounds(100, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        drop(runtime.spawner().spawn(pending::<()>()));
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        shutdown.request_now();
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Dropped);
    });
}

#[test]
fn the_root_of_block_on_counts_as_a_task() {
    rounds(100, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let shutdown = runtime.shutdown_handle();
        let result = runtime.block_on(async move {
            shutdown.request();
            evbase::time::sleep(Duration::from_micros(100)).await;
            3
        });
        assert_eq!(result.unwrap(), 3);
        // It was closed by the same call.
        let report = runtime.run().unwrap();
        assert_eq!((report.cause, report.completed), (Cause::Requested, 0));
    });
}

#[test]
fn block_on_goes_on_for_the_tasks_after_its_root_is_done_in_grace() {
    rounds(100, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let finished = Rc::new(Cell::new(false));
        let finish = finished.clone();
        let result = runtime.block_on(async move {
            drop(spawn_local(async move {
                evbase::time::sleep(Duration::from_micros(100)).await;
                finish.set(true);
            }));
            Shutdown::current().request();
            4
        });
        assert_eq!(result.unwrap(), 4);
        assert!(finished.get());
    });
}

#[test]
fn without_grace_nothing_is_polled_after_the_running_poll() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let polls = Rc::new(Cell::new(0));
        let (counter, drops) = (polls.clone(), Drops::new());
        let probes = drops.clone();
        let result = runtime.block_on(async move {
            for _ in 0..10 {
                let (counter, probe) = (counter.clone(), probes.local_probe());
                drop(spawn_local(poll_fn(move |_| {
                    let _ = &probe;
                    counter.set(counter.get() + 1);
                    Poll::Ready(())
                })));
            }
            Shutdown::current().request();
            yield_now().await;
            unreachable!("polled after the stop");
        });
        assert!(matches!(result, Err::<(), _>(RunError::Stopped)));
        assert_eq!(polls.get(), 0);
        drops.assert_on(thread::current().id(), 10);
    });
}

/// A stop that home itself asks for between two polls: nothing is polled after that either.
#[test]
fn without_grace_nothing_is_polled_after_a_destructor_has_asked_for_the_end() {
    rounds(100, |_| {
        let runtime = Builder::new().start("home").unwrap();
        // Registered, so that it travels home when it is dropped abroad.
        struct StopOnDrop(UnixStream, Shutdown);
        impl std::os::fd::AsFd for StopOnDrop {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
        impl Drop for StopOnDrop {
            fn drop(&mut self) {
                self.1.request();
            }
        }
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = Arc::new(AsyncFd::new(StopOnDrop(ours, runtime.shutdown_handle())).unwrap());
        let polled = fd.clone();
        let registered = runtime.spawner().spawn(async move {
            let pending = poll_fn(|cx| Poll::Ready(polled.poll_read_ready(cx).is_pending())).await;
            assert!(pending);
        });
        registered.wait().unwrap().unwrap();
        let fd = Arc::into_inner(fd).unwrap();

        let release = hold(&runtime);
        // Both wait in the inbox: first the destructor, then the task.
        drop(fd);
        let polled_after = Latch::new();
        let poll = polled_after.clone();
        let task = runtime.spawner().try_spawn(async move { poll.open() }).unwrap();
        release.open();
        runtime.shutdown_handle().terminated().wait().unwrap();
        assert!(!polled_after.is_open(), "a task was polled after the stop");
        assert!(task.wait().unwrap().is_err());
    });
}

/// As above, by a waker of somebody else's that the base has woken.
#[test]
fn without_grace_nothing_is_polled_after_a_waker_has_asked_for_the_end() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let shutdown = runtime.shutdown_handle();
        let polled = Rc::new(Cell::new(false));
        let poll = polled.clone();
        let result = runtime.block_on(async move {
            let asker = shutdown.clone();
            let waker = crate::support::waker_fn(move || asker.request());
            assert!(
                fd.poll_read_ready(&mut std::task::Context::from_waker(&waker))
                    .is_pending()
            );
            theirs.write_all(b"x").unwrap();
            // The root is always ready; the kernel is looked at between its polls.
            poll_fn(move |cx| {
                poll.set(poll.get() || shutdown.is_requested());
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })
            .await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        assert!(!polled.get(), "the root was polled after the stop");
    });
}

#[test]
fn a_task_that_panics_in_grace_is_counted_and_grace_goes_on() {
    rounds(100, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let panics = runtime.spawner().spawn(async {
            Shutdown::current().requested().await;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        let goes_on = runtime.spawner().spawn(async {
            Shutdown::current().requested().await;
            yield_now().await;
            1
        });
        let report = runtime.shutdown().wait().unwrap();
        let panics: Result<(), _> = panics.wait().unwrap();
        assert!(panics.unwrap_err().is_panic());
        assert_eq!(goes_on.wait().unwrap().unwrap(), 1);
        assert_eq!((report.completed, report.panicked), (2, 1));
    });
}

#[test]
fn a_destructor_that_spawns_for_ever_ends_with_the_grace_period() {
    /// Each task spawns the next one when it is dropped.
    fn again(drops: Drops, refused: Rc<RefCell<Vec<Box<dyn Any>>>>) {
        let probe = drops.local_probe();
        let next = refused.clone();
        let guard = OnDrop(move || {
            if LocalSpawner::try_current().is_some() {
                again(drops.clone(), next.clone());
            }
        });
        let task = async move {
            let _guard = (guard, probe);
        };
        if let Err(error) = LocalSpawner::current().spawn_local(task) {
            refused.borrow_mut().push(Box::new(error.into_inner()));
        }
    }
    // Longer and longer, until even a machine that is busy has got through some.
    watched(|| {
        for millis in 1.. {
            let (drops, refused) = (Drops::new(), Rc::new(RefCell::new(Vec::new())));
            let (probes, count) = (drops.clone(), refused.clone());
            let runtime = Builder::new().grace(Duration::from_millis(millis)).build().unwrap();
            drop(runtime.spawn_local(async move { again(probes, count) }));
            let shutdown = runtime.shutdown_handle();
            drop(runtime);
            let report = shutdown.terminated().wait().unwrap();
            assert_eq!(drops.count() as u64 + 1, report.completed + report.cancelled);
            let refused = refused.take();
            if report.completed > 10 {
                assert_eq!(refused.len(), 1, "in the end the runtime takes no more");
                assert_eq!(report.cancelled, 1, "{report}");
                break;
            }
        }
    });
}

#[test]
fn a_turn_in_stopping_is_one_pass_of_grace_and_the_closing_pass_says_so() {
    rounds(200, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let mut left = 3;
        drop(runtime.spawn_local(poll_fn(move |cx| {
            left -= 1;
            cx.waker().wake_by_ref();
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })));
        runtime.shutdown_handle().request();
        let mut polls = 0;
        loop {
            let turn = runtime.turn(Some(Duration::ZERO)).unwrap();
            polls += turn.polls;
            if turn.closed {
                break;
            }
            assert_eq!(poll_once(&mut runtime.shutdown_handle().requested()), Poll::Ready(()));
        }
        assert_eq!(polls, 3);
        assert!(matches!(runtime.turn(Some(Duration::ZERO)), Err(RunError::Stopped)));
        assert_eq!(runtime.run().unwrap().completed, 1);
    });
}

#[test]
fn home_may_spawn_by_a_spawner_between_two_turns_of_the_grace_period() {
    rounds(50, |_| {
        let other = Runtime::new().unwrap();
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let spawner = runtime.spawner();
        let (proceed, may_proceed) = futures::channel::oneshot::channel::<()>();
        drop(runtime.spawn_local(may_proceed).unwrap());
        runtime.shutdown_handle().request();
        assert!(!runtime.turn(Some(Duration::ZERO)).unwrap().closed);
        assert!(spawner.status().is_ok());
        let sent = spawner.try_spawn(async { 1 }).unwrap();
        let made = spawner.spawn_with(|| {
            let n = Rc::new(2);
            async move { *n }
        });
        // Also in the context of another runtime.
        let inside = {
            let _guard = other.enter().unwrap();
            spawner.spawn(async { 3 })
        };
        // And it is home only that may.
        let abroad = spawner.clone();
        let refused = thread::spawn(move || abroad.status().is_err() && abroad.try_spawn(async {}).is_err());
        assert!(refused.join().unwrap());
        let outputs = async move { (sent.await.unwrap(), made.await.unwrap(), inside.await.unwrap()) };
        assert_eq!(
            runtime
                .block_on(async move {
                    let outputs = outputs.await;
                    proceed.send(()).unwrap();
                    outputs
                })
                .unwrap(),
            (1, 2, 3)
        );
        assert!(spawner.status().is_err());
        assert!(spawner.try_spawn(async {}).is_err());
        assert_eq!(runtime.run().unwrap().completed, 4);
    });
}

#[test]
fn a_turn_without_timeout_waits_no_longer_than_the_grace_period() {
    rounds(20, |_| {
        let grace = Duration::from_millis(3);
        let runtime = Builder::new().grace(grace).build().unwrap();
        drop(runtime.spawn_local(pending::<()>()));
        assert!(!runtime.turn(Some(Duration::ZERO)).unwrap().closed);
        runtime.shutdown_handle().request();
        let start = Instant::now();
        until(|| runtime.turn(None).unwrap().closed);
        assert!(start.elapsed() >= grace);
    });
}

#[test]
fn a_wait_with_a_timeout_at_home_runs_a_part_of_the_grace_period() {
    rounds(20, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        drop(runtime.spawn_local(async move {
            while released.try_recv() == Err(mpsc::TryRecvError::Empty) {
                evbase::time::sleep(Duration::from_micros(100)).await;
            }
        }));
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        assert_eq!(shutdown.terminated().wait_timeout(MOMENT / 10), Ok(None));
        drop(release);
        let report = shutdown
            .terminated()
            .wait_timeout(crate::support::DEADLINE)
            .unwrap()
            .unwrap();
        assert_eq!((report.completed, report.cancelled), (1, 0));
    });
}

#[test]
fn the_status_of_a_spawner_says_what_a_spawn_would() {
    rounds(50, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let (spawner, end) = (runtime.spawner(), runtime.shutdown_handle());
        assert!(spawner.status().is_ok());
        let abroad = spawner.clone();
        let task = async move {
            assert!(spawner.status().is_ok());
            end.request();
            // At home, the grace period takes tasks.
            assert!(spawner.status().is_ok());
            spawner.try_spawn(async {}).unwrap().await.unwrap();
            let refused = thread::spawn(move || spawner.status().is_err() && spawner.try_spawn(async {}).is_err());
            assert!(refused.join().unwrap());
        };
        runtime.spawn_local(task).unwrap();
        assert_eq!(runtime.run().unwrap().panicked, 0);
        assert!(abroad.status().is_err());
    });
}
