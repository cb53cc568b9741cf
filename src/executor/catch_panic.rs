//! Calls of user code (wakers, destructors, closures) whose panic must not unwind through the runtime.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `code`; `None` if it panicked. The payload is dropped.
///
/// Unwind safety is the callers' affair: nothing that `code` has left half done is used afterwards.
pub(crate) fn run<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(payload) => {
            drop_payload(payload);
            None
        }
    }
}

/// Wakes a waker that may be of any executor.
pub(crate) fn wake(waker: Waker) {
    run(|| waker.wake());
}

/// Drops what a panic threw. Its destructor may panic as well; what that throws is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
}
