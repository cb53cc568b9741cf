//! The word that a task's owners on all threads share: who holds it, where it stands.
//!
//! ```text
//!   word = references << 5 | JOIN_WAKER | JOIN | COMPLETE | ABORT | POSTED
//!
//!   POSTED      the task is in the inbox, or on its way there, with a reference of its own
//!   ABORT       home drops the future instead of polling it again; sticky
//!   COMPLETE    the future is gone, home will not touch the task any more once it let go of its reference; sticky
//!   JOIN        a join handle exists, so the output is kept for it
//!   JOIN_WAKER  the join cell holds a waker, and the cell is home's to take it from; without the bit it is the handle's
//! ```
//!
//! References: one of home's while the future lives, one of the join handle, one a waker or abort handle, one of the
//! inbox. The last one to go frees plain memory: the output was taken or dropped by then, and COMPLETE stands, unless
//! home was alone when the future went, and there was nobody to tell.
//!
//! What home does to tasks at home is not in here: no wake-up at home needs a read-modify-write.

use crate::sync::AtomicU32;
use std::process::abort;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

const POSTED: u32 = 1;
const ABORT: u32 = 1 << 1;
const COMPLETE: u32 = 1 << 2;
const JOIN: u32 = 1 << 3;
const JOIN_WAKER: u32 = 1 << 4;
const REFERENCE: u32 = 1 << 5;

#[derive(Debug)]
pub(super) struct State(AtomicU32);

/// What home finds when it completes a task.
#[derive(Debug)]
pub(super) struct Completed {
    /// A join handle waits in the join cell, which is home's now.
    pub(super) join_waker: bool,
    /// There is a join handle, and the output is its own now; otherwise it is home's to drop.
    pub(super) joined: bool,
}

/// What a join handle finds when it goes.
#[derive(Debug)]
pub(super) enum Detached {
    /// The task goes on, and the handle's reference is gone.
    Gone,
    /// The task goes on; the join cell, which is the handle's again, has a waker in it.
    WithWaker,
    /// The output is the handle's, unless it was taken.
    Complete,
}

impl State {
    /// Of a task made at home: home's reference and the join handle's.
    pub(super) fn new_at_home() -> Self {
        Self(AtomicU32::new((2 * REFERENCE) | JOIN))
    }

    /// Of a task made abroad: on its way home, with the reference that will be home's, and the join handle's.
    pub(super) fn new_abroad() -> Self {
        Self(AtomicU32::new((2 * REFERENCE) | JOIN | POSTED))
    }

    pub(super) fn is_complete(&self) -> bool {
        // Acquire: who sees the completion sees the output.
        self.0.load(Acquire) & COMPLETE != 0
    }

    /// Home asks before each poll. An abort from abroad comes with a message, so Relaxed is enough.
    pub(super) fn is_aborted(&self) -> bool {
        self.0.load(Relaxed) & ABORT != 0
    }

    /// One reference more; the caller holds one.
    pub(super) fn acquire(&self) {
        if self.0.fetch_add(REFERENCE, Relaxed) > i32::MAX as u32 {
            abort();
        }
    }

    /// One reference less. True if it was the last one: the caller frees the task.
    pub(super) fn release(&self) -> bool {
        // Alone? Then nobody else can change the word, and no read-modify-write is needed.
        if self.0.load(Acquire) / REFERENCE == 1 {
            return true;
        }
        if self.0.fetch_sub(REFERENCE, Release) / REFERENCE != 1 {
            return false;
        }
        // As good as a fence, and what the thread sanitizer understands.
        self.0.load(Acquire);
        true
    }

    /// A wake-up abroad. True: push the task, which got a reference for the inbox.
    pub(super) fn wake_by_ref(&self) -> bool {
        self.post(0)
    }

    /// An abort abroad. True: push the task, which got a reference for the inbox.
    pub(super) fn abort_abroad(&self) -> bool {
        self.post(ABORT)
    }

