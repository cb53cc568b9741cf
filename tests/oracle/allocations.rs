//! Counts what is allocated, to find what is leaked.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Counting, heap_blocks};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many there are more than before, when there are no more than `tolerated`, or when whoever is about to free some had
/// that much time for it.
pub(crate) fn more_than(before: isize, tolerated: isize, patience: Duration) -> isize {
    let start = Instant::now();
    while heap_blocks() > before + tolerated && start.elapsed() < patience {
        thread::sleep(Duration::from_micros(100));
    }
    heap_blocks() - before
}
