//! [`Runtime`], the owning handle.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::ThreadId;
use std::time::Duration;

use super::builder::Builder;
use super::metrics::Metrics;
use super::shutdown::{Shutdown, Terminated};
use super::spawner::{LocalSpawner, Spawner};
use crate::executor::{JoinHandle, Large, Origin, Priority, Root, catch_panic, is_large};
use crate::home::{Exit, Goal, Home, Report, RootFuture, RunError, Shared, SpawnError, Standing, Turn, close, context};

/// A single-threaded async runtime on its own event base.
///
/// It can be made anywhere, and sent and shared: the first thread that drives it ([`block_on`](Runtime::block_on),
/// [`run`](Runtime::run), [`turn`](Runtime::turn)), enters it, spawns locally, embeds or dumps it, or gives it a hook becomes
/// its *home*. Everything the runtime owns is touched, dropped and freed there. To spawn before there is a home:
/// [`Spawner::spawn_with`].
///
/// # Dropping
///
/// Dropping the runtime shuts it down, on whichever thread; it never blocks on another one:
///
/// | the home thread is | what a drop does |
/// |---|---|
/// | not there yet | closes at once, here |
/// | asleep in the kernel, or running a task | home closes when it wakes, or after that poll |
/// | this one, inside a task of the runtime | the loop closes after that poll |
/// | this one, outside of the loop | closes before `drop` returns, grace period included |
/// | another one, in the loop or a blocking wait of another runtime | home is woken, and closes: without a grace period in that loop, with it in a wait |
/// | another one, embedded in a loop by [`Embedded`](crate::Embedded) | the host's turns run the grace period, and close |
/// | another one, doing something else | home closes when it next makes, drives or drops a runtime, enters a loop or a wait of evbase's, polls the [`Terminated`], or exits |
/// | in a task that never returns | nothing can close: the drop returns, [`Terminated`] stays pending |
/// | exiting from inside a task (`process::exit`) | nothing is dropped or closed; the process ends |
/// | gone | it was closed then |
/// | the parent's, in the child of a `fork` | the child closes its own copies of the descriptors; the parent goes on |
///
/// [`shutdown`](Runtime::shutdown) does the same and says when it is done. A drop inside the loop of *another* runtime of the
/// same thread counts as "outside of the loop": with a grace period, that loop waits for it. The notify descriptor stays open
/// until the last handle or waker is dropped.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// assert_eq!(runtime.block_on(async { 40 + 2 })?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Runtime {
    shared: Arc<Shared>,
}

impl Runtime {
    /// Makes a runtime with the default settings, which has no home yet. On any thread.
    ///
    /// # Errors
    ///
    /// What the operating system says when there are no descriptors or memory left.
    pub fn new() -> io::Result<Self> {
        Builder::new().build()
    }

