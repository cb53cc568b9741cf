//! A future with a time limit.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::sleep::{Sleep, sleep, sleep_until};
use crate::home::coop;

/// Gives the future's output, or [`Elapsed`] if it takes longer than `duration`, counted from this call.
///
/// The future is polled first: one that is ready at its last moment is ready. It is dropped with the returned future, so
/// that this is as cancel-safe as the future is.
///
/// # Panics
///
/// When the returned future is polled outside of a runtime, unless the inner one is ready at once.
///
/// # Examples
///
/// ```
/// use std::{future::pending, time::Duration};
///
/// let runtime = evbase::Runtime::new()?;
/// let limited = evbase::time::timeout(Duration::from_millis(1), pending::<()>());
/// assert!(runtime.block_on(limited)?.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep(duration),
        yielded: false,
    }
}

/// As [`timeout`], until a point in time.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use evbase::time::{sleep, timeout_at};
///
/// let runtime = evbase::Runtime::new()?;
/// let deadline = Instant::now() + Duration::from_millis(1);
/// // Two steps that share a limit.
/// let first = runtime.block_on(timeout_at(deadline, async { 42 }))?;
/// let second = runtime.block_on(timeout_at(deadline, sleep(Duration::from_secs(3600))))?;
/// assert!(first == Ok(42) && second.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep_until(deadline),
        yielded: false,
    }
}

pin_project! {
    /// The future of [`timeout`] and [`timeout_at`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
        // An earlier poll found that the time was up, but had no budget left.
        yielded: bool,
    }
}

impl<F> Timeout<F> {
    /// The future inside.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match *this.yielded {
            false => coop::poll_for(cx, |cx| this.future.poll(cx)),
            // This is its last moment, whoever has spent the budget.
            true => this.future.poll(cx),
        };
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        ready!(this.sleep.poll_deadline(cx));
        // Only once: a future that spends the whole budget of every poll shall be stopped by the limit, too.
        if !std::mem::replace(this.yielded, true) {
            ready!(coop::spend(cx));
        }
        Poll::Ready(Err(Elapsed(())))
    }
}

/// The time limit of a [`timeout`] has passed. As an [`io::Error`], it is `TimedOut`.
///
/// # Examples
///
/// ```
/// use std::{future::pending, io, time::Duration};
/// use evbase::time::timeout;
///
/// let runtime = evbase::Runtime::new()?;
/// let limited = runtime.block_on(timeout(Duration::ZERO, pending::<()>()))?;
/// assert_eq!(io::Error::from(limited.unwrap_err()).kind(), io::ErrorKind::TimedOut);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}
