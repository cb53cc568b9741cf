//! What became of a runtime.

use std::fmt;

use crate::executor::Counts;

/// Why a runtime ended: the first of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// [`Shutdown::request`](crate::Shutdown::request), [`request_now`](crate::Shutdown::request_now) or a signal asked for
    /// it.
    Requested,
    /// The [`Runtime`](crate::Runtime) was dropped, or consumed by [`Runtime::shutdown`](crate::Runtime::shutdown).
    Dropped,
    /// The home thread exited.
    HomeExited,
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
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async { evbase::spawn_local(async { 42 }).await })??;
/// let report = runtime.shutdown().wait()?;
/// assert_eq!(report.cause, evbase::Cause::Dropped);
/// assert_eq!((report.completed, report.cancelled, report.panicked), (1, 0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The code ([`std::io::Error::from_raw_os_error`]) with which the operating system refused to wait for events, if that
    /// has ended the thread of [`Builder::start`](crate::Builder::start), and the runtime with it.
    pub wait_error: Option<i32>,
}

impl Report {
    pub(super) fn new(cause: Cause, counts: &Counts, wait_error: Option<i32>) -> Self {
        Self {
            cause,
            completed: counts.completed.get(),
            cancelled: counts.cancelled.get(),
            panicked: counts.panicked.get(),
            wait_error,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} tasks completed, {} cancelled, {} panicked",
            self.cause, self.completed, self.cancelled, self.panicked
        )?;
        match self.wait_error {
            Some(code) => write!(
                f,
                "; the event base could not wait: {}",
                std::io::Error::from_raw_os_error(code)
            ),
            None => Ok(()),
        }
    }
}