    /// A [`Builder`], for other settings.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn unbound(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs the future to its end, and the runtime's tasks meanwhile. The future may borrow, and need not be `Send`.
    ///
    /// On the home thread only; a runtime without a home gets this thread for one. Not inside a loop of evbase, whichever
    /// runtime's.
    ///
    /// What was spawned and is not done when it ends waits for the next run. Once a stop was asked for, this returns only
    /// when the runtime is closed: with the output if the future came to its end in the grace period, or in the poll that
    /// was running, else with [`RunError::Stopped`].
    ///
    /// # Errors
    ///
    /// All of [`RunError`]; the future is dropped.
    ///
    /// # Panics
    ///
    /// If the future does, and with what a hook of [`before_wait`](Runtime::before_wait) threw; the runtime remains usable.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let text = String::from("borrowed");
    /// let len = runtime.block_on(async { text.len() })?;
    /// assert_eq!(len, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RunError> {
        let home = self.to_drive()?;
        let mut root = BlockedOn {
            future: pin!(Some(future)),
            output: None,
        };
        home.drive(Goal {
            root: Some(&mut root),
            ..Goal::default()
        })?;
        match root.output {
            Some(Ok(output)) => Ok(output),
            Some(Err(payload)) => resume_unwind(payload),
            None => Err(RunError::Stopped),
        }
    }

    /// Runs the runtime's tasks until it is shut down: by [`Shutdown`], or by a drop. On a runtime that is closed it gives the
    /// report at once, on any thread; else from where [`block_on`](Runtime::block_on) may be called.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Stopped`.
    ///
    /// # Panics
    ///
    /// With what a hook of [`before_wait`](Runtime::before_wait) threw; the runtime remains usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let shutdown = runtime.shutdown_handle();
    /// runtime.spawn_local(async move {
    ///     evbase::time::sleep(Duration::from_millis(1)).await;
    ///     shutdown.request();
    /// })?;
    /// let report = runtime.run()?;
    /// assert_eq!((report.cause, report.completed), (evbase::Cause::Requested, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(&self) -> Result<Report, RunError> {
        match self.to_drive().and_then(|home| home.drive(Goal::default())) {
            Ok(Exit::Closed(report)) => Ok(report),
            Ok(Exit::Done | Exit::TimedOut) => unreachable!("evbase: a run without a goal came to an end"),
            // Closed before, or meanwhile.
            Err(error) => self.shared.report().ok_or(error),
        }
    }

    /// One pass of the loop, for programs that have a loop of their own: waits for events, `timeout` at most (`None` is
    /// without end), unless tasks are ready; fires timers; runs ready tasks, as many as the event interval says.
    ///
    /// In the grace period it is one pass of that; the pass that closes the runtime says so in its [`Turn`]. It may be called
    /// from where [`block_on`](Runtime::block_on) may be.
    ///
    /// # Errors
    ///
    /// All of [`RunError`]; `Stopped` after the pass that closed.
    ///
    /// # Panics
    ///
    /// With what a hook of [`before_wait`](Runtime::before_wait) threw; the runtime remains usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(async {
    ///     evbase::time::sleep(Duration::from_millis(2)).await;
    ///     42
    /// })?;
    /// while !task.is_finished() {
    ///     // Here is what else the program's loop does.
    ///     runtime.turn(Some(Duration::from_millis(10)))?;
    /// }
    /// assert_eq!(task.wait()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn turn(&self, timeout: Option<Duration>) -> Result<Turn, RunError> {
        self.to_drive()?.turn(timeout)
    }

    /// Binds; an error if a loop runs on this thread.
    fn to_drive(&self) -> Result<Rc<Home>, RunError> {
        // The thread's other runtimes, whatever becomes of this call; this one's own loop sees its stops.
        context::sweep(Some(&self.shared));
        match Standing::of(&self.shared) {
            Standing::Forked => return Err(RunError::Forked),
            Standing::Closed(_) => return Err(RunError::Stopped),
            _ => {}
        }
        if context::inside_loop() {
            return Err(RunError::Nested);
        }
        Home::bind(&self.shared)
    }

    /// Spawns a task that need not be `Send`, at home; a runtime without a home gets this thread for one. It is polled
    /// when the runtime is driven.
    ///
    /// # Errors
    ///
    /// The future comes back: [`SpawnErrorKind::NotHome`](crate::SpawnErrorKind::NotHome) on another thread, [`SpawnErrorKind::Stopped`](crate::SpawnErrorKind::Stopped) when the runtime
    /// is closing or closed, and the other two of [`SpawnErrorKind`](crate::SpawnErrorKind).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let shared = Rc::new(41);
    /// let task = runtime.spawn_local(async move { *shared + 1 })?;
    /// assert_eq!(runtime.block_on(task)??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + 'static,
    {
        if const { is_large::<F>() } {
            return self.bind_and_spawn(Large::new(future)).map_err(SpawnError::unboxed);
        }
        self.bind_and_spawn(future)
    }

    #[track_caller]
    fn bind_and_spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + 'static,
    {
        match Home::bind(&self.shared) {
            Ok(home) => home.spawn_local(future, Origin::here(Priority::Normal)),
            Err(error) => Err(SpawnError::new(error.into(), future)),
        }
    }

    /// Makes this runtime the context of the free functions ([`spawn_local`](crate::spawn_local), [`Spawner::current`],
    /// timers and I/O) on this thread, while the guard lives. It runs nothing. On the home thread only, also inside a loop; a
    /// runtime without a home gets this thread for one.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested` and `Io`.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = {
    ///     let _guard = runtime.enter()?;
    ///     // Outside of any loop, but in the runtime's context.
    ///     evbase::spawn_local(async { 42 })
    /// };
    /// assert_eq!(runtime.block_on(task)??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enter(&self) -> Result<EnterGuard<'_>, RunError> {
        let home = Home::bind(&self.shared)?;
        Ok(EnterGuard {
            _context: context::Context::enter(&home),
            runtime: PhantomData,
        })
    }

    /// A handle that spawns from any thread. On any thread.
    pub fn spawner(&self) -> Spawner {
        Spawner::new(self.shared.clone())
    }

    /// A handle that spawns at home; makes this thread home if there is none.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested` and `Io`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let spawner = runtime.local_spawner()?;
    /// let shared = Rc::new(41);
    /// let task = spawner.spawn_local(async move { *shared + 1 })?;
    /// assert_eq!(runtime.block_on(task)??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local_spawner(&self) -> Result<LocalSpawner, RunError> {
        Home::bind(&self.shared).map(LocalSpawner::new)
    }

    /// A handle that ends the runtime from anywhere. On any thread.
    pub fn shutdown_handle(&self) -> Shutdown {
        Shutdown::new(self.shared.clone())
    }

    /// Does what dropping the runtime does, and returns a future that is ready when it is done. On any thread.
    ///
    /// At home, outside of the loop, this call itself takes the grace period, as a drop does: what bounds it there is
    /// [`Builder::grace`], and not a timeout of the wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let task = runtime.spawner().spawn(std::future::pending::<()>());
    /// let report = runtime.shutdown().wait()?;
    /// assert_eq!(report.cancelled, 1);
    /// assert!(task.wait()?.unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(self) -> Terminated {
        let terminated = Terminated::new(self.shared.clone());
        drop(self);
        terminated
    }

    /// The home thread, once there is one. On any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// assert_eq!(runtime.home(), None);
    /// runtime.block_on(async {})?;
    /// assert_eq!(runtime.home(), Some(std::thread::current().id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn home(&self) -> Option<ThreadId> {
        self.shared.home()
    }

    /// What the runtime has done so far. On any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.spawn_local(async {})?;
    /// runtime.spawn_local(std::future::pending::<()>())?;
    /// runtime.block_on(evbase::yield_now())?;
    /// let metrics = runtime.metrics();
    /// assert_eq!((metrics.spawned, metrics.completed, metrics.alive()), (2, 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.shared)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        close::dropped(&self.shared);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("home", &self.home())
            .field("stop_requested", &self.shared.stops().requested())
            .field("report", &self.shared.report())
            .finish_non_exhaustive()
    }
}

