//! [`Embedded`]: a runtime in somebody else's loop.
//!
//! The host polls one descriptor, the kernel queue's own, and calls [`Embedded::turn`] when it is readable. So everything that
//! gives the runtime something to do has to show there:
//!
//! ```text
//!   a source is ready, the alarm goes off      the kernel queue itself
//!   abroad: a message, a stop                  home is parked: whoever clears PARKED writes to the notify fd
//!   home, outside of a turn: spawn, wake, arm  `Executor::rouse`: clears PARKED, and writes if it was set
//!   the end of a turn finds something left     `Home::settle` writes instead of parking
//! ```
//!
//! Invariant: while there is an `Embedded`, home outside of its loop has either parked, with the alarm set to its next deadline, or
//! has written to the notify fd since the last look at the kernel.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::runtime::Runtime;
use crate::base::Descriptor;
use crate::home::{Home, RunError, Shared, Turn};

/// A runtime embedded in another event loop, the *host*: made by [`Runtime::embed`].
///
/// It is a descriptor that is readable (level-triggered) exactly when a turn of the runtime has something to do: a message from
/// abroad, a stop, a ready task, an event, a timer that is due, the end of the grace period. The host polls it for reading, and
/// calls [`turn`](Embedded::turn), which never waits. One that is idle never wakes the host. The host needs no timer for it: deadlines
/// are in the descriptor, too.
///
/// What home does between two turns counts as well: a spawn, a wake-up, an abort, a timer that is armed or reset.
/// All that happens between two turns, at home and abroad, costs one write to a descriptor at most.
///
/// A host with edge-triggered polling needs one turn an edge: it clears its own readiness first, and then calls `turn`. If that
/// leaves work ([`Turn::more`]), there is a new edge.
///
/// [`Runtime::block_on`], [`run`](Runtime::run), [`turn`](Runtime::turn) and the blocking waits stay allowed in between, and
/// leave the descriptor right.
///
/// # The end
///
/// A stop or a drop of the [`Runtime`] on another thread, or in a signal handler, makes the descriptor readable; the host's turns then
/// run the grace period and close the runtime ([`Turn::closed`]). After that `turn` is [`RunError::Stopped`], and the descriptor, which
/// stays open with the last `Embedded`, is never readable again. A drop of the `Runtime` at home closes there and then.
///
/// The host may be a task in another runtime of the same thread. If home is in a blocking wait when the stop comes, or in the
/// loop of another runtime that doesn't turn this one, it is closed there: at once if that loop has nothing else to do, else after
/// a second. (One that was turned in a loop of that runtime before has that second for its next turn in any case.) So it is if the
/// last `Embedded` goes after a stop, and no turn has closed the runtime: from then on it is as if it had never been embedded.
///
/// # Threads
///
/// `Send` and `Sync`; there may be any number, and none keeps the runtime alive. Only home may call `turn`. A thread
/// of its own may poll the descriptor for a host that can't poll, and tell that host to call `turn`. In the child of a fork,
/// `turn` is [`RunError::Forked`], and a drop disturbs nobody.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
///
/// let runtime = evbase::Runtime::new()?;
/// let embedded = runtime.embed()?;
/// let task = runtime.spawn_local(async {
///     evbase::time::sleep(Duration::from_millis(2)).await;
///     42
/// })?;
///
/// // The host: any loop that polls descriptors.
/// let mut fds = [libc::pollfd { fd: embedded.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
/// while !task.is_finished() {
///     // SAFETY: the slice is valid, and has one element.
///     unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
///     if fds[0].revents != 0 {
///         embedded.turn()?;
///     }
/// }
/// assert_eq!(task.wait()??, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Embedded {
    shared: Arc<Shared>,
    descriptor: Arc<Descriptor>,
}

impl Embedded {
    /// One pass of the loop, which never waits: delivers what was sent, looks at the kernel and the clock, and runs ready
    /// tasks, as many as [`event_interval`](crate::Builder::event_interval) says. Home only, also inside the loop of *another* runtime.
    ///
    /// After a stop it is one pass of the grace period; the pass that closes says so in its [`Turn`].
    ///
    /// # Errors
    ///
    /// All of [`RunError`]: `Nested` in a task of this runtime; `Stopped` after the pass that closed.
    ///
    /// # Panics
    ///
    /// With what a hook of [`before_wait`](Runtime::before_wait) threw; the runtime remains usable.
    pub fn turn(&self) -> Result<Turn, RunError> {
        self.home()?.turn_as_guest()
    }

    /// When the runtime will next have something to do by itself: the first deadline of a timer, or the end of the grace period.
    /// `None` if there is neither. Home only. A host needs this only to plan ahead.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested` and `Io`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let embedded = runtime.embed()?;
    /// assert_eq!(embedded.next_deadline()?, None);
    /// let deadline = Instant::now() + Duration::from_secs(1);
    /// runtime.spawn_local(evbase::time::sleep_until(deadline))?;
    /// embedded.turn()?;
    /// assert!(embedded.next_deadline()?.is_some_and(|next| next >= deadline));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_deadline(&self) -> Result<Option<Instant>, RunError> {
        Ok(self.home()?.next_deadline())
    }

    fn home(&self) -> Result<Rc<Home>, RunError> {
        Home::of_bound(&self.shared)
    }
}

impl AsFd for Embedded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Embedded {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Home, if it has parked outside of its loop, stays parked until it next drives: at most one write of a message is in vain. This
        // may be abroad, while home sleeps in its own loop, so it can't be undone here. A stop rings the thread's bell anyway.
        self.shared.unembed();
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("fd", &self.as_raw_fd())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Embeds the runtime in another event loop: the result is a descriptor to poll, and a call to make when it is readable. At
    /// home; a runtime without a home gets this thread for one.
    ///
    /// It costs one descriptor more (on Linux), and nothing for runtimes that aren't embedded.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested`; `Io` if there is no descriptor left. The runtime goes on.
    ///
    /// # Examples
    ///
    /// See [`Embedded`].
    pub fn embed(&self) -> Result<Embedded, RunError> {
        let home = Home::bind(self.shared())?;
        let descriptor = home.embed()?;
        Ok(Embedded {
            shared: self.shared().clone(),
            descriptor,
        })
    }
}
