//! User code at home that must not take the runtime along when it panics: wakers, destructors, panic payloads.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `code`; a panic ends there, with its payload.
///
/// What the code leaves half done is either gone with it or meant to be left like that: callers drop values and wake wakers.
pub(crate) fn run<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(payload) => {
            drop_payload(payload);
            None
        }
    }
}

/// Wakes a waker that may be anybody's.
pub(crate) fn wake(waker: Waker) {
    run(|| waker.wake());
}

/// Drops what a panic threw. Its destructor may panic as well; what that throws is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
}
