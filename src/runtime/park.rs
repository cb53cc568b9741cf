//! Blocking waits for what happens elsewhere.
//!
//! A thread that is nobody's home sleeps until its waker is woken. A home stays within reach meanwhile: it takes in what
//! comes, and closes if it is asked to, since whoever it waits for may wait for that.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::context;
use super::error::WaitError;
use super::home::Home;
use crate::base::Notifier;

/// Polls the future, and sleeps in between, until it is ready; `None` if the deadline comes first. Outside of any loop.
pub(super) fn block_on<F: Future + Unpin>(
    future: &mut F,
    deadline: Option<Instant>,
) -> Result<Option<F::Output>, WaitError> {
    let parker = Arc::new(Parker::default());
    loop {
        context::sweep();
        let homes = context::homes();
        // Also takes back the mark of a parked home.
        homes.iter().for_each(Home::listen);
        let notifiers: Vec<Notifier> = homes.iter().filter_map(|home| home.notifier()).collect();
        let waker = match notifiers.first() {
            Some(notifier) => Waker::from(Arc::new(Bell(notifier.clone()))),
            None => Waker::from(parker.clone()),
        };
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest == Some(Duration::ZERO) {
            return Ok(None);
        }
        if notifiers.is_empty() {
            parker.park(rest);
        } else if homes.iter().all(|home| home.park_outside()) {
            Notifier::wait_for_any(&notifiers, rest).map_err(|error| WaitError::Io(error.kind()))?;
        }
    }
}

/// Ends the sleep of a home outside of its loop.
struct Bell(Notifier);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It can't fail on a descriptor that nobody else tampers with.
        let _ = self.0.notify();
    }
}

/// Ends the sleep of a thread that is nobody's home.
///
/// It sleeps in the standard library's primitives, which share nothing with other locks that a fork could have left locked:
/// the child may wait for a runtime of its own.
#[derive(Default)]
struct Parker {
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

    /// Sleeps until it was woken since the last time, or for so long.
    fn park(&self, timeout: Option<Duration>) {
        let asleep = |woken: &mut bool| !*woken;
        let woken = self.lock();
        let mut woken = match timeout {
            None => self
                .condvar
                .wait_while(woken, asleep)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.condvar.wait_timeout_while(woken, timeout, asleep);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        *woken = false;
    }
}
