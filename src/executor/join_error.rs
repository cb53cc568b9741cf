//! Why a task gave no output.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::catch_panic;
use super::id::TaskId;

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
pub struct JoinError {
    failure: Failure,
    id: TaskId,
}

/// The error as a task holds it.
pub(super) enum Failure {
    Cancelled,
    Panicked(Box<Caught>),
}

/// What a caught panic threw.
type Payload = Box<dyn Any + Send>;

/// A panic's payload; a panic of its own destructor is caught. The mutex is there for `Sync` only.
pub(super) struct Caught(Mutex<Option<Payload>>);

impl Failure {
    pub(super) fn panicked(payload: Payload) -> Self {
        Self::Panicked(Box::new(Caught(Mutex::new(Some(payload)))))
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        if let Some(payload) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            catch_panic::drop_payload(payload);
        }
    }
}

impl JoinError {
    pub(super) fn new(failure: Failure, id: TaskId) -> Self {
        Self { failure, id }
    }

    /// The task's id, as [`JoinHandle::id`](crate::JoinHandle::id) gave it.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The task was aborted, refused, or dropped when its runtime closed.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.failure, Failure::Cancelled)
    }

    /// The task's future panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.failure, Failure::Panicked(_))
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
    /// # Errors
    ///
    /// The error itself, if the task was cancelled.
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
        match self.failure {
            Failure::Panicked(mut caught) => {
                let payload = caught.0.get_mut().unwrap_or_else(PoisonError::into_inner);
                Ok(payload.take().expect("a payload is taken once, with its error"))
            }
            Failure::Cancelled => Err(self),
        }
    }

    /// The text that the panic was given, if it was text.
    fn message(&self) -> Option<String> {
        let Failure::Panicked(caught) = &self.failure else {
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
        match (&self.failure, self.message()) {
            (Failure::Cancelled, _) => f.write_str("JoinError::Cancelled"),
            (Failure::Panicked(_), Some(text)) => write!(f, "JoinError::Panicked({text:?})"),
            (Failure::Panicked(_), None) => f.write_str("JoinError::Panicked(..)"),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, self.message()) {
            (Failure::Cancelled, _) => {
                f.write_str("the task was cancelled: it was aborted, or its runtime stopped before it completed")
            }
            (Failure::Panicked(_), Some(text)) => write!(f, "the task panicked: {text}"),
            (Failure::Panicked(_), None) => f.write_str("the task panicked"),
        }
    }
}

impl Error for JoinError {}
