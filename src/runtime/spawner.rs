//! Handles that give a runtime tasks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_task::{FutureObj, LocalFutureObj, LocalSpawn, Spawn, SpawnError as FuturesSpawnError};
use pin_project_lite::pin_project;

use crate::executor::{self, Inbox, JoinHandle, Large, Origin, Priority, is_large};
use crate::home::{Home, Shared, SpawnError, SpawnErrorKind, context};
use crate::sync;

/// Spawns tasks into a runtime from any thread.
///
/// It doesn't keep the runtime running, and can't drive it. It is also a [`futures_task::Spawn`]. At home, inside the loop, a task
/// is queued directly; anywhere else it is sent through the inbox, which takes no lock, and wakes home if home sleeps.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let spawner = runtime.spawner();
/// let thread = std::thread::spawn(move || spawner.spawn(async { 6 * 7 }));
/// let answer = runtime.block_on(async { thread.join().unwrap().await })?;
/// assert_eq!(answer?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
    priority: Priority,
}

impl Spawner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            priority: Priority::Normal,
        }
    }

    /// This spawner, whose tasks have that priority from here on: by every way to spawn, those of `futures` included.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::Priority;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// for (name, priority) in [("later", Priority::Low), ("now", Priority::High)] {
    ///     let sender = sender.clone();
    ///     runtime.spawner().with_priority(priority).spawn(async move { sender.send(name).unwrap() });
    /// }
    /// runtime.turn(None)?;
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["now", "later"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The handle of the runtime that this code runs in: of the innermost running loop, or
    /// [`EnterGuard`](crate::EnterGuard), of this thread.
    ///
    /// # Panics
    ///
    /// Outside of both; see [`try_current`](Spawner::try_current).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::Spawner;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let answer = runtime.block_on(async { Spawner::current().spawn(async { 42 }).await })?;
    /// assert_eq!(answer?, 42);
    /// assert!(Spawner::try_current().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        Self::new(context::expect_current().shared().clone())
    }

    /// As [`current`](Spawner::current), or `None` outside.
    pub fn try_current() -> Option<Self> {
        context::current().map(|home| Self::new(home.shared().clone()))
    }

    /// Spawns a task. If the runtime takes none any more, the future is dropped, and the handle is one of a task that was
    /// cancelled. From any thread; it never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let task = runtime.spawner().spawn(async { 42 });
    /// assert_eq!(task.wait()??, 42);
    ///
    /// // One that is refused is cancelled from the beginning.
    /// runtime.shutdown_handle().request();
    /// let task = runtime.spawner().spawn(async { 42 });
    /// assert!(task.is_finished());
    /// assert!(task.wait()?.unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        if const { is_large::<F>() } {
            return self
                .send(Large::new(future), self.origin())
                .unwrap_or_else(|_| JoinHandle::refused());
        }
        self.send(future, self.origin())
            .unwrap_or_else(|_| JoinHandle::refused())
    }

    /// Spawns a task, or gives the future back. From any thread; it never blocks.
    ///
    /// # Errors
    ///
    /// [`SpawnErrorKind::Stopped`] when the runtime is stopping or closed (on the home thread, tasks are taken in the grace
    /// period); [`SpawnErrorKind::Forked`] in the child of a fork.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::{Runtime, SpawnErrorKind};
    ///
    /// let (one, other) = (Runtime::new()?, Runtime::new()?);
    /// one.shutdown_handle().request();
    /// let refused = one.spawner().try_spawn(async { 42 }).unwrap_err();
    /// assert_eq!(refused.kind(), SpawnErrorKind::Stopped);
    /// let task = other.spawner().try_spawn(refused.into_inner())?;
    /// assert_eq!(other.block_on(task)??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        if const { is_large::<F>() } {
            return self
                .send(Large::new(future), self.origin())
                .map_err(SpawnError::unboxed);
        }
        self.send(future, self.origin())
    }

    fn send<F>(&self, future: F, origin: Origin) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.give(future, origin, executor::spawn)
    }

    #[track_caller]
    fn origin(&self) -> Origin {
        Origin::here(self.priority)
    }

    fn give<F: Future + 'static>(
        &self,
        future: F,
        origin: Origin,
        to: impl FnOnce(&sync::Arc<Inbox>, F, Origin) -> Result<JoinHandle<F::Output>, F>,
    ) -> Result<JoinHandle<F::Output>, SpawnError<F>> {
        if self.shared.is_forked() {
            return Err(SpawnError::new(SpawnErrorKind::Forked, future));
        }
        // At home an observer is told of the task, and may close the runtime: home stays meanwhile.
        let _home = self.shared.inbox().is_watched().then(context::current);
        to(self.shared.inbox(), future, origin).or_else(|future| self.give_in_grace(future, origin))
    }

    /// What the inbox refuses after a stop, as from abroad: on the home thread, outside of the runtime's context, the grace
    /// period takes it, from the moment when home has seen the stop.
    #[cold]
    fn give_in_grace<F>(&self, future: F, origin: Origin) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + 'static,
    {
        match context::home_of(&self.shared).filter(|home| home.is_in_grace()) {
            Some(home) => home.spawn_local(future, origin),
            None => Err(SpawnError::new(SpawnErrorKind::Stopped, future)),
        }
    }

    /// Spawns a task whose future need not be `Send`: the closure goes home, makes the future there, and the future lives
    /// and dies there.
    ///
    /// A closure whose task is aborted before it ran is dropped unrun, at home; one that panics is a task that panicked.
    /// If the runtime takes no task any more, the closure is dropped here, and the handle is one of a task that was
    /// cancelled. From any thread; it never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let handle = runtime.spawner().spawn_with(|| {
    ///     let shared = Rc::new(41); // not Send, and never leaves home
    ///     async move { *shared + 1 }
    /// });
    /// assert_eq!(handle.wait()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_with<C, F>(&self, make: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send,
    {
        self.try_spawn_with(make).unwrap_or_else(|_| JoinHandle::refused())
    }

    /// As [`spawn_with`](Spawner::spawn_with), or gives the closure back. From any thread; it never blocks.
    ///
    /// # Errors
    ///
    /// As for [`try_spawn`](Spawner::try_spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawner().try_spawn_with(|| {
    ///     let shared = Rc::new(42);
    ///     async move { *shared }
    /// });
    /// assert_eq!(runtime.block_on(task?)??, 42);
    ///
    /// runtime.shutdown_handle().request();
    /// let refused = runtime.spawner().try_spawn_with(|| async { 42 }).unwrap_err();
    /// let make = refused.into_inner();
    /// assert_eq!(futures::executor::block_on(make()), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_spawn_with<C, F>(&self, make: C) -> Result<JoinHandle<F::Output>, SpawnError<C>>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send,
    {
        let future = MakeFuture::Closure { make: Some(make) };
        let origin = self.origin();
        if const { is_large::<MakeFuture<C, F>>() } {
            // SAFETY: before its first poll, which is at home, this future holds only the closure, which is `Send`, as the output is.
            let refused = self.give(Large::new(future), origin, |inbox, future, origin| unsafe {
                executor::spawn_unchecked(inbox, future, origin)
            });
            return refused.map_err(|refused| MakeFuture::closure_of(SpawnError::unboxed(refused)));
        }
        // SAFETY: as above.
        self.give(future, origin, |inbox, future, origin| unsafe {
            executor::spawn_unchecked(inbox, future, origin)
        })
        .map_err(MakeFuture::closure_of)
    }
}

