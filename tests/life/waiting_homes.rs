//! A thread that waits for something of another home, outside of its own loops, is still the home of its runtimes: they
//! close when they are asked to, and what is sent to them waits for the next run.

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, Cause, JoinHandle, Runtime, Shutdown, WaitError, yield_now};

use crate::support::{
    Drops, Held, Latch, MOMENT, OnDrop, Tid, Worker, alone, fork, held, limit_descriptors, mark, parked, poll_once,
    rounds, tid_of, traced, until, until_parked, until_parked_or, watchdog,
};

/// A runtime that is at home here.
fn bound(builder: Builder) -> Arc<Runtime> {
    let runtime = builder.build().unwrap();
    runtime.block_on(async {}).unwrap();
    Arc::new(runtime)
}

/// A task of a runtime with a thread of its own, which ends when the latch is opened.
fn task_elsewhere() -> (Runtime, JoinHandle<()>, Latch) {
    let there = Builder::new().start("there").unwrap();
    let release = Latch::new();
    let let_go = release.clone();
    let task = there.spawner().spawn(async move { let_go.wait() });
    (there, task, release)
}

/// On a home's thread: waits for the end of another one, then runs its own to its end. Gives the two causes.
fn wait_and_run(home: &Worker, other: &Shutdown, own: &Shutdown) -> mpsc::Receiver<[Cause; 2]> {
    let ends = [other.terminated(), own.terminated()];
    home.start(|| ends.map(|end| end.wait().unwrap().cause))
}

#[test]
fn two_homes_that_wait_for_each_others_end_close_when_they_are_asked_to() {
    rounds(200, |round| {
        let workers = [Worker::new(), Worker::new()];
        let [a, b] = workers.each_ref().map(|worker| worker.run(|| bound(Builder::new())));
        let tids = workers.each_ref().map(|worker| worker.run(Tid::here));
        let ends = [a.shutdown_handle(), b.shutdown_handle()];
        let waits = [
            wait_and_run(&workers[0], &ends[1], &ends[0]),
            wait_and_run(&workers[1], &ends[0], &ends[1]),
        ];
        if round % 2 == 0 {
            tids.into_iter().for_each(until_parked);
        }
        if round % 3 == 0 {
            // Only one: the other's thread runs its own then.
            ends[0].request();
            assert_eq!(ends[0].terminated().wait().unwrap().cause, Cause::Requested);
        }
        ends.iter().for_each(Shutdown::request);
        for wait in waits {
            assert_eq!(wait.recv().unwrap(), [Cause::Requested; 2]);
        }
    });
}

#[test]
fn all_runtimes_of_a_thread_that_waits_close_when_they_are_asked_to_each_by_itself() {
    rounds(100, |_| {
        let there = Builder::new().start("there").unwrap();
        let never = there.spawner().spawn(pending::<()>());
        let aborter = never.abort_handle();
        let worker = Worker::new();
        let drops = Drops::new();
        let probes: Vec<_> = (0..5).map(|_| drops.clone()).collect();
        let runtimes = worker.run(move || {
            let make = |drops: Drops| {
                let runtime = bound(Builder::new());
                let task = async move {
                    let _probe = drops.local_probe();
                    pending::<()>().await;
                };
                drop(runtime.spawn_local(task).unwrap());
                runtime.block_on(evbase::yield_now()).unwrap();
                runtime
            };
            probes.into_iter().map(make).collect::<Vec<_>>()
        });
        let tid = worker.run(Tid::here);
        let waits = worker.start(move || never.wait().unwrap().is_err());
        until_parked(tid);
        for (closed, runtime) in runtimes.into_iter().enumerate() {
            drops.assert_on(worker.id(), closed);
            let runtime = Arc::into_inner(runtime).unwrap();
            let report = runtime.shutdown().wait().unwrap();
            assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 1));
        }
        drops.assert_on(worker.id(), 5);
        assert!(waits.try_recv().is_err(), "the wait goes on");
        // Nobody's home any more, the thread still hears.
        aborter.abort();
        assert!(waits.recv().unwrap());
    });
}

