//! [`JoinSet`]: tasks that are awaited together.
//!
//! ```text
//!   JoinSet { members: [ { handle, link } .. ], ended }      the set's owner
//!                                     |           |
//!   each task's join waker -------> Link -(weak)-> Ended { links of ended tasks; waker of who awaits the next }
//! ```
//!
//! A task that ends wakes its link, which puts itself into `Ended`: finding the next one that has ended costs the same however
//! many there are. Links of tasks that have left the set end up there as well, and are passed over.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};

use parking_lot::Mutex;

use crate::executor::{AbortHandle, JoinError, JoinHandle, TaskId, coop};
use crate::runtime::{Spawner, spawn_local};

/// Tasks whose outputs are awaited together, each as it comes. Dropping the set aborts those that are left.
///
/// The tasks may be of different runtimes. The set itself belongs to none: if their outputs are `Send`, it can be sent, and
/// awaited in any executor. Adding a task and taking an output cost the same however many tasks there are.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use evbase::JoinSet;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let mut tasks = JoinSet::new();
///     for n in [30, 10, 20] {
///         tasks.spawn_local(async move {
///             evbase::time::sleep(Duration::from_millis(n)).await;
///             n
///         });
///     }
///     let mut outputs = Vec::new();
///     while let Some(joined) = tasks.join_next().await {
///         outputs.push(joined?);
///     }
///     assert_eq!(outputs, [10, 20, 30]);
///     Ok::<(), evbase::JoinError>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A server may keep its connections in one: with each that it accepts, it takes out those that have ended by
/// [`try_join_next`](JoinSet::try_join_next).
pub struct JoinSet<T> {
    members: Vec<Member<T>>,
    ended: Arc<Ended>,
}

struct Member<T> {
    handle: JoinHandle<T>,
    link: Arc<Link>,
}

/// The waker of a member's task handle.
struct Link {
    /// The member's index, or [`LEFT`]. Only the set uses it, which whoever does so has to himself.
    at: AtomicUsize,
    ended: Weak<Ended>,
}

/// The index of a member that has left the set.
const LEFT: usize = usize::MAX;

#[derive(Default)]
struct Ended(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Oldest first.
    links: VecDeque<Arc<Link>>,
    /// Of who awaits the next one. It is cloned, dropped and woken without the lock.
    waker: Option<Waker>,
}

/// Up to this capacity a set keeps its memory.
const KEPT: usize = 64;

impl Wake for Link {
    fn wake(self: Arc<Self>) {
        let Some(ended) = self.ended.upgrade() else {
            return;
        };
        let waker = {
            let mut queue = ended.0.lock();
            queue.links.push_back(self);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Ended {
    /// Ready if there is one; else the task is woken when there is.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut cloned = None;
        loop {
            let mut queue = self.0.lock();
            if !queue.links.is_empty() {
                return Poll::Ready(());
            }
            if queue.waker.as_ref().is_some_and(|held| held.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if let Some(waker) = cloned.take() {
                let replaced = queue.waker.replace(waker);
                drop(queue);
                drop(replaced);
                return Poll::Pending;
            }
            drop(queue);
            cloned = Some(cx.waker().clone());
        }
    }

    fn pop(&self) -> Option<Arc<Link>> {
        let mut queue = self.0.lock();
        let link = queue.links.pop_front();
        if queue.links.is_empty() && queue.links.capacity() > KEPT {
            queue.links = VecDeque::new();
        }
        link
    }
}

impl<T> JoinSet<T> {
    /// A set without tasks. On any thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            members: Vec::new(),
            ended: Arc::default(),
        }
    }

    /// Spawns a task as the free [`spawn_local`](crate::spawn_local) does, and adds it. One that is refused is in the set, too:
    /// as a task that was cancelled.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[track_caller]
    pub fn spawn_local<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.insert(spawn_local(future))
    }

