//! [`AbortOnDrop`]: a join handle that doesn't detach.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{JoinError, JoinHandle};

/// A [`JoinHandle`] whose drop aborts the task; made by [`JoinHandle::abort_on_drop`].
///
/// Awaiting it is awaiting the handle, and its other methods are the handle's. It is cancel-safe in the sense that nothing is lost
/// when it is polled by reference; a future that owns it aborts the task when it is dropped.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let task = evbase::spawn_local(std::future::pending::<()>()).abort_on_drop();
///     let abort_handle = task.abort_handle();
///     // The timeout drops it, and so the task ends; a mere JoinHandle would let it go on.
///     assert!(evbase::time::timeout(Duration::from_millis(1), task).await.is_err());
///     evbase::yield_now().await;
///     assert!(abort_handle.is_finished());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it aborts the task"]
pub struct AbortOnDrop<T> {
    /// `None` only while it is being detached.
    handle: Option<JoinHandle<T>>,
}

impl<T> JoinHandle<T> {
    /// A handle to the same task that aborts it when it is dropped, where this one would detach it.
    pub fn abort_on_drop(self) -> AbortOnDrop<T> {
        AbortOnDrop { handle: Some(self) }
    }
}

impl<T> AbortOnDrop<T> {
    /// The handle that it was made of: the task goes on when that is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(async { 42 })?.abort_on_drop();
    /// let task = task.detach();
    /// assert_eq!(runtime.block_on(task)??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(mut self) -> JoinHandle<T> {
        self.handle.take().expect("evbase: a handle is detached once")
    }
}

impl<T> Deref for AbortOnDrop<T> {
    type Target = JoinHandle<T>;

    fn deref(&self) -> &JoinHandle<T> {
        self.handle.as_ref().expect("evbase: a detached handle is gone")
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle.as_mut().expect("evbase: a detached handle is gone");
        Pin::new(handle).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl<T> fmt::Debug for AbortOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AbortOnDrop").field(&**self).finish()
    }
}
