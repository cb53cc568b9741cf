//! tokio's `current_thread` runtime, by `AsyncFd`.

use std::rc::Rc;
use std::time::Duration;

use evbase::Embedded;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use crate::Turns;
use crate::scenarios::Host;

pub(crate) struct Tokio(Runtime);

impl Tokio {
    pub(crate) fn new() -> Self {
        Self(Builder::new_current_thread().enable_all().build().unwrap())
    }
}

impl Host for Tokio {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let turns = Turns::of(embedded, done);
        let serve = async {
            // SAFETY: an `Embedded` has one descriptor, which stays open as long as there is one.
            let fd = unsafe { AsyncFd::register_with_interest(embedded.clone(), Interest::READABLE) }.unwrap();
            while !turns.are_over() {
                // It is edge-triggered: first clear, then turn.
                fd.readable().await.unwrap().clear_ready();
                turns.turn();
            }
        };
        let _ = self.0.block_on(async { tokio::time::timeout(longest, serve).await });
        turns.count()
    }
}
