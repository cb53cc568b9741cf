//! Timers of this home: a waker for each, in the base.

use std::task::{Context, Waker};
use std::time::Instant;

use super::home::Home;
use crate::base::TimerKey;

impl Home {
    /// Arms a timer that wakes `cx`'s waker; `None` in the end of the runtime, when nothing is armed any more.
    pub(crate) fn arm(&self, deadline: Instant, cx: &Context<'_>) -> Option<TimerKey> {
        if !self.is_open() {
            return None;
        }
        let waker = cx.waker().clone();
        let armed = match &mut *self.base() {
            Some(base) => Ok(base.arm(deadline, waker)),
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

    /// Moves a timer. False: it has fired, or was disarmed.
    pub(crate) fn reset(&self, key: TimerKey, deadline: Instant) -> bool {
        self.base().as_mut().is_some_and(|base| base.reset(key, deadline))
    }

    /// Forgets a timer, if it is still known.
    pub(crate) fn disarm(&self, key: TimerKey) {
        let waker = self.base().as_mut().and_then(|base| base.disarm(key));
        drop(waker);
    }
}
