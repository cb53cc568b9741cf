//! What a child says and is told.

use std::io::{ErrorKind, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::pin;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use evbase::process::Command;
use evbase::time::{sleep, timeout};
use evbase::{Builder, Runtime};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

use super::{Children, children, endless, handles_sigchld, shell, signal, until_closed};
use crate::support::{MOMENT, alone, held, watched};

fn block_on<F: Future>(future: F) -> F::Output {
    watched(|| Runtime::new().unwrap().block_on(future).unwrap())
}

#[test]
fn a_status_is_told_as_it_was() {
    block_on(async {
        assert!(Command::new("true").status().await.unwrap().success());
        assert_eq!(shell("exit 7").status().await.unwrap().code(), Some(7));
        let killed = shell("kill -9 $$").status().await.unwrap();
        assert_eq!((killed.code(), killed.signal()), (None, Some(9)));
        // It reads and writes nothing, and nobody waits for that.
        assert!(
            Command::new("cat")
                .stdin(Stdio::piped())
                .status()
                .await
                .unwrap()
                .success()
        );
    });
}

#[test]
fn a_program_that_is_not_there_is_not_found() {
    block_on(async {
        let mut command = Command::new("/there/is/no/such/program");
        assert_eq!(command.spawn().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(command.status().await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(command.output().await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn output_is_captured_unless_something_else_was_said() {
    block_on(async {
        let script = "cat; echo out; echo err >&2; exit 3";
        let output = Command::new("sh").args(["-c", script]).output().await.unwrap();
        assert_eq!(
            (&output.stdout[..], &output.stderr[..], output.status.code()),
            (&b"out\n"[..], &b"err\n"[..], Some(3))
        );
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::null());
        for _ in 0..2 {
            let output = command.output().await.unwrap();
            assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"err\n"[..]));
        }
        // What `output` asked for was for that child only.
        let mut command = Command::new("true");
        command.output().await.unwrap();
        let child = command.spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    });
}

#[test]
fn output_keeps_the_stdin_of_stds_builder_for_all_children() {
    block_on(async {
        for is_from_std in [true, false] {
            let (lines, mut writer) = std::io::pipe().unwrap();
            writer.write_all(b"one\ntwo\nthree\n").unwrap();
            let mut command = match is_from_std {
                true => {
                    let mut std = std::process::Command::new("sh");
                    std.stdin(lines);
                    Command::from(std)
                }
                false => {
                    let mut command = Command::new("sh");
                    command.as_std_mut().stdin(lines);
                    command
                }
            };
            // A shell takes no more of a pipe than its line.
            command.args(["-c", "read line; echo $line"]);
            assert_eq!(command.output().await.unwrap().stdout, b"one\n");
            assert_eq!(command.output().await.unwrap().stdout, b"two\n");
            let child = command.stdout(Stdio::piped()).spawn().unwrap();
            assert_eq!(child.wait_with_output().await.unwrap().stdout, b"three\n");
        }
    });
}

#[test]
fn the_builder_says_what_stds_says() {
    block_on(async {
        let dir = std::env::temp_dir().canonicalize().unwrap();
        let mut command = Command::new("sh");
        let output = command
            .args(["-c", "echo $A $B $C $D; pwd; echo $0 $1", "zero"])
            .arg("one")
            .env("A", "a")
            .envs([("B", "b"), ("C", "c")])
            .env("D", "d")
            .env_remove("D")
            .current_dir(&dir)
            .output();
        let said = String::from_utf8(output.await.unwrap().stdout).unwrap();
        assert_eq!(said, format!("a b c\n{}\nzero one\n", dir.display()));
        let empty = Command::new("/usr/bin/env")
            .env_clear()
            .env("A", "a")
            .output()
            .await
            .unwrap();
        assert_eq!(empty.stdout, b"A=a\n");

        let mut std = std::process::Command::new("sh");
        std.arg0("another name").args(["-c", "echo $A"]).env("A", "std");
        let mut command = Command::from(std);
        command.as_std_mut().env("A", "changed");
        assert_eq!(command.output().await.unwrap().stdout, b"changed\n");
    });
}

#[test]
fn megabytes_go_both_ways_at_once() {
    block_on(async {
        let bytes: Vec<u8> = (0..8 << 20)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut child = shell("cat | tee /dev/stderr").spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async {
            stdin.write_all(&bytes).await.unwrap();
            stdin.close().await.unwrap();
        };
        let (output, ()) = futures::join!(child.wait_with_output(), write);
        let output = output.unwrap();
        assert!(output.status.success());
        assert!(output.stdout == bytes, "{} bytes of stdout", output.stdout.len());
        assert!(output.stderr == bytes, "{} bytes of stderr", output.stderr.len());
    });
}

#[test]
fn closing_stdin_is_the_end_for_the_child_and_writing_after_it_an_error() {
    block_on(async {
        let mut child = shell("cat; echo end").spawn().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(b"text ").await.unwrap();
        stdin.flush().await.unwrap();
        stdin.close().await.unwrap();
        stdin.close().await.unwrap();
        assert_eq!(stdin.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut text = String::new();
        child.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "text end\n");
        assert!(child.wait().await.unwrap().success());

        // Nobody reads any more: an error, and no SIGPIPE.
        let mut child = shell("exec cat >/dev/null").spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        child.kill().await.unwrap();
        let error = stdin.write_all(&[0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn wait_closes_stdin_and_says_the_same_again() {
    block_on(async {
        let mut child = until_closed();
        let id = child.id().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        assert!(timeout(MOMENT, std::future::pending::<()>()).await.is_err());
        assert!(child.try_wait().unwrap().is_none(), "try_wait has closed its stdin");
        assert_eq!(child.id(), Some(id));
        let status = child.wait().await.unwrap();
        assert!(status.success() && child.stdin.is_none());
        for _ in 0..3 {
            assert_eq!(child.wait().await.unwrap(), status);
            assert_eq!(child.try_wait().unwrap(), Some(status));
            assert_eq!(child.id(), None);
            // There is nobody there to be killed.
            child.start_kill().unwrap();
            child.kill().await.unwrap();
        }
        let output = child.wait_with_output().await.unwrap();
        assert_eq!((output.status, output.stdout), (status, vec![]));
    });
}

#[test]
fn a_wait_may_be_dropped_at_any_time() {
    block_on(async {
        let mut child = endless().spawn().unwrap();
        for _ in 0..50 {
            assert!(child.wait().now_or_never().is_none());
            assert!(timeout(Duration::from_micros(50), child.wait()).await.is_err());
        }
        signal(&child, libc::SIGTERM);
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGTERM));
    });
}

#[test]
fn many_tasks_wait_each_for_its_child_and_one_is_not_woken_by_the_end_of_another() {
    block_on(async {
        let mut slow = endless().spawn().unwrap();
        let mut slow_wait = Box::pin(slow.wait());
        assert!(futures::poll!(&mut slow_wait).is_pending());
        let tasks: Vec<_> = (0..20)
            .map(|n| evbase::spawn_local(async move { shell(&format!("exit {n}")).status().await }))
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().unwrap().code(), Some(n as i32));
        }
        assert!(futures::poll!(&mut slow_wait).is_pending());
        drop(slow_wait);
        slow.kill().await.unwrap();
    });
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_by_kill() {
    block_on(async {
        let mut child = shell("trap '' TERM; echo ready; exec sleep 1000").spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
        signal(&child, libc::SIGTERM);
        assert!(timeout(MOMENT, child.wait()).await.is_err());
        child.kill().await.unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn a_child_is_awaited_in_one_loop_after_the_other() {
    watched(|| {
        let here = Runtime::new().unwrap();
        let elsewhere = Builder::new().start("home").unwrap();
        let mut child = endless().spawn().unwrap();
        for _ in 0..50 {
            here.block_on(async { assert!(child.wait().now_or_never().is_none()) })
                .unwrap();
            let moved = elsewhere.spawner().spawn(async move {
                assert!(child.wait().now_or_never().is_none());
                child
            });
            child = moved.wait().unwrap().unwrap();
        }
        // One wait, in two loops.
        {
            let mut wait = pin!(child.wait());
            let polled = here.block_on(async { futures::poll!(&mut wait) });
            assert!(polled.unwrap().is_pending());
            let other = Runtime::new().unwrap();
            let polled = other.block_on(async { futures::poll!(&mut wait) });
            assert!(polled.unwrap().is_pending());
        }
        elsewhere.shutdown().wait().unwrap();
        signal(&child, libc::SIGKILL);
        assert_eq!(
            here.block_on(child.wait()).unwrap().unwrap().signal(),
            Some(libc::SIGKILL)
        );
    });
}

#[test]
fn outside_of_a_runtime_a_wait_is_an_error_and_the_child_is_still_there() {
    watched(|| {
        let mut child = endless().spawn().unwrap();
        let error = child.wait().now_or_never().unwrap().unwrap_err();
        assert!(error.to_string().contains("outside of a runtime"), "{error}");
        child.start_kill().unwrap();
        let status = Runtime::new().unwrap().block_on(child.wait()).unwrap().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn a_child_that_somebody_else_has_reaped_is_an_error_and_its_number_is_not_used_again() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let mut child = Command::new("true").kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap().cast_signed();
        // SAFETY: no status is asked for.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        for _ in 0..3 {
            let error = runtime.block_on(child.wait()).unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
            assert_eq!(child.try_wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
            assert_eq!(child.id(), None);
            child.start_kill().unwrap();
        }
    });
}

#[test]
fn children_need_no_thread_and_no_handler_and_leave_no_descriptor() {
    alone(|| {
        let before = held();
        let runtime = Runtime::new().unwrap();
        let work = async {
            let inside = held();
            let mut child = shell("cat").spawn().unwrap();
            assert!(child.wait().now_or_never().is_none());
            assert_eq!(held().map(|held| held.threads), inside.map(|held| held.threads));
            child.wait().await.unwrap();
            // Dropped while it runs, and it ends then.
            drop(until_closed());
            while children() != Children::None {
                sleep(Duration::from_millis(1)).await;
            }
        };
        runtime.block_on(work).unwrap();
        assert!(!handles_sigchld(), "there is a handler of SIGCHLD");
        drop(runtime);
        assert_eq!(held(), before);
    });
}

#[test]
fn children_in_loops_of_four_threads_get_each_its_own_status() {
    watched(|| {
        thread::scope(|scope| {
            for at in 0..4 {
                scope.spawn(move || {
                    let runtime = Runtime::new().unwrap();
                    for n in 0..25 {
                        let code = at * 25 + n;
                        let status = runtime.block_on(shell(&format!("exit {code}")).status());
                        assert_eq!(status.unwrap().unwrap().code(), Some(code));
                    }
                });
            }
        });
    });
}
