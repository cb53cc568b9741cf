//! Tells the child of a `fork` from its parent.
//!
//! The kernel queue of an event base is shared with, or missing from, a process that was forked off, so a base, a
//! notifier or a runtime that was made before the fork must leave it alone in the child. Each keeps the [`Birth`]
//! it was made with; asking it costs one relaxed load, and is async-signal-safe.
//!
//! The generation changes in the child, through a handler of `pthread_atfork`. A raw `clone` or `vfork` system call
//! runs no such handler, and isn't noticed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many forks lie between the first process and this one.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Has forks counted from here on. Called before the first [`Birth`] is taken.
///
/// Not a `Once`: in the child of a fork, the thread that had begun it may not exist. So if the first two calls are on two threads
/// at once, both install the handler, and a fork counts twice, which does no harm.
///
/// # Errors
///
/// `ENOMEM`, if the handler couldn't be installed; the next call tries again.
pub(crate) fn watch() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: `count` is a safe function without captures, and so there for the life of the process. It does nothing but an
    // atomic addition, which is allowed in the child of a process with many threads.
    match unsafe { libc::pthread_atfork(None, None, Some(count)) } {
        0 => {
            INSTALLED.store(true, Ordering::Relaxed);
            Ok(())
        }
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Runs in the child, on its only thread, before `fork` returns there.
extern "C" fn count() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The number of forks behind this process. Async-signal-safe.
///
/// Relaxed is enough: it changes only while the process has a single thread, the one that reads it next.
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth(usize);

impl Birth {
    /// This process.
    pub(crate) fn here() -> Birth {
        Birth(generation())
    }

    /// Whether the calling process is a child, forked off after this was taken. Async-signal-safe.
    pub(crate) fn is_child(&self) -> bool {
        self.0 != generation()
    }
}

/// The error that a base answers in the child of a fork.
pub(super) fn error() -> io::Error {
    io::Error::other(
        "this event base was made before fork() and belongs to the parent process; make a new one in the child",
    )
}
