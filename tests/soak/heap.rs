//! Counts the bytes on the heap: at rest, that is sharper than resident memory, in which a small leak hides for long.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that were asked for and not given back.
pub(crate) fn live() -> usize {
    LIVE.load(Relaxed)
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that `System` asks for; the same below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: see `alloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size.wrapping_sub(layout.size()), Relaxed);
        // SAFETY: see `alloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Keeps malloc to one arena: else each of many grows to the most that it ever held, which takes hours, and looks like a
/// leak. To be called before there are threads.
pub(crate) fn one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer; malloc's own lock guards it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel, so that resident memory is what is in use.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer; malloc's own lock guards it.
    unsafe {
        libc::malloc_trim(0);
    }
}
