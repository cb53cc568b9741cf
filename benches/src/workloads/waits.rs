//! A future that is never ready, and keeps its task's waker, as whatever waits for something does: without that, a runtime
//! may see that nobody can wake the task any more, and free it at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Two words.
pub struct Waits(Option<Waker>);

thread_local! {
    /// How many are still to be polled for the first time.
    static UNPOLLED: Cell<usize> = const { Cell::new(0) };
    static MAIN: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

impl Waits {
    pub fn new() -> Self {
        UNPOLLED.set(UNPOLLED.get() + 1);
        Self(None)
    }

    /// Returns when each one has been polled.
    pub async fn all_polled() {
        poll_fn(|cx| {
            MAIN.set(Some(cx.waker().clone()));
            match UNPOLLED.get() {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

impl Future for Waits {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.replace(cx.waker().clone()).is_none() {
            UNPOLLED.set(UNPOLLED.get() - 1);
            if UNPOLLED.get() == 0 {
                MAIN.take().into_iter().for_each(Waker::wake);
            }
        }
        Poll::Pending
    }
}
