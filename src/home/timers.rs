//! Home's operations on timers in its base, each of which has a waker as its payload.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::context;
use super::home::Home;
use super::shared::Shared;
use crate::base::{TimerKey, Until};

impl Home {
    /// How far away a deadline is; `None` when the base is gone.
    pub(crate) fn until(&self, deadline: Instant) -> Option<Until> {
        self.base().as_ref().map(|base| base.until(deadline))
    }

    /// How late a timer may be, if not as late as by the usual rule. Virtual time is exact.
    fn timer_bound(&self) -> Option<Duration> {
        let settings = &self.shared().settings;
        match settings.paused {
            false => settings.timer_slack,
            true => Some(Duration::ZERO),
        }
    }

    /// Arms a timer that wakes `cx`'s waker; `None` when the runtime is closing or closed.
    pub(crate) fn arm(&self, until: Until, cx: &Context<'_>) -> Option<TimerKey> {
        if !self.is_open() {
            return None;
        }
        let waker = cx.waker().clone();
        self.executor().rouse();
        let armed = match &mut *self.base() {
            Some(base) => Ok(base.arm_until(until, self.timer_bound(), waker)),
            None => Err(waker),
        };
        armed.ok()
    }

    /// Whether a timer that was not disarmed has fired. False when the runtime is closing or closed.
    pub(crate) fn has_fired(&self, key: TimerKey) -> bool {
        self.is_open() && self.base().as_ref().is_some_and(|base| base.timer(key).is_none())
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
        self.executor().rouse();
        let bound = self.timer_bound();
        self.base().as_mut().is_some_and(|base| {
            let until = base.until(deadline);
            base.reset_until(key, until, bound)
        })
    }

    /// Disarms a timer, if it is still armed. The caller drops its waker, which may be user code.
    #[inline]
    fn disarm(&self, key: TimerKey) -> Option<Waker> {
        self.base().as_mut().and_then(|base| base.disarm(key))
    }

    /// A reference to the shared half, for a timer to hold.
    pub(crate) fn owner(&self) -> Arc<Shared> {
        self.owner.take().unwrap_or_else(|| self.shared().clone())
    }

    /// A timer is gone that held this reference to the shared half.
    #[inline]
    pub(crate) fn give_back(&self, owner: Arc<Shared>) {
        self.owner.set(Some(owner));
    }
}

/// Disarms a timer, if it is still armed: at once if this is its home, else by a message.
#[inline]
pub(crate) fn disarm(owner: Arc<Shared>, key: TimerKey) {
    let disarmed = context::at_innermost(owner, |home, owner| {
        home.give_back(owner);
        home.disarm(key)
    });
    match disarmed {
        Ok(waker) => drop(waker),
        Err(owner) => owner.at_home(move |home| drop(home.disarm(key))),
    }
}
