//! Runtimes that come and go.

use std::cell::Cell as Counter;
use std::rc::Rc;
use std::time::Instant;

use super::waits::Waits;
use super::{Cell, Numbers, one};
use crate::measure::batches;
use crate::peers::raw::{Epoll, Eventfd};
use crate::peers::{Library, Name, with_tasks};

pub fn create(name: Name) -> Cell {
    let nanoseconds = match name {
        Name::Raw => batches(BATCH, || {
            (0..BATCH).for_each(|_| {
                let bell = Eventfd::new();
                let mut epoll = Epoll::new();
                epoll.add_edge(bell.fd(), 0);
                assert_eq!(epoll.wait(Some(0)).count(), 0);
            })
        }),
        Name::Libevent | Name::Libuv => {
            let library = Library::of(name);
            // SAFETY: it needs nothing.
            batches(BATCH, || (0..BATCH).for_each(|_| unsafe { (library.create)() }))
        }
        name => with_tasks!(name, P => batches(BATCH, || (0..BATCH).for_each(|_| P::run(|_| async {})))),
    };
    one("us", nanoseconds / 1e3)
}

const BATCH: usize = 20;

/// How many were dropped.
struct CountsDrop(Rc<Counter<usize>>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.update(|dropped| dropped + 1);
    }
}

pub fn create_with_tasks(name: Name, tasks: usize) -> Cell {
    let dropped = Rc::new(Counter::new(0));
    let start = Instant::now();
    with_tasks!(name, P => P::run(|peer| {
        let dropped = dropped.clone();
        async move {
            for _ in 0..tasks {
                let (waits, counts) = (Waits::new(), CountsDrop(dropped.clone()));
                peer.spawn_detached(async move {
                    let _counts = counts;
                    waits.await;
                });
            }
            Waits::all_polled().await;
        }
    }));
    let milliseconds = start.elapsed().as_nanos() as f64 / 1e6;
    Ok(Numbers::from([
        ("ms", milliseconds),
        ("leaked", (tasks - dropped.get()) as f64),
    ]))
}
