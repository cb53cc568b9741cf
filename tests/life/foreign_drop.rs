//! A drop of the runtime, or a request, on another thread than home: by what home is doing.

use std::future::pending;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Cause, RunError, Runtime, Shutdown, Terminated};

use crate::support::{Drops, Latch, MOMENT, Tid, Worker, parked, poll_once, rounds, until, until_parked, watched};

// ---- Parked in the kernel, with no timeout ----

#[test]
fn a_drop_wakes_a_home_that_is_parked_for_ever() {
    rounds(300, |_| {
        let drops = Drops::new();
        let runtime = parked(Builder::new());
        let home = runtime.home().unwrap();
        let probe = drops.probe();
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let terminated = runtime.shutdown_handle().terminated();
        drop(runtime);
        let report = terminated.wait().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        drops.assert_on(home, 1);
    });
}

#[test]
fn a_request_wakes_a_home_that_is_parked_for_ever() {
    rounds(300, |round| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        if round % 2 == 0 {
            shutdown.request();
        } else {
            shutdown.request_now();
        }
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn a_drop_wakes_a_block_on_that_is_parked_for_ever() {
    rounds(200, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let driven = runtime.clone();
        let (tell, told) = mpsc::channel();
        let driver = thread::spawn(move || {
            let shutdown = driven.shutdown_handle();
            tell.send((Tid::here(), shutdown.clone())).unwrap();
            let result = driven.block_on(pending::<()>());
            assert!(matches!(result, Err(RunError::Stopped)), "{result:?}");
            // It returns only after the end.
            assert!(poll_once(&mut shutdown.terminated()).is_ready());
        });
        let (tid, shutdown) = told.recv().unwrap();
        until_parked(tid);
        // `driven` keeps it alive: a request is the drop that an `Arc` allows.
        shutdown.request();
        drop(runtime);
        driver.join().unwrap();
    });
}

#[test]
fn a_drop_at_any_moment_of_a_home_that_goes_to_sleep_and_wakes_is_seen() {
    rounds(100, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let spawner = runtime.spawner();
        let pusher = thread::spawn(move || {
            // One at a time, so that home falls asleep in between.
            while let Ok(task) = spawner.try_spawn(async {}) {
                let _ = task.wait().unwrap();
            }
        });
        for _ in 0..round % 50 {
            thread::yield_now();
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.cause, Cause::Dropped);
        pusher.join().unwrap();
    });
}

// ---- Running a task ----

/// A runtime whose home is inside a task, until `release` opens.
struct Busy {
    runtime: Runtime,
    release: Latch,
    polled_after: Latch,
}

fn busy(builder: Builder) -> Busy {
    let runtime = builder.start("home").unwrap();
    let (entered, release, polled_after) = (Latch::new(), Latch::new(), Latch::new());
    let (in_task, let_go, other) = (entered.clone(), release.clone(), polled_after.clone());
    drop(runtime.spawner().spawn(async move {
        // Ready before the stop comes.
        drop(evbase::spawn_local(async move { other.open() }));
        in_task.open();
        let_go.wait();
    }));
    entered.wait();
    Busy {
        runtime,
        release,
        polled_after,
    }
}

#[test]
fn a_drop_while_home_runs_a_task_closes_after_that_poll_and_polls_no_other_task() {
    rounds(300, |_| {
        let Busy {
            runtime,
            release,
            polled_after,
        } = busy(Builder::new());
        let mut terminated = runtime.shutdown();
        assert_eq!(poll_once(&mut terminated), Poll::Pending);
        release.open();
        let report = terminated.wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 1, 1)
        );
        assert!(!polled_after.is_open(), "a ready task was polled after the stop");
    });
}

#[test]
fn a_request_while_home_runs_a_task_closes_after_that_poll_and_polls_no_other_task() {
    rounds(300, |_| {
        let Busy {
            runtime,
            release,
            polled_after,
        } = busy(Builder::new());
        let shutdown = runtime.shutdown_handle();
        shutdown.request();
        assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
        release.open();
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Requested, 1, 1)
        );
        assert!(!polled_after.is_open(), "a ready task was polled after the stop");
    });
}

#[test]
fn a_drop_while_home_runs_a_task_lets_ready_tasks_finish_in_the_grace_period() {
    rounds(300, |_| {
        let Busy {
            runtime,
            release,
            polled_after,
        } = busy(Builder::new().grace(Duration::MAX));
        let terminated = runtime.shutdown();
        release.open();
        let report = terminated.wait().unwrap();
        assert_eq!((report.completed, report.cancelled), (2, 0));
        assert!(polled_after.is_open());
    });
}

#[test]
fn a_stop_asked_for_by_a_running_task_lets_no_ready_task_run() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let polled = Latch::new();
        let other = polled.clone();
        let result = runtime.block_on(async move {
            drop(evbase::spawn_local(async move { other.open() }));
            Shutdown::current().request();
            pending::<()>().await;
        });
        assert!(matches!(result, Err(RunError::Stopped)));
        assert!(!polled.is_open());
    });
}