#[test]
fn a_stop_of_a_home_that_waits_runs_its_grace_period() {
    rounds(100, |_| {
        let there = Builder::new().start("there").unwrap();
        let worker = Worker::new();
        let here = worker.run(|| bound(Builder::new().grace(Duration::MAX)));
        let there_ends = there.shutdown_handle().terminated();
        let tid = worker.run(Tid::here);
        let waits = worker.start(move || there_ends.wait().unwrap().cause);
        until_parked(tid);
        let task = here.spawner().spawn(evbase::time::sleep(Duration::from_millis(1)));
        let end = here.shutdown_handle();
        end.request();
        assert_eq!(end.terminated().wait().unwrap().completed, 1);
        task.wait().unwrap().unwrap();
        drop(there);
        assert_eq!(waits.recv().unwrap(), Cause::Dropped);
    });
}

#[test]
fn what_is_sent_to_a_home_that_waits_is_kept_for_its_next_run() {
    rounds(100, |_| {
        let (_there, task, release) = task_elsewhere();
        let worker = Worker::new();
        let here = worker.run(|| bound(Builder::new()));
        let tid = worker.run(Tid::here);
        let waits = worker.start(move || task.wait().unwrap().unwrap());
        until_parked(tid);
        let (polled, drops) = (Latch::new(), Drops::new());
        for _ in 0..10 {
            let (poll, probe) = (polled.clone(), drops.probe());
            drop(here.spawner().spawn(async move {
                poll.open();
                drop(probe);
            }));
        }
        here.spawner().spawn(async {}).abort();
        until_parked(tid);
        assert!(!polled.is_open(), "a wait for something else doesn't run tasks");
        release.open();
        waits.recv().unwrap();
        assert!(!polled.is_open());
        worker.run({
            let here = here.clone();
            move || here.block_on(evbase::yield_now()).unwrap()
        });
        assert_eq!((drops.count(), here.metrics().cancelled), (10, 1));
    });
}

#[test]
fn a_wait_of_a_home_ends_at_its_deadline_and_not_before() {
    rounds(20, |_| {
        let there = Builder::new().start("there").unwrap();
        let there_ends = there.shutdown_handle().terminated();
        let _here = bound(Builder::new());
        let start = Instant::now();
        for timeout in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            assert_eq!(there_ends.wait_timeout(timeout).unwrap(), None);
        }
        assert!(start.elapsed() >= Duration::from_micros(3300));
    });
}

#[test]
fn a_wait_for_all_time_ends_when_what_it_waits_for_does() {
    rounds(20, |round| {
        let there = Builder::new().start("there").unwrap();
        let there_ends = there.shutdown_handle().terminated();
        // Of a home and of a thread that is none.
        let here = (round % 2 == 0).then(|| bound(Builder::new()));
        let spawner = there.spawner();
        let stops = async { Shutdown::current().request() };
        drop(spawner.spawn(stops));
        let report = there_ends.wait_timeout(Duration::MAX).unwrap().unwrap();
        assert_eq!(report.cause, Cause::Requested);
        drop(here);
    });
}

#[test]
fn homes_that_wait_leave_nothing_behind() {
    alone(|| {
        let before = held();
        for _ in 0..50 {
            let workers: Vec<_> = (0..4).map(|_| Worker::new()).collect();
            let runtimes: Vec<_> = workers
                .iter()
                .map(|worker| worker.run(|| bound(Builder::new())))
                .collect();
            // Each waits for the next one, the last one for the first.
            let ends: Vec<_> = runtimes.iter().map(|runtime| runtime.shutdown_handle()).collect();
            let waits: Vec<_> = (0..4)
                .map(|at| wait_and_run(&workers[at], &ends[(at + 1) % 4], &ends[at]))
                .collect();
            drop(runtimes);
            for wait in waits {
                assert_eq!(wait.recv().unwrap(), [Cause::Dropped; 2]);
            }
            workers.into_iter().for_each(Worker::exit);
        }
        // The watchdog's thread comes and goes.
        let descriptors = |held: Option<Held>| held.map(|held| held.descriptors);
        assert_eq!(descriptors(held()), descriptors(before));
    });
}

