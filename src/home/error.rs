//! What can go wrong, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::RefUnwindSafe;
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

use crate::executor::{JoinError, Large};

/// Why a runtime could not be driven.
///
/// # Examples
///
/// ```
/// use evbase::RunError;
///
/// let runtime = evbase::Builder::new().start("home")?;
/// match runtime.block_on(async {}) {
///     Err(RunError::NotHome { home }) => assert_eq!(runtime.home(), Some(home)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The runtime was shut down: before the future was done, or before the call. It will not run again.
    Stopped,
    /// The runtime's home is another thread, which alone may drive it.
    NotHome {
        /// The thread that drove the runtime first, or used it as home: see [`Runtime`](crate::Runtime).
        home: ThreadId,
    },
    /// The call was made inside an evbase loop of this thread, where it would block that loop. Spawn, and await the
    /// handle, instead.
    Nested,
    /// The runtime was made before a `fork`, and this is the child: its queue is the parent's. Make a new one here.
    Forked,
    /// The thread is exiting, and its thread-locals are being destroyed: it can't become a home any more.
    ThreadExiting,
    /// The operating system refused to wait for events: the runtime is still usable, should the cause pass. Or it refused a
    /// descriptor: one more for [`embed`](crate::Runtime::embed), those of a new runtime for the free
    /// [`block_on`](crate::block_on()).
    Io(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the runtime was shut down and will not run again; make a new one"),
            Self::NotHome { home } => not_home(f, "the runtime can be driven", *home),
            Self::Nested => f.write_str(
                "a runtime can't be driven inside an evbase loop of the same thread, whose tasks would all wait for it; \
                 spawn a task and await its handle, or use another thread",
            ),
            Self::Forked => forked(f),
            Self::ThreadExiting => thread_exiting(f),
            Self::Io(error) => write!(f, "the event base could not be made, or could not wait: {error}"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a runtime took no task; it gives back what was to be spawned.
///
/// # Examples
///
/// ```
/// use evbase::{Runtime, SpawnErrorKind};
///
/// let runtime = Runtime::new()?;
/// runtime.shutdown_handle().request();
/// let error = runtime.spawner().try_spawn(async { 42 }).unwrap_err();
/// assert_eq!(error.kind(), SpawnErrorKind::Stopped);
/// // The future is untouched, and can be run elsewhere.
/// assert_eq!(Runtime::new()?.block_on(error.into_inner())?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SpawnError<X> {
    kind: SpawnErrorKind,
    /// In a mutex, which nobody locks, to be `Sync` whenever `X` is `Send`.
    value: Mutex<X>,
}

// Nobody has the value by a shared reference.
impl<X> RefUnwindSafe for SpawnError<X> {}

/// The reason in a [`SpawnError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// The runtime is shutting down, or was shut down.
    Stopped,
    /// A future that is not `Send` can be spawned on the runtime's home thread only.
    NotHome {
        /// The thread that drove the runtime first, or used it as home: see [`Runtime`](crate::Runtime).
        home: ThreadId,
    },
    /// The runtime was made before a `fork`, and this is the child.
    Forked,
    /// The thread is exiting: it can't become a home any more.
    ThreadExiting,
}

impl<X> SpawnError<X> {
    pub(crate) fn new(kind: SpawnErrorKind, value: X) -> Self {
        Self {
            kind,
            value: Mutex::new(value),
        }
    }

    /// Of a refused future that was boxed.
    #[cold]
    pub(crate) fn unboxed(error: SpawnError<Large<X>>) -> Self {
        Self::new(error.kind, error.into_inner().into_inner())
    }

    /// Why the spawn was refused.
    pub fn kind(&self) -> SpawnErrorKind {
        self.kind
    }

    /// What was to be spawned, untouched.
    pub fn into_inner(self) -> X {
        self.value.into_inner()
    }
}

impl<X> fmt::Debug for SpawnError<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnError")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<X> fmt::Display for SpawnError<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.kind, f)
    }
}

impl<X> Error for SpawnError<X> {}

impl fmt::Display for SpawnErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str(
                "the runtime takes no task any more: it is shutting down, or was shut down; use another one",
            ),
            Self::NotHome { home } => not_home(
                f,
                "a future that is not Send can be spawned (elsewhere, use Spawner::spawn_with)",
                *home,
            ),
            Self::Forked => forked(f),
            Self::ThreadExiting => thread_exiting(f),
        }
    }
}

impl Error for SpawnErrorKind {}

/// Why a blocking wait was not made.
///
/// # Examples
///
/// ```
/// use evbase::{Runtime, WaitError};
///
/// let runtime = Runtime::new()?;
/// let terminated = runtime.shutdown_handle().terminated();
/// let waited = runtime.block_on(async { terminated.wait() })?;
/// assert_eq!(waited, Err(WaitError::InsideLoop));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The call was made inside an evbase loop, which it would block. Await instead.
    InsideLoop,
    /// No thread has driven the runtime yet, so that nobody would end the wait.
    Unbound,
    /// The runtime was made before a `fork`, and this is the child.
    Forked,
    /// The thread is exiting, and the runtime is at home here: it closes without this wait.
    ThreadExiting,
    /// This thread is home, had to drive the runtime meanwhile, and the operating system refused to wait for events.
    Io(io::ErrorKind),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InsideLoop => {
                f.write_str("a blocking wait inside an evbase loop would block the loop; await the future instead")
            }
            Self::Unbound => f.write_str(
                "no thread has driven the runtime yet, so the wait would not end; call block_on, run or turn first",
            ),
            Self::Forked => forked(f),
            Self::ThreadExiting => thread_exiting(f),
            Self::Io(kind) => write!(f, "the event base could not wait: {kind}"),
        }
    }
}

impl Error for WaitError {}

fn not_home(f: &mut fmt::Formatter<'_>, what: &str, home: ThreadId) -> fmt::Result {
    let here = thread::current();
    let name = here.name().unwrap_or("unnamed");
    write!(
        f,
        "{what} on its home thread only, which is {home:?}; this is {:?} ({name})",
        here.id()
    )
}

fn forked(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the runtime was made before a fork, and belongs to the parent process; make a new one in the child")
}

fn thread_exiting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the thread is exiting, and can't be a runtime's home any more; use one that goes on")
}

/// [`io::ErrorKind::Other`], with the error inside.
impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        Self::other(error)
    }
}
