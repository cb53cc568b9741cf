//! The messages that home has taken from the gate, and has not delivered yet.
//!
//! The gate's list is newest first. Home reverses it before it delivers the first message. It does so in steps, and delivers
//! in portions: however long the list is, home looks at everything else in between.

use super::gate::{List, Message};

/// How many nodes home reverses at a time: a fraction of a millisecond, if each of them is a cache miss. (A model's list
/// has few.)
const STEP: usize = if cfg!(evbase_loom) { 1 } else { 4096 };

/// Home only. Delivering a message may call these methods.
pub(super) struct Messages {
    /// Not reversed yet.
    newest_first: List,
    /// Reversed. Complete once `newest_first` is empty.
    oldest_first: List,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self {
            newest_first: List::empty(),
            oldest_first: List::empty(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.oldest_first.is_empty() && self.newest_first.is_empty()
    }

    /// Takes over a list, newest first. There is none left from before.
    pub(super) fn fill(&self, newest_first: List) {
        debug_assert!(self.is_empty());
        self.newest_first.fill(newest_first);
    }

    /// Reverses some of the list. True when all of it is reversed, so that `pop` can begin.
    pub(super) fn reverse_some(&self) -> bool {
        for _ in 0..STEP {
            match self.newest_first.pop() {
                Some(message) => self.oldest_first.push(message),
                None => return true,
            }
        }
        self.newest_first.is_empty()
    }

    /// The oldest message, for the caller to deliver; `None` if there is none, or the list is not reversed yet.
    pub(super) fn pop(&self) -> Option<Message> {
        match self.newest_first.is_empty() {
            true => self.oldest_first.pop(),
            false => None,
        }
    }
}
