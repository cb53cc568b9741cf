//! The tasks whose futures live: a table from slots to tasks, whose memory goes back while other tasks stay.
//!
//! Slots lie in chunks of [`CHUNK`]. A new task goes to the lowest chunk with room, so that the high ones empty; an empty
//! chunk is freed, but for the lowest, so that a task that comes and goes alone allocates nothing.
//!
//! Invariants:
//! * Bit `n` of `room` says whether chunk `n` has a free slot; a chunk without memory has.
//! * No word of `room` below `lowest` has a bit set.

use std::ptr;

use super::task::{Header, MOST_SLOTS, RawTask};

/// How many slots a chunk has: a page.
const CHUNK: usize = 512;

/// See the module.
#[derive(Default)]
pub(super) struct Owned {
    chunks: Vec<Chunk>,
    room: Vec<u64>,
    lowest: usize,
    len: usize,
}

#[derive(Default)]
struct Chunk {
    slots: Vec<Slot>,
    /// The head of the list of free ones among `slots`.
    free: Option<u32>,
    used: usize,
}

/// A task, or the next free slot of its chunk: one word, since there is one for each task. Tasks are aligned, so a free slot
/// is odd.
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

    /// Takes a task in; returns its slot.
    #[inline]
    pub(super) fn insert(&mut self, task: RawTask) -> u32 {
        let number = self.chunk_with_room();
        let chunk = &mut self.chunks[number];
        let slot = match chunk.free {
            Some(slot) => {
                let place = &mut chunk.slots[slot as usize];
                let Err(next) = place.get() else {
                    unreachable!("evbase: the list of free slots names one with a task")
                };
                chunk.free = next;
                *place = Slot(task.as_raw());
                slot as usize
            }
            None => {
                chunk.slots.push(Slot(task.as_raw()));
                chunk.slots.len() - 1
            }
        };
        chunk.used += 1;
        if chunk.used == CHUNK {
            self.room[number / 64] &= !(1 << (number % 64));
        }
        self.len += 1;
        (number * CHUNK + slot) as u32
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: u32) {
        let (number, slot) = (slot as usize / CHUNK, slot as usize % CHUNK);
        let chunk = &mut self.chunks[number];
        chunk.slots[slot] = Slot::free(chunk.free);
        chunk.free = Some(slot as u32);
        if chunk.used == CHUNK {
            self.room[number / 64] |= 1 << (number % 64);
            self.lowest = self.lowest.min(number / 64);
        }
        chunk.used -= 1;
        self.len -= 1;
        if chunk.used == 0 && number > 0 {
            self.release(number);
        }
    }

    /// One of them, if there is one.
    pub(super) fn any(&self) -> Option<RawTask> {
        let chunk = self.chunks.iter().rev().find(|chunk| chunk.used > 0)?;
        chunk.slots.iter().rev().find_map(|slot| slot.get().ok())
    }

    #[inline]
    fn chunk_with_room(&mut self) -> usize {
        while let Some(word) = self.room.get(self.lowest) {
            if *word != 0 {
                return self.lowest * 64 + word.trailing_zeros() as usize;
            }
            self.lowest += 1;
        }
        self.add_chunk()
    }

    #[cold]
    fn add_chunk(&mut self) -> usize {
        let number = self.chunks.len();
        assert!(
            number < MOST_SLOTS as usize / CHUNK,
            "evbase: too many tasks: there is room for 2^29"
        );
        self.chunks.push(Chunk::default());
        self.room.resize(number / 64 + 1, 0);
        self.room[number / 64] |= 1 << (number % 64);
        self.lowest = number / 64;
        number
    }

    /// Frees the memory of a chunk that is empty, and of those at the end that are.
    #[cold]
    fn release(&mut self, number: usize) {
        self.chunks[number] = Chunk::default();
        while self.chunks.len() > 1 && self.chunks.last().is_some_and(|chunk| chunk.slots.capacity() == 0) {
            self.chunks.pop();
            let last = self.chunks.len();
            self.room[last / 64] &= !(1 << (last % 64));
        }
        self.room.truncate(self.chunks.len().div_ceil(64));
        self.lowest = self.lowest.min(self.room.len());
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
            self.room.shrink_to(self.room.len() * 2);
        }
    }

    /// For how many slots there is memory.
    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.slots.capacity()).sum()
    }
}
