//! Counts the bytes that are allocated: what was asked for, not what malloc spends on it. Mapped pages (io_uring's rings)
//! and the kernel's own memory are not in it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicBool = AtomicBool::new(false);

/// The allocator of every cell. It counts only in the memory workloads: elsewhere it costs a load and a branch.
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// From here on, every allocation is counted.
pub fn start() {
    COUNTING.store(true, Relaxed);
}

/// The bytes alive that were allocated since `start`.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

fn count(more: usize, less: usize) {
    if COUNTING.load(Relaxed) {
        LIVE.fetch_add(more.wrapping_sub(less), Relaxed);
    }
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise is the one that `System` asks for; the same below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: see `alloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: see `alloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

// The same for the libraries in C: they are told to allocate here. `free` isn't told the size, so it stands in front of the
// block, and isn't counted.

const FRONT: usize = 16;

pub extern "C" fn counted_malloc(size: usize) -> *mut c_void {
    counted_realloc(ptr::null_mut(), size)
}

pub extern "C" fn counted_calloc(number: usize, size: usize) -> *mut c_void {
    let size = number * size;
    let block = counted_malloc(size);
    if !block.is_null() {
        // SAFETY: a fresh block of that size.
        unsafe { block.cast::<u8>().write_bytes(0, size) };
    }
    block
}

pub extern "C" fn counted_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `block` is null or from here, with its size in front of it; FRONT keeps malloc's alignment.
    unsafe {
        let (front, old) = match block.is_null() {
            true => (ptr::null_mut(), 0),
            false => (block.byte_sub(FRONT), block.byte_sub(FRONT).cast::<usize>().read()),
        };
        let front = libc::realloc(front, size + FRONT);
        if front.is_null() {
            return front;
        }
        count(size, old);
        front.cast::<usize>().write(size);
        front.byte_add(FRONT)
    }
}

pub extern "C" fn counted_free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: from `counted_realloc`.
    unsafe {
        let front = block.byte_sub(FRONT);
        count(0, front.cast::<usize>().read());
        libc::free(front);
    }
}

pub type Malloc = extern "C" fn(usize) -> *mut c_void;
pub type Calloc = extern "C" fn(usize, usize) -> *mut c_void;
pub type Realloc = extern "C" fn(*mut c_void, usize) -> *mut c_void;
pub type Free = extern "C" fn(*mut c_void);