/// Makes a runtime the context of the free functions while it lives; made by [`Runtime::enter`].
///
/// Guards may be dropped in any order: the innermost of those alive counts. Not `Send`:
///
/// ```compile_fail
/// let runtime: &'static evbase::Runtime = Box::leak(Box::new(evbase::Runtime::new().unwrap()));
/// let guard = runtime.enter().unwrap();
/// std::thread::spawn(move || drop(guard));
/// ```
#[must_use = "the context ends when the guard is dropped"]
pub struct EnterGuard<'a> {
    _context: context::Context,
    runtime: PhantomData<&'a Runtime>,
}

impl fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnterGuard").finish_non_exhaustive()
    }
}

/// The future of `block_on`, on that function's stack.
struct BlockedOn<'a, F: Future> {
    future: Pin<&'a mut Option<F>>,
    output: Option<Result<F::Output, Box<dyn Any + Send>>>,
}

impl<F: Future> Root for BlockedOn<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let future = self.future.as_mut().as_pin_mut();
            let polled = future.expect("evbase: the root is polled while it lives").poll(cx);
            if polled.is_ready() {
                self.future.set(None);
            }
            polled
        }));
        self.output = match polled {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => Some(Ok(output)),
            Err(payload) => {
                self.discard();
                Some(Err(payload))
            }
        };
        true
    }
}

impl<F: Future> RootFuture for BlockedOn<'_, F> {
    fn discard(&mut self) {
        catch_panic::run(|| self.future.set(None));
    }

    fn as_root(&mut self) -> &mut dyn Root {
        self
    }
}
