//! Handles to a task: to await it, to abort it.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use super::inbox::Owner;
use super::state::Detached;
use super::task::{Payload, RawTask};
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
pub struct JoinHandle<T> {
    /// `None`: refused by a runtime that is stopping.
    task: Option<TaskRef>,
    taken: bool,
    output: PhantomData<T>,
}

// SAFETY: what a handle moves between threads is the output, taken by whoever has it; the rest of a task is made for all
// threads. `T: Send` makes the move sound.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: a shared handle can abort and ask whether the task is finished, both of which are made for all threads; it
// gives no access to a `T`.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

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
    task: Option<TaskRef>,
}

/// A counted reference to a task.
struct TaskRef(RawTask);

// SAFETY: only the state, the inbox and, for a join handle, the join cell are reached through it: all are made for all
// threads. Freeing frees plain memory.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`.
unsafe impl Sync for TaskRef {}

// As for `JoinHandle`.
impl UnwindSafe for TaskRef {}
impl RefUnwindSafe for TaskRef {}

impl TaskRef {
    fn is_complete(&self) -> bool {
        // SAFETY: `self` holds a reference.
        unsafe { self.0.state() }.is_complete()
    }

    fn abort(&self) {
        // SAFETY: `self` holds a reference.
        unsafe { self.0.abort() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        // SAFETY: `self` holds a reference.
        unsafe { self.0.state() }.acquire();
        Self(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        // SAFETY: gives the reference that `self` holds back.
        unsafe { self.0.release() }
    }
}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// The caller gives the join handle's reference away; the task's output is `T`.
    pub(super) unsafe fn new(task: RawTask) -> Self {
        Self {
            task: Some(TaskRef(task)),
            taken: false,
            output: PhantomData,
        }
    }

    /// A handle of a task that was refused.
    pub(crate) fn refused() -> Self {
        Self {
            task: None,
            taken: false,
            output: PhantomData,
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
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    /// A handle that can only abort. It is `Send` and `Sync` whatever the output is.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle {
            task: self.task.clone(),
        }
    }

    /// Whether the task has ended and its future is gone: then awaiting the handle doesn't wait. From any thread.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(TaskRef::is_complete)
    }

    /// What made the inbox of the task's executor, if that still exists.
    pub(crate) fn owner(&self) -> Option<Owner> {
        // SAFETY: the handle holds a reference.
        self.task.as_ref().and_then(|task| unsafe { task.0.inbox() }.owner())
    }

    /// Takes the output.
    ///
    /// # Safety
    ///
    /// The caller has seen that the task is complete, or there is none.
    #[track_caller]
    unsafe fn take(&mut self) -> Result<T, JoinError> {
        assert!(!self.taken, "evbase: a JoinHandle was polled after it gave its output");
        self.taken = true;
        let Some(task) = &self.task else {
            return Err(JoinError::cancelled());
        };
        let mut output = None;
        // SAFETY: the caller's promise: after COMPLETE the output is the join handle's, which has `T` from its construction.
        unsafe { task.0.take_output(&mut output) };
        output.expect("evbase: a task that has ended has an output")
    }

