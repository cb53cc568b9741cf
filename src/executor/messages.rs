//! The messages that home has taken from the gate, and has not delivered yet.
//!
//! The gate's list is newest first. Home turns it round before it delivers the first message, in steps, and then delivers
//! in portions: however long the list is, home has time for everything else in between.

use std::cell::RefCell;

use super::gate::{List, Message};

/// How many nodes home turns round at a time: a fraction of a millisecond, if each of them is a cache miss. (A model's list
/// has few.)
const STEP: usize = if cfg!(evbase_loom) { 1 } else { 4096 };

/// Home only. No borrow of it lasts longer than a call: delivering a message may come back here.
pub(super) struct Messages(RefCell<Lists>);

/// The rest of what one look at the gate has found.
struct Lists {
    /// Newest first.
    to_turn: List,
    /// Oldest first, once `to_turn` is empty.
    turned: List,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Lists {
            to_turn: List::EMPTY,
            turned: List::EMPTY,
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        let lists = self.0.borrow();
        lists.turned.is_empty() && lists.to_turn.is_empty()
    }

    /// Takes a list over, newest first, when there is none.
    pub(super) fn fill(&self, newest_first: List) {
        debug_assert!(self.is_empty());
        self.0.borrow_mut().to_turn = newest_first;
    }

    /// Turns some of the list round. True when all of it is: `pop` gives what there is.
    pub(super) fn turn(&self) -> bool {
        let Lists { to_turn, turned } = &mut *self.0.borrow_mut();
        for _ in 0..STEP {
            match to_turn.pop() {
                Some(message) => turned.push(message),
                None => return true,
            }
        }
        to_turn.is_empty()
    }

    /// The oldest message, once all are turned round; for the caller to deliver.
    pub(super) fn pop(&self) -> Option<Message> {
        let Lists { to_turn, turned } = &mut *self.0.borrow_mut();
        match to_turn.is_empty() {
            true => turned.pop(),
            false => None,
        }
    }
}
