//! Tells the child of a `fork` from its parent, and keeps what each of them has one of.
//!
//! The kernel queue of an event base is shared with, or missing from, a process that was forked off, so a base, a
//! notifier or a runtime that was made before the fork must leave it alone in the child. Each keeps the [`Birth`]
//! it was made with; asking it costs one relaxed load, and is async-signal-safe.
//!
//! The generation changes in the child, through a handler of `pthread_atfork`. A raw `clone` or `vfork` system call
//! runs no such handler, and isn't noticed.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

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

/// What a process has one of, in a static: made by who asks first, and there to the end of the process.
///
/// In the child of a fork that of the parent is left alone, as other threads left it, and the first who asks makes another.
pub(crate) struct PerProcess<T>(AtomicPtr<Made<T>>);

struct Made<T> {
    birth: Birth,
    value: T,
}

impl<T: Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Also whether this call has made it, which one call a process is told. Of several at once, each may call `make`. Forks are noticed
    /// from the first [`watch`] on.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> (&'static T, bool) {
        let mut current = self.0.load(Ordering::Acquire);
        let mut is_new = false;
        loop {
            // SAFETY: null, or what was made and stored below, by this thread or before this one has loaded it. It is never freed,
            // and only shared, which all threads may do, as `T` is `Sync`.
            if let Some(made) = unsafe { current.as_ref() }.filter(|made| !made.birth.is_child()) {
                return (&made.value, is_new);
            }
            let new = Box::into_raw(Box::new(Made {
                birth: Birth::here(),
                value: make(),
            }));
            let stored = self
                .0
                .compare_exchange(current, new, Ordering::SeqCst, Ordering::Acquire);
            match stored {
                Ok(_) => (current, is_new) = (new, true),
                Err(other) => {
                    // SAFETY: made above, and nobody else has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    current = other;
                }
            }
        }
    }
}

/// The error that a base answers in the child of a fork.
pub(super) fn error() -> io::Error {
    io::Error::other(
        "this event base was made before fork() and belongs to the parent process; make a new one in the child",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn what_a_process_has_one_of_is_made_once_and_who_made_it_knows() {
        static ONES: [PerProcess<AtomicUsize>; 100] = [const { PerProcess::new() }; 100];
        for one in &ONES {
            let start = Barrier::new(2);
            let ask = || {
                start.wait();
                one.get(|| AtomicUsize::new(0))
            };
            let ((this, is_mine), (that, is_theirs)) = std::thread::scope(|scope| {
                let other = scope.spawn(ask);
                (ask(), other.join().unwrap())
            });
            assert!(ptr::eq(this, that) && is_mine != is_theirs);
            assert!(!one.get(|| unreachable!()).1);
        }
    }
}