// ---- Running a task that never returns ----

#[test]
fn a_task_that_never_returns_keeps_the_runtime_open_but_holds_nobody_up() {
    rounds(40, |round| {
        let grace = if round % 2 == 0 { Duration::ZERO } else { Duration::MAX };
        let Busy { runtime, release, .. } = busy(Builder::new().grace(grace));
        let shutdown = runtime.shutdown_handle();
        // Returns, or the watchdog barks.
        drop(runtime);
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.terminated().wait_timeout(MOMENT), Ok(None));
        let mut terminated = shutdown.terminated();
        assert_eq!(poll_once(&mut terminated), Poll::Pending);
        release.open();
        assert_eq!(terminated.wait().unwrap().cause, Cause::Dropped);
    });
}

// ---- Bound, outside the loop, on another thread ----

/// A worker that is home of a runtime, and outside its loop; the runtime was dropped here, and is due.
struct Due {
    worker: Worker,
    shutdown: Shutdown,
    drops: Drops,
}

fn due() -> Due {
    let worker = Worker::new();
    let drops = Drops::new();
    let probe_drops = drops.clone();
    let runtime = worker.run(move || {
        let runtime = Runtime::new().unwrap();
        let probe = probe_drops.local_probe();
        let task = runtime.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        drop(task.unwrap());
        runtime
    });
    assert_eq!(runtime.home(), Some(worker.id()));
    let shutdown = runtime.shutdown_handle();
    drop(runtime);
    assert_eq!(
        poll_once(&mut shutdown.terminated()),
        Poll::Pending,
        "only home may close"
    );
    assert_eq!(drops.count(), 0);
    Due {
        worker,
        shutdown,
        drops,
    }
}

impl Due {
    /// The job has closed it, on home, by the time that it has returned; what it gives is dropped elsewhere, later.
    #[track_caller]
    fn closes_by<R: Send + 'static>(self, job: impl FnOnce(Terminated) -> R + Send + 'static) {
        assert_eq!(poll_once(&mut self.shutdown.terminated()), Poll::Pending);
        let terminated = self.shutdown.terminated();
        let _kept = self.worker.run(move || job(terminated));
        let Poll::Ready(report) = poll_once(&mut self.shutdown.terminated()) else {
            panic!("the call has not closed the runtime");
        };
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        self.drops.assert_on(self.worker.id(), 1);
    }
}

