//! Timers of this home: a waker for each, in the base.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use super::context;
use super::home::Home;
use super::shared::Shared;
use crate::base::{Grid, TimerKey, Until};

/// The part of its length that a timer may be late in order to share a wake-up with others, or up to twice that.
const SHARE: u64 = 256;
/// In nanoseconds: short timers, for which that would be less, are exact.
const LEAST_LATE: u64 = 1 << 17;
/// In nanoseconds: no timer is put off any longer.
const MOST_LATE: u64 = 1 << 20;

/// Fewer timers than that have nobody to share a wake-up with, as a rule.
const FEW: usize = 64;

/// How exact a timer has to be that is that many nanoseconds away, among so many others.
fn grid(left: u64, others: usize) -> Grid {
    match left / SHARE {
        _ if others < FEW => Grid::EXACT,
        ..=LEAST_LATE => Grid::EXACT,
        late => Grid::of_nanoseconds(late.min(MOST_LATE)),
    }
}

impl Home {
    /// How exact a timer of this runtime has to be.
    fn grid(&self, until: Until, others: usize) -> Grid {
        match self.shared().settings.timer_slack {
            Some(_) => Grid::EXACT,
            None => grid(until.left(), others),
        }
    }

    /// How far away a deadline is; `None` when the base is gone.
    pub(crate) fn until(&self, deadline: Instant) -> Option<Until> {
        self.base().as_ref().map(|base| base.until(deadline))
    }

    /// Arms a timer that wakes `cx`'s waker; `None` in the end of the runtime, when nothing is armed any more.
    pub(crate) fn arm(&self, until: Until, cx: &Context<'_>) -> Option<TimerKey> {
        if !self.is_open() {
            return None;
        }
        let waker = cx.waker().clone();
        let armed = match &mut *self.base() {
            Some(base) => {
                let grid = self.grid(until, base.timers());
                Ok(base.arm_until(until, grid, waker))
            }
            None => Err(waker),
        };
        armed.ok()
    }

    /// Whether a timer that nobody disarmed has fired. In the end of the runtime, none has.
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
        self.base().as_mut().is_some_and(|base| {
            let until = base.until(deadline);
            let grid = self.grid(until, base.timers());
            base.reset_until(key, until, grid)
        })
    }

    /// Forgets a timer, if it is still known.
    fn disarm(&self, key: TimerKey) {
        let waker = self.base().as_mut().and_then(|base| base.disarm(key));
        drop(waker);
    }

    /// What a timer holds of its runtime.
    pub(crate) fn owner(&self) -> Arc<Shared> {
        self.owners().take().unwrap_or_else(|| self.shared().clone())
    }
}

/// Forgets a timer, if it is still known: at once if this is its home, else by a message.
pub(crate) fn disarm(owner: Arc<Shared>, key: TimerKey) {
    match context::home_of(&owner) {
        Some(home) => {
            home.disarm(key);
            home.owners().give_back(owner);
        }
        None => owner.at_home(move |home| home.disarm(key)),
    }
}

/// References to the shared half of a runtime for timers to hold: one that is armed and disarmed at home takes one from here and
/// gives it back, which is cheaper than counting it, on all threads, up and down again.
#[derive(Debug, Default)]
pub(super) struct Owners(RefCell<Vec<Arc<Shared>>>);

impl Owners {
    /// How many are kept.
    const MOST: usize = 64;

    fn take(&self) -> Option<Arc<Shared>> {
        self.0.borrow_mut().pop()
    }

    fn give_back(&self, owner: Arc<Shared>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < Self::MOST {
            kept.push(owner);
        }
    }
}

#[cfg(all(test, not(evbase_loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_short_timer_is_exact_and_a_long_one_of_many_late_by_a_part_of_its_length_or_a_millisecond() {
        for left in [0, 1, 200_000, 20_000_000, LEAST_LATE * SHARE] {
            assert_eq!(grid(left, FEW), Grid::EXACT, "{left}");
        }
        for left in [34_000_000, 100_000_000, 999_999_999, 3_600_000_000_000, u64::MAX] {
            assert_eq!(grid(left, FEW - 1), Grid::EXACT, "{left}");
            let late = grid(left, FEW).nanoseconds();
            assert!(
                late > LEAST_LATE && late <= left / 128 && late <= MOST_LATE,
                "{left}: {late}"
            );
        }
    }

    #[test]
    fn with_a_timer_slack_every_timer_is_exact() {
        let hour = Instant::now() + Duration::from_secs(3600);
        for slack in [None, Some(Duration::from_micros(50))] {
            let builder = crate::Builder::new();
            let builder = slack.into_iter().fold(builder, crate::Builder::timer_slack);
            let runtime = builder.build().unwrap();
            let context = runtime.enter();
            let home = crate::runtime::context::current().unwrap();
            let until = home.until(hour).unwrap();
            assert_eq!(home.grid(until, FEW) == Grid::EXACT, slack.is_some());
            drop(context);
        }
    }
}
