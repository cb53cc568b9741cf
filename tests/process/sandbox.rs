//! Where there is no pidfd, SIGCHLD does its work.

use std::process::Stdio;
use std::time::Duration;

use evbase::Builder;
use evbase::Runtime;
use evbase::process::Command;
use evbase::time::timeout;
use futures::FutureExt;

use super::{Children, children, endless, handles_sigchld, shell};
use crate::support::{alone, forbid, held, until};

fn works_without_pidfds(errno: i32) {
    let before = held();
    forbid(&[libc::SYS_pidfd_open], errno);
    let here = Runtime::new().unwrap();
    let elsewhere = Builder::new().start("home").unwrap();
    let work = || async {
        for n in 0..10 {
            assert_eq!(shell(&format!("exit {n}")).status().await.unwrap().code(), Some(n));
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        assert!(timeout(Duration::from_millis(5), child.wait()).await.is_err());
        drop(stdin);
        assert!(child.wait().await.unwrap().success());
        let mut child = endless().spawn().unwrap();
        assert!(child.wait().now_or_never().is_none());
        child.kill().await.unwrap();
        let hello = Command::new("echo").arg("hello").output().await.unwrap();
        assert_eq!(hello.stdout, b"hello\n");
        drop(endless().kill_on_drop(true).spawn().unwrap());
        let mut dropped = endless().kill_on_drop(true).spawn().unwrap();
        assert!(dropped.wait().now_or_never().is_none());
    };
    let there = elsewhere.spawner().spawn(work());
    here.block_on(work()).unwrap();
    there.wait().unwrap().unwrap();
    // One moves between loops.
    let mut child = endless().kill_on_drop(true).spawn().unwrap();
    here.block_on(async { assert!(child.wait().now_or_never().is_none()) })
        .unwrap();
    let moved = elsewhere.spawner().spawn(async move { child.kill().await });
    moved.wait().unwrap().unwrap().unwrap();
    until(|| children() == Children::None);
    assert!(handles_sigchld());
    drop(here);
    elsewhere.shutdown().wait().unwrap();
    until(|| held() == before);
}

#[test]
fn without_pidfds_in_the_kernel_everything_works() {
    alone(|| works_without_pidfds(libc::ENOSYS));
}

#[test]
fn with_pidfds_forbidden_everything_works() {
    alone(|| works_without_pidfds(libc::EPERM));
}
