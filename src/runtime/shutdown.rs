//! Asking for the end, and waiting for it.

use std::future::Future;
use std::os::raw::c_int;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{fmt, io};

use futures_core::future::FusedFuture;

use super::error::WaitError;
use super::home::{Exit, Goal, Home};
use super::shared::Shared;
use super::signals::SignalGuard;
use super::waiters::Place;
use super::{context, park};
use crate::executor::{StopLevel, Stops};

/// Why a runtime ended: the first of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// [`Shutdown::request`], [`Shutdown::request_now`] or a signal asked for it.
    Requested,
    /// The [`Runtime`](crate::Runtime) was dropped, or consumed by [`Runtime::shutdown`](crate::Runtime::shutdown).
    Dropped,
    /// The home thread exited.
    HomeExited,
}

impl Cause {
    pub(super) fn of(stops: Stops) -> Self {
        if stops.by_drop() {
            Self::Dropped
        } else {
            Self::Requested
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::Dropped => "dropped",
            Self::HomeExited => "its home thread exited",
        })
    }
}

/// What became of a runtime and its tasks: accepted = completed + cancelled + panicked.
///
/// The futures given to `block_on`, and tasks that were refused, count nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Why the runtime ended.
    pub cause: Cause,
    /// Tasks whose future gave its output.
    pub completed: u64,
    /// Tasks that were aborted, or whose future was dropped at the end.
    pub cancelled: u64,
    /// Tasks whose future panicked.
    pub panicked: u64,
}

impl Report {
    pub(super) fn of(shared: &Shared, cause: Cause) -> Self {
        let counts = shared.inbox().counts();
        Self {
            cause,
            completed: counts.completed.get(),
            cancelled: counts.cancelled.get(),
            panicked: counts.panicked.get(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} tasks completed, {} cancelled, {} panicked",
            self.cause, self.completed, self.cancelled, self.panicked
        )
    }
}

/// Ends a runtime from anywhere: from any thread, any number of times, and from a signal handler.
///
/// A handle doesn't keep the runtime running: it is a way to end it. See [`Runtime`](crate::Runtime) for what a stop does
/// in each state.
#[derive(Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

impl Shutdown {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The handle of the runtime that this code runs in: of the innermost running loop, or
    /// [`EnterGuard`](crate::EnterGuard), of this thread.
    ///
    /// # Panics
    ///
    /// Outside of both; see [`try_current`](Shutdown::try_current).
    #[track_caller]
    pub fn current() -> Self {
        Self::try_current().unwrap_or_else(|| panic!("{}", super::NO_CONTEXT))
    }

    /// As [`current`](Shutdown::current), or `None` outside.
    pub fn try_current() -> Option<Self> {
        context::current().map(|home| Self::new(home.shared().clone()))
    }

    /// Asks for the end, with the grace period that the builder was given.
    ///
    /// From any thread, and from a signal handler: it is async-signal-safe, lock-free, doesn't allocate, and keeps
    /// `errno`. It never blocks, and is never lost: a stop asked for before the loop runs ends it when it does. Later
    /// calls do nothing.
    pub fn request(&self) {
        self.shared.stop(StopLevel::Request);
    }

    /// Asks for the end without the grace period, or without the rest of it. Otherwise as [`request`](Shutdown::request).
    pub fn request_now(&self) {
        self.shared.stop(StopLevel::Now);
    }

    /// Whether the end was asked for, by whatever way, or has come. Async-signal-safe as well.
    pub fn is_requested(&self) -> bool {
        self.shared.stops().requested()
    }

    /// Resolves when the runtime begins to stop, for tasks that have something to finish in the grace period.
    ///
    /// Can be awaited in any executor. It is woken by home, when home next runs. Cancel-safe.
    pub fn requested(&self) -> Requested {
        Requested {
            shared: self.shared.clone(),
            place: Place::default(),
        }
    }

    /// Resolves when everything is freed; also a blocking wait.
    pub fn terminated(&self) -> Terminated {
        Terminated::new(self.shared.clone())
    }

    /// Ends the runtime when one of the signals comes: the first one as [`request`](Shutdown::request), a second one, of
    /// whichever of them, as [`request_now`](Shutdown::request_now).
    ///
    /// Handlers of others for the same signals are called as well. When the guard is dropped, the signals no longer end
    /// the runtime. They don't get their default disposition back, though: a handler that does nothing stays in its place
    /// (the registry behind it, signal-hook's, can't take it out safely), so that Ctrl-C has no effect from then on.
    ///
    /// From any thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for `SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE` and `SIGSEGV`, which can't be handled like this, and
    /// for numbers that are no signal. No signal is handled then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let runtime = evbase::Runtime::new()?;
    /// let _guard = runtime.shutdown_handle().on_signals(&[2, 15])?;
    /// println!("{}", runtime.run()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_signals(&self, signals: &[c_int]) -> io::Result<SignalGuard> {
        SignalGuard::new(self.clone(), signals)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("is_requested", &self.is_requested())
            .finish_non_exhaustive()
    }
}

/// The future of [`Shutdown::requested`].
#[must_use = "futures do nothing unless polled"]
pub struct Requested {
    shared: Arc<Shared>,
    place: Place,
}

