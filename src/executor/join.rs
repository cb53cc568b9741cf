//! Handles to a task: to await it, to abort it.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::id::TaskId;
use super::inbox::Owner;
use super::join_error::{Failure, JoinError};
use super::state::Detached;
use super::task_ref::TaskRef;
use super::{catch_panic, coop};

/// Awaits the output of a task: `Ok`, or why there is none.
///
/// Dropping a handle detaches the task, which goes on. The handle can be awaited on any thread, by any executor, if the
/// output is `Send`; see also [`wait`](JoinHandle::wait). It is cancel-safe: a handle that was polled and then dropped
/// only detaches.
///
/// An output that nobody took is dropped with the handle, on the handle's thread; without a handle, it is dropped at home.
///
/// # Errors
///
/// Awaiting it gives a [`JoinError`] if the task was aborted, refused, or dropped when its runtime closed, or if it panicked.
///
/// # Panics
///
/// Polling it again after it gave its output panics.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     let tasks = [1, 2, 3].map(|n| evbase::spawn_local(async move { n }));
///     let mut sum = 0;
///     for task in tasks {
///         sum += task.await.unwrap();
///     }
///     sum
/// })?;
/// assert_eq!(sum, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinHandle<T>(Handle<T>);

enum Handle<T> {
    /// It goes in one of two ways, which say what becomes of the output.
    Task(ManuallyDrop<JoinRef<T>>),
    /// A runtime that is stopping has refused the task.
    Refused(TaskId),
    /// The output was taken.
    Taken(TaskId),
}

impl<T> Unpin for JoinHandle<T> {}

// As tokio's handles are: a panic can't leave a task's state half changed, since each change is one atomic step.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

/// Aborts a task from anywhere; made by [`JoinHandle::abort_handle`].
///
/// It doesn't keep the task from completing, nor its output alive.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let task = runtime.spawn_local(std::future::pending::<()>())?;
/// let abort_handle = task.abort_handle();
/// std::thread::spawn(move || abort_handle.abort());
/// assert!(runtime.block_on(task)?.unwrap_err().is_cancelled());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AbortHandle {
    /// `None`: refused, or its output was taken.
    task: Option<TaskRef>,
    id: TaskId,
}

/// What a task's join handle has of it: a reference, and the right to the output. It goes by `take` or `detach`.
struct JoinRef<T> {
    task: TaskRef,
    output: PhantomData<T>,
}

// SAFETY: what moves between threads is the output, taken by whoever has this; the rest of a task is made for all threads.
// `T: Send` makes the move sound.
unsafe impl<T: Send> Send for JoinRef<T> {}
// SAFETY: a shared one gives the `TaskRef` only, which is made for all threads, and no access to a `T`.
unsafe impl<T: Send> Sync for JoinRef<T> {}

impl<T> JoinRef<T> {
    /// Puts the waker into the join cell. False: the task has ended meanwhile.
    fn register(&mut self, waker: &Waker) -> bool {
        let state = self.task.state();
        if state.has_join_waker() && !state.take_join_waker_back() {
            return false;
        }
        // Clone and drop of a waker are user code: no reference into the cell is held meanwhile.
        let waker = match self.replace_waker(None) {
            Some(held) if held.will_wake(waker) => held,
            _ => waker.clone(),
        };
        self.replace_waker(Some(waker));
        let given = self.task.state().give_join_waker();
        if !given {
            drop(self.replace_waker(None));
        }
        given
    }

    /// While the join cell is the handle's: JOIN_WAKER is not set, or the state has just given the cell back.
    fn replace_waker(&mut self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: the cell is the handle's, which has but one `JoinRef`, borrowed mutably.
        self.task
            .join_cell()
            .with_mut(|cell| unsafe { mem::replace(&mut *cell, waker) })
    }

    /// Takes the output of a task that is complete.
    #[inline]
    fn take(self) -> Result<T, JoinError> {
        debug_assert!(self.task.state().is_complete());
        let mut output = MaybeUninit::<Result<T, Failure>>::uninit();
        // SAFETY: after COMPLETE the output is the join handle's, which has `T` from its construction. It is written then. This
        // happens once, since `self` goes.
        let output = unsafe {
            (self.task.vtable().take_output)(self.task.as_raw(), output.as_mut_ptr().cast());
            output.assume_init()
        };
        output.map_err(|failure| JoinError::new(failure, self.task.id()))
    }

