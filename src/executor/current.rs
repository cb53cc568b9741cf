//! The executor whose loop this thread is in, so that a wake-up knows whether it is at home.

use std::cell::Cell;
use std::ptr;

use super::Executor;
use super::inbox::Inbox;
use crate::sync::{Arc, thread_cell};

#[derive(Clone, Copy)]
struct Current {
    inbox: *const Inbox,
    executor: *const Executor,
}

thread_cell!(CURRENT: Current = Current { inbox: ptr::null(), executor: ptr::null() });

/// Says in the loop of which executor this thread is from now on.
///
/// # Safety
///
/// This thread is the executor's home, and the executor stays where it is until this is called again on this thread.
pub(crate) unsafe fn set(executor: Option<&Executor>) {
    // On some platforms this thread-local is gone while the thread exits: then `with` finds no executor.
    let _ = CURRENT.try_with(|current| {
        current.set(Current {
            inbox: executor.map_or(ptr::null(), |executor| Arc::as_ptr(&executor.inbox)),
            executor: executor.map_or(ptr::null(), ptr::from_ref),
        });
    });
}

/// Calls `f` with the executor of `inbox`, if this thread is in its loop.
#[inline]
pub(super) fn with<R>(inbox: *const Inbox, f: impl FnOnce(&Executor) -> R) -> Option<R> {
    let current = CURRENT.try_with(Cell::get).ok()?;
    if current.inbox != inbox {
        return None;
    }
    // SAFETY: `set` was called on this thread, with an executor that stays until `set` is called again. `f` doesn't do that: the
    // callers' closures run no user code, but for an observer when a task is spawned; and who spawns keeps the executor meanwhile.
    Some(f(unsafe { &*current.executor }))
}

/// Calls `f` as in the loop of `executor`.
#[cfg(test)]
pub(super) fn within<R>(executor: &Executor, f: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            // SAFETY: there is no executor that would have to stay.
            unsafe { set(None) };
        }
    }
    let _leave = Leave;
    // SAFETY: an executor can't be borrowed on another thread than its home. This one is, until `_leave` goes.
    unsafe { set(Some(executor)) };
    f()
}