#[test]
fn home_outside_the_loop_closes_when_it_makes_a_runtime() {
    rounds(200, |_| {
        due().closes_by(|_| Runtime::new().unwrap());
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_drives_a_runtime_that_has_ended_or_is_at_home_elsewhere() {
    rounds(100, |_| {
        for drive in [
            (|other| drop(other.block_on(async {}).unwrap_err())) as fn(&Runtime),
            |other| drop(other.turn(None).unwrap_err()),
            |other| drop(other.run()),
        ] {
            let ended = Runtime::new().unwrap();
            ended.shutdown_handle().request();
            ended.run().unwrap();
            for other in [ended, parked(Builder::new())] {
                due().closes_by(move |_| {
                    drive(&other);
                    other
                });
            }
        }
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_starts_a_runtime_elsewhere() {
    rounds(200, |_| {
        due().closes_by(|_| Builder::new().start("other").unwrap());
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_drives_a_runtime() {
    rounds(100, |_| {
        for drive in [
            (|other| other.block_on(async {}).unwrap()) as fn(&Runtime),
            |other| assert!(!other.turn(Some(Duration::ZERO)).unwrap().closed),
            |other| {
                other.shutdown_handle().request();
                other.run().unwrap();
            },
        ] {
            let other = Runtime::new().unwrap();
            due().closes_by(move |_| {
                drive(&other);
                other
            });
        }
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_drops_a_runtime() {
    rounds(200, |_| {
        let other = Runtime::new().unwrap();
        due().closes_by(move |_| drop(other));
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_drops_a_runtime_that_is_at_home_elsewhere() {
    rounds(200, |_| {
        let other = Builder::new().start("other").unwrap();
        due().closes_by(move |_| drop(other));
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_polls_the_terminated() {
    rounds(200, |_| {
        due().closes_by(|mut terminated| assert!(poll_once(&mut terminated).is_ready()));
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_awaits_the_terminated_in_another_loop() {
    rounds(200, |_| {
        let other = Runtime::new().unwrap();
        due().closes_by(move |terminated| {
            other.block_on(terminated).unwrap();
        });
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_waits_for_the_terminated() {
    rounds(200, |round| {
        due().closes_by(move |terminated| {
            if round % 2 == 0 {
                terminated.wait().unwrap();
            } else {
                terminated.wait_timeout(Duration::ZERO).unwrap().unwrap();
            }
        });
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_waits_for_another_runtime() {
    rounds(200, |round| {
        let other = Builder::new().start("other").unwrap();
        due().closes_by(move |terminated| {
            // Waits only: nothing is made, driven or dropped here.
            if round % 2 == 0 {
                // For a task that ends when it is closed.
                other.spawner().spawn(terminated).wait().unwrap().unwrap();
            } else {
                assert_eq!(
                    other.shutdown_handle().terminated().wait_timeout(Duration::ZERO),
                    Ok(None)
                );
            }
            other
        });
    });
}

#[test]
fn home_outside_the_loop_closes_when_it_exits() {
    rounds(200, |_| {
        let Due {
            worker,
            shutdown,
            drops,
        } = due();
        let home = worker.id();
        worker.exit();
        let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
            panic!("the exit has not closed the runtime");
        };
        // The drop came first.
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        drops.assert_on(home, 1);
    });
}

#[test]
fn home_outside_the_loop_closes_with_its_grace_period() {
    rounds(100, |_| {
        let worker = Worker::new();
        let finished = Latch::new();
        let finish = finished.clone();
        let runtime = worker.run(move || {
            let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
            let task = runtime.spawn_local(async move {
                evbase::yield_now().await;
                finish.open();
            });
            drop(task.unwrap());
            runtime
        });
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        worker.run(|| drop(Runtime::new().unwrap()));
        let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
            panic!("the call has not closed the runtime");
        };
        assert!(finished.is_open());
        assert_eq!((report.completed, report.cancelled), (1, 0));
    });
}

#[test]
fn a_request_to_a_home_outside_the_loop_is_heard_by_its_next_call_as_a_drop_is() {
    rounds(100, |_| {
        for call in [
            (|_| drop(Runtime::new().unwrap())) as fn(&Shutdown),
            |_| Runtime::new().unwrap().block_on(async {}).unwrap(),
            |shutdown| assert!(poll_once(&mut shutdown.terminated()).is_ready()),
            |shutdown| assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested),
        ] {
            let worker = Worker::new();
            let runtime = worker.run(|| {
                let runtime = Runtime::new().unwrap();
                runtime.block_on(async {}).unwrap();
                runtime
            });
            let shutdown = runtime.shutdown_handle();
            shutdown.request();
            assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
            let asked = shutdown.clone();
            worker.run(move || call(&asked));
            let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
                panic!("the call has not closed the runtime");
            };
            assert_eq!(report.cause, Cause::Requested);
            assert_eq!(runtime.run().unwrap(), report);
        }
    });
}

#[test]
fn a_foreign_wait_for_a_home_outside_the_loop_ends_when_home_comes_by() {
    rounds(100, |_| {
        let Due { worker, shutdown, .. } = due();
        assert_eq!(shutdown.terminated().wait_timeout(Duration::ZERO), Ok(None));
        let waiter = thread::spawn(move || shutdown.terminated().wait().unwrap());
        worker.run(|| drop(Runtime::new().unwrap()));
        assert_eq!(waiter.join().unwrap().cause, Cause::Dropped);
    });
}

#[test]
fn a_drop_returns_at_once_whatever_home_does_outside_the_loop() {
    rounds(100, |_| {
        let worker = Worker::new();
        let (entered, release) = (Latch::new(), Latch::new());
        let runtime = worker.run(|| {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {}).unwrap();
            runtime
        });
        let (in_job, let_go) = (entered.clone(), release.clone());
        let job = worker.start(move || {
            in_job.open();
            let_go.wait();
        });
        entered.wait();
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
        release.open();
        job.recv().unwrap();
        worker.exit();
        assert!(poll_once(&mut shutdown.terminated()).is_ready());
    });
}

// ---- All at once ----

#[test]
fn many_threads_stop_wake_spawn_abort_and_drop_at_once() {
    rounds(100, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let shutdown = runtime.shutdown_handle();
        let go = Latch::new();
        let mut threads = Vec::new();
        for n in 0..4 {
            let (spawner, shutdown, go) = (runtime.spawner(), shutdown.clone(), go.clone());
            threads.push(thread::spawn(move || {
                go.wait();
                let mut handles = Vec::new();
                for _ in 0..20 {
                    let handle = spawner.spawn(pending::<()>());
                    handle.abort();
                    handles.push(handle);
                }
                if n == 3 {
                    shutdown.request();
                }
                for handle in handles {
                    assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
                }
            }));
        }
        go.open();
        drop(runtime);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!((report.completed, report.panicked), (0, 0));
    });
}

#[test]
fn the_thread_of_a_started_runtime_ends() {
    watched(|| {
        let runtime = parked(Builder::new());
        let tid = tid_path(&runtime);
        runtime.shutdown().wait().unwrap();
        if let Some(path) = tid {
            until(|| !path.exists());
        }
    });
}

fn tid_path(runtime: &Runtime) -> Option<std::path::PathBuf> {
    let path = format!("/proc/self/task/{}", crate::support::tid_of(runtime).number());
    let path = std::path::PathBuf::from(path);
    path.exists().then_some(path)
}
