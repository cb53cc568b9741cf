//! [`block_on`]: a runtime for one future.

use std::future::Future;

use super::runtime::Runtime;
use crate::home::{RunError, context};

/// Runs the future to its end, on a runtime of its own: made for it on this thread, and closed when it ends. The future may borrow,
/// and need not be `Send`.
///
/// What it spawned and has not awaited is cancelled. To do so more than once, make a [`Runtime`] and use its
/// [`block_on`](Runtime::block_on): making one costs some microseconds and two descriptors (Linux; three on kqueue).
///
/// # Errors
///
/// [`RunError::Nested`] inside an evbase loop; [`RunError::Io`] if the operating system has no descriptor or memory for a runtime;
/// [`RunError::Stopped`] if the future has ended its own runtime by a [`Shutdown`](crate::Shutdown); [`RunError::ThreadExiting`].
///
/// # Panics
///
/// If the future does, and with what a hook of [`before_wait`](Runtime::before_wait) threw.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let answer = evbase::block_on(async {
///     evbase::time::sleep(Duration::from_millis(1)).await;
///     evbase::spawn_local(async { 42 }).await
/// })?;
/// assert_eq!(answer?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn block_on<F: Future>(future: F) -> Result<F::Output, RunError> {
    if context::inside_loop() {
        return Err(RunError::Nested);
    }
    Runtime::new().map_err(RunError::Io)?.block_on(future)
}
