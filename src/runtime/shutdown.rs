//! Asking for the end, and waiting for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::future::FusedFuture;

use super::wait;
use crate::executor::{StopLevel, coop};
use crate::home::once::Waiter;
use crate::home::{Home, Report, Shared, Standing, WaitError, context};

/// Ends a runtime from anywhere: from any thread, any number of times, and from a signal handler.
///
/// A handle doesn't keep the runtime running: it is a way to end it. See [`Runtime`](crate::Runtime) for what a stop does
/// in each state.
///
/// # Examples
///
/// ```
/// use evbase::{Cause, Runtime};
///
/// let runtime = Runtime::new()?;
/// let shutdown = runtime.shutdown_handle();
/// let thread = std::thread::spawn(move || shutdown.request());
/// assert_eq!(runtime.run()?.cause, Cause::Requested);
/// thread.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.spawn_local(async { evbase::Shutdown::current().request() })?;
    /// assert_eq!(runtime.run()?.completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        Self::new(context::expect_current().shared().clone())
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
    ///
    /// It wakes home where home sleeps: in its own loop, in that of another runtime of its thread, or in a blocking wait of
    /// evbase's. What it can't wake is a foreign executor that runs on the home thread; see [`Terminated`].
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let shutdown = runtime.shutdown_handle();
    /// // Before the runtime runs, and twice: it is neither lost nor an error.
    /// shutdown.request();
    /// shutdown.request();
    /// assert_eq!(runtime.run()?.cause, evbase::Cause::Requested);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// In a signal handler, which borrows a handle that outlives it:
    ///
    /// ```
    /// use std::sync::OnceLock;
    ///
    /// static SHUTDOWN: OnceLock<evbase::Shutdown> = OnceLock::new();
    ///
    /// extern "C" fn on_signal(_: libc::c_int) {
    ///     if let Some(shutdown) = SHUTDOWN.get() {
    ///         shutdown.request();
    ///     }
    /// }
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// SHUTDOWN.set(runtime.shutdown_handle()).unwrap();
    /// let handler = on_signal as extern "C" fn(libc::c_int);
    /// // SAFETY: the handler does nothing that isn't async-signal-safe.
    /// unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    /// // SAFETY: it takes no pointer.
    /// unsafe { libc::raise(libc::SIGUSR1) };
    /// assert_eq!(runtime.run()?.cause, evbase::Cause::Requested);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&self) {
        self.shared.stop(StopLevel::Request);
    }

    /// Asks for the end without the grace period, or without the rest of it. Otherwise as [`request`](Shutdown::request).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Builder::new().grace(Duration::MAX).build()?;
    /// runtime.spawn_local(std::future::pending::<()>())?;
    /// let shutdown = runtime.shutdown_handle();
    /// runtime.spawn_local(async move {
    ///     shutdown.requested().await;
    ///     shutdown.request_now();
    /// })?;
    /// runtime.shutdown_handle().request();
    /// // Without `request_now` this would wait for ever.
    /// assert_eq!(runtime.run()?.cancelled, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_now(&self) {
        self.shared.stop(StopLevel::Now);
    }

    /// Whether the end was asked for, in whatever way, or has come. From any thread, and async-signal-safe as well.
    pub fn is_requested(&self) -> bool {
        self.shared.stops().requested()
    }

    /// Resolves when the runtime begins to stop, for tasks that have something to finish in the grace period.
    ///
    /// Can be awaited in any executor, on any thread. It is woken by home, when home next runs. Cancel-safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Builder::new().grace(Duration::from_secs(1)).build()?;
    /// let shutdown = runtime.shutdown_handle();
    /// runtime.spawn_local(async move {
    ///     shutdown.requested().await;
    ///     // Here it says goodbye.
    /// })?;
    /// runtime.shutdown_handle().request();
    /// assert_eq!(runtime.run()?.completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn requested(&self) -> Requested {
        Requested {
            shared: self.shared.clone(),
            waiter: Waiter::default(),
        }
    }

    /// Resolves when everything is freed; also a blocking wait. See [`Terminated`] for where it may be awaited.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let shutdown = runtime.shutdown_handle();
    /// shutdown.request();
    /// assert_eq!(shutdown.terminated().wait()?.cause, evbase::Cause::Requested);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn terminated(&self) -> Terminated {
        Terminated::new(self.shared.clone())
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
    waiter: Waiter,
}

