//! A child whose `Child` was dropped leaves no zombie, wherever and whenever that was.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use evbase::process::{Child, Command};
use evbase::time::sleep;
use evbase::{Builder, Runtime};
use futures::FutureExt;

use super::{Children, children, endless, handles_sigchld, until_closed};
use crate::support::{alone, hold, in_seconds, open_descriptors, parked, rounds_alone, until};

/// Waits in the loop until this process has no child any more.
async fn no_child() {
    while children() != Children::None {
        sleep(Duration::from_micros(100)).await;
    }
}

async fn polled(mut child: Child) -> Child {
    assert!(child.wait().now_or_never().is_none());
    child
}

/// One that runs, and ends when the writer is dropped.
fn running() -> (Child, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let child = Command::new("cat").stdin(reader).stdout(Stdio::null()).spawn().unwrap();
    (child, writer)
}

#[test]
fn the_loop_reaps_a_child_that_is_dropped_in_it() {
    rounds_alone(30, |_| {
        let before = open_descriptors().len();
        let runtime = Runtime::new().unwrap();
        let drops = async {
            // Never awaited; awaited; ended before.
            let (child, end) = running();
            drop(child);
            assert_eq!(children(), Children::Running);
            drop(end);
            no_child().await;
            let (child, end) = running();
            drop(polled(child).await);
            drop(end);
            no_child().await;
            let child = Command::new("true").spawn().unwrap();
            until(|| children() == Children::Zombie);
            drop(child);
            assert_eq!(children(), Children::None);
        };
        runtime.block_on(drops).unwrap();
        assert!(!handles_sigchld());
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 0, "a child is no task");
        assert_eq!(open_descriptors().len(), before);
    });
}

#[test]
fn home_reaps_a_child_that_is_dropped_abroad_in_its_sleep() {
    rounds_alone(50, |round| {
        let before = open_descriptors().len();
        let runtime = parked(Builder::new());
        let (child, end) = running();
        let child = runtime.spawner().spawn(polled(child)).wait().unwrap().unwrap();
        if round % 2 == 0 {
            drop((child, end));
        } else {
            thread::scope(|scope| {
                scope.spawn(|| drop(child));
                scope.spawn(|| drop(end));
            });
        }
        until(|| children() == Children::None);
        assert!(!handles_sigchld());
        drop(runtime);
        until(|| open_descriptors().len() == before);
    });
}

#[test]
fn home_reaps_a_child_that_is_dropped_outside_of_its_loop_when_it_next_runs() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let (child, end) = running();
        drop(runtime.block_on(polled(child)).unwrap());
        drop(end);
        runtime.block_on(no_child()).unwrap();
        assert!(!handles_sigchld());
    });
}

#[test]
fn a_loop_reaps_what_is_dropped_in_it_when_the_loop_that_awaited_it_has_closed() {
    alone(|| {
        let first = Runtime::new().unwrap();
        let (child, end) = running();
        let child = first.block_on(polled(child)).unwrap();
        drop(first);
        let work = async {
            drop(child);
            drop(end);
            no_child().await;
        };
        Runtime::new().unwrap().block_on(work).unwrap();
        assert!(!handles_sigchld());
    });
}

#[test]
fn a_child_that_no_loop_knows_is_reaped_when_it_ends() {
    alone(|| {
        for _ in in_seconds(0..50, 10) {
            let (child, end) = running();
            drop(child);
            assert_eq!(children(), Children::Running);
            drop(end);
            until(|| children() == Children::None);
            // It may have ended before, or end meanwhile.
            drop(Command::new("true").spawn().unwrap());
            until(|| children() == Children::None);
        }
        assert!(handles_sigchld());
    });
}

#[test]
fn a_child_that_outlives_its_loop_is_reaped_when_it_ends() {
    rounds_alone(50, |round| {
        let before = open_descriptors().len();
        let runtime = Builder::new().start("home").unwrap();
        let (child, end) = running();
        let child = runtime.spawner().spawn(polled(child)).wait().unwrap().unwrap();
        match round % 5 {
            // Dropped before the end of the loop; after it; by it; while it comes; while the child ends, too.
            0 => {
                drop(child);
                runtime.shutdown().wait().unwrap();
            }
            1 => {
                runtime.shutdown().wait().unwrap();
                drop(child);
            }
            2 => {
                drop(runtime.spawner().spawn(async move {
                    let mut child = child;
                    child.wait().await
                }));
                runtime.shutdown().wait().unwrap();
            }
            3 => {
                let held = hold(&runtime);
                drop(child);
                let terminated = runtime.shutdown();
                held.open();
                terminated.wait().unwrap();
            }
            _ => {
                let end = end.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| drop(child));
                    scope.spawn(|| drop(end));
                    scope.spawn(|| runtime.shutdown_handle().request_now());
                });
                drop(runtime);
            }
        }
        assert_eq!(children(), Children::Running);
        drop(end);
        until(|| children() == Children::None);
        until(|| open_descriptors().len() == before);
    });
}

