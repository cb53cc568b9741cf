//! Memory of tasks that have gone, kept at home for the next ones of the same size. Home only.
//!
//! Each cell keeps its handle to the inbox, so that neither the next task nor its end has to count one.

use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

use super::task::{Header, dealloc_cell};

/// The alignment of tasks.
pub(super) const ALIGN: usize = 16;
/// The step between their sizes.
const STEP: usize = 8;
/// Larger tasks are the allocator's business alone.
const LARGEST: usize = 512;
/// How much memory is kept at most.
const MOST_BYTES: usize = 256 << 10;

pub(super) struct Cells(RefCell<Kept>);

struct Kept {
    /// By size, in steps; each with the alignment `ALIGN`.
    cells: [Vec<NonNull<Header>>; LARGEST / STEP + 1],
    bytes: usize,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Kept {
            cells: [const { Vec::new() }; LARGEST / STEP + 1],
            bytes: 0,
        }))
    }

    /// A cell of that layout, if there is one: see `keep`.
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<Header>> {
        let kept = &mut *self.0.borrow_mut();
        let cell = kept.cells.get_mut(class(layout)?)?.pop()?;
        kept.bytes -= layout.size();
        Some(cell)
    }

    /// Keeps a cell, or frees it.
    ///
    /// # Safety
    ///
    /// It is the caller's, allocated with that layout, and the caller gives it away; nothing but its handle to the inbox
    /// of this home is left in it.
    pub(super) unsafe fn keep(&self, cell: NonNull<Header>, layout: Layout) {
        let kept = &mut *self.0.borrow_mut();
        match class(layout) {
            Some(class) if kept.bytes < MOST_BYTES => {
                kept.bytes += layout.size();
                kept.cells[class].push(cell);
            }
            // SAFETY: the caller's promise.
            _ => unsafe { dealloc_cell(cell, layout) },
        }
    }
}

/// Where memory of that layout is kept, if it is.
fn class(layout: Layout) -> Option<usize> {
    (layout.align() == ALIGN && layout.size() <= LARGEST).then_some(layout.size() / STEP)
}

impl Drop for Cells {
    fn drop(&mut self) {
        for (class, cells) in self.0.get_mut().cells.iter_mut().enumerate() {
            let layout = Layout::from_size_align(class * STEP, ALIGN).expect("evbase: it was a layout before");
            for cell in cells.drain(..) {
                // SAFETY: allocated with this layout, which is the class's, and given away to `keep`.
                unsafe { dealloc_cell(cell, layout) };
            }
        }
    }
}
