//! Blocking work, away from the loop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use crate::base::fork;

/// Runs a closure that blocks (files, name look-ups, long computations) on a pool of threads, and gives its result.
///
/// The pool is that of the `blocking` crate: shared by the whole process, it grows on demand and shrinks when idle. The
/// work starts at this call. Dropping the future cancels work that has not begun; work that has begun goes on, and its
/// result is dropped there. Works in any executor.
///
/// # Panics
///
/// Awaiting it panics if the closure did. In the child of a `fork` whose parent has called this before, this call panics: the
/// pool's threads are the parent's.
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
    assert!(
        pool_is_here(),
        "evbase: unblock in the child of a fork, whose parent has used it before: the pool's threads are the parent's"
    );
    Unblock(blocking::unblock(work))
}

/// Whether the pool's threads are of this process, or will be: not in the child of a fork whose parent has asked this before.
///
/// Relaxed is enough: a child sees what its parent's forking thread saw.
pub(crate) fn pool_is_here() -> bool {
    /// One more than the generation of the process that the pool belongs to. Not a `OnceLock`: in the child of a fork, the thread
    /// that was about to set it may not exist.
    static POOL: AtomicUsize = AtomicUsize::new(0);
    // Without memory for this, a fork isn't noticed.
    let _ = fork::watch();
    let here = fork::generation() + 1;
    match POOL.compare_exchange(0, here, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(owner) => owner == here,
    }
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
