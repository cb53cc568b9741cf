//! Free lists: the memory of tasks that have gone, kept for the next tasks of the same size. Home has one of its own, and now
//! and then moves blocks to a shared one, for threads that spawn from abroad.
//!
//! A block keeps its task's handle to the inbox, so that neither the next task nor its end has to count one. The inbox
//! holds the shared list, so that is a cycle: home breaks it when it seals the gate.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::Relaxed;

use super::cache_padded::CachePadded;
use super::gate::Node;
use super::inbox::Inbox;
use crate::sync::{Arc, AtomicBool, Mutex};

/// The alignment of tasks: the gate uses the low bits of their addresses.
const ALIGN: usize = 16;
/// The step between size classes. The sizes of tasks are rounded up to it.
const STEP: usize = 8;
/// The memory of larger tasks goes back to the allocator.
const LARGEST: usize = 512;
/// How many bytes each of the two lists keeps at most.
const MOST_BYTES: usize = 256 << 10;
/// How many blocks of a size home moves to the shared list at a time; it keeps as many itself. (A model has few.)
const BATCH: usize = if cfg!(evbase_loom) { 1 } else { 64 };

/// What each task begins with, and all that is left of one in a free list.
#[repr(C)]
pub(super) struct BlockHeader {
    pub(super) node: Node,
    pub(super) inbox: Arc<Inbox>,
}

/// The layout to allocate a `T` with, which begins with a [`BlockHeader`].
pub(super) const fn layout_of<T>() -> Layout {
    assert!(align_of::<T>() >= align_of::<BlockHeader>() && size_of::<T>() >= size_of::<BlockHeader>());
    let align = if align_of::<T>() > ALIGN {
        align_of::<T>()
    } else {
        ALIGN
    };
    match Layout::from_size_align(size_of::<T>().next_multiple_of(STEP), align) {
        Ok(layout) => layout,
        Err(_) => panic!("evbase: a task is too large"),
    }
}

/// A new block, with a handle to the inbox in it. The layout is one of [`layout_of`].
pub(super) fn allocate(layout: Layout, inbox: &Arc<Inbox>) -> NonNull<BlockHeader> {
    // SAFETY: there is room for a `BlockHeader`; the rest of the block is not touched.
    unsafe {
        let block = NonNull::new(alloc(layout))
            .unwrap_or_else(|| handle_alloc_error(layout))
            .cast();
        let header: *mut BlockHeader = block.as_ptr();
        (&raw mut (*header).inbox).write(inbox.clone());
        block
    }
}

/// Frees a block, and its handle to the inbox.
///
/// # Safety
///
/// The caller owns the block, which was allocated with that layout; nothing but the handle to the inbox is left in it.
pub(super) unsafe fn deallocate(block: NonNull<BlockHeader>, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*block.as_ptr()).inbox).drop_in_place();
        dealloc(block.as_ptr().cast(), layout);
    }
}

/// The list of home, which alone uses it.
pub(super) struct FreeList(SizeClasses);

/// The list of threads that spawn from abroad. Memory that they allocate and home frees would otherwise make both sides
/// contend for the allocator.
pub(super) struct SharedFreeList {
    /// A thread found no block, and home has moved none here since. Home reads it for each task that has gone.
    wanted: CachePadded<AtomicBool>,
    /// Locked by each spawn from abroad. Only `try_lock` is used, but for home's `close`.
    classes: CachePadded<Mutex<SizeClasses>>,
}

struct SizeClasses {
    /// The blocks of size `n * STEP` are in list `n`. All are aligned to `ALIGN`.
    lists: [Blocks; LARGEST / STEP + 1],
    bytes: Cell<usize>,
    most_bytes: Cell<usize>,
}

/// Blocks of one size, linked by their nodes; it owns them.
#[derive(Default)]
struct Blocks {
    first: Cell<Option<NonNull<BlockHeader>>>,
    len: Cell<usize>,
}

impl Blocks {
    #[inline]
    fn push(&self, block: NonNull<BlockHeader>) {
        let next = self.first.replace(Some(block));
        // SAFETY: the block is ours, and its node with it: no task is in it, and no message.
        unsafe {
            block
                .as_ref()
                .node
                .set_next(next.map_or(ptr::null_mut(), |next| next.cast().as_ptr()))
        };
        self.len.set(self.len.get() + 1);
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<BlockHeader>> {
        let block = self.first.get()?;
        // SAFETY: as in `push`, which has set it: to null, or the node of a block, which that begins with.
        let next = unsafe { block.as_ref().node.next() };
        self.first.set(NonNull::new(next.cast()));
        self.len.set(self.len.get() - 1);
        Some(block)
    }
}

// SAFETY: a block is plain memory and a handle to an inbox, which is made for all threads; the list owns both.
unsafe impl Send for SizeClasses {}

impl SizeClasses {
    fn new(most_bytes: usize) -> Self {
        Self {
            lists: std::array::from_fn(|_| Blocks::default()),
            bytes: Cell::new(0),
            most_bytes: Cell::new(most_bytes),
        }
    }

