//! An allocator that counts. An executable whose tests ask what is on the heap makes it its own:
//! `#[global_allocator] static ALLOCATOR: support::Counting = support::Counting;`

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

pub(crate) struct Counting;

static BLOCKS: AtomicIsize = AtomicIsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// How many blocks of memory the process has.
pub(crate) fn heap_blocks() -> isize {
    BLOCKS.load(Relaxed)
}

/// How many bytes the process has asked for and not given back.
pub(crate) fn heap_bytes() -> isize {
    BYTES.load(Relaxed)
}

/// How often this thread has asked for memory, or given some back.
pub(crate) fn heap_calls_of_this_thread() -> usize {
    CALLS.get()
}

fn count(blocks: isize, bytes: isize) {
    BLOCKS.fetch_add(blocks, Relaxed);
    BYTES.fetch_add(bytes, Relaxed);
    // Not in a thread whose thread-locals are gone.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: the system's allocator does it all, on whichever thread asks; what is counted beside it is in atomics, and in a
// thread-local without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-1, -(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(0, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}