impl Future for Requested {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // The bits are set before home sees them and wakes those who wait.
        if this.shared.stops().requested() {
            return coop::spend(cx);
        }
        if this.shared.is_forked() {
            // A thread of the parent may have held the lock at the fork.
            return Poll::Pending;
        }
        match this.shared.stopping.poll(&mut this.waiter, cx.waker(), false) {
            Some(()) => coop::spend(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        if !self.shared.is_forked() {
            self.shared.stopping.leave(&mut self.waiter);
        }
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requested").finish_non_exhaustive()
    }
}

/// Resolves when a runtime is closed: every future dropped, every registration gone, the kernel queue closed. (The notify
/// descriptor stays open until the last handle or waker is dropped.)
///
/// Any number of these may wait; dropping one cancels nothing. It can be awaited in any executor, on any thread. Polled again
/// after it was ready, it gives the same report. In the child of a fork it stays pending.
///
/// A task that awaits the end of its own runtime is itself a task that the grace period waits for.
///
/// # Who closes, and who is woken
///
/// Awaited on another thread than home, it is woken when home has closed the runtime.
///
/// On the home thread, outside of the runtime's loop, home is the thread that polls this. So a poll that finds that the runtime
/// was asked to stop closes it, and takes as long as that does, grace period included. (A runtime without a home is closed
/// like that by a poll on any thread, which becomes its home.) A poll that finds no stop answers `Pending`, and is woken by the
/// stop that lets it make progress:
///
/// * Inside the loop of another runtime of this thread, every stop is heard: it closes the runtime there at once, *without its
///   grace period*, for which that loop would have to wait. (So does a blocking wait of a thread whose loop has polled this before,
///   if the runtime has no home.)
/// * In a foreign executor (`futures::executor::block_on`, a GUI's loop, ...), only a drop of the [`Runtime`](crate::Runtime), or
///   [`Runtime::shutdown`](crate::Runtime::shutdown), wakes it. [`Shutdown::request`] may be called by a signal handler, and no
///   foreign waker may be woken there; so the runtime closes when this is next polled for another reason, or by home's next
///   call that makes, drives or drops a runtime. Where that matters, use [`wait`](Terminated::wait), which hears every stop.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Builder::new().start("home")?;
/// let terminated = runtime.shutdown_handle().terminated();
/// drop(runtime);
/// // Any executor will do, here one that isn't evbase's.
/// let report = futures::executor::block_on(terminated);
/// assert_eq!(report.cause, evbase::Cause::Dropped);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "futures do nothing unless polled; `wait` blocks"]
pub struct Terminated {
    shared: Arc<Shared>,
    waiter: Waiter,
    done: bool,
}

impl Terminated {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            waiter: Waiter::default(),
            done: false,
        }
    }

    /// Blocks until the runtime is closed: for threads without a loop.
    ///
    /// On the runtime's home thread, outside of any loop, this runs the runtime until then, as
    /// [`Runtime::run`](crate::Runtime::run) does. On another thread that is home to other runtimes, those are closed if
    /// they are asked to stop meanwhile.
    ///
    /// # Errors
    ///
    /// [`WaitError::InsideLoop`] inside any evbase loop of this thread, also if the runtime is closed; [`WaitError::Unbound`] if
    /// no thread has driven the runtime yet and nobody has asked it to stop; [`WaitError::Forked`] in the child of a fork;
    /// [`WaitError::ThreadExiting`] on a home thread that is exiting; [`WaitError::Io`] on a home thread if the operating
    /// system refuses to wait.
    ///
    /// # Panics
    ///
    /// On the home thread, with what a hook of [`before_wait`](crate::Runtime::before_wait) threw; the runtime remains usable.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let task = runtime.spawner().spawn(async { 42 });
    /// assert_eq!(task.wait()??, 42);
    /// let report = runtime.shutdown().wait()?;
    /// assert_eq!(report.completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(self) -> Result<Report, WaitError> {
        loop {
            if let Some(report) = wait::for_termination(&self.shared, None)? {
                return Ok(report);
            }
        }
    }

    /// As [`wait`](Terminated::wait), for `timeout` at most: then `None`. A wait that timed out cancels nothing. At home it makes one
    /// pass of the loop at least, also with a timeout of zero.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Terminated::wait).
    ///
    /// # Panics
    ///
    /// As [`wait`](Terminated::wait) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let terminated = runtime.shutdown_handle().terminated();
    /// assert_eq!(terminated.wait_timeout(Duration::from_millis(1))?, None);
    /// drop(runtime);
    /// assert_eq!(terminated.wait()?.cause, evbase::Cause::Dropped);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Report>, WaitError> {
        wait::for_termination(&self.shared, Instant::now().checked_add(timeout))
    }

    /// If this poll is at home, outside of the loop, or there is no home yet: closes a runtime that was asked to stop; has this
    /// thread's bell rung by later stops, if a loop runs here.
    fn help_along(&self) {
        match Standing::of(&self.shared) {
            Standing::Here(home) if home.is_due() && !home.is_left_to_host() => home.close_in_passing(),
            Standing::Unbound => {
                if context::inside_loop() && !self.shared.stops().requested() {
                    context::listen_for(&self.shared);
                }
                if self.shared.stops().requested() {
                    if let Ok(home) = Home::bind(&self.shared) {
                        home.close_in_passing();
                    }
                }
            }
            // Home sees its stops itself, or will never run again.
            Standing::Here(_) | Standing::Elsewhere(_) | Standing::Exiting | Standing::Closed(_) | Standing::Forked => {
            }
        }
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
        // At home, outside of the loop, a poll after the drop of the runtime closes it: that drop wakes this waker. This thread may
        // leave the loop before, or become home, and not poll again.
        let can_help = matches!(Standing::of(&this.shared), Standing::Here(_) | Standing::Unbound);
        // The waker is kept before `help_along` looks at the stops: a stop that comes after that finds it.
        let mut report = this.shared.closed.poll(&mut this.waiter, cx.waker(), can_help);
        if report.is_none() {
            this.help_along();
            report = this.shared.report();
        }
        match report {
            Some(report) => {
                ready!(coop::spend(cx));
                this.done = true;
                Poll::Ready(report)
            }
            None => Poll::Pending,
        }
    }
}

impl FusedFuture for Terminated {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl Drop for Terminated {
    fn drop(&mut self) {
        if !self.shared.is_forked() {
            self.shared.closed.leave(&mut self.waiter);
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
