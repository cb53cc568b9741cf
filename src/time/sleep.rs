//! A future that is ready at a point in time.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::after;
use crate::base::TimerKey;
use crate::home::{Home, NotArmed, RemoteTimer, Shared, context, coop, disarm, now};

/// Sleeps for a duration, counted from this call.
///
/// # Panics
///
/// When it is polled outside of a runtime: see [`Sleep`].
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let runtime = evbase::Runtime::new()?;
/// let start = Instant::now();
/// runtime.block_on(evbase::time::sleep(Duration::from_millis(5)))?;
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(after(now(), duration))
}

/// Sleeps until a point in time; one in the past is ready at once.
///
/// # Panics
///
/// When it is polled outside of a runtime: see [`Sleep`].
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let runtime = evbase::Runtime::new()?;
/// let deadline = Instant::now() + Duration::from_millis(5);
/// runtime.block_on(evbase::time::sleep_until(deadline))?;
/// assert!(Instant::now() >= deadline);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: Timer::NONE,
    }
}

/// The future of [`sleep`] and [`sleep_until`].
///
/// It reads a clock when it is polled. Polled in another loop than before, it moves there. It may be dropped on any thread.
/// Cancel-safe; ready again when it is polled after it was.
///
/// # Panics
///
/// Polled outside of a runtime, or in a destructor while the runtime closes.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Instant,
    timer: Timer,
}

/// A timer in a runtime's base. It may have fired.
#[derive(Debug)]
enum Timer {
    /// Armed, and reset, at home only: so it is for the present deadline.
    Local { owner: Arc<Shared>, key: TimerKey },
    /// Reset abroad: a message with the present deadline may be in the inbox. `None`: there is no timer (a third variant
    /// would make the type larger).
    Remote(Option<RemoteTimer>),
}

impl Timer {
    const NONE: Self = Self::Remote(None);

    fn find(&self) -> Option<(&Arc<Shared>, TimerKey)> {
        match self {
            Self::Local { owner, key } => Some((owner, *key)),
            Self::Remote(timer) => timer.as_ref().map(|timer| (timer.owner(), timer.key())),
        }
    }

    /// The key of the timer, if it is in this home's base.
    fn at(&self, home: &Home) -> Option<TimerKey> {
        let (owner, key) = self.find()?;
        Arc::ptr_eq(owner, home.shared()).then_some(key)
    }

    fn take(&mut self) -> Self {
        mem::replace(self, Self::NONE)
    }

    #[inline]
    fn disarm(&mut self) {
        match self.take() {
            Self::Remote(None) => {}
            timer => timer.end(),
        }
    }

    /// The timer has fired. True if that was for the present deadline.
    fn forget(&mut self, home: &Home) -> bool {
        match self.take() {
            Self::Local { owner, .. } => {
                home.give_back(owner);
                true
            }
            Self::Remote(_) => false,
        }
    }

    fn end(self) {
        match self {
            Self::Local { owner, key } => disarm(owner, key),
            Self::Remote(Some(timer)) => disarm(timer.owner().clone(), timer.key()),
            Self::Remote(None) => {}
        }
    }
}

impl Sleep {
    /// When it is ready. A duration that [`Instant`] can't hold was clamped to some thirty years from the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let sleep = evbase::time::sleep(Duration::from_secs(1));
    /// assert!(sleep.deadline() > std::time::Instant::now() && !sleep.is_elapsed());
    /// ```
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has come.
    pub fn is_elapsed(&self) -> bool {
        now() >= self.deadline
    }

    /// Changes the deadline, also after it has come. Whoever polled it last is woken at the new one, if that poll was
    /// pending and the timer has not fired; otherwise it has to be polled again.
    ///
    /// May be called on any thread. Cheap at home; elsewhere it sends home a message, never more than one at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let start = Instant::now();
    /// runtime.block_on(async {
    ///     let mut sleep = evbase::time::sleep(Duration::from_secs(3600));
    ///     sleep.reset(start + Duration::from_millis(5));
    ///     sleep.await;
    /// })?;
    /// assert!(start.elapsed() >= Duration::from_millis(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Timer::Local { owner, key } = &self.timer {
            if let Some(home) = context::home_of(owner) {
                if !home.reset(*key, deadline) {
                    self.timer.disarm();
                }
                return;
            }
            if let Timer::Local { owner, key } = self.timer.take() {
                self.timer = Timer::Remote(Some(RemoteTimer::new(owner, key)));
            }
        }
        if let Timer::Remote(Some(timer)) = &self.timer {
            if !timer.reset(deadline) {
                self.timer = Timer::NONE;
            }
        }
    }

    /// As `poll`, but spends nothing.
    pub(super) fn poll_deadline(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(home) = context::current() else {
            panic!(
                "evbase: a Sleep was polled outside of a runtime: it needs the timers of a running loop; await it in \
                 block_on or in a task"
            );
        };
        match self.timer {
            Timer::Remote(None) => self.arm(&home, cx),
            _ => self.poll_armed(&home, cx),
        }
    }

    /// A poll of a sleep that has no timer.
    #[inline]
    fn arm(&mut self, home: &Home, cx: &Context<'_>) -> Poll<()> {
        let key = match home.arm(self.deadline, cx) {
            Ok(key) => key,
            Err(NotArmed::Due) => return Poll::Ready(()),
            Err(NotArmed::Closing) => {
                panic!("evbase: a Sleep was polled while its runtime closes, where it would never be ready")
            }
        };
        let armed = Timer::Local {
            owner: home.owner(),
            key,
        };
        // There was none: so the compiler need not drop one.
        mem::forget(mem::replace(&mut self.timer, armed));
        Poll::Pending
    }

    /// A poll of a sleep that has a timer, which may have fired, or may be that of another loop.
    fn poll_armed(&mut self, home: &Home, cx: &Context<'_>) -> Poll<()> {
        let key = self.timer.at(home);
        if key.is_some_and(|key| home.has_fired(key)) {
            let for_the_last_deadline = self.timer.forget(home);
            // The base has read the clock: no need to do so here.
            if for_the_last_deadline || self.is_elapsed() {
                return Poll::Ready(());
            }
            return self.arm(home, cx);
        }
        if home.has_come(self.deadline) {
            self.timer.disarm();
            return Poll::Ready(());
        }
        if key.is_some_and(|key| home.rearm_waker(key, cx)) {
            return Poll::Pending;
        }
        self.timer.disarm();
        self.arm(home, cx)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_deadline(cx));
        // If this is Pending, the next poll finds that the deadline has passed.
        coop::spend(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timer.disarm();
    }
}

#[cfg(all(test, not(evbase_loom)))]
mod tests {
    use super::*;

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_sleep_stays_small() {
        assert_eq!(size_of::<Sleep>(), size_of::<Instant>() + 16);
    }
}
