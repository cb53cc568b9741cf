//! Blocking waits on threads without a loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Puts a thread to sleep until its waker is woken.
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
        *self.woken.lock() = true;
        self.condvar.notify_one();
    }
}

impl Parker {
    /// Polls the future, and sleeps in between, until it is ready; `None` if the deadline comes first.
    pub(super) fn block_on<F: Future + Unpin>(future: &mut F, deadline: Option<Instant>) -> Option<F::Output> {
        let parker = Arc::new(Self::default());
        let waker = Waker::from(parker.clone());
        loop {
            if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
            let mut woken = parker.woken.lock();
            while !std::mem::take(&mut *woken) {
                match deadline {
                    None => parker.condvar.wait(&mut woken),
                    Some(deadline) if Instant::now() >= deadline => return None,
                    Some(deadline) => drop(parker.condvar.wait_until(&mut woken, deadline)),
                }
            }
        }
    }
}