#[test]
fn inside_a_loop_a_wait_is_refused_as_ever() {
    let there = Builder::new().start("there").unwrap();
    let here = bound(Builder::new());
    let end = there.shutdown_handle().terminated();
    let refused = here.block_on(async move { end.wait() }).unwrap();
    assert_eq!(refused.unwrap_err(), WaitError::InsideLoop);
}

#[test]
fn a_home_that_waits_sleeps_in_one_call_and_hears_no_wakes() {
    let trace = traced("all", || {
        let there = parked(Builder::new());
        let there_tid = tid_of(&there);
        let (here, tid) = (bound(Builder::new()), Tid::here());
        let waker = here.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone()))).unwrap();
        let (end, ended) = (there.shutdown_handle(), there.shutdown_handle().terminated());
        let other = thread::spawn(move || {
            until_parked(tid);
            until_parked(there_tid);
            mark(tid);
            // There is nothing to wait for: that is the point.
            thread::sleep(5 * MOMENT);
            waker.wake_by_ref();
            thread::sleep(5 * MOMENT);
            mark(tid);
            until_parked(tid);
            end.request();
        });
        ended.wait().unwrap();
        other.join().unwrap();
        drop(here);
    });
    if let Some(trace) = trace {
        let calls = trace.calls_at_home();
        assert!(calls.is_empty(), "{calls:#?}");
        assert_eq!(trace.notify_writes(), 0, "{:#?}", trace.lines());
    }
}

#[test]
fn the_output_of_a_finished_task_waits_for_nobodys_grace_period() {
    rounds(50, |_| {
        let home = Worker::new();
        let (give, given) = mpsc::channel();
        let waits = home.start(move || {
            let (here, other) = (bound(Builder::new()), bound(Builder::new().grace(Duration::MAX)));
            drop(other.spawn_local(pending::<()>()).unwrap());
            let end = other.shutdown_handle();
            give.send((end.clone(), here.clone(), other)).unwrap();
            let task = here.spawn_local(async move {
                end.request();
                7
            });
            task.unwrap().wait().unwrap().unwrap()
        });
        let (end, _here, _other) = given.recv().unwrap();
        assert_eq!(waits.recv().unwrap(), 7);
        end.request_now();
    });
}

#[test]
fn a_wait_for_what_is_finished_is_refused_inside_a_loop_and_closes_nobody() {
    rounds(50, |_| {
        let there = Builder::new().start("there").unwrap();
        let here = bound(Builder::new());
        let other = bound(Builder::new().grace(Duration::MAX));
        drop(
            other
                .spawn_local(evbase::time::sleep(Duration::from_millis(1)))
                .unwrap(),
        );
        let end = other.shutdown_handle();
        let done = there.spawner().spawn(async { 1 });
        until(|| done.is_finished());
        here.block_on(async move {
            end.request();
            assert!(matches!(done.wait(), Err(WaitError::InsideLoop)));
        })
        .unwrap();
        let report = other.shutdown_handle().terminated().wait().unwrap();
        assert_eq!((report.completed, report.cancelled), (1, 0));
    });
}

#[test]
fn a_wait_at_home_gives_others_of_its_thread_that_were_asked_to_stop_their_grace_period_first() {
    type Wait = fn(&Runtime);
    let waits: [Wait; 3] = [
        |here| {
            let task = here.spawn_local(yield_now()).unwrap();
            task.wait().unwrap().unwrap();
        },
        |here| {
            let waited = here.shutdown_handle().terminated().wait_timeout(Duration::ZERO);
            assert_eq!(waited, Ok(None));
        },
        |here| {
            here.shutdown_handle().request();
            here.shutdown_handle().terminated().wait().unwrap();
        },
    ];
    rounds(50, |_| {
        for wait in waits {
            let here = bound(Builder::new());
            let other = bound(Builder::new().grace(Duration::MAX));
            drop(other.spawn_local(yield_now()).unwrap());
            let end = other.shutdown_handle();
            thread::scope(|scope| scope.spawn(|| end.request()).join().unwrap());
            wait(&here);
            // Looked at abroad: at home, a look would close it.
            let ended = thread::scope(|scope| scope.spawn(|| poll_once(&mut end.terminated())).join());
            let Poll::Ready(report) = ended.unwrap() else {
                panic!("the wait has not closed it");
            };
            assert_eq!((report.completed, report.cancelled), (1, 0));
        }
    });
}