    fn post(&self, also: u32) -> bool {
        let mut word = self.0.load(Relaxed);
        loop {
            if word & COMPLETE != 0 {
                return false;
            }
            let mut next = word | POSTED | also;
            if word & POSTED == 0 {
                next += REFERENCE;
            }
            // Release, even where the word stays as it is: what was written before this wake-up is visible to the poll
            // that the earlier one causes, because home clears POSTED with Acquire before that poll. Acquire: home is
            // done with the link of the last push.
            match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {
                Ok(_) => return word & POSTED == 0,
                Err(now) => word = now,
            }
        }
    }

    /// Home took the task from the inbox; the inbox's reference becomes home's. First arrival of a task made abroad.
    pub(super) fn arrive(&self) {
        // Alone? Then nobody else can change the word.
        if self.0.load(Acquire) == REFERENCE | POSTED {
            self.0.store(REFERENCE, Relaxed);
        } else {
            self.0.fetch_sub(POSTED, AcqRel);
        }
    }

    /// Home took the task from the inbox, and gives the inbox's reference back. True if it was the last one.
    pub(super) fn deliver(&self) -> bool {
        self.0.fetch_sub(POSTED + REFERENCE, AcqRel) / REFERENCE == 1
    }

    /// Home flags an abort. The caller schedules the task.
    pub(super) fn abort_at_home(&self) {
        self.0.fetch_or(ABORT, Relaxed);
    }

    /// Home has put the output into the task. If nobody waits, home's reference is given back in the same step, and
    /// `None` comes back: home must not touch the task again. Otherwise home has to look after the join cell or the
    /// output, and then to release its reference.
    pub(super) fn complete(&self) -> Option<Completed> {
        let mut word = self.0.load(Acquire);
        if word / REFERENCE == 1 {
            // Only home is left: nobody will ask whether the task is complete.
            return Some(Completed {
                join_waker: false,
                joined: false,
            });
        }
        loop {
            let quiet = word & (JOIN | JOIN_WAKER) == JOIN;
            let mut next = word | COMPLETE;
            if quiet {
                // Never the last: the join handle holds one.
                next -= REFERENCE;
            }
            // Release: the output, for the handle. Acquire: the join cell, from the handle.
            match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {
                Ok(_) if quiet => return None,
                Ok(_) => {
                    return Some(Completed {
                        join_waker: word & JOIN_WAKER != 0,
                        joined: word & JOIN != 0,
                    });
                }
                Err(now) => word = now,
            }
        }
    }

    /// The join handle gives the filled join cell to home. False: the task completed, and the cell stays the handle's.
    pub(super) fn give_join_waker(&self) -> bool {
        self.change_unless_complete(|word| word | JOIN_WAKER).is_some()
    }

    /// The join handle wants the join cell back. False: the task completed, and the cell is home's.
    pub(super) fn take_join_waker_back(&self) -> bool {
        self.change_unless_complete(|word| word & !JOIN_WAKER).is_some()
    }

    /// Whether the join cell is home's. For the join handle, which alone changes that.
    pub(super) fn has_join_waker(&self) -> bool {
        self.0.load(Relaxed) & JOIN_WAKER != 0
    }

    /// The join handle goes, and gives its reference back if there is nothing left to do.
    pub(super) fn detach(&self) -> Detached {
        let changed = self.change_unless_complete(|word| match word & JOIN_WAKER {
            // Never the last: home has one, or will have that of the inbox.
            0 => (word & !JOIN) - REFERENCE,
            _ => word & !(JOIN | JOIN_WAKER),
        });
        match changed {
            None => Detached::Complete,
            Some(word) if word & JOIN_WAKER != 0 => Detached::WithWaker,
            Some(_) => Detached::Gone,
        }
    }

    /// Returns the word from before.
    fn change_unless_complete(&self, change: impl Fn(u32) -> u32) -> Option<u32> {
        let mut word = self.0.load(Acquire);
        loop {
            if word & COMPLETE != 0 {
                return None;
            }
            match self.0.compare_exchange_weak(word, change(word), AcqRel, Acquire) {
                Ok(_) => return Some(word),
                Err(now) => word = now,
            }
        }
    }
}
