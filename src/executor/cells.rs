//! Memory of tasks that have gone, kept for the next ones of the same size: by home for itself, and spare for others.
//!
//! Each cell keeps its handle to the inbox, so that neither the next task nor its end has to count one. For the spare
//! cells, which the inbox itself holds, that is a cycle, which home breaks when it seals the gate.

use std::alloc::Layout;
use std::cell::RefCell;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::task::{Header, dealloc_cell};

/// The alignment of tasks.
pub(super) const ALIGN: usize = 16;
/// The step between their sizes.
const STEP: usize = 8;
/// Larger tasks are the allocator's business alone.
const LARGEST: usize = 512;
/// How much memory home keeps at most, and as much again is spare.
const MOST_BYTES: usize = 256 << 10;
/// How many cells home gives away at a time, and keeps of that size.
const HANDFUL: usize = 64;

/// The cells that home keeps. Home only.
pub(super) struct Cells(RefCell<Kept>);

/// The cells that other threads may take: memory that home frees all the time, and they allocate, would otherwise have
/// the two sides fight over the allocator.
pub(super) struct Spare {
    /// Somebody found none, and home has given none since.
    wanted: AtomicBool,
    /// Nobody waits for it but home, once, at the end.
    kept: Mutex<Kept>,
}

struct Kept {
    /// By size, in steps; each with the alignment `ALIGN`.
    cells: [Vec<NonNull<Header>>; LARGEST / STEP + 1],
    bytes: usize,
    most_bytes: usize,
}

// SAFETY: who has a cell owns it alone: it is plain memory, and a handle to an inbox, which is for all threads.
unsafe impl Send for Kept {}

impl Kept {
    fn new(most_bytes: usize) -> Self {
        Self {
            cells: [const { Vec::new() }; LARGEST / STEP + 1],
            bytes: 0,
            most_bytes,
        }
    }

    #[inline]
    fn take(&mut self, class: usize) -> Option<NonNull<Header>> {
        let cell = self.cells[class].pop()?;
        self.bytes -= class * STEP;
        Some(cell)
    }

    /// False: there are enough.
    #[inline]
    fn put(&mut self, class: usize, cell: NonNull<Header>) -> bool {
        let has_room = self.bytes < self.most_bytes;
        if has_room {
            self.bytes += class * STEP;
            self.cells[class].push(cell);
        }
        has_room
    }
}

impl Cells {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Kept::new(MOST_BYTES)))
    }

    /// A cell of that layout, if there is one: see `keep`.
    #[inline]
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<Header>> {
        self.0.borrow_mut().take(class(layout)?)
    }

    /// Keeps a cell, or frees it, or makes it spare together with others.
    ///
    /// # Safety
    ///
    /// It is the caller's, allocated with that layout, and the caller gives it away; nothing but its handle to the inbox
    /// of this home, whose spare cells these are, is left in it.
    #[inline]
    pub(super) unsafe fn keep(&self, cell: NonNull<Header>, layout: Layout, spare: &Spare) {
        let kept = &mut *self.0.borrow_mut();
        let class = class(layout);
        if let Some(class) = class
            && spare.wanted.load(Relaxed)
        {
            spare.refill(class, kept);
        }
        if class.is_none_or(|class| !kept.put(class, cell)) {
            // SAFETY: the caller's promise.
            unsafe { dealloc_cell(cell, layout) };
        }
    }
}

impl Spare {
    pub(super) fn new() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            kept: Mutex::new(Kept::new(MOST_BYTES)),
        }
    }

    /// A cell of that layout, if there is one: see `Cells::keep`. Any thread.
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<Header>> {
        let class = class(layout)?;
        if self.wanted.load(Relaxed) {
            return None;
        }
        // Who finds it locked does without.
        let cell = self.kept.try_lock().ok()?.take(class);
        if cell.is_none() {
            self.wanted.store(true, Relaxed);
        }
        cell
    }

    #[cold]
    fn refill(&self, class: usize, from: &mut Kept) {
        if from.cells[class].len() < 2 * HANDFUL {
            return;
        }
        let Ok(mut kept) = self.kept.try_lock() else {
            return;
        };
        self.wanted.store(false, Relaxed);
        for _ in 0..HANDFUL {
            let Some(cell) = from.take(class) else {
                break;
            };
            if !kept.put(class, cell) {
                from.put(class, cell);
                break;
            }
        }
    }

    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn len(&self) -> usize {
        self.kept.lock().unwrap().cells.iter().map(Vec::len).sum()
    }

    /// Frees what there is, for good. Home only.
    pub(super) fn close(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let left = mem::replace(&mut *kept, Kept::new(0));
        drop(kept);
        drop(left);
    }
}

/// Where memory of that layout is kept, if it is.
#[inline]
fn class(layout: Layout) -> Option<usize> {
    (layout.align() == ALIGN && layout.size() <= LARGEST).then_some(layout.size() / STEP)
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (class, cells) in self.cells.iter_mut().enumerate() {
            let layout = Layout::from_size_align(class * STEP, ALIGN).expect("evbase: it was a layout before");
            for cell in cells.drain(..) {
                // SAFETY: allocated with this layout, which is the class's, and given away to `Cells::keep`.
                unsafe { dealloc_cell(cell, layout) };
            }
        }
    }
}