#[test]
fn waits_of_no_time_get_home_through_its_grace_period() {
    let _watchdog = watchdog();
    let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
    let task = runtime.spawn_local(async {
        for _ in 0..1000 {
            yield_now().await;
        }
    });
    runtime.shutdown_handle().request();
    let terminated = runtime.shutdown_handle().terminated();
    let report = loop {
        if let Some(report) = terminated.wait_timeout(Duration::ZERO).unwrap() {
            break report;
        }
    };
    assert_eq!((report.completed, report.cancelled), (1, 0));
    assert!(task.unwrap().is_finished());
}

#[test]
fn a_wait_ends_at_its_deadline_in_spite_of_a_grace_period() {
    rounds(20, |round| {
        let there = Builder::new().start("there").unwrap();
        let there_ends = there.shutdown_handle().terminated();
        let home = Worker::new();
        let here = home.run(|| {
            let here = bound(Builder::new().grace(Duration::MAX));
            drop(here.spawn_local(pending::<()>()).unwrap());
            here
        });
        let tid = home.run(Tid::here);
        let end = here.shutdown_handle();
        if round % 2 == 0 {
            end.request();
        }
        let waits = home.start(move || there_ends.wait_timeout(MOMENT));
        let mut waited = None;
        until_parked_or(tid, || {
            waited = waits.try_recv().ok();
            waited.is_some()
        });
        end.request();
        assert_eq!(waited.unwrap_or_else(|| waits.recv().unwrap()), Ok(None));
        end.request_now();
    });
}

#[test]
fn a_wait_ends_when_its_task_does_in_spite_of_a_grace_period() {
    rounds(100, |_| {
        let (_there, task, release) = task_elsewhere();
        let home = Worker::new();
        // In its grace period, the runtime waits for what its thread does after the wait.
        let (give, given) = futures::channel::oneshot::channel::<()>();
        let here = home.run(|| {
            let here = bound(Builder::new().grace(Duration::MAX));
            drop(here.spawn_local(given).unwrap());
            here
        });
        let tid = home.run(Tid::here);
        let waits = home.start(move || {
            task.wait().unwrap().unwrap();
            give.send(()).unwrap();
        });
        until_parked(tid);
        here.shutdown_handle().request();
        until_parked(tid);
        release.open();
        waits.recv().unwrap();
        drop(home);
        assert_eq!(
            here.shutdown_handle().terminated().wait().unwrap().cause,
            Cause::Requested
        );
    });
}

#[test]
fn a_wait_runs_no_destructor_that_its_caller_could_have_locked_out() {
    rounds(50, |_| {
        let (_there, task, release) = task_elsewhere();
        let home = Worker::new();
        let lock = Arc::new(Mutex::new(()));
        let here = home.run(|| bound(Builder::new()));
        let tid = home.run(Tid::here);
        let held = lock.clone();
        let waits = home.start(move || {
            let _held = held.lock().unwrap();
            task.wait().unwrap().unwrap();
        });
        until_parked(tid);
        // A task whose future takes the lock at home when it is dropped.
        let takes = OnDrop(move || drop(lock.lock().unwrap()));
        here.spawner().spawn(async move { drop(takes) }).abort();
        until_parked(tid);
        release.open();
        waits.recv().unwrap();
        home.run(move || here.block_on(evbase::yield_now()).unwrap());
    });
}

