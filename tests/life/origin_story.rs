//! The story this crate answers: thread A runs the loop, thread B spawns, aborts, breaks the loop and frees the base while
//! A sleeps in the kernel. Again and again: nothing hangs, and nothing is left behind.

use std::future::pending;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, Cause, RunError, Runtime};

use crate::support::{Drops, Held, Tid, alone, held, resident_pages, until, until_parked, within};

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
    if round % 3 == 0 {
        shutdown.request();
    }
    until_parked_or_gone(tid);
    drop(runtime);
    let report = shutdown.terminated().wait().unwrap();
    let cause = if round % 3 == 0 {
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
    let start = Instant::now();
    loop {
        let now = held();
        if now == expected || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        thread::yield_now();
    }
}

/// What is held now, without what goes away while one looks: a thread that was joined may still be on its way out.
fn at_rest() -> Option<Held> {
    (0..1000).map(|_| held()).reduce(|a, b| {
        let (a, b) = (a?, b?);
        Some(Held {
            descriptors: a.descriptors.min(b.descriptors),
            threads: a.threads.min(b.threads),
        })
    })?
}

#[test]
fn two_thousand_runtimes_leave_nothing_behind() {
    alone(|| {
        started(0);
        driven(0);
        let first = at_rest();
        for round in 0..1000 {
            started(round);
            driven(round);
        }
        assert_eq!(settled(first), first);
    });
}

/// How many rounds the long test does, unless EVBASE_ROUNDS says otherwise.
const ROUNDS: usize = 100_000;

/// What a long run may add to resident memory: a mebibyte, which a leak of two bytes a round exceeds in a million rounds.
const TOLERANCE_KIB: usize = 1024;

/// Ten times on the way, prints what is held, and compares it with what was held after a thousand rounds.
///
/// `EVBASE_ROUNDS=1000000 cargo test --release --test life origin_story -- --ignored --nocapture` does a million.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_runtimes_leave_nothing_behind() {
    let rounds = match std::env::var("EVBASE_ROUNDS") {
        Ok(text) => text.parse().expect("EVBASE_ROUNDS: a number"),
        Err(_) => ROUNDS,
    };
    assert!(
        rounds >= 2000,
        "EVBASE_ROUNDS: at least 2000, since the first thousand warms up"
    );
    // Twenty times what a round takes.
    let deadline = Duration::from_secs(60) + rounds as u32 * Duration::from_millis(20);
    if !crate::support::is_alone() {
        let status = within(deadline, || crate::support::alone_command(&[]).status().unwrap());
        assert!(status.success());
        return;
    }
    within(deadline, || {
        let start = Instant::now();
        let say = |round: usize, held: Option<Held>, kib: Option<usize>| match (held, kib) {
            (Some(held), Some(kib)) => println!(
                "{round:9} rounds, {:5} s: {} descriptors, {} threads, {kib} KiB resident",
                start.elapsed().as_secs(),
                held.descriptors,
                held.threads,
            ),
            _ => println!("{round:9} rounds, {:5} s", start.elapsed().as_secs()),
        };
        let resident = || resident_pages().map(|pages| pages * page_size() / 1024);
        let mut at_first = None;
        for round in 1..=rounds {
            if round % 2 == 0 {
                started(round)
            } else {
                driven(round)
            }
            if round == 1000 {
                let rest = at_rest();
                at_first = rest.zip(resident());
                say(round, rest, resident());
            }
            if round > 1000 && round % (rounds / 10) == 0 {
                let (now, kib) = (settled(at_first.map(|(held, _)| held)), resident());
                say(round, now, kib);
                if let Some((first, first_kib)) = at_first {
                    assert_eq!(now, Some(first));
                    let kib = kib.expect("as before");
                    assert!(kib <= first_kib + TOLERANCE_KIB, "{first_kib} KiB, then {kib} KiB");
                }
            }
        }
    });
}

fn page_size() -> usize {
    // SAFETY: takes no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
