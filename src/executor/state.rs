//! The state of a task that all threads share: one atomic word.
//!
//! ```text
//!   word = references << 5 | JOIN_WAKER | JOIN | COMPLETE | ABORT | POSTED
//!
//!   POSTED      the task is in the inbox, or on its way there, with a reference of its own
//!   ABORT       home drops the future instead of polling it again; sticky
//!   COMPLETE    the future is gone, and the output is there; home uses the task only until it releases its reference; sticky
//!   JOIN        a join handle exists, so the output is kept for it
//!   JOIN_WAKER  the join cell holds a waker, and the cell is home's to take it from; without the bit it is the handle's
//! ```
//!
//! References: home has one while the future lives, the join handle has one, each waker and abort handle has one, and the
//! inbox has one while POSTED is set. Releasing the last one frees plain memory: the output was taken or dropped by then. COMPLETE
//! is set by then, unless home had the only reference when the future ended.
//!
//! Whether home has queued or is polling a task is not in here but in `Local`: a wake-up at home needs no read-modify-write.

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
    /// The join handle's waker is in the join cell, which is home's now.
    pub(super) join_waker: bool,
    /// There is a join handle, which has the output now. Otherwise home drops it.
    pub(super) joined: bool,
}

/// What a join handle finds when it is dropped.
#[derive(Debug)]
pub(super) enum Detached {
    /// The task goes on, and the handle's reference is gone.
    Gone,
    /// The task goes on; the join cell, which is the handle's again, has a waker in it.
    WithWaker,
    /// The output is the handle's.
    Complete,
}

impl State {
    /// Of a task made at home, with home's reference and the join handle's.
    pub(super) fn new_at_home() -> Self {
        Self(AtomicU32::new((2 * REFERENCE) | JOIN))
    }

    /// Of a task made abroad, with the inbox's reference, which will be home's, and the join handle's.
    pub(super) fn new_abroad() -> Self {
        Self(AtomicU32::new((2 * REFERENCE) | JOIN | POSTED))
    }

    pub(super) fn is_complete(&self) -> bool {
        // Acquire: with COMPLETE, the output is visible.
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
        // With the only reference, nobody else can change the word: no read-modify-write is needed.
        if self.0.load(Acquire) / REFERENCE == 1 {
            return true;
        }
        if self.0.fetch_sub(REFERENCE, Release) / REFERENCE != 1 {
            return false;
        }
        // In place of a fence, which the thread sanitizer doesn't understand.
        self.0.load(Acquire);
        true
    }

    /// A wake-up abroad. True: the caller pushes the task, which has got a reference for the inbox.
    pub(super) fn wake_by_ref(&self) -> bool {
        self.post(0)
    }

    /// An abort abroad. True: the caller pushes the task, which has got a reference for the inbox.
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
            // A write, even where the word stays as it is. Release: home, which clears POSTED with Acquire before it polls,
            // sees what was written before this wake-up. Acquire: home no longer uses the node's link of an earlier push.
            match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {
                Ok(_) => return word & POSTED == 0,
                Err(now) => word = now,
            }
        }
    }

    /// Home has taken a task made abroad from the inbox, for the first time: the inbox's reference becomes home's.
    pub(super) fn unpost(&self) {
        // With the only reference, nobody else can change the word.
        if self.0.load(Acquire) == REFERENCE | POSTED {
            self.0.store(REFERENCE, Relaxed);
        } else {
            self.0.fetch_sub(POSTED, AcqRel);
        }
    }

    /// Home has taken the task from the inbox, and gives the inbox's reference back. True if it was the last one.
    pub(super) fn unpost_and_release(&self) -> bool {
        self.0.fetch_sub(POSTED + REFERENCE, AcqRel) / REFERENCE == 1
    }

    /// An abort at home. The caller schedules the task.
    pub(super) fn abort_at_home(&self) {
        self.0.fetch_or(ABORT, Relaxed);
    }

    /// Home has put the output into the task. If there is a join handle that doesn't wait, home's reference is given back in
    /// the same step, and this is `None`: home must not use the task again. Otherwise home looks after the join cell and the
    /// output, and then releases its reference.
    pub(super) fn complete(&self) -> Option<Completed> {
        let mut word = self.0.load(Acquire);
        loop {
            let quiet = word & (JOIN | JOIN_WAKER) == JOIN;
            if !quiet && word / REFERENCE == 1 {
                // Only home has a reference: nobody will ask whether the task is complete.
                return Some(Completed {
                    join_waker: false,
                    joined: false,
                });
            }
            let mut next = word | COMPLETE;
            if quiet {
                // Never the last one: the join handle has one.
                next -= REFERENCE;
            }
            // Release: the handle sees the output. Acquire: home sees the waker in the join cell.
            match self.0.compare_exchange_weak(word, next, AcqRel, Acquire) {
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

    /// The join handle is dropped. Its reference is given back if the handle has nothing left to do.
    pub(super) fn detach(&self) -> Detached {
        let changed = self.change_unless_complete(|word| match word & JOIN_WAKER {
            // Never the last one: home has one, or the inbox has the one that will be home's.
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
