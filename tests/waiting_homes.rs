//! A thread that waits for something of another home, outside of its own loops, is still the home of its runtimes: they
//! close when they are asked to, and what is sent to them waits for the next run.

mod common;

use std::future::poll_fn;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{Drops, Held, Latch, MOMENT, Tid, Worker, held, mark, parked, rounds, tid_of, traced, until_parked};
use evbase::{Builder, Cause, Runtime, Shutdown, WaitError};

/// A runtime that is at home here.
fn bound(builder: Builder) -> Arc<Runtime> {
    let runtime = builder.build().unwrap();
    runtime.block_on(async {}).unwrap();
    Arc::new(runtime)
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
        let never = there.spawner().spawn(std::future::pending::<()>());
        let aborter = never.abort_handle();
        let worker = Worker::new();
        let drops = Drops::new();
        let probes: Vec<_> = (0..5).map(|_| drops.clone()).collect();
        let runtimes = worker.run(move || {
            let make = |drops: Drops| {
                let runtime = bound(Builder::new());
                let task = async move {
                    let _probe = drops.local_probe();
                    std::future::pending::<()>().await;
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
        let there = Builder::new().start("there").unwrap();
        let worker = Worker::new();
        let here = worker.run(|| bound(Builder::new()));
        let release = Latch::new();
        let to_wait_for = {
            let release = release.clone();
            there.spawner().spawn(async move { release.wait() })
        };
        let tid = worker.run(Tid::here);
        let waits = worker.start(move || to_wait_for.wait().unwrap().unwrap());
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
fn homes_that_wait_leave_nothing_behind() {
    common::alone(|| {
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
fn a_home_that_waits_sleeps_in_one_call_and_a_wake_costs_one_write() {
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
        let mut calls = trace.calls_at_home();
        // Once the notify descriptor is emptied, and once it sleeps again.
        calls.retain(|call| !call.contains("resumed"));
        assert_eq!(calls.len(), 2, "{calls:#?}");
        assert_eq!(trace.notify_writes(), 1, "{:#?}", trace.lines());
    }
}