    #[inline]
    fn take(&self, class: usize) -> Option<NonNull<BlockHeader>> {
        let block = self.lists[class].pop()?;
        self.bytes.set(self.bytes.get() - class * STEP);
        Some(block)
    }

    /// Whether `put` may be called.
    #[inline]
    fn has_room(&self) -> bool {
        self.bytes.get() < self.most_bytes.get()
    }

    #[inline]
    fn put(&self, class: usize, block: NonNull<BlockHeader>) {
        debug_assert!(self.has_room());
        self.bytes.set(self.bytes.get() + class * STEP);
        self.lists[class].push(block);
    }

    /// Frees all blocks.
    fn clear(&self) {
        // Most runtimes have run few tasks when they end, if any, and there are many classes.
        if self.bytes.replace(0) == 0 {
            return;
        }
        for (class, blocks) in self.lists.iter().enumerate() {
            let layout =
                Layout::from_size_align(class * STEP, ALIGN).expect("evbase: blocks of this class have been allocated");
            while let Some(block) = blocks.pop() {
                // SAFETY: allocated with this layout, which is the class's, and given away to `FreeList::keep`.
                unsafe { deallocate(block, layout) };
            }
        }
    }
}

impl FreeList {
    pub(super) fn new() -> Self {
        Self(SizeClasses::new(MOST_BYTES))
    }

    /// A block of that layout, if there is one. The handle to the inbox in it is valid.
    #[inline]
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<BlockHeader>> {
        self.0.take(class(layout)?)
    }

    /// Keeps a block; moves some to the shared list if a thread wants them. False: there is no room, and the block is still the
    /// caller's.
    ///
    /// # Safety
    ///
    /// The caller owns the block, which was allocated with that layout, and gives it away. Nothing but its handle to the
    /// inbox is left in it; the inbox is that of this home, and has `shared`.
    #[inline]
    pub(super) unsafe fn keep(&self, block: NonNull<BlockHeader>, layout: Layout, shared: &SharedFreeList) -> bool {
        let Some(class) = class(layout) else {
            return false;
        };
        if shared.wanted.load(Relaxed) {
            shared.refill(class, &self.0);
        }
        let has_room = self.0.has_room();
        if has_room {
            self.0.put(class, block);
        }
        has_room
    }
}

impl SharedFreeList {
    pub(super) fn new() -> Self {
        Self {
            wanted: CachePadded(AtomicBool::new(false)),
            classes: CachePadded(Mutex::new(SizeClasses::new(MOST_BYTES))),
        }
    }

    /// As [`FreeList::take`], on any thread.
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<BlockHeader>> {
        let class = class(layout)?;
        if self.wanted.load(Relaxed) {
            return None;
        }
        // If it is locked, the caller allocates.
        let block = self.classes.try_lock()?.take(class);
        if block.is_none() {
            self.wanted.store(true, Relaxed);
        }
        block
    }

    /// Takes a batch over from home's list, if that has enough. Home only.
    #[cold]
    fn refill(&self, class: usize, from: &SizeClasses) {
        if from.lists[class].len.get() < 2 * BATCH {
            return;
        }
        let Some(classes) = self.classes.try_lock() else {
            return;
        };
        self.wanted.store(false, Relaxed);
        for _ in 0..BATCH {
            if !classes.has_room() {
                break;
            }
            let Some(block) = from.take(class) else {
                break;
            };
            classes.put(class, block);
        }
    }

    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn len(&self) -> usize {
        self.classes.lock().lists.iter().map(|blocks| blocks.len.get()).sum()
    }

    /// Frees the blocks, and keeps none from here on. Home only.
    pub(super) fn close(&self) {
        let classes = self.classes.lock();
        classes.most_bytes.set(0);
        classes.clear();
    }
}

/// The size class of a layout; `None` if blocks of it are not kept.
#[inline]
fn class(layout: Layout) -> Option<usize> {
    (layout.align() == ALIGN && layout.size() <= LARGEST).then_some(layout.size() / STEP)
}

impl Drop for SizeClasses {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, not(evbase_loom)))]
mod tests {
    use super::super::tests::inbox;
    use super::*;

    #[test]
    fn no_block_is_lost_between_two_lists_that_are_full() {
        let (inbox, home, shared) = (inbox(), FreeList::new(), SharedFreeList::new());
        let [small, large] = [40, 400].map(|size| Layout::from_size_align(size, ALIGN).unwrap());
        let add = |list: &SizeClasses, layout| list.put(class(layout).unwrap(), allocate(layout, &inbox));
        (0..2 * BATCH).for_each(|_| add(&home.0, small));
        for list in [&home.0, &*shared.classes.lock()] {
            while list.has_room() {
                add(list, large);
            }
        }
        assert!(
            home.0.bytes.get() > MOST_BYTES + small.size(),
            "one less leaves no room"
        );
        shared.wanted.store(true, Relaxed);
        // SAFETY: new, of that layout, and given away; the inbox is not sealed.
        unsafe {
            let block = allocate(small, &inbox);
            if !home.keep(block, small, &shared) {
                deallocate(block, small);
            }
        }
        drop((home, shared));
        assert_eq!(Arc::strong_count(&inbox), 1);
    }
}
