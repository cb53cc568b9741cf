//! Home's operations on timers in its base, each of which has a waker as its payload.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use super::context;
use super::home::Home;
use super::shared::Shared;
use crate::base::TimerKey;

/// Why no timer was armed.
pub(crate) enum NotArmed {
    /// Its deadline has come.
    Due,
    /// The runtime is closing, or closed.
    Closing,
}

impl Home {
    /// Whether a deadline has come.
    pub(crate) fn has_come(&self, deadline: Instant) -> bool {
        match &*self.base() {
            Some(base) => base.has_come(deadline),
            None => Instant::now() >= deadline,
        }
    }

    /// Arms a timer that wakes `cx`'s waker.
    #[inline]
    pub(crate) fn arm(&self, deadline: Instant, cx: &Context<'_>) -> Result<TimerKey, NotArmed> {
        if !self.is_open() {
            return Err(match self.has_come(deadline) {
                true => NotArmed::Due,
                false => NotArmed::Closing,
            });
        }
        let waker = cx.waker().clone();
        let armed = match &mut *self.base() {
            Some(base) => base
                .arm_late(deadline, self.timer_bound, waker)
                .map_err(|waker| (NotArmed::Due, waker)),
            None => Err((NotArmed::Closing, waker)),
        };
        // The waker is dropped after the borrow.
        let key = armed.map_err(|(why, _)| why)?;
        self.executor().rouse();
        Ok(key)
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
        let mut base = self.base();
        base.as_mut()
            .is_some_and(|base| base.reset_late(key, deadline, self.timer_bound))
    }

    /// Disarms a timer, if it is still armed. The caller drops its waker, which may be user code.
    #[inline(always)]
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
#[inline(always)]
pub(crate) fn disarm(owner: Arc<Shared>, key: TimerKey) {
    match context::current() {
        Some(home) if Arc::ptr_eq(home.shared(), &owner) => {
            let waker = home.disarm(key);
            home.give_back(owner);
            drop(waker);
        }
        _ => owner.at_home(move |home| drop(home.disarm(key))),
    }
}
