//! In the child of a fork, a `Child` is the parent's.

use std::os::unix::process::ExitStatusExt;

use evbase::Runtime;
use evbase::process::Command;
use futures::FutureExt;

use super::{Children, children, endless, until_closed};
use crate::support::{alone, fork, is_under_sanitizer, until};

#[test]
fn a_child_dropped_in_the_child_of_a_fork_is_neither_killed_nor_reaped() {
    if is_under_sanitizer("thread") {
        // In the child of a process with threads it keeps signals back for ever: the handler of SIGCHLD, which reaps the orphan at
        // the end, isn't called.
        return;
    }
    alone(|| {
        let runtime = Runtime::new().unwrap();
        // The parent has orphans, and its handler is inherited.
        drop(until_closed());
        until(|| children() == Children::None);
        for is_polled in [false, true] {
            let mut child = Some(endless().kill_on_drop(true).spawn().unwrap());
            if is_polled {
                let polled = async { assert!(child.as_mut().unwrap().wait().now_or_never().is_none()) };
                runtime.block_on(polled).unwrap();
            }
            let code = fork(|| {
                let mut child = child.take().unwrap();
                assert!(child.try_wait().unwrap_err().to_string().contains("fork"));
                assert!(child.start_kill().unwrap_err().to_string().contains("fork"));
                let fresh = Runtime::new().unwrap();
                assert!(
                    fresh
                        .block_on(child.wait())
                        .unwrap()
                        .unwrap_err()
                        .to_string()
                        .contains("fork")
                );
                drop(child);
                // Its own ones are like anybody's, with a loop and without.
                assert!(
                    fresh
                        .block_on(Command::new("true").status())
                        .unwrap()
                        .unwrap()
                        .success()
                );
                drop(until_closed());
                until(|| children() == Children::None);
            });
            assert_eq!(code, 0);
            let mut child = child.unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            let status = runtime.block_on(async {
                child.kill().await.unwrap();
                child.wait().await.unwrap()
            });
            assert_eq!(status.unwrap().signal(), Some(libc::SIGKILL));
        }
    });
}
