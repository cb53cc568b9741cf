//! The budget of a poll: how often the leaf futures that a task polls may be ready before it has to yield.
//!
//! Every future of this crate spends a unit before it returns Ready, and returns Pending if none is left. The executor gives a
//! full budget to each poll of a task or a root; outside of these nothing is spent.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use crate::sync::thread_cell;

/// How many units a poll has.
const BUDGET: u32 = 128;
/// After so many refusals in one poll the budget is full again. A task that polls on in spite of them runs another executor in
/// its poll, say `futures::executor::block_on`: that can't yield to ours, and must not be refused for ever.
const MOST_REFUSALS: u32 = 64;

const FULL: u32 = BUDGET + MOST_REFUSALS;
/// The value while no task is being polled.
const OUTSIDE: u32 = 0;

// What is left: `MOST_REFUSALS` plus the units; below that, refusals.
thread_cell!(LEFT: u32 = OUTSIDE);

/// Spends one unit. With none left this wakes the task and is Pending: the caller returns that, and so yields.
#[inline]
pub(crate) fn spend(cx: &Context<'_>) -> Poll<()> {
    match replace(|left| match left {
        OUTSIDE => OUTSIDE,
        // After the last refusal.
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

/// Spends one unit; ready when there was one. For futures that have nothing to poll.
pub(crate) async fn unit() {
    poll_fn(|cx| spend(cx)).await;
}

/// Polls somebody else's future; if that is ready, and nothing in it has spent a unit, this spends one for it. With none left it isn't
/// polled, so that no output is there to be lost.
#[inline]
pub(crate) fn poll_for<T>(cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    if is_spent() {
        ready!(spend(cx));
    }
    let before = left();
    let polled = poll(cx);
    if polled.is_ready() && left() == before {
        // There is one: this polls only then.
        let _ = spend(cx);
    }
    polled
}

/// Gives the next poll its budget: while there is a [`Polling`].
#[inline]
pub(super) fn refill() {
    replace(|_| FULL);
}

/// Whether the last poll has spent its budget.
#[inline]
pub(super) fn is_spent() -> bool {
    (1..=MOST_REFUSALS).contains(&left())
}

/// While it lives, an executor polls, and calls `refill` before each poll.
pub(super) struct Polling {
    /// Not `OUTSIDE` if this runtime is driven within a poll of a task of another one.
    outer: u32,
}

impl Polling {
    #[inline]
    pub(super) fn begin() -> Self {
        Self { outer: left() }
    }
}

impl Drop for Polling {
    #[inline]
    fn drop(&mut self) {
        replace(|_| self.outer);
    }
}

#[inline]
fn left() -> u32 {
    replace(|left| left)
}

/// Returns what was left.
#[inline]
fn replace(new: impl FnOnce(u32) -> u32) -> u32 {
    // On some platforms this thread-local is gone while the thread exits: nothing is spent then.
    LEFT.try_with(|left| left.replace(new(left.get()))).unwrap_or(OUTSIDE)
}
