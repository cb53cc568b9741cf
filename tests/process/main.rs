//! Child processes. What counts children, descriptors or threads, or changes a disposition, is in a process of its own.

#[path = "../support/mod.rs"]
mod support;

mod children;
mod dropped;
mod fork_child;
mod many;
#[cfg(all(target_os = "linux", target_env = "gnu", not(evbase_libkqueue)))]
mod sandbox;

use std::mem::MaybeUninit;
use std::process::Stdio;

use evbase::process::{Child, Command};

use crate::support::is_under_sanitizer;

/// A shell that runs a script, with pipes.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A child that runs until it is killed.
fn endless() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

/// A child that runs until its stdin is closed, and then ends with status 0.
fn until_closed() -> Child {
    Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: i32) {
    let pid = child.id().expect("it has been reaped").cast_signed();
    // SAFETY: takes no pointer; the process is ours, and not reaped.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Children {
    None,
    Running,
    Zombie,
}

/// What children this process has. Reaps none.
fn children() -> Children {
    if is_under_sanitizer("thread") {
        // It keeps a signal from its handler until the thread that the kernel has chosen makes a call which it knows.
        // SAFETY: takes no pointers.
        unsafe { libc::raise(libc::SIGCHLD) };
    }
    // SAFETY: a `siginfo_t` of zeros is valid.
    let mut info = unsafe { MaybeUninit::<libc::siginfo_t>::zeroed().assume_init() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes to the local during the call.
    if unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) } != 0 {
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));
        return Children::None;
    }
    // SAFETY: filled in by the call, or zero.
    match unsafe { info.si_pid() } {
        0 => Children::Running,
        _ => Children::Zombie,
    }
}

/// Whether this process handles SIGCHLD.
fn handles_sigchld() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the kernel writes to the local during the call, and has filled it in if that succeeds.
    unsafe {
        assert_eq!(libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()), 0);
        action.assume_init().sa_sigaction != libc::SIG_DFL
    }
}
