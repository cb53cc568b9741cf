//! Blocking waits on threads without a loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Puts a thread to sleep until its waker is woken.
///
/// It sleeps in the standard library's primitives, which share nothing with other locks that a fork could have left locked:
/// the child may wait for a runtime of its own.
#[derive(Default)]
pub(super) struct Parker {
    woken: Mutex<bool>,
    condvar: Condvar,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.lock() = true;
        self.condvar.notify_one();
    }
}

impl Parker {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the future, and sleeps in between, until it is ready; `None` if the deadline comes first.
    pub(super) fn block_on<F: Future + Unpin>(future: &mut F, deadline: Option<Instant>) -> Option<F::Output> {
        let parker = Arc::new(Self::default());
        let waker = Waker::from(parker.clone());
        loop {
            if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            let mut woken = parker.lock();
            while !std::mem::take(&mut *woken) {
                woken = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    None => parker.condvar.wait(woken).unwrap_or_else(PoisonError::into_inner),
                    Some(Duration::ZERO) => return None,
                    Some(rest) => {
                        let waited = parker.condvar.wait_timeout(woken, rest);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        }
    }
}
