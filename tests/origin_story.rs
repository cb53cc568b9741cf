//! The story this crate answers: thread A runs the loop, thread B spawns, aborts, breaks the loop and frees the base while
//! A sleeps in the kernel. Again and again: nothing hangs, and nothing is left behind.

mod common;

use std::future::pending;
use std::sync::mpsc;
use std::thread;

use common::{Drops, Held, Tid, alone, held, resident_pages, until, until_parked, within};
use evbase::{Builder, Cause, RunError, Runtime};

/// B drops the runtime of a thread that evbase made.
fn started(round: usize) {
    let runtime = Builder::new().start("A").unwrap();
    let home = runtime.home().unwrap();
    let drops = Drops::new();
    let probe = drops.probe();
    let stays = runtime.spawner().spawn(async move {
        let _probe = probe;
        pending::<()>().await;
    });
    let aborted = runtime.spawner().spawn(pending::<()>());
    let tid = runtime.spawner().spawn(async { Tid::here() }).wait().unwrap().unwrap();
    until_parked(tid);
    aborted.abort();
    assert!(aborted.wait().unwrap().unwrap_err().is_cancelled());
    let shutdown = runtime.shutdown_handle();
    if round.is_multiple_of(3) {
        shutdown.request();
    }
    until_parked_or_gone(tid);
    drop(runtime);
    let report = shutdown.terminated().wait().unwrap();
    let cause = if round.is_multiple_of(3) {
        Cause::Requested
    } else {
        Cause::Dropped
    };
    assert_eq!((report.cause, report.completed, report.cancelled), (cause, 1, 2));
    assert!(stays.wait().unwrap().unwrap_err().is_cancelled());
    drops.assert_on(home, 1);
}

/// A thread that was asked to stop may have ended, which is as good.
fn until_parked_or_gone(tid: Tid) {
    let task = std::path::PathBuf::from(format!("/proc/self/task/{}", tid.number()));
    if cfg!(target_os = "linux") {
        let syscall = task.join("syscall");
        let parked = ["232 ", "281 ", "441 "];
        until(|| match std::fs::read_to_string(&syscall) {
            Ok(line) => parked.iter().any(|number| line.starts_with(number)),
            Err(_) => true,
        });
    }
}

/// B stops the `block_on` of a thread of the user's, and drops the handle.
fn driven(_: usize) {
    let runtime = Runtime::new().unwrap();
    let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
    let (tell, told) = mpsc::channel();
    let a = thread::spawn(move || {
        tell.send(Tid::here()).unwrap();
        let result = runtime.block_on(pending::<()>());
        assert!(matches!(result, Err(RunError::Stopped)));
        runtime
    });
    let tid = told.recv().unwrap();
    until_parked(tid);
    let task = spawner.spawn(pending::<()>());
    task.abort();
    assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    until_parked(tid);
    shutdown.request();
    let runtime = a.join().unwrap();
    assert_eq!(runtime.run().unwrap().cancelled, 1);
    drop(runtime);
}

/// What is held when all threads of earlier rounds are gone.
fn settled(expected: Option<Held>) -> Option<Held> {
    let start = std::time::Instant::now();
    loop {
        let now = held();
        if now == expected || start.elapsed() > std::time::Duration::from_secs(5) {
            return now;
        }
        thread::yield_now();
    }
}

#[test]
fn two_thousand_runtimes_leave_nothing_behind() {
    alone(|| {
        started(0);
        driven(0);
        // This process has no other threads than these: the first count is that of rest.
        let mut first = held();
        for _ in 0..1000 {
            first = match (first, held()) {
                (Some(a), Some(b)) => Some(Held {
                    descriptors: a.descriptors.min(b.descriptors),
                    threads: a.threads.min(b.threads),
                }),
                _ => None,
            };
        }
        for round in 0..1000 {
            started(round);
            driven(round);
        }
        assert_eq!(settled(first), first);
    });
}

/// Prints what is held on the way: run it with `--ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_runtimes_leave_nothing_behind() {
    if !common::is_alone() {
        let status = within(std::time::Duration::from_secs(3600), || {
            common::alone_command(&[]).status().unwrap()
        });
        assert!(status.success());
        return;
    }
    within(std::time::Duration::from_secs(3600), || {
        let mut at_first = (None, None);
        for round in 0..100_000 {
            if round % 2 == 0 {
                started(round)
            } else {
                driven(round)
            }
            if round == 1000 {
                // The threads of the last rounds may still be on their way out.
                thread::sleep(std::time::Duration::from_millis(100));
                at_first = (held(), resident_pages());
                println!("round {round}: {:?}, {:?} pages", at_first.0, at_first.1);
            }
        }
        let last = settled(at_first.0);
        let pages = resident_pages();
        println!("at the end: {last:?}, {pages:?} pages");
        assert_eq!(last, at_first.0);
        if let (Some(first), Some(last)) = (at_first.1, pages) {
            assert!(last <= first + first / 20, "{first} pages, then {last}");
        }
    });
}