pin_project! {
    /// Makes a future at its first poll, and is that future from then on.
    #[project = MakeFutureProjection]
    enum MakeFuture<C, F> {
        Closure { make: Option<C> },
        Future { #[pin] future: F },
    }
}

impl<C, F> MakeFuture<C, F> {
    #[cold]
    fn closure_of(refused: SpawnError<Self>) -> SpawnError<C> {
        let kind = refused.kind();
        match refused.into_inner() {
            Self::Closure { make: Some(make) } => SpawnError::new(kind, make),
            _ => unreachable!("evbase: a future that was never polled has made something"),
        }
    }
}

impl<C: FnOnce() -> F, F: Future> Future for MakeFuture<C, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let MakeFutureProjection::Closure { make } = self.as_mut().project() {
            let make = make
                .take()
                .expect("evbase: a task was polled after its closure panicked");
            let future = make();
            self.set(Self::Future { future });
        }
        match self.project() {
            MakeFutureProjection::Future { future } => future.poll(cx),
            MakeFutureProjection::Closure { .. } => {
                unreachable!("evbase: the closure was just replaced")
            }
        }
    }
}

impl Spawn for Spawner {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), FuturesSpawnError> {
        self.try_spawn(future)
            .map(drop)
            .map_err(|_| FuturesSpawnError::shutdown())
    }

    fn status(&self) -> Result<(), FuturesSpawnError> {
        // At home, tasks are welcome in the grace period.
        let refuses = match context::current().filter(|home| Arc::ptr_eq(home.shared(), &self.shared)) {
            Some(home) => !home.is_open(),
            None => {
                self.shared.stops().requested()
                    && !context::home_of(&self.shared).is_some_and(|home| home.is_in_grace())
            }
        };
        if self.shared.is_forked() || refuses {
            return Err(FuturesSpawnError::shutdown());
        }
        Ok(())
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// Spawns tasks that need not be `Send`, at home only; made by [`Runtime::local_spawner`](crate::Runtime::local_spawner). It is
/// also a [`futures_task::LocalSpawn`], and not `Send` itself:
///
/// ```compile_fail
/// let runtime = evbase::Runtime::new().unwrap();
/// let spawner = runtime.local_spawner().unwrap();
/// std::thread::spawn(move || drop(spawner)); // not Send
/// ```
#[derive(Clone)]
pub struct LocalSpawner {
    home: Rc<Home>,
    priority: Priority,
}

impl LocalSpawner {
    pub(super) fn new(home: Rc<Home>) -> Self {
        Self {
            home,
            priority: Priority::Normal,
        }
    }

    pub(super) fn home(&self) -> &Rc<Home> {
        &self.home
    }

    /// This spawner, whose tasks have that priority from here on: by every way to spawn, those of `futures` included. See
    /// [`Spawner::with_priority`].
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The handle of the runtime that this code runs in: of the innermost running loop, or
    /// [`EnterGuard`](crate::EnterGuard), of this thread.
    ///
    /// # Panics
    ///
    /// Outside of both; see [`try_current`](LocalSpawner::try_current).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::LocalSpawner;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let spawner = LocalSpawner::current();
    ///     let shared = std::rc::Rc::new(42);
    ///     assert_eq!(spawner.spawn_local(async move { *shared }).unwrap().await.unwrap(), 42);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        Self::new(context::expect_current())
    }

    /// As [`current`](LocalSpawner::current), or `None` outside.
    pub fn try_current() -> Option<Self> {
        context::current().map(Self::new)
    }

    /// Spawns a task, or gives the future back.
    ///
    /// # Errors
    ///
    /// [`SpawnErrorKind::Stopped`] when the runtime is closing or closed; during the grace period, tasks are taken.
    /// [`SpawnErrorKind::Forked`] in the child of a fork.
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
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + 'static,
    {
        if const { is_large::<F>() } {
            let spawned = self.home.spawn_local(Large::new(future), Origin::here(self.priority));
            return spawned.map_err(SpawnError::unboxed);
        }
        self.home.spawn_local(future, Origin::here(self.priority))
    }
}

