//! Counts what is allocated, to find what is leaked.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

struct Counting;

static ALIVE: AtomicIsize = AtomicIsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does it all; what is counted beside it is in an atomic of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// How many allocations there are.
pub(crate) fn alive() -> isize {
    ALIVE.load(Relaxed)
}

/// How many there are more than before, when there are no more than `tolerated`, or when whoever is about to free some had
/// that much time for it.
pub(crate) fn more_than(before: isize, tolerated: isize, patience: Duration) -> isize {
    let start = Instant::now();
    while alive() > before + tolerated && start.elapsed() < patience {
        thread::sleep(Duration::from_micros(100));
    }
    alive() - before
}
