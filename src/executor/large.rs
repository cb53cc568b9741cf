//! Futures that are too large to be moved often.
//!
//! On its way into a task a future is moved some dozen times, and in an unoptimised build each move takes stack of its own: a
//! future of a quarter of a megabyte would overflow it. So every way to spawn boxes a large future first.

use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Whether to box a future of this type first.
pub(crate) const fn is_large<F>() -> bool {
    size_of::<F>() > if cfg!(debug_assertions) { 2 << 10 } else { 16 << 10 }
}

/// A large future in a box, from which it can be taken again if the spawn was refused.
pub(crate) struct Large<F> {
    future: Box<F>,
    /// Pinning this pins the future in the box.
    _pinned: PhantomPinned,
}

impl<F> Large<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::new(future),
            _pinned: PhantomPinned,
        }
    }

    pub(crate) fn into_inner(self) -> F {
        *self.future
    }
}

impl<F: Future> Future for Large<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: a `Large` isn't `Unpin`, and once it is pinned, nothing moves the future out of its box: `into_inner` takes
        // one by value.
        unsafe { self.map_unchecked_mut(|large| &mut *large.future) }.poll(cx)
    }
}
