//! The tasks whose futures live: a table of them, in which each task knows its slot.
//!
//! Its memory goes back while some stay: when seven of eight slots are free, those that aren't move together.

use std::ptr;

use super::task::{Header, MOST_SLOTS, RawTask};

/// A table of so many slots keeps its memory.
const KEPT: usize = 1024;

/// See the module. It has a reference to each task: home's.
#[derive(Default)]
pub(super) struct Owned {
    slots: Vec<Slot>,
    /// The head of the list of free ones among `slots`.
    free: Option<u32>,
    len: usize,
}

/// A task, or the next free slot: one word, since there is one for each task. Tasks are aligned, so a free slot is odd.
#[derive(Clone, Copy)]
struct Slot(*mut Header);

impl Slot {
    fn free(next: Option<u32>) -> Self {
        let next = next.map_or(0, |next| next as usize + 1);
        Self(ptr::without_provenance_mut(next << 1 | 1))
    }

    /// The task, or the next free slot.
    fn get(self) -> Result<RawTask, Option<u32>> {
        match self.0.addr() {
            odd if odd & 1 == 1 => Err((odd >> 1).checked_sub(1).map(|next| next as u32)),
            _ => RawTask::from_raw(self.0).ok_or(None),
        }
    }
}

impl Owned {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a task in, and tells it its slot.
    ///
    /// # Safety
    ///
    /// Home; the task is home's to keep, with a reference, until it is removed.
    #[inline]
    pub(super) unsafe fn insert(&mut self, task: RawTask) {
        self.len += 1;
        let slot = match self.free {
            Some(slot) => {
                let place = &mut self.slots[slot as usize];
                let Err(next) = place.get() else {
                    unreachable!("evbase: the list of free slots names one with a task")
                };
                self.free = next;
                *place = Slot(task.as_raw());
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < MOST_SLOTS);
                self.slots.push(Slot(task.as_raw()));
                slot.expect("evbase: too many tasks: there is room for 2^29")
            }
        };
        // SAFETY: the caller's promise.
        unsafe { task.home().set_slot(slot) };
    }

    /// Gives a task back, with its reference.
    ///
    /// # Safety
    ///
    /// Home; the task is in the table.
    #[inline]
    pub(super) unsafe fn remove(&mut self, task: RawTask) {
        // SAFETY: the caller's promise.
        let slot = unsafe { task.home() }.slot();
        self.slots[slot as usize] = Slot::free(self.free);
        self.free = Some(slot);
        self.len -= 1;
        // Now and then is enough.
        if self.len.is_multiple_of(KEPT / 8) {
            self.close_ranks_if_few();
        }
    }

    /// One of the tasks, if there is one.
    pub(super) fn any(&mut self) -> Option<RawTask> {
        while let Some(slot) = self.slots.last() {
            if let Ok(task) = slot.get() {
                return Some(task);
            }
            self.slots.pop();
            // It may name the slot that went. What else it names is found, and popped, here later.
            self.free = None;
        }
        None
    }

    /// Moves the tasks together and gives the rest of the memory back, if most of it is free.
    #[cold]
    fn close_ranks_if_few(&mut self) {
        if self.slots.len() <= KEPT || self.len >= self.slots.len() / 8 {
            return;
        }
        self.slots.retain(|slot| slot.get().is_ok());
        self.free = None;
        self.slots.shrink_to(KEPT);
        for (slot, task) in self.slots.iter().enumerate() {
            if let Ok(task) = task.get() {
                // SAFETY: home, where `remove` is called; the table has a reference to each task in it.
                unsafe { task.home().set_slot(slot as u32) };
            }
        }
    }

    /// For how many tasks there is memory.
    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}
