//! Timers of this home: a waker for each, in the base.

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::home::Home;
use crate::base::{Grid, TimerKey};

/// The part of its length that a timer may be late in order to share a wake-up with others, or up to twice that. The
/// kernel takes as much for a wait of that length.
const SHARE: u128 = 1024;
/// It isn't worth it where the kernel's timer slack is longer.
const LEAST_GRID: u32 = 1 << 16;
/// No timer is put off any longer: 1.05 ms.
const MOST_GRID: u32 = 1 << 20;

impl Home {
    /// How exact a timer has to be that is armed for that long.
    fn grid(&self, length: Duration) -> Grid {
        let late = length.as_nanos() / SHARE;
        if late <= u128::from(LEAST_GRID / 2) || self.shared().settings.timer_slack.is_some() {
            return Grid::EXACT;
        }
        Grid::of_nanoseconds(u32::try_from(late).map_or(MOST_GRID, |late| late.min(MOST_GRID)))
    }

    /// Arms a timer that wakes `cx`'s waker; `None` in the end of the runtime, when nothing is armed any more. `left` is
    /// how far away the deadline is, more or less.
    pub(crate) fn arm(&self, deadline: Instant, left: Duration, cx: &Context<'_>) -> Option<TimerKey> {
        if !self.is_open() {
            return None;
        }
        let waker = cx.waker().clone();
        let armed = match &mut *self.base() {
            Some(base) => Ok(base.arm_on(deadline, self.grid(left), waker)),
            None => Err(waker),
        };
        armed.ok()
    }

    /// Makes a timer wake `cx`'s waker. False: it has fired, or was disarmed.
    pub(crate) fn rearm_waker(&self, key: TimerKey, cx: &Context<'_>) -> bool {
        match self.base().as_mut().and_then(|base| base.timer(key)) {
            None => return false,
            Some(held) if held.will_wake(cx.waker()) => return true,
            Some(_) => {}
        }
        let waker = cx.waker().clone();
        let left: Result<Waker, Waker> = match self.base().as_mut().and_then(|base| base.timer_mut(key)) {
            Some(held) => Ok(std::mem::replace(held, waker)),
            None => Err(waker),
        };
        left.is_ok()
    }

    /// Moves a timer. False: it has fired, or was disarmed. `left`: as for `arm`.
    pub(crate) fn reset(&self, key: TimerKey, deadline: Instant, left: Duration) -> bool {
        let grid = self.grid(left);
        self.base()
            .as_mut()
            .is_some_and(|base| base.reset_on(key, deadline, grid))
    }

    /// Forgets a timer, if it is still known.
    pub(crate) fn disarm(&self, key: TimerKey) {
        let waker = self.base().as_mut().and_then(|base| base.disarm(key));
        drop(waker);
    }
}
