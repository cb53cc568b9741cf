//! Tasks that yield in turn.

use std::time::Instant;

use super::{Cell, one};
use crate::measure::Batches;
use crate::peers::{Name, Peer, with_tasks};

pub fn cell(name: Name, tasks: usize, yields: usize) -> Cell {
    one(
        "ns",
        with_tasks!(name, P => P::run(|peer| batches(peer, tasks, yields))),
    )
}

async fn batches<P: Peer>(peer: P, tasks: usize, yields: usize) -> f64 {
    let mut batches = Batches::new();
    let mut joins = Vec::with_capacity(tasks);
    while batches.more() {
        let start = Instant::now();
        joins.extend((0..tasks).map(|_| {
            peer.spawn(async move {
                for _ in 0..yields {
                    P::yield_now().await;
                }
            })
        }));
        for join in joins.drain(..) {
            join.await;
        }
        batches.add(start, tasks * yields);
    }
    batches.median()
}
