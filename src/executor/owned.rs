//! The table of all tasks that have not ended. Each task knows its slot.
//!
//! When seven of eight slots are free, the tasks move together, and the rest of the memory is freed.

use std::ptr::{self, NonNull};

use super::local_task::{Lent, LocalTask};
use super::task::{Header, MOST_SLOTS};

/// Up to this many slots, the table keeps its memory.
const KEPT: usize = 1024;

/// See the module. It has home's reference to each task. What it lends is used until the task is removed.
pub(super) struct Owned {
    slots: Vec<Slot>,
    /// The first free slot. It names the next one, and so on; the last one names `NO_SLOT`.
    free: u32,
    len: usize,
}

/// The number of no slot.
const NO_SLOT: u32 = u32::MAX >> 1;
const _: () = assert!(NO_SLOT > MOST_SLOTS);

/// A task's address, with a reference to it; or, in a free slot, twice the next free slot's number plus one: odd, which no address
/// of a task is.
struct Slot(*mut Header);

impl Slot {
    fn free(next: u32) -> Self {
        Self(ptr::without_provenance_mut((next as usize) << 1 | 1))
    }

    /// The task, lent for as long as the slot has its reference; or, of a free slot, the next free one.
    fn get(&self) -> Result<Lent, u32> {
        match self.0.addr() {
            odd if odd & 1 == 1 => Err((odd >> 1) as u32),
            _ => {
                let task = NonNull::new(self.0).ok_or(NO_SLOT)?;
                // SAFETY: the slot got its reference from a `LocalTask`; like that, it doesn't leave home.
                Ok(unsafe { LocalTask::borrowed(task) })
            }
        }
    }

    fn has(&self, task: &LocalTask) -> bool {
        self.0 == task.as_raw().as_ptr()
    }
}

impl Default for Owned {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NO_SLOT,
            len: 0,
        }
    }
}

impl Owned {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a task, and lends it to the caller, who tells it of its slot.
    #[inline]
    pub(super) fn insert(&mut self, task: LocalTask) -> (u32, Lent) {
        let task = task.lend();
        (self.insert_entry(Slot(task.as_raw().as_ptr())), task)
    }

    #[inline]
    fn insert_entry(&mut self, entry: Slot) -> u32 {
        let slot = self.free;
        let Some(free) = self.slots.get_mut(slot as usize) else {
            return self.insert_at_end(entry);
        };
        let Err(next) = free.get() else {
            unreachable!("evbase: the list of free slots names one with a task")
        };
        self.free = next;
        *free = entry;
        self.len += 1;
        slot
    }

    #[cold]
    fn insert_at_end(&mut self, entry: Slot) -> u32 {
        assert!(
            self.slots.len() < MOST_SLOTS as usize,
            "evbase: too many tasks: there is room for 2^27"
        );
        self.slots.push(entry);
        self.len += 1;
        self.slots.len() as u32 - 1
    }

    /// Removes a task that this has lent: the caller has its reference from here on.
    #[inline]
    pub(super) fn remove(&mut self, task: Lent) -> LocalTask {
        let slot = task.slot();
        let entry = &mut self.slots[slot as usize];
        assert!(entry.has(&task), "evbase: a task knows its slot");
        *entry = Slot::free(self.free);
        self.free = slot;
        self.len -= 1;
        // Looking now and then is enough.
        if self.len % (KEPT / 8) == 0 {
            self.compact_if_sparse();
        }
        // SAFETY: the table had the reference, and nobody else finds the task in it any more.
        unsafe { task.into_owned() }
    }

    /// All tasks, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = Lent> {
        self.slots.iter().filter_map(|slot| slot.get().ok())
    }

    /// Whether the task is in the table: it has arrived, and has not ended.
    pub(super) fn has(&self, task: &LocalTask) -> bool {
        self.slots
            .get(task.slot() as usize)
            .is_some_and(|entry| entry.has(task))
    }

    /// One of the tasks, if there is one; free slots at the end of the table go.
    pub(super) fn any(&mut self) -> Option<Lent> {
        while let Some(slot) = self.slots.last() {
            if let Ok(task) = slot.get() {
                return Some(task);
            }
            self.slots.pop();
            // The list may name the slot that was just popped. It begins anew: slots that were in it are popped later.
            self.free = NO_SLOT;
        }
        None
    }

    /// Moves the tasks together and gives the rest of the memory back, if most of it is free.
    #[cold]
    fn compact_if_sparse(&mut self) {
        if self.slots.len() <= KEPT || self.len >= self.slots.len() / 8 {
            return;
        }
        self.slots.retain(|slot| slot.get().is_ok());
        self.free = NO_SLOT;
        self.slots.shrink_to(KEPT);
        for (slot, task) in self.slots.iter().enumerate() {
            if let Ok(task) = task.get() {
                task.set_slot(slot as u32);
            }
        }
    }

    /// For how many tasks there is memory.
    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}
