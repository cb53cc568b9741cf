//! The ids of tasks.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Identifies a task among all that there are, in all runtimes: see [`JoinHandle::id`](crate::JoinHandle::id).
///
/// No two tasks have the same one at the same time. When a task has ended and the last handle to it is gone, a later one may get
/// its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(NonZeroUsize);

impl Id {
    /// Of the task at this address.
    pub(super) fn of(address: NonZeroUsize) -> Self {
        Self(address)
    }

    /// Of a task that was refused, which has no memory. Others' ids are addresses: even.
    pub(super) fn of_refused() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        Self(NonZeroUsize::new(NEXT.fetch_add(2, Relaxed)).expect("evbase: an odd number is not zero"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