    /// Puts the waker into the join cell. False: the task has ended meanwhile.
    fn register(&mut self, waker: &Waker) -> bool {
        let Some(TaskRef(task)) = &self.task else {
            return false;
        };
        // SAFETY: the handle holds a reference. Between `take_join_waker_back` and `give_join_waker` the cell is the
        // handle's, and `&mut self` makes this the only use of it.
        unsafe {
            let state = task.state();
            if state.has_join_waker() && !state.take_join_waker_back() {
                return false;
            }
            // Clone and drop of a waker are user code: no reference into the cell is held meanwhile.
            let held = task.join_cell().with_mut(|cell| (*cell).take());
            let waker = match held {
                Some(held) if held.will_wake(waker) => held,
                _ => waker.clone(),
            };
            task.join_cell().with_mut(|cell| *cell = Some(waker));
            if state.give_join_waker() {
                return true;
            }
            drop(task.join_cell().with_mut(|cell| (*cell).take()));
            false
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_finished() && self.register(cx.waker()) {
            return Poll::Pending;
        }
        ready!(coop::spend(cx));
        // SAFETY: `is_finished`, or `register`, has seen it.
        Poll::Ready(unsafe { self.take() })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let Some(held) = self.task.take() else {
            return;
        };
        let TaskRef(task) = held;
        // SAFETY: the handle holds a reference, given back by the drop of `held`, also if a destructor panics here.
        unsafe {
            match task.state().detach() {
                Detached::Gone => std::mem::forget(held),
                Detached::WithWaker => drop(task.join_cell().with_mut(|cell| (*cell).take())),
                Detached::Complete if self.taken => {}
                Detached::Complete => drop_untaken(task),
            }
        }
    }
}

/// Drops an output that nobody took. A panic of its destructor ends here, as it does at home.
///
/// # Safety
///
/// The caller is the join handle, after COMPLETE.
#[cold]
unsafe fn drop_untaken(task: RawTask) {
    // SAFETY: the caller's promise.
    catch_panic::run(|| unsafe { task.drop_output() });
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
        self.task.as_ref().is_none_or(TaskRef::is_complete)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Why a task gave no output: it was cancelled, or it panicked.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let task = runtime.spawn_local(async {
///     if true {
///         panic!("on purpose");
///     }
/// })?;
/// let error = runtime.block_on(task)?.unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.to_string(), "the task panicked: on purpose");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinError(Repr);

enum Repr {
    Cancelled,
    Panicked(Box<Caught>),
}

/// A panic's payload; a panic of its own destructor is caught. The mutex is there for `Sync` only.
struct Caught(Mutex<Option<Payload>>);

impl Drop for Caught {
    fn drop(&mut self) {
        if let Some(payload) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            catch_panic::drop_payload(payload);
        }
    }
}

impl JoinError {
    pub(super) fn cancelled() -> Self {
        Self(Repr::Cancelled)
    }

    pub(super) fn panicked(payload: Payload) -> Self {
        Self(Repr::Panicked(Box::new(Caught(Mutex::new(Some(payload))))))
    }

    /// The task was aborted, refused, or dropped when its runtime closed.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Repr::Cancelled)
    }

    /// The task's future panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Repr::Panicked(_))
    }

    /// What the task's panic threw, for [`std::panic::resume_unwind`].
    ///
    /// # Panics
    ///
    /// If the task didn't panic: ask [`is_panic`](JoinError::is_panic) first, or use
    /// [`try_into_panic`](JoinError::try_into_panic).
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(async {
    ///     if true {
    ///         panic!("on purpose");
    ///     }
    /// })?;
    /// let payload = runtime.block_on(task)?.unwrap_err().into_panic();
    /// assert_eq!(*payload.downcast::<&str>().unwrap(), "on purpose");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(_) => panic!("evbase: into_panic on the error of a task that was cancelled, not one that panicked"),
        }
    }

    /// What the task's panic threw, or the error itself if the task didn't panic.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let task = runtime.spawn_local(std::future::pending::<()>())?;
    /// task.abort();
    /// match runtime.block_on(task)?.unwrap_err().try_into_panic() {
    ///     Ok(payload) => std::panic::resume_unwind(payload),
    ///     Err(error) => assert!(error.is_cancelled()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, Self> {
        match self.0 {
            Repr::Panicked(mut caught) => {
                let payload = caught.0.get_mut().unwrap_or_else(PoisonError::into_inner);
                Ok(payload.take().expect("a payload is taken once, with its error"))
            }
            Repr::Cancelled => Err(self),
        }
    }

    /// The text that the panic was given, if it was text.
    fn message(&self) -> Option<String> {
        let Repr::Panicked(caught) = &self.0 else {
            return None;
        };
        let payload = caught.0.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = payload.as_deref()?;
        (payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .or_else(|| payload.downcast_ref::<String>().cloned())
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.message()) {
            (Repr::Cancelled, _) => f.write_str("JoinError::Cancelled"),
            (Repr::Panicked(_), Some(text)) => write!(f, "JoinError::Panicked({text:?})"),
            (Repr::Panicked(_), None) => f.write_str("JoinError::Panicked(..)"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.message()) {
            (Repr::Cancelled, _) => {
                f.write_str("the task was cancelled: it was aborted, or its runtime stopped before it completed")
            }
            (Repr::Panicked(_), Some(text)) => write!(f, "the task panicked: {text}"),
            (Repr::Panicked(_), None) => f.write_str("the task panicked"),
        }
    }
}

impl Error for JoinError {}
