//! The messages that home has taken from the gate, and has not delivered yet.
//!
//! The gate's list is newest first. Home reverses it before it delivers the first message. It does so in steps, and delivers
//! in portions: however long the list is, home looks at everything else in between.

use std::cell::RefCell;

use super::gate::{List, Message};

/// How many nodes home reverses at a time: a fraction of a millisecond, if each of them is a cache miss. (A model's list
/// has few.)
const STEP: usize = if cfg!(evbase_loom) { 1 } else { 4096 };

/// Home only. No borrow of it outlasts a call: delivering a message may call these methods.
pub(super) struct Messages(RefCell<Lists>);

/// What is left of one list from the gate.
struct Lists {
    /// Not reversed yet: newest first.
    newest_first: List,
    /// Reversed. Complete once `newest_first` is empty.
    oldest_first: List,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Lists {
            newest_first: List::EMPTY,
            oldest_first: List::EMPTY,
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        let lists = self.0.borrow();
        lists.oldest_first.is_empty() && lists.newest_first.is_empty()
    }

    /// Takes over a list, newest first. There is none left from before.
    pub(super) fn fill(&self, newest_first: List) {
        debug_assert!(self.is_empty());
        self.0.borrow_mut().newest_first = newest_first;
    }

    /// Reverses some of the list. True when all of it is reversed, so that `pop` can begin.
    pub(super) fn reverse_some(&self) -> bool {
        let Lists {
            newest_first,
            oldest_first,
        } = &mut *self.0.borrow_mut();
        for _ in 0..STEP {
            match newest_first.pop() {
                Some(message) => oldest_first.push(message),
                None => return true,
            }
        }
        newest_first.is_empty()
    }

    /// The oldest message, for the caller to deliver; `None` if there is none, or the list is not reversed yet.
    pub(super) fn pop(&self) -> Option<Message> {
        let Lists {
            newest_first,
            oldest_first,
        } = &mut *self.0.borrow_mut();
        match newest_first.is_empty() {
            true => oldest_first.pop(),
            false => None,
        }
    }
}