#[test]
fn no_grace_period_waits_for_a_child_that_was_dropped() {
    alone(|| {
        let runtime = Builder::new().grace(Duration::from_secs(1000)).build().unwrap();
        let (child, end) = running();
        runtime.block_on(async { drop(polled(child).await) }).unwrap();
        runtime.shutdown().wait().unwrap();
        drop(end);
        until(|| children() == Children::None);
    });
}

#[test]
fn a_drop_kills_if_that_was_asked_for_and_else_does_not() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let kills = async {
            let (lives, end) = running();
            drop(lives);
            assert_eq!(children(), Children::Running);
            drop(end);
            no_child().await;
            drop(endless().kill_on_drop(true).spawn().unwrap());
            no_child().await;
            drop(polled(endless().kill_on_drop(true).spawn().unwrap()).await);
            no_child().await;
            drop(endless().kill_on_drop(true).status());
            no_child().await;
            assert!(endless().kill_on_drop(true).status().now_or_never().is_none());
            no_child().await;
            assert!(endless().kill_on_drop(true).output().now_or_never().is_none());
            no_child().await;
        };
        runtime.block_on(kills).unwrap();
        drop(runtime);
        drop(endless().kill_on_drop(true).spawn().unwrap());
        until(|| children() == Children::None);
    });
}

#[test]
fn a_child_of_somebody_elses_is_never_reaped() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        for _ in in_seconds(0..30, 10) {
            let mut others = std::process::Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
            // By the loop, and by the handler.
            runtime.block_on(async { drop(until_closed()) }).unwrap();
            for _ in 0..3 {
                drop(until_closed());
            }
            runtime
                .block_on(async { Command::new("true").status().await.unwrap() })
                .unwrap();
            until(|| children() == Children::Zombie);
            assert_eq!(others.wait().unwrap().code(), Some(9));
            runtime.block_on(no_child()).unwrap();
        }
    });
}

/// A future of a child, stopped after its first poll or dropped half-way, with its pipes and with what it has read.
#[test]
fn a_future_that_is_dropped_half_way_leaves_no_child_and_no_descriptor() {
    rounds_alone(200, |round| {
        let before = open_descriptors().len();
        let runtime = Builder::new().start("home").unwrap();
        let task = runtime.spawner().spawn(async move {
            let mut command = Command::new("sh");
            command.args(["-c", "echo text; exec cat"]).kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            match round % 3 {
                0 => drop(command.output().await),
                1 => drop(command.status().await),
                _ => drop(command.spawn().unwrap().wait().await),
            }
            endless().kill_on_drop(true).output().await
        });
        for _ in 0..round % 50 {
            thread::yield_now();
        }
        thread::scope(|scope| {
            scope.spawn(|| task.abort());
            if round % 2 == 0 {
                scope.spawn(|| runtime.shutdown_handle().request_now());
            }
        });
        until(|| task.is_finished());
        until(|| children() == Children::None);
        drop(task);
        drop(runtime);
        until(|| open_descriptors().len() == before);
    });
}

#[test]
fn where_sigchld_is_ignored_the_kernel_reaps_and_that_stays_so() {
    alone(|| {
        // SAFETY: sets a disposition that has no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let runtime = Runtime::new().unwrap();
        let error = runtime.block_on(Command::new("true").status()).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        let (child, end) = running();
        drop(child);
        let (child, other_end) = running();
        runtime.block_on(async { drop(child) }).unwrap();
        drop((end, other_end));
        until(|| children() == Children::None);
        // SAFETY: sets a disposition that has no handler.
        let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        assert_eq!(before, libc::SIG_IGN);
    });
}

/// More than a block of the list, dropped on four threads, while they end.
#[test]
fn hundreds_that_no_loop_knows_are_all_reaped() {
    alone(|| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in in_seconds(0..3, 5) {
                        let (reader, writer) = std::io::pipe().unwrap();
                        for _ in 0..25 {
                            let stdin = reader.try_clone().unwrap();
                            drop(Command::new("cat").stdin(stdin).stdout(Stdio::null()).spawn().unwrap());
                            drop(Command::new("true").spawn().unwrap());
                        }
                        drop(writer);
                    }
                });
            }
        });
        until(|| children() == Children::None);
    });
}