    /// Spawns a task into that runtime, as [`Spawner::spawn`] does, and adds it; from any thread. One that is refused is in the
    /// set, too: as a task that was cancelled.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let mut tasks = evbase::JoinSet::new();
    /// for n in 1..=3 {
    ///     tasks.spawn_on(async move { n }, &runtime.spawner());
    /// }
    /// // Awaited on this thread, by another executor.
    /// let outputs = futures::executor::block_on(tasks.join_all());
    /// assert_eq!(outputs, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_on<F>(&mut self, future: F, spawner: &Spawner) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.insert(spawner.spawn(future))
    }

    /// Adds a task that was spawned by other means, such as [`Spawner::spawn_with`]. On any thread.
    ///
    /// # Panics
    ///
    /// If the handle has given its output already.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let mut tasks = evbase::JoinSet::new();
    /// tasks.insert(runtime.spawner().spawn_with(|| {
    ///     let not_send = Rc::new(42);
    ///     async move { *not_send }
    /// }));
    /// let joined = runtime.block_on(tasks.join_next())?;
    /// assert_eq!(joined.unwrap()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn insert(&mut self, mut handle: JoinHandle<T>) -> AbortHandle {
        let abort_handle = handle.abort_handle();
        let link = Arc::new(Link {
            at: AtomicUsize::new(self.members.len()),
            ended: Arc::downgrade(&self.ended),
        });
        let goes_on = handle.wake_at_end(&Waker::from(link.clone()));
        self.members.push(Member {
            handle,
            link: link.clone(),
        });
        if !goes_on {
            link.wake();
        }
        abort_handle
    }

    /// Waits until one of the tasks has ended, and takes it out of the set: its output, or why there is none. `None` if the set is
    /// empty. Those that ended first come first.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. In any executor.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// As [`join_next`](JoinSet::join_next), with the id of the task. That of a failed one is in the [`JoinError`]. Cancel-safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use evbase::JoinSet;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = JoinSet::new();
    ///     let names: HashMap<_, _> = ["anna", "bob"]
    ///         .map(|name| (tasks.spawn_local(async move { name.len() }).id(), name))
    ///         .into();
    ///     while let Some(joined) = tasks.join_next_with_id().await {
    ///         let (id, len) = joined?;
    ///         assert_eq!(names[&id].len(), len);
    ///     }
    ///     Ok::<(), evbase::JoinError>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        poll_fn(|cx| self.poll_join_next_with_id(cx)).await
    }

    /// As [`join_next`](JoinSet::join_next), for futures written by hand. If it is pending, the task of the last call is woken.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use evbase::JoinSet;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = JoinSet::new();
    ///     tasks.spawn_local(async { 42 });
    ///     let joined = poll_fn(|cx| tasks.poll_join_next(cx)).await;
    ///     assert_eq!(joined.unwrap().unwrap(), 42);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        self.poll_join_next_with_id(cx).map_ok(|(_, output)| output)
    }

    /// As [`join_next_with_id`](JoinSet::join_next_with_id), for futures written by hand. If it is pending, the task of the last call
    /// is woken.
    pub fn poll_join_next_with_id(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(TaskId, T), JoinError>>> {
        while !self.members.is_empty() {
            ready!(self.ended.poll(cx));
            ready!(coop::spend(cx));
            if let Some(joined) = self.try_join_next_with_id() {
                return Poll::Ready(Some(joined));
            }
        }
        coop::spend(cx).map(|()| None)
    }

    /// Takes a task that has ended out of the set; `None` if there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = evbase::JoinSet::new();
    ///     tasks.spawn_local(async { 42 });
    ///     assert!(tasks.try_join_next().is_none());
    ///     evbase::yield_now().await;
    ///     assert_eq!(tasks.try_join_next().unwrap().unwrap(), 42);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        let joined = self.try_join_next_with_id()?;
        Some(joined.map(|(_, output)| output))
    }

    /// As [`try_join_next`](JoinSet::try_join_next), with the id of the task. That of a failed one is in the [`JoinError`].
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        loop {
            let link = self.ended.pop()?;
            if let Some(mut member) = self.remove(&link) {
                let id = member.handle.id();
                return Some(member.handle.take_output().map(|output| (id, output)));
            }
        }
    }

    fn remove(&mut self, link: &Link) -> Option<Member<T>> {
        let at = link.at.load(Relaxed);
        if at == LEFT {
            return None;
        }
        let member = self.members.swap_remove(at);
        if let Some(moved) = self.members.get(at) {
            moved.link.at.store(at, Relaxed);
        }
        let (len, capacity) = (self.members.len(), self.members.capacity());
        if capacity > KEPT && len < capacity / 8 {
            self.members.shrink_to(2 * len);
        }
        Some(member)
    }

    /// Asks for the end of all tasks in the set, as [`JoinHandle::abort`] does. They stay in it: each comes as one that was
    /// cancelled, unless it had ended before.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = evbase::JoinSet::new();
    ///     for _ in 0..3 {
    ///         tasks.spawn_local(std::future::pending::<()>());
    ///     }
    ///     tasks.abort_all();
    ///     while let Some(joined) = tasks.join_next().await {
    ///         assert!(joined.unwrap_err().is_cancelled());
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort_all(&self) {
        for member in &self.members {
            member.handle.abort();
        }
    }

    /// How many tasks are in the set: those that go on, and those that have ended and were not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no task in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes all tasks out of the set, which go on. Outputs that were not taken are dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let done = Rc::new(Cell::new(false));
    /// runtime.block_on(async {
    ///     let mut tasks = evbase::JoinSet::new();
    ///     let sets = done.clone();
    ///     tasks.spawn_local(async move { sets.set(true) });
    ///     tasks.detach_all();
    ///     drop(tasks);
    ///     evbase::yield_now().await;
    /// })?;
    /// assert!(done.get());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach_all(&mut self) {
        let members = mem::take(&mut self.members);
        for member in &members {
            member.link.at.store(LEFT, Relaxed);
        }
        drop(members);
    }

    /// Waits for all tasks, and gives their outputs, in the order in which they ended.
    ///
    /// Not cancel-safe: dropping the future aborts the tasks that are left, and drops the outputs of the others.
    ///
    /// # Panics
    ///
    /// As soon as one of the tasks is found to have panicked, with what it threw, or to have been cancelled. The others are
    /// aborted then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let outputs = runtime.block_on(async {
    ///     let mut tasks = evbase::JoinSet::new();
    ///     for n in [20, 10] {
    ///         tasks.spawn_local(async move {
    ///             evbase::time::sleep(Duration::from_millis(n)).await;
    ///             n
    ///         });
    ///     }
    ///     tasks.join_all().await
    /// })?;
    /// assert_eq!(outputs, [10, 20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn join_all(mut self) -> Vec<T> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(joined) = self.join_next().await {
            match joined.map_err(JoinError::try_into_panic) {
                Ok(output) => outputs.push(output),
                Err(Ok(payload)) => resume_unwind(payload),
                Err(Err(error)) => panic!("evbase: JoinSet::join_all: {error}"),
            }
        }
        outputs
    }

    /// Aborts all tasks, and waits until their futures are gone. The outputs of those that had ended before are dropped.
    ///
    /// Cancel-safe: if the future is dropped, the tasks that are left are in the set still, and end all the same.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = evbase::JoinSet::new();
    ///     tasks.spawn_local(std::future::pending::<()>());
    ///     tasks.shutdown().await;
    ///     assert!(tasks.is_empty());
    /// })?;
    /// assert_eq!(runtime.metrics().cancelled, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }
}

