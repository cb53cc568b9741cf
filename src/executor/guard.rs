//! User code at home that must not take the runtime along when it panics: wakers, destructors, panic payloads.

use std::any::Any;
use std::mem;
use std::panic::{UnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `code`; a panic ends there, with its payload.
pub(crate) fn run<R>(code: impl FnOnce() -> R + UnwindSafe) -> Option<R> {
    match catch_unwind(code) {
        Ok(value) => Some(value),
        Err(payload) => {
            drop_payload(payload);
            None
        }
    }
}

/// Drops a value whose destructor may panic.
pub(crate) fn drop_value<T>(value: T) {
    run(std::panic::AssertUnwindSafe(|| drop(value)));
}

/// Wakes a waker that may be anybody's.
pub(crate) fn wake(waker: Waker) {
    run(|| waker.wake());
}

/// Drops what a panic threw. Its destructor may panic as well; what that throws is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
}