impl Future for Requested {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // The bits come first; home tells who waits when it has seen them.
        if this.shared.stops().requested() {
            return Poll::Ready(());
        }
        if this.shared.is_forked() {
            // Home is in another process, and so may be whoever holds the lock.
            return Poll::Pending;
        }
        match this.shared.stopping.poll(&mut this.place, cx.waker()) {
            Some(()) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        if !self.shared.is_forked() {
            self.shared.stopping.leave(&mut self.place);
        }
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requested").finish_non_exhaustive()
    }
}

/// Resolves when a runtime is closed: every future dropped, every registration gone, the kernel queue closed.
///
/// Any number of these may wait; dropping one cancels nothing. It can be awaited in any executor, on any thread. On the
/// runtime's home thread, outside of its loop, polling it closes a runtime that was asked to stop, since nobody else can:
/// that poll takes as long as the closing does, grace period included (but none inside the loop of another runtime). So it
/// does on any thread, if the runtime has no home yet. In the child of a fork it stays pending.
///
/// A task that awaits the end of its own runtime holds up the grace period: it is one of the tasks that this waits for.
///
/// Polled again after it was ready, it gives the same report.
#[must_use = "futures do nothing unless polled; `wait` blocks"]
pub struct Terminated {
    shared: Arc<Shared>,
    place: Place,
    done: bool,
}

impl Terminated {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            place: Place::default(),
            done: false,
        }
    }

    /// Blocks until the runtime is closed.
    ///
    /// On its home thread, outside of any loop, this runs the runtime until then, as
    /// [`Runtime::run`](crate::Runtime::run) does.
    ///
    /// # Errors
    ///
    /// [`WaitError::InsideLoop`] inside any evbase loop of this thread; [`WaitError::Unbound`] if no thread has driven the
    /// runtime yet and nobody has asked it to stop; [`WaitError::Forked`] in the child of a fork;
    /// [`WaitError::ThreadExiting`] on a home thread that is exiting; [`WaitError::Io`] on a home thread if the operating
    /// system refuses to wait.
    pub fn wait(mut self) -> Result<Report, WaitError> {
        loop {
            if let Some(report) = self.wait_until(None)? {
                return Ok(report);
            }
        }
    }

    /// As [`wait`](Terminated::wait), for `timeout` at most: then `None`. A wait that timed out cancels nothing.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Terminated::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Report>, WaitError> {
        Self::new(self.shared.clone()).wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<Report>, WaitError> {
        if let Some(report) = self.shared.report() {
            return Ok(Some(report));
        }
        if let Some(home) = home_to_drive(&self.shared, |shared| shared.stops().requested())? {
            let goal = Goal {
                deadline,
                ..Goal::default()
            };
            return match home.drive(goal) {
                Ok(Exit::Closed(report)) => Ok(Some(report)),
                Ok(Exit::Done | Exit::TimedOut) => Ok(None),
                Err(error) => match self.shared.report() {
                    Some(report) => Ok(Some(report)),
                    None => Err(error.into()),
                },
            };
        }
        park::block_on(self, deadline)
    }
}

/// For a blocking wait on something of a runtime's: its home, if that is here and has to be driven meanwhile; or `None`
/// if another thread is home. `unbound_is_fine` says whether a runtime that has no home is to be bound here.
pub(super) fn home_to_drive(
    shared: &Arc<Shared>,
    unbound_is_fine: impl Fn(&Shared) -> bool,
) -> Result<Option<Rc<Home>>, WaitError> {
    if shared.is_forked() {
        return Err(WaitError::Forked);
    }
    if context::inside_loop() {
        return Err(WaitError::InsideLoop);
    }
    let here = shared.binding.is_home(context::thread_number());
    if !here && shared.binding.is_bound() {
        return Ok(None);
    }
    if !here && !unbound_is_fine(shared) {
        return Err(WaitError::Unbound);
    }
    // The others of this thread.
    context::sweep_but(shared.id());
    match Home::bind(shared) {
        Ok(home) => Ok(Some(home)),
        // Closed, or bound by another thread, since.
        Err(super::RunError::Stopped | super::RunError::NotHome { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Future for Terminated {
    type Output = Report;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let this = self.get_mut();
        if this.shared.is_forked() {
            // The runtime ends in another process.
            return Poll::Pending;
        }
        if !this.done
            && let Some(home) = home_if_due(&this.shared)
        {
            home.close_in_passing();
        }
        match this.shared.closed.poll(&mut this.place, cx.waker()) {
            Some(report) => {
                this.done = true;
                Poll::Ready(report)
            }
            None => Poll::Pending,
        }
    }
}

/// The home of a runtime that was asked to stop, if that is, or becomes, this thread, and is not in its loop: then it is to
/// be closed here.
pub(super) fn home_if_due(shared: &Arc<Shared>) -> Option<Rc<Home>> {
    if shared.is_forked() || !shared.stops().requested() {
        return None;
    }
    if shared.binding.is_bound() && !shared.binding.is_home(context::thread_number()) {
        return None;
    }
    Home::bind(shared).ok().filter(|home| home.is_due())
}

impl FusedFuture for Terminated {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Terminated {
    fn drop(&mut self) {
        if !self.shared.is_forked() {
            self.shared.closed.leave(&mut self.place);
        }
    }
}

impl fmt::Debug for Terminated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminated")
            .field("report", &self.shared.report())
            .finish_non_exhaustive()
    }
}
