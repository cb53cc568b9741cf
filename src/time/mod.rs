//! Sleeps, timeouts and intervals, on the timers of the runtime that polls them.
//!
//! A timer never fires early. It may be late by a 128th of its length, but 1 ms at most, so that timers near to each other
//! share a wake-up; shorter than 32 ms, it is exact. [`Builder::timer_slack`](crate::Builder::timer_slack) sets another bound
//! instead of the millisecond, zero for none. Arming and cancelling cost the same however many timers there are.
//!
//! On Linux, the kernel's own delays don't come on top of it. For that, home sets the timer slack of its thread
//! (`PR_SET_TIMERSLACK` in `prctl(2)`; 50 us by default) to 1 ns when it first waits for a timer, and puts back what was there
//! when the runtime closes. Threads and processes that home makes in between start with that slack.
//!
//! For tests there is a virtual clock, by which an hour takes no time: [`Builder::paused`](crate::Builder::paused).
//!
//! Everything here can be made anywhere and sent between threads; it belongs to the loop that polls it. Deadlines are
//! [`Instant`]s, durations are exact to the nanosecond.

mod interval;
mod sleep;
mod timeout;

use std::time::{Duration, Instant};

pub use interval::{Interval, MissedTickBehavior, Tick, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Elapsed, Timeout, timeout, timeout_at};

use crate::base::FOREVER;
pub use crate::runtime::{Hold, hold, now};

/// `start + duration`, or as far ahead as any wait goes where `Instant` can't hold that.
fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or(start + FOREVER)
}
