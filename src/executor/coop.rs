//! The budget of a poll: how often the futures under it may be ready before the task has to yield.
//!
//! Every future of this crate that is ready spends a unit before it says so, whatever it waited for. The executor gives a
//! full budget to each poll of a task or a root; outside of these nothing is spent.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::sync::thread_local;

/// How many times a poll may find something ready.
const BUDGET: u32 = 128;
/// After so many refusals in one poll the budget is full again. Whoever polls on in spite of them is another executor inside
/// of the task, say `futures::executor::block_on`: it can't yield to ours, and is not to go round for ever.
const MOST_REFUSALS: u32 = 64;

const FULL: u32 = BUDGET + MOST_REFUSALS;
/// No task is being polled.
const OUTSIDE: u32 = 0;

// What is left: refusals, and above them units. Without a destructor, so that it is there for other thread-locals' ones.
#[cfg(not(evbase_loom))]
thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(OUTSIDE) };
}

#[cfg(evbase_loom)]
thread_local! {
    static LEFT: Cell<u32> = Cell::new(OUTSIDE);
}

/// Spends one unit. With none left it is pending, and the task is woken at once: it is to yield.
#[inline]
pub(crate) fn spend(cx: &Context<'_>) -> Poll<()> {
    match replace(|left| match left {
        OUTSIDE => OUTSIDE,
        // The last refusal.
        1 => FULL,
        left => left - 1,
    }) {
        1..=MOST_REFUSALS => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        _ => Poll::Ready(()),
    }
}

/// Gives the next poll its budget: within `while_polling`.
#[inline]
pub(super) fn refill() {
    replace(|_| FULL);
}

/// Whether the last poll has spent its budget.
#[inline]
pub(super) fn is_spent() -> bool {
    (1..=MOST_REFUSALS).contains(&replace(|left| left))
}

/// Does some polls, each of which gets its budget by `refill`. `polls` doesn't panic.
#[inline]
pub(super) fn while_polling<R>(polls: impl FnOnce() -> R) -> R {
    // The outer one is that of a task inside of which another runtime is driven.
    let outer = replace(|left| left);
    let polled = polls();
    replace(|_| outer);
    polled
}

/// Returns what was left.
#[inline]
fn replace(new: impl FnOnce(u32) -> u32) -> u32 {
    // Where thread-locals need a key, this one is gone when the thread exits: nothing is spent then.
    LEFT.try_with(|left| left.replace(new(left.get()))).unwrap_or(OUTSIDE)
}