impl Home {
    pub(super) fn spawn_local<F>(&self, future: F, origin: Origin) -> Result<JoinHandle<F::Output>, SpawnError<F>>
    where
        F: Future + 'static,
    {
        if self.shared().is_forked() {
            return Err(SpawnError::new(SpawnErrorKind::Forked, future));
        }
        self.executor()
            .spawn_local(future, origin)
            .map_err(|future| SpawnError::new(SpawnErrorKind::Stopped, future))
    }
}

impl Spawn for LocalSpawner {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), FuturesSpawnError> {
        self.spawn_local_obj(future.into())
    }

    fn status(&self) -> Result<(), FuturesSpawnError> {
        self.status_local()
    }
}

impl LocalSpawn for LocalSpawner {
    fn spawn_local_obj(&self, future: LocalFutureObj<'static, ()>) -> Result<(), FuturesSpawnError> {
        self.spawn_local(future)
            .map(drop)
            .map_err(|_| FuturesSpawnError::shutdown())
    }

    fn status_local(&self) -> Result<(), FuturesSpawnError> {
        if self.home.shared().is_forked() || !self.home.is_open() {
            return Err(FuturesSpawnError::shutdown());
        }
        Ok(())
    }
}

impl fmt::Debug for LocalSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSpawner").finish_non_exhaustive()
    }
}

/// Spawns a task that need not be `Send` into the runtime that this code runs in: that of the innermost running loop, or
/// [`EnterGuard`](crate::EnterGuard), of this thread.
///
/// If that runtime is closing, the future is dropped, and the handle is one of a task that was cancelled.
///
/// # Panics
///
/// Outside of both: use [`Runtime::spawn_local`](crate::Runtime::spawn_local) or a [`Spawner`] there.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
///
/// let runtime = evbase::Runtime::new()?;
/// let shared = Rc::new(20);
/// let sum = runtime.block_on(async move {
///     let other = shared.clone();
///     let handle = evbase::spawn_local(async move { *other + 2 });
///     *shared + handle.await.unwrap()
/// })?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let home = context::expect_current();
    if const { is_large::<F>() } {
        return home
            .spawn_local(Large::new(future), Origin::here(Priority::Normal))
            .unwrap_or_else(|_| JoinHandle::refused());
    }
    home.spawn_local(future, Origin::here(Priority::Normal))
        .unwrap_or_else(|_| JoinHandle::refused())
}

/// Lets every other ready task of the same priority be polled once before this one goes on. Lower ones get their share: see
/// [`Priority`].
///
/// Works in any executor. Cancel-safe.
///
/// # Examples
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let order = Rc::new(RefCell::new(Vec::new()));
///     let log = order.clone();
///     evbase::spawn_local(async move { log.borrow_mut().push("the other one") });
///     order.borrow_mut().push("before");
///     evbase::yield_now().await;
///     order.borrow_mut().push("after");
///     assert_eq!(*order.borrow(), ["before", "the other one", "after"]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn yield_now() -> impl Future<Output = ()> + Send + Sync + Unpin {
    YieldNow { yielded: false }
}

#[derive(Debug)]
struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
