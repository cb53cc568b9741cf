//! Which thread is home: the first one that drives the runtime, or closes it.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::{self, ThreadId};

use crate::sync::{AtomicUsize, Mutex};

/// Names a thread; not zero, and never used again in this process.
pub(crate) type ThreadNumber = usize;

/// Keeps `B`, the base, until there is a home thread, which gets it.
#[derive(Debug)]
pub(crate) struct Binding<B> {
    /// Zero until bound; read for "am I home?".
    home: AtomicUsize,
    /// The same thread, for the API.
    thread: OnceLock<ThreadId>,
    /// `None` once it is bound.
    kept: Mutex<Option<B>>,
}

/// What a thread that wants to be home finds.
#[derive(Debug)]
pub(crate) enum Claim<B> {
    /// It is home from now on, and has got what was kept for it.
    Won(B),
    /// A thread is home already.
    Lost,
}

impl<B> Binding<B> {
    pub(crate) fn new(kept: B) -> Self {
        Self {
            home: AtomicUsize::new(0),
            thread: OnceLock::new(),
            kept: Mutex::new(Some(kept)),
        }
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.home.load(Acquire) != 0
    }

    pub(crate) fn is_home(&self, me: ThreadNumber) -> bool {
        // A thread sees its own store, and another thread's number is never its own.
        self.home.load(Acquire) == me
    }

    pub(crate) fn home(&self) -> Option<ThreadId> {
        self.thread.get().copied()
    }

    /// Becomes home, if nobody is yet.
    pub(crate) fn claim(&self, me: ThreadNumber) -> Claim<B> {
        let mut kept = self.kept.lock();
        match kept.take() {
            Some(kept) => {
                self.thread.get_or_init(|| thread::current().id());
                self.home.store(me, Release);
                Claim::Won(kept)
            }
            None => Claim::Lost,
        }
    }
}
