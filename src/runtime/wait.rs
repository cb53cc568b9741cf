//! Blocking waits, for a task or for the end of a runtime.
//!
//! A wait on the home thread drives the runtime meanwhile. Any other thread sleeps until its waker is woken. If runtimes are at
//! home on it, it listens to its bell, and closes those that are asked to stop: what it waits for may depend on that. It
//! doesn't drive them otherwise.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::shutdown::Terminated;
use crate::base::fork;
use crate::executor::{JoinError, JoinHandle, catch_panic};
use crate::home::bell::Bell;
use crate::home::context::{self, Waiting};
use crate::home::{Exit, Goal, Home, Report, RunError, Shared, Standing, WaitError};
use crate::sync;

impl<T> JoinHandle<T> {
    /// Blocks until the task has ended: for threads without a loop. On the home thread of the task's runtime, outside of
    /// any loop, this drives the runtime meanwhile.
    ///
    /// A thread that is home to other runtimes hears their stops while it waits, and closes them.
    ///
    /// # Errors
    ///
    /// The outer one, which detaches the task: [`WaitError::InsideLoop`] inside any evbase loop of this thread, also if the
    /// task has ended; [`WaitError::Unbound`] if no thread has driven the runtime yet; [`WaitError::Forked`] in the child of
    /// a fork; [`WaitError::ThreadExiting`] on a home thread that is exiting; [`WaitError::Io`] on a home thread if the
    /// operating system refuses to wait. The inner one is the task's own.
    ///
    /// # Panics
    ///
    /// If the handle has given its output already. On the home thread also with what a hook of
    /// [`before_wait`](crate::Runtime::before_wait) threw; the runtime remains usable.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let handle = runtime.spawner().spawn(async { 42 });
    /// assert_eq!(handle.wait()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(mut self) -> Result<Result<T, JoinError>, WaitError> {
        not_inside_loop()?;
        if !self.is_finished() {
            match self.owner().and_then(|owner| owner.downcast::<Shared>().ok()) {
                Some(shared) => self.drive_meanwhile(&shared)?,
                // In the child of a fork, the parent's runtime was dropped. Else it has closed since, and the task with it.
                None if !self.is_finished() => return Err(WaitError::Forked),
                None => {}
            }
        }
        Ok(block_on(&mut self, None)?.expect("evbase: a wait without a deadline timed out"))
    }

    /// Runs the runtime until the task has ended, if its home is here.
    fn drive_meanwhile(&self, shared: &Arc<Shared>) -> Result<(), WaitError> {
        let home = match Standing::of(shared) {
            Standing::Here(home) => home,
            Standing::Elsewhere(_) | Standing::Closed(_) => return Ok(()),
            Standing::Unbound => return Err(WaitError::Unbound),
            Standing::Forked => return Err(WaitError::Forked),
            Standing::Exiting => return Err(WaitError::ThreadExiting),
        };
        context::sweep(Some(shared));
        let is_finished = || self.is_finished();
        let goal = Goal {
            until: Some(&is_finished),
            ..Goal::default()
        };
        match home.drive(goal) {
            Ok(_) | Err(RunError::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for the end of a runtime, or until the deadline.
pub(super) fn for_termination(shared: &Arc<Shared>, deadline: Option<Instant>) -> Result<Option<Report>, WaitError> {
    not_inside_loop()?;
    let home = match Standing::of(shared) {
        Standing::Closed(report) => return Ok(Some(report)),
        Standing::Forked => return Err(WaitError::Forked),
        Standing::Exiting => return Err(WaitError::ThreadExiting),
        Standing::Unbound if !shared.stops().requested() => return Err(WaitError::Unbound),
        Standing::Unbound => match Home::bind(shared) {
            Ok(home) => Some(home),
            // Another thread was faster.
            Err(RunError::Stopped | RunError::NotHome { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        Standing::Here(home) => Some(home),
        Standing::Elsewhere(_) => None,
    };
    let Some(home) = home else {
        return block_on(&mut Terminated::new(shared.clone()), deadline);
    };
    context::sweep(Some(shared));
    let goal = Goal {
        deadline,
        ..Goal::default()
    };
    match home.drive(goal) {
        Ok(Exit::Closed(report)) => Ok(Some(report)),
        Ok(Exit::Done | Exit::TimedOut) => Ok(None),
        Err(error) => match shared.report() {
            Some(report) => Ok(Some(report)),
            None => Err(error.into()),
        },
    }
}

/// Asked first, also about what has ended, so that the error doesn't depend on timing.
fn not_inside_loop() -> Result<(), WaitError> {
    match context::inside_loop() {
        true => Err(WaitError::InsideLoop),
        false => Ok(()),
    }
}

impl From<RunError> for WaitError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Forked => Self::Forked,
            RunError::ThreadExiting => Self::ThreadExiting,
            RunError::Nested => Self::InsideLoop,
            RunError::Io(error) => Self::Io(error.kind()),
            RunError::Stopped | RunError::NotHome { .. } => {
                unreachable!("evbase: waits look at both before they drive")
            }
        }
    }
}

/// Polls the future, and sleeps in between, until it is ready; `None` if the deadline comes first.
fn block_on<F: Future + Unpin>(future: &mut F, deadline: Option<Instant>) -> Result<Option<F::Output>, WaitError> {
    let birth = fork::Birth::here();
    let waiting = Waiting::begin();
    let sleeper = Arc::new(Sleeper {
        woken: AtomicBool::new(false),
        bell: waiting.bell.clone(),
        mutex: Mutex::new(()),
        condvar: Condvar::new(),
    });
    let waker = Waker::from(sleeper.clone());
    loop {
        sleeper.woken.store(false, Release);
        let has_rung = sleeper.bell.as_ref().is_some_and(|bell| bell.answer());
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(&waker)) {
            // It may have rung for others as well, whom the next loop or wait of this thread looks at.
            if let (true, Some(bell)) = (has_rung, &sleeper.bell) {
                bell.ring();
                context::pass_rings_on();
            }
            return Ok(Some(output));
        }
        if birth.is_child() {
            // Code that ran in the poll has forked, and this is the child: the wait would not end.
            return Err(WaitError::Forked);
        }
        if let Some(home) = context::adopt() {
            // Others wait for its end as well, and this wait may not last until that of the grace period.
            home.close_at_once();
            continue;
        }
        if let Some(home) = context::due(|_| true) {
            // It may have rung for others as well: this one's loop looks at those, or passes the ring on when it ends.
            if let Some(bell) = &sleeper.bell {
                bell.ring();
            }
            // Its grace period ends early when the future is woken. Stops of the other runtimes are heard meanwhile.
            let is_woken = || sleeper.woken.load(Acquire);
            let goal = Goal {
                until: Some(&is_woken),
                deadline,
                ..Goal::default()
            };
            // A panic is that of another runtime's hook, and is not for this call; the hook is gone, and this is tried again.
            if let Some(Ok(Exit::TimedOut)) = catch_panic::run(|| home.drive(goal)) {
                return Ok(None);
            }
            continue;
        }
        let rest = deadline.map(crate::home::time_until);
        if rest == Some(Duration::ZERO) {
            return Ok(None);
        }
        sleeper.sleep(rest);
    }
}

/// A thread that waits, and the waker that ends its sleep.
struct Sleeper {
    /// Woken since the future was polled.
    woken: AtomicBool,
    /// Of a thread that is home to runtimes. Any other one sleeps in the standard library's condition variable: unlike
    /// parking_lot's, it shares no global lock that a fork could have left locked in the child.
    bell: Option<sync::Arc<Bell>>,
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, AcqRel) {
            return;
        }
        match &self.bell {
            Some(bell) => {
                bell.ring();
            }
            None => {
                // With the lock taken once, the thread either has not looked at `woken` yet, or is in the wait.
                drop(self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
                self.condvar.notify_one();
            }
        }
    }
}

impl Sleeper {
    /// Until it is woken, or its bell rings, or for so long.
    fn sleep(&self, timeout: Option<Duration>) {
        if let Some(bell) = &self.bell {
            return bell.wait(timeout);
        }
        let asleep = |(): &mut ()| !self.woken.load(Acquire);
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        match timeout {
            None => drop(
                self.condvar
                    .wait_while(guard, asleep)
                    .unwrap_or_else(PoisonError::into_inner),
            ),
            Some(timeout) => {
                let waited = self.condvar.wait_timeout_while(guard, timeout, asleep);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}
