//! Memory of tasks that have gone, kept at home for the next ones of the same size. Home only.

use std::alloc::{Layout, dealloc};
use std::cell::RefCell;
use std::ptr::NonNull;

/// The alignment of tasks, and the step between their sizes.
pub(super) const STEP: usize = 16;
/// Larger tasks are the allocator's business alone.
const LARGEST: usize = 512;
/// How much memory is kept at most.
const MOST_BYTES: usize = 256 << 10;

pub(super) struct Cells(RefCell<Kept>);

struct Kept {
    /// By size, in steps; each with the alignment `STEP`.
    cells: [Vec<NonNull<u8>>; LARGEST / STEP + 1],
    bytes: usize,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self(RefCell::new(Kept {
            cells: [const { Vec::new() }; LARGEST / STEP + 1],
            bytes: 0,
        }))
    }

    /// Memory for that layout, allocated with it, if there is some.
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let kept = &mut *self.0.borrow_mut();
        let cell = kept.cells.get_mut(class(layout)?)?.pop()?;
        kept.bytes -= layout.size();
        Some(cell)
    }

    /// Keeps memory, or frees it.
    ///
    /// # Safety
    ///
    /// It is the caller's, allocated with that layout, and the caller gives it away.
    pub(super) unsafe fn keep(&self, memory: NonNull<u8>, layout: Layout) {
        let kept = &mut *self.0.borrow_mut();
        match class(layout) {
            Some(class) if kept.bytes < MOST_BYTES => {
                kept.bytes += layout.size();
                kept.cells[class].push(memory);
            }
            // SAFETY: the caller's promise.
            _ => unsafe { dealloc(memory.as_ptr(), layout) },
        }
    }
}

/// Where memory of that layout is kept, if it is.
fn class(layout: Layout) -> Option<usize> {
    (layout.align() == STEP && layout.size() <= LARGEST).then_some(layout.size() / STEP)
}

impl Drop for Cells {
    fn drop(&mut self) {
        for (class, cells) in self.0.get_mut().cells.iter_mut().enumerate() {
            let layout = Layout::from_size_align(class * STEP, STEP).expect("evbase: it was a layout before");
            for cell in cells.drain(..) {
                // SAFETY: allocated with this layout, which is the class's, and given away to `keep`.
                unsafe { dealloc(cell.as_ptr(), layout) };
            }
        }
    }
}
