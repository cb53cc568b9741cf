//! A future that is ready at a point in time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::after;
use crate::base::{TimerKey, Until};
use crate::runtime::{Shared, context};

/// Sleeps for a duration, counted from this call.
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
    sleep_until(after(Instant::now(), duration))
}

/// Sleeps until a point in time; one in the past is ready at once.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, armed: None }
}

/// The future of [`sleep`] and [`sleep_until`].
///
/// It reads a clock when it is polled. Polled in another loop than before, it moves there. Cancel-safe; ready again
/// when it is polled after it was.
///
/// # Panics
///
/// Polled outside of a runtime, or in a destructor while the runtime closes.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Instant,
    armed: Option<Armed>,
}

/// A timer in some runtime's base. It may have fired.
#[derive(Debug)]
struct Armed {
    owner: Arc<Shared>,
    key: TimerKey,
    /// The timer was sent another deadline, which may not have arrived.
    reset_abroad: bool,
}

impl Sleep {
    /// When it is ready. A duration that [`Instant`] can't hold was clamped to some thirty years from the call.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has come.
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Changes the deadline, also after it has come. Whoever polled it last is woken at the new one, if that poll was
    /// pending and the timer has not fired; otherwise it has to be polled again.
    ///
    /// From any thread, but cheap at home only.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let Some(armed) = &mut self.armed else {
            return;
        };
        match context::home_of(&armed.owner) {
            Some(home) if !armed.reset_abroad => {
                if !home.reset(armed.key, deadline) {
                    self.armed = None;
                }
            }
            // An earlier reset may be in flight; send this one too, to keep their order.
            _ => {
                armed.reset_abroad = true;
                let key = armed.key;
                armed.owner.send_home(move |home| {
                    home.reset(key, deadline);
                });
            }
        }
    }

    fn disarm(&mut self) {
        if let Some(Armed { owner, key, .. }) = self.armed.take() {
            owner.at_home(move |home| home.disarm(key));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(home) = context::current() else {
            panic!(
                "evbase: a Sleep was polled outside of a runtime: it needs the timers of a running loop; await it in \
                 block_on or in a task"
            );
        };
        if let Some(armed) = &self.armed
            && Arc::ptr_eq(&armed.owner, home.shared())
            && home.has_fired(armed.key)
        {
            let reset_abroad = armed.reset_abroad;
            self.armed = None;
            // The base has read the clock, unless it was for another deadline.
            if !reset_abroad || Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
        }
        let until = home.until(self.deadline);
        if until.is_none_or(Until::is_near) && Instant::now() >= self.deadline {
            self.disarm();
            return Poll::Ready(());
        }
        match &self.armed {
            Some(armed) if !Arc::ptr_eq(&armed.owner, home.shared()) => self.disarm(),
            Some(armed) if home.rearm_waker(armed.key, cx) => return Poll::Pending,
            _ => {}
        }
        let Some(key) = until.and_then(|until| home.arm(until, cx)) else {
            panic!("evbase: a Sleep was polled while its runtime closes, where it would never be ready");
        };
        self.armed = Some(Armed {
            owner: home.shared().clone(),
            key,
            reset_abroad: false,
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_stays_small() {
        assert_eq!(size_of::<Sleep>(), size_of::<Instant>() + 24);
    }
}
