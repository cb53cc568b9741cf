//! Blocking work, away from the loop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs a closure that blocks (files, name look-ups, long computations) on a pool of threads, and gives its result.
///
/// The pool is that of the `blocking` crate: shared by the whole process, it grows on demand and shrinks when idle. The
/// work starts at this call. Dropping the future cancels work that has not begun; work that has begun goes on, and its
/// result is dropped there. Works in any executor.
///
/// # Panics
///
/// Awaiting it panics if the closure did.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let text = runtime.block_on(evbase::unblock(|| std::fs::read_to_string("Cargo.toml")))??;
/// assert!(text.contains("evbase"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn unblock<F, T>(work: F) -> impl Future<Output = T> + Send + Unpin
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Unblock(blocking::unblock(work))
}

struct Unblock<T>(blocking::Task<T>);

impl<T> Future for Unblock<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> fmt::Debug for Unblock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unblock").finish_non_exhaustive()
    }
}