#[test]
fn a_wait_goes_no_further_in_the_child_of_a_fork_in_a_destructor() {
    alone(|| {
        static CHILD: AtomicI32 = AtomicI32::new(-1);
        let there = Builder::new().start("there").unwrap();
        let task = there.spawner().spawn(pending::<()>());
        let abort = task.abort_handle();
        let here = bound(Builder::new());
        let forks = OnDrop(|| {
            // SAFETY: the child goes on in the wait, on its only thread, and leaves below.
            CHILD.store(unsafe { libc::fork() }, SeqCst);
        });
        let task_here = async move {
            let _forks = forks;
            pending::<()>().await;
        };
        drop(here.spawn_local(task_here).unwrap());
        let (tid, end) = (Tid::here(), here.shutdown_handle());
        let other = thread::spawn(move || {
            until_parked(tid);
            end.request();
            until(|| CHILD.load(SeqCst) > 0);
            let mut status = 0;
            // SAFETY: our child, which nobody else waits for; `status` outlives the call.
            assert!(unsafe { libc::waitpid(CHILD.load(SeqCst), &mut status, 0) } > 0);
            abort.abort();
            status
        });
        let waited = task.wait();
        if CHILD.load(SeqCst) == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!matches!(waited, Err(WaitError::Forked)))) };
        }
        assert!(waited.unwrap().unwrap_err().is_cancelled());
        assert_eq!(other.join().unwrap(), 0);
    });
}

#[test]
fn in_the_child_of_a_fork_a_handle_of_a_runtime_dropped_there_waits_for_nothing() {
    alone(|| {
        let runtime = bound(Builder::new());
        let mut task = Some(runtime.spawn_local(pending::<()>()).unwrap());
        let mut runtime = Some(runtime);
        let code = fork(|| {
            drop(runtime.take());
            assert!(matches!(task.take().unwrap().wait(), Err(WaitError::Forked)));
        });
        assert_eq!(code, 0);
    });
}

#[test]
fn a_home_can_wait_where_no_descriptor_may_be_watched_any_more() {
    alone(|| {
        let there = Builder::new().start("there").unwrap();
        let here = bound(Builder::new());
        // poll(2) takes no more descriptors than that.
        let limit = limit_descriptors(0);
        let release = Latch::new();
        let let_go = release.clone();
        let task = there.spawner().spawn(async move {
            let_go.wait();
            String::from("output")
        });
        let end = here.shutdown_handle();
        let other = thread::spawn(move || {
            end.request();
            end.terminated().wait().unwrap();
            release.open();
        });
        assert_eq!(task.wait().unwrap().unwrap(), "output");
        other.join().unwrap();
        limit_descriptors(limit);
    });
}

#[test]
fn stops_of_a_home_that_waits_cost_one_write_for_each_level_at_most() {
    let trace = traced("write", || {
        let (_there, task, release) = task_elsewhere();
        let home = Worker::new();
        let here = home.run(|| bound(Builder::new()));
        let tid = home.run(Tid::here);
        let waits = home.start(move || task.wait().unwrap().unwrap());
        until_parked(tid);
        let end = here.shutdown_handle();
        mark(tid);
        for _ in 0..100 {
            end.request();
            end.request_now();
        }
        end.terminated().wait().unwrap();
        mark(tid);
        release.open();
        waits.recv().unwrap();
    });
    if let Some(trace) = trace {
        let writes = trace.notify_writes();
        assert!(writes == 1 || writes == 2, "{writes} {:#?}", trace.lines());
    }
}

#[test]
fn a_wait_for_an_end_that_has_come_is_refused_inside_a_loop() {
    rounds(50, |_| {
        let ended = Runtime::new().unwrap();
        let shutdown = ended.shutdown_handle();
        ended.shutdown().wait().unwrap();
        let waits = bound(Builder::new()).block_on(async move {
            let now = shutdown.terminated().wait_timeout(Duration::ZERO);
            (shutdown.terminated().wait(), now)
        });
        assert!(matches!(
            waits.unwrap(),
            (Err(WaitError::InsideLoop), Err(WaitError::InsideLoop))
        ));
    });
}
