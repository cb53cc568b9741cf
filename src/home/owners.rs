//! References to the shared half, kept for the timers of a home.

use std::cell::RefCell;
use std::sync::Arc;

use super::shared::Shared;

/// References to the shared half for timers to hold. A timer takes one when it is armed at home, and gives it back when it is
/// disarmed there: cheaper than two atomic operations on the reference count.
#[derive(Debug, Default)]
pub(super) struct Owners(RefCell<Vec<Arc<Shared>>>);

impl Owners {
    /// How many are kept.
    const MOST: usize = 64;

    pub(super) fn take(&self) -> Option<Arc<Shared>> {
        self.0.borrow_mut().pop()
    }

    pub(super) fn give_back(&self, owner: Arc<Shared>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < Self::MOST {
            kept.push(owner);
        }
    }
}
