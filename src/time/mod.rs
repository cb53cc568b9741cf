//! Sleeps, timeouts and intervals, on the timers of the runtime that polls them.
//!
//! A timer never fires early. It may be late by a 128th of its length, but 1 ms at most, so that timers near to each other
//! share a wake-up; shorter than 32 ms, it is exact. [`Builder::timer_slack`](crate::Builder::timer_slack) sets another bound
//! instead of the millisecond, zero for none. Arming and cancelling cost the same however many timers there are.
//!
//! On Linux, the kernel's own delays don't come on top of it. For that, home sets the timer slack of its thread
//! (`PR_SET_TIMERSLACK` in `prctl(2)`; 50 us by default) to 1 ns when its loop is about to wait for a timer that is less than 32 ms
//! away, and puts back what was there when the loop ends: that of `block_on`, `run`, `turn` or a blocking wait. It costs three
//! system calls a loop, however many waits there are, and none if all timers are cancelled before they are near. (A thread whose
//! slack is wider than 50 us is treated so from its first wait for any timer.)
//!
//! Threads and processes that are made in such a loop by other means than this crate's start with 1 ns, since they inherit it, and
//! a process keeps it through `exec`: they can set their own. Those of `unblock`, [`process`](crate::process) and
//! [`Builder::start`](crate::Builder::start) start with the slack from before the loop. An [`Embedded`](crate::Embedded) leaves its
//! host's thread alone: its deadlines are in a descriptor, which the kernel makes readable without slack.
//!
//! For tests there is a virtual clock, by which an hour takes no time: [`Builder::paused`](crate::Builder::paused).
//!
//! Everything here can be made anywhere and sent between threads; it belongs to the loop that polls it. Deadlines are
//! [`Instant`]s, durations are not rounded.

mod interval;
mod sleep;
mod timeout;

use std::time::{Duration, Instant};

pub use interval::{Interval, MissedTickBehavior, Tick, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Elapsed, Timeout, timeout, timeout_at};

use crate::base::FOREVER;
pub use crate::home::{Hold, hold, now};

/// `start + duration`, or as far ahead as any wait goes where `Instant` can't hold that.
fn after(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + FOREVER)
}
