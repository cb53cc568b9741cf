//! Blocking waits for what happens elsewhere.
//!
//! A thread that is nobody's home sleeps until its waker is woken. A home listens meanwhile: its runtimes are closed when they
//! are asked to stop, since whoever the thread waits for may wait for that. Everything else that is sent to them waits.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::context;
use super::error::{RunError, WaitError};
use super::home::Home;
use crate::base::{Notifier, fork};

/// How long a home doesn't listen when the kernel doesn't let it.
const NAP: Duration = Duration::from_millis(5);

/// Polls the future, and sleeps in between, until it is ready; `None` if the deadline comes first. Only a future that is
/// ready may be waited for inside a loop.
pub(super) fn block_on<F: Future + Unpin>(
    future: &mut F,
    deadline: Option<Instant>,
) -> Result<Option<F::Output>, WaitError> {
    // What has happened is not to wait for anything of this thread's.
    if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(Some(output));
    }
    let birth = fork::Birth::here();
    let parker = Arc::new(Parker::default());
    loop {
        let listening = Listening::begin();
        let Listening { homes, notifiers } = &listening;
        let due = homes.iter().position(|home| home.is_due());
        let waker = match notifiers.get(due.unwrap_or(0)) {
            Some(notifier) => Waker::from(Arc::new(Bell(notifier.clone()))),
            None => Waker::from(parker.clone()),
        };
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        if birth.is_child() {
            // A destructor has forked, and this is the child, where nothing of all that will happen.
            return Err(WaitError::Forked);
        }
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let time_is_up = rest == Some(Duration::ZERO);
        match due.map(|due| &homes[due]) {
            // One pass of its grace period, or its end; the bell ends the sleep in it.
            Some(home) => {
                if let Err(RunError::Io(_)) = home.turn(rest) {
                    // The kernel won't wait: there is no grace without waiting.
                    home.close_at_once();
                }
                if time_is_up && home.is_due() {
                    return Ok(None);
                }
            }
            None if time_is_up => return Ok(None),
            None if notifiers.is_empty() => parker.park(rest),
            None => {
                if Notifier::wait_for_any(notifiers, rest).is_err() {
                    thread::sleep(rest.map_or(NAP, |rest| rest.min(NAP)));
                }
            }
        }
    }
}

/// The open homes of this thread, whose notifiers are used when they are asked to stop, while this lives.
struct Listening {
    homes: Vec<Rc<Home>>,
    notifiers: Vec<Notifier>,
}

impl Listening {
    fn begin() -> Self {
        let homes = context::homes();
        let notifiers: Vec<_> = homes.iter().filter_map(|home| home.notifier()).collect();
        // Before the look at what there is.
        notifiers.iter().for_each(Notifier::clear);
        for home in &homes {
            home.shared().inbox().listen(true);
        }
        Self { homes, notifiers }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for home in &self.homes {
            home.shared().inbox().listen(false);
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
