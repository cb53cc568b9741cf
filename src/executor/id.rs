//! The ids of tasks, and which task a thread is in.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::sync::thread_cell;

/// Identifies a task among all that there are, in all runtimes: see [`JoinHandle::id`](crate::JoinHandle::id).
///
/// No two tasks have the same one at the same time. When a task has ended, and its output was taken or its handles are gone, a
/// later one may get its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(NonZeroUsize);

impl TaskId {
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

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

thread_cell!(RUNNING: Option<TaskId> = None);

/// Runs `code`, which polls or drops the future of that task, or of a root, which is none. It doesn't panic.
#[inline]
pub(super) fn while_running<R>(task: Option<TaskId>, code: impl FnOnce() -> R) -> R {
    // Not `None` if another runtime is driven, or closed, within a poll of a task of this thread.
    let outer = replace(task);
    let result = code();
    replace(outer);
    result
}

/// The task whose future this thread polls or drops: the innermost one.
pub(crate) fn running() -> Option<TaskId> {
    RUNNING.try_with(Cell::get).unwrap_or(None)
}

fn replace(task: Option<TaskId>) -> Option<TaskId> {
    // On some platforms this thread-local is gone while the thread exits: no task is known then.
    RUNNING.try_with(|running| running.replace(task)).unwrap_or(None)
}
