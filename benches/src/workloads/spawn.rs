//! Spawn and join of tasks that do nothing.

use std::time::Instant;

use super::{Cell, one};
use crate::measure::Batches;
use crate::peers::{Name, Peer, with_tasks};

pub fn cell(name: Name, tasks: usize) -> Cell {
    one("ns", with_tasks!(name, P => P::run(|peer| batches(peer, tasks))))
}

async fn batches<P: Peer>(peer: P, tasks: usize) -> f64 {
    let mut batches = Batches::new();
    let mut joins = Vec::with_capacity(tasks);
    while batches.more() {
        let start = Instant::now();
        joins.extend((0..tasks).map(|_| peer.spawn(async {})));
        for join in joins.drain(..) {
            join.await;
        }
        batches.add(start, tasks);
    }
    batches.median()
}
