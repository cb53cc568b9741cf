//! Sleeps, timeouts and intervals, on the timers of the runtime that polls them.
//!
//! A timer never fires early, and is as exact as the kernel's own waits: on Linux, a thread's timer slack (50 us by
//! default) is most of what a short sleep is late, and a thousandth of its length what a long one is. A timer of 34 ms or
//! more that is armed beside 64 others or more may share a wake-up with them, which comes up to a 128th of its length after
//! its deadline, and at most 1.05 ms. Who wants it more exact, and the wake-ups that go with it, says so by
//! [`Builder::timer_slack`](crate::Builder::timer_slack). Arming and cancelling cost the same however many timers there are.
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

use crate::runtime::FOREVER;

/// `start + duration`, or as far ahead as any wait goes where `Instant` can't hold that.
fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or(start + FOREVER)
}