/// Aborts the tasks that are left.
impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

/// Spawns each as [`JoinSet::spawn_local`] does.
///
/// # Panics
///
/// Outside of a runtime, if there are any.
///
/// # Examples
///
/// ```
/// use evbase::JoinSet;
///
/// let runtime = evbase::Runtime::new()?;
/// let outputs = runtime.block_on(async {
///     let tasks: JoinSet<_> = (1..=3).map(|n| async move { n * n }).collect();
///     tasks.join_all().await
/// })?;
/// assert_eq!(outputs.iter().sum::<i32>(), 14);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<T, F> FromIterator<F> for JoinSet<T>
where
    F: Future<Output = T> + 'static,
{
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut tasks = Self::new();
        tasks.extend(futures);
        tasks
    }
}

/// Spawns each as [`JoinSet::spawn_local`] does.
///
/// # Panics
///
/// Outside of a runtime, if there are any.
impl<T, F> Extend<F> for JoinSet<T>
where
    F: Future<Output = T> + 'static,
{
    #[track_caller]
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        for future in futures {
            self.spawn_local(future);
        }
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

// As join handles are: nothing of a user's runs while the set is half changed.
impl<T> UnwindSafe for JoinSet<T> {}
impl<T> RefUnwindSafe for JoinSet<T> {}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
