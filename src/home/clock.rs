//! The time of a runtime: real, or virtual in one that was built to be paused, where it stands still while there is anything to do,
//! and then jumps to the next deadline.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::{Duration, Instant};

use super::context;
use super::home::Home;
use super::shared::Shared;
use crate::base::FOREVER;

/// There is, or was, a runtime with virtual time in this process: `now` has to look for it.
static VIRTUAL: AtomicBool = AtomicBool::new(false);

pub(crate) fn use_virtual_time() {
    VIRTUAL.store(true, Relaxed);
}

/// The time of the innermost context; real time outside of any.
///
/// That is [`Instant::now`], but in a runtime that was built with [`Builder::paused`](crate::Builder::paused).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use evbase::time;
///
/// let runtime = evbase::Builder::new().paused().build()?;
/// runtime.block_on(async {
///     let start = time::now();
///     time::sleep(Duration::from_secs(3600)).await; // takes no time
///     assert_eq!(time::now() - start, Duration::from_secs(3600));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn now() -> Instant {
    if VIRTUAL.load(Relaxed) {
        return now_of_context();
    }
    Instant::now()
}

#[cold]
fn now_of_context() -> Instant {
    context::current().map_or_else(Instant::now, |home| home.now())
}

/// Whether the time of the innermost context is virtual.
#[cfg(feature = "net")]
pub(crate) fn is_virtual() -> bool {
    VIRTUAL.load(Relaxed) && context::current().is_some_and(|home| home.shared().settings.paused)
}

/// Keeps the virtual time of a runtime from jumping while it lives: made by [`hold`].
#[must_use = "time may jump when this is dropped"]
pub struct Hold {
    shared: Option<Arc<Shared>>,
}

/// Keeps the virtual time of the runtime that this code runs in from jumping, for as long as the result lives: while something goes
/// on outside of the runtime that it can't know of, such as another thread that is about to write to a socket.
///
/// It can be dropped on any thread, and keeps no runtime alive; but it keeps a grace period, which is in virtual time, from ending by
/// its length. In a runtime with real time it does nothing. (What [`unblock`](crate::unblock()) runs needs none.)
///
/// # Panics
///
/// Outside of a context: see [`Spawner::current`](crate::Spawner::current).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use evbase::time;
///
/// let runtime = evbase::Builder::new().paused().build()?;
/// let (sender, receiver) = futures::channel::oneshot::channel();
/// let received = runtime.block_on(async {
///     let hold = time::hold();
///     std::thread::spawn(move || {
///         std::thread::sleep(Duration::from_millis(20)); // real time
///         sender.send(42).unwrap();
///         drop(hold);
///     });
///     time::timeout(Duration::from_secs(1), receiver).await
/// })?;
/// assert_eq!(received, Ok(Ok(42)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn hold() -> Hold {
    Hold::of(&context::expect_current())
}

impl Hold {
    fn of(home: &Home) -> Self {
        let shared = home.shared();
        if !shared.settings.paused {
            return Self { shared: None };
        }
        shared.holds.fetch_add(1, Relaxed);
        Self {
            shared: Some(shared.clone()),
        }
    }

    /// One of the context, if there is one with virtual time.
    #[cfg(feature = "unblock")]
    pub(crate) fn of_context() -> Option<Self> {
        if !VIRTUAL.load(Relaxed) {
            return None;
        }
        context::current().map(|home| Self::of(&home))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        // Release: home, which sees that there is none left, finds the messages that were sent before.
        if shared.holds.fetch_sub(1, Release) == 1 {
            // Home may be asleep, since time could not jump.
            shared.at_home(|home| home.executor().rouse());
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// Virtual time ends before a runtime is so old: what was put off for ever is [`FOREVER`] away from some moment after its birth, or
/// shortly before that.
const NEVER: Duration = FOREVER.saturating_sub(Duration::from_secs(365 * 24 * 60 * 60));

impl Home {
    /// The time by which timers fire, and the grace period ends.
    pub(crate) fn now(&self) -> Instant {
        match self.shared().settings.paused {
            false => Instant::now(),
            true => self.base().as_ref().map_or_else(Instant::now, |base| base.now()),
        }
    }

    /// What is left until then.
    pub(super) fn time_until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.now())
    }

    /// The end of a time that begins now.
    pub(super) fn deadline_in(&self, time: Duration) -> Instant {
        let now = self.now();
        now.checked_add(time).unwrap_or(now + FOREVER)
    }

    /// The first deadline of a timer, or the end of the grace period.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let timer = self.base().as_mut().and_then(|base| base.next_deadline());
        timer.into_iter().chain(self.grace_end()).min()
    }

    /// Whether virtual time may jump, if there is nothing to do. Asked before home looks for messages: see `Hold`.
    pub(super) fn may_jump(&self) -> bool {
        self.shared().settings.paused && self.shared().holds.load(Acquire) == 0
    }

    /// There is nothing to do: virtual time jumps to the next deadline. False if there is none, or it is as good as never.
    pub(super) fn jump(&self) -> bool {
        let end = self.grace_end();
        self.base().as_mut().is_some_and(|base| base.advance_clock(end, NEVER))
    }
}