    /// The handle goes, and the task goes on; or the output goes, too, if there is one. (Not inlined: most handles have given their
    /// output when they are dropped.)
    #[inline(never)]
    fn detach(mut self) {
        match self.task.state().detach() {
            // The state has taken the reference back.
            Detached::Gone => mem::forget(self.task),
            Detached::WithWaker => {
                let waker = self.replace_waker(None);
                catch_panic::run(|| drop(waker));
            }
            // A panic of its destructor ends here, as it does at home.
            Detached::Complete => {
                catch_panic::run(|| drop(self.take()));
            }
        }
    }
}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// It is the reference that the task was made with for its join handle; the task's output is `T`.
    pub(super) unsafe fn new(task: TaskRef) -> Self {
        let output = PhantomData;
        Self(Handle::Task(ManuallyDrop::new(JoinRef { task, output })))
    }

    /// A handle of a task that was refused.
    pub(crate) fn refused() -> Self {
        Self(Handle::Refused(TaskId::of_refused()))
    }

    fn task(&self) -> Option<&TaskRef> {
        match &self.0 {
            Handle::Task(task) => Some(&task.task),
            Handle::Refused(_) | Handle::Taken(_) => None,
        }
    }

    /// The task's id. From any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(async { evbase::task::id() })?;
    /// let id = task.id();
    /// assert_eq!(runtime.block_on(task)??, Some(id));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> TaskId {
        match &self.0 {
            Handle::Task(task) => task.task.id(),
            Handle::Refused(id) | Handle::Taken(id) => *id,
        }
    }

    /// Asks home to drop the task's future, which it does before it would poll it again; the handle then gives an error
    /// that [is cancelled](JoinError::is_cancelled). Does nothing to a task that has completed.
    ///
    /// From any thread; it never blocks, and runs no destructor here.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(std::future::pending::<()>())?;
    /// task.abort();
    /// assert!(!task.is_finished(), "home has not run since");
    /// assert!(runtime.block_on(task)?.unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(&self) {
        if let Some(task) = self.task() {
            task.abort();
        }
    }

    /// A handle that can only abort. It is `Send` and `Sync` whatever the output is.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle {
            task: self.task().cloned(),
            id: self.id(),
        }
    }

    /// Whether the task has ended and its future is gone: then awaiting the handle doesn't wait. From any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(async {})?;
    /// assert!(!task.is_finished());
    /// runtime.block_on(evbase::yield_now())?;
    /// assert!(task.is_finished());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_finished(&self) -> bool {
        self.task().is_none_or(|task| task.state().is_complete())
    }

    /// Has the waker woken when the task has ended; false if it has ended already. It takes the place of the waker of the last
    /// poll.
    ///
    /// # Panics
    ///
    /// If the output was taken.
    #[track_caller]
    pub(crate) fn wake_at_end(&mut self, waker: &Waker) -> bool {
        match &mut self.0 {
            Handle::Task(task) => !task.task.state().is_complete() && task.register(waker),
            Handle::Refused(_) => false,
            Handle::Taken(_) => panic!("evbase: a JoinHandle was used again after it gave its output"),
        }
    }

    /// The output of a task that has ended. Once.
    pub(crate) fn take_output(&mut self) -> Result<T, JoinError> {
        assert!(self.is_finished(), "evbase: only a task that has ended has an output");
        let id = self.id();
        match mem::replace(&mut self.0, Handle::Taken(id)) {
            Handle::Task(task) => ManuallyDrop::into_inner(task).take(),
            Handle::Refused(id) => Err(JoinError::new(Failure::Cancelled, id)),
            Handle::Taken(_) => unreachable!("evbase: an output is taken once"),
        }
    }

    /// What made the inbox of the task's executor, if that still exists.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.task().and_then(|task| task.inbox().owner())
    }
}

/// Detaches the task.
impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Handle::Task(task) = &mut self.0 {
            // SAFETY: the handle goes, so this is the last use of it.
            unsafe { ManuallyDrop::take(task) }.detach();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.wake_at_end(cx.waker()) {
            return Poll::Pending;
        }
        ready!(coop::spend(cx));
        Poll::Ready(self.take_output())
    }
}

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// As [`JoinHandle::is_finished`].
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(|task| task.state().is_complete())
    }

    /// As [`JoinHandle::id`].
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle")
            .field("id", &self.id())
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
