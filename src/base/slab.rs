//! A slab: values under small numbers, whose memory goes back while others stay.
//!
//! The table of sources and the timer wheel keep their entries here. Entries live in chunks of [`CHUNK`]; a number is that
//! of the chunk and a place in it. A new value goes to the lowest chunk with room, so that the high ones empty, and an
//! empty chunk is freed, but for one: a value that comes and goes alone allocates nothing. The look for that chunk is at a
//! bit for each: sixteen words for half a million values.
//!
//! Invariants:
//! * Bit `n` of `room` says whether chunk `n` has a free place. A chunk that was freed has room, but no memory.
//! * No word of `room` below `lowest` has a bit set.
//! * `spare` is the only empty chunk that has memory, if there is one.
//!
//! Who keeps numbers for long keeps a stamp beside them: a number is given again as soon as it is free.

use std::ops::{Index, IndexMut};

/// How many values a chunk holds. Of timers, with 40 bytes each, that is five pages.
const CHUNK: usize = 512;

/// "No place": the end of a chunk's list of free places.
const NONE: u32 = u32::MAX;

/// A place of a chunk. For most values it is no larger than the value: `Free` fits beside what a value can't be.
#[derive(Debug)]
enum Entry<T> {
    /// With the next free place of this chunk.
    Free(u32),
    Used(T),
}

#[derive(Debug)]
struct Chunk<T> {
    /// Those places that were used since it was allocated; never more than [`CHUNK`].
    entries: Vec<Entry<T>>,
    /// The head of the list of free places among `entries`.
    free: u32,
    used: u32,
}

impl<T> Chunk<T> {
    const NEW: Chunk<T> = Chunk {
        entries: Vec::new(),
        free: NONE,
        used: 0,
    };

    /// Puts a value after the others.
    #[cold]
    fn push(&mut self, value: T, whole: bool) -> u32 {
        if whole && self.entries.is_empty() {
            // The first chunk grows with what is in it, for most slabs are small; the others have their size at once.
            self.entries.reserve_exact(CHUNK);
        }
        self.entries.push(Entry::Used(value));
        self.entries.len() as u32 - 1
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    room: Vec<u64>,
    lowest: usize,
    spare: Option<usize>,
    len: usize,
}

impl<T> Slab<T> {
    /// Allocates nothing.
    pub(super) const fn new() -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            room: Vec::new(),
            lowest: 0,
            spare: None,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, place) = split(index);
        match self.chunks.get(chunk)?.entries.get(place)? {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, place) = split(index);
        match self.chunks.get_mut(chunk)?.entries.get_mut(place)? {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// The number that the next [`insert`](Slab::insert) will give.
    pub(super) fn next_index(&mut self) -> u32 {
        let number = self.chunk_with_room();
        let chunk = &self.chunks[number];
        let place = if chunk.free == NONE {
            chunk.entries.len() as u32
        } else {
            chunk.free
        };
        (number * CHUNK) as u32 + place
    }

    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let number = self.chunk_with_room();
        let chunk = &mut self.chunks[number];
        let place = match chunk.entries.get_mut(chunk.free as usize) {
            Some(entry) => {
                let Entry::Free(next) = *entry else {
                    unreachable!("the list of free places has none that are used")
                };
                *entry = Entry::Used(value);
                std::mem::replace(&mut chunk.free, next)
            }
            None => chunk.push(value, number > 0),
        };
        if chunk.used == 0 {
            // If it was kept, it no longer is; if it is new, no other one is kept, which would have had room.
            self.spare = None;
        }
        chunk.used += 1;
        if chunk.used as usize == CHUNK {
            self.room[number / 64] &= !(1 << (number % 64));
        }
        self.len += 1;
        (number * CHUNK) as u32 + place
    }

    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        self.remove_if(index, |_| true)
    }

    /// Removes a value if it is the one that is meant.
    #[inline]
    pub(super) fn remove_if(&mut self, index: u32, is_meant: impl FnOnce(&T) -> bool) -> Option<T> {
        let (number, place) = split(index);
        let chunk = self.chunks.get_mut(number)?;
        let entry = chunk.entries.get_mut(place)?;
        if !matches!(entry, Entry::Used(value) if is_meant(value)) {
            return None;
        }
        let entry = std::mem::replace(entry, Entry::Free(chunk.free));
        chunk.free = place as u32;
        if chunk.used as usize == CHUNK {
            self.room[number / 64] |= 1 << (number % 64);
            self.lowest = self.lowest.min(number / 64);
        }
        chunk.used -= 1;
        self.len -= 1;
        if chunk.used == 0 {
            match self.spare {
                None => self.spare = Some(number),
                Some(other) => self.free_higher(number, other),
            }
        }
        match entry {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    /// All values, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let all = self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let places = chunk.entries.iter().enumerate();
            places.map(move |(place, entry)| ((number * CHUNK + place) as u32, entry))
        });
        all.filter_map(|(index, entry)| match entry {
            Entry::Used(value) => Some((index, value)),
            Entry::Free(_) => None,
        })
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        let entries = self.chunks.into_iter().flat_map(|chunk| chunk.entries);
        entries.filter_map(|entry| match entry {
            Entry::Used(value) => Some(value),
            Entry::Free(_) => None,
        })
    }

    /// How many values there is memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum()
    }

    /// The number of the lowest chunk with room.
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
        // As many values would need terabytes of memory.
        assert!(number < NONE as usize / CHUNK, "fewer than 2^32 values");
        self.chunks.push(Chunk::NEW);
        self.room.resize(number / 64 + 1, 0);
        self.room[number / 64] |= 1 << (number % 64);
        self.lowest = number / 64;
        number
    }

    /// Frees the higher one of two chunks that are empty, and keeps the other.
    #[cold]
    fn free_higher(&mut self, one: usize, other: usize) {
        self.spare = Some(one.min(other));
        self.chunks[one.max(other)] = Chunk::NEW;
        while self.chunks.last().is_some_and(|chunk| chunk.entries.capacity() == 0) {
            self.chunks.pop();
            let number = self.chunks.len();
            self.room[number / 64] &= !(1 << (number % 64));
        }
        self.room.truncate(self.chunks.len().div_ceil(64));
        self.lowest = self.lowest.min(self.room.len());
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
            self.room.shrink_to(self.room.len() * 2);
        }
    }
}

/// Who has linked numbers into a list knows that there are values behind them.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        self.get(index).expect("a value has this number")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("a value has this number")
    }
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at every invariant of the module's header.
    fn check<T>(slab: &Slab<T>) {
        let mut empty_with_memory = Vec::new();
        for (number, chunk) in slab.chunks.iter().enumerate() {
            let used = chunk
                .entries
                .iter()
                .filter(|entry| matches!(entry, Entry::Used(_)))
                .count();
            assert_eq!(chunk.used as usize, used);
            assert_eq!(slab.room[number / 64] >> (number % 64) & 1 == 1, used < CHUNK);
            if used == 0 && chunk.entries.capacity() > 0 {
                empty_with_memory.push(number);
            }
        }
        assert!(empty_with_memory.iter().all(|number| slab.spare == Some(*number)));
        assert!(slab.room.iter().take(slab.lowest).all(|word| *word == 0));
        let bits: u32 = slab.room.iter().map(|word| word.count_ones()).sum();
        assert!(bits as usize <= slab.chunks.len());
        assert_eq!(slab.iter().count(), slab.len());
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn an_entry_is_no_larger_than_a_value_with_something_that_it_cannot_be() {
        assert_eq!(size_of::<Entry<(u64, std::task::Waker)>>(), 24);
    }

    #[test]
    fn a_slab_that_was_never_used_has_allocated_nothing() {
        let slab = Slab::<u64>::new();
        assert_eq!(
            (slab.capacity(), slab.chunks.capacity(), slab.room.capacity()),
            (0, 0, 0)
        );
        assert!(slab.get(0).is_none() && slab.get(u32::MAX).is_none());
    }

    #[test]
    fn a_number_that_was_announced_is_given() {
        let mut slab = Slab::new();
        for value in 0..3 * CHUNK {
            let index = slab.next_index();
            assert!(slab.get(index).is_none());
            assert_eq!(slab.insert(value), index);
        }
        assert_eq!(slab.remove(200), Some(200));
        assert_eq!((slab.next_index(), slab.next_index(), slab.insert(1)), (200, 200, 200));
        check(&slab);
    }

    #[test]
    fn memory_follows_the_number_of_values_whichever_stays() {
        const MANY: u32 = 100 * CHUNK as u32;
        for stays in [0, 1, MANY / 2, MANY - 1] {
            let mut slab = Slab::new();
            for value in 0..MANY {
                assert_eq!(slab.insert(value), value);
            }
            for value in (0..MANY).filter(|value| *value != stays) {
                assert_eq!(slab.remove(value), Some(value));
            }
            // The chunk of the one that stays, and one that is kept.
            assert!(slab.capacity() <= 2 * CHUNK, "{stays}: {}", slab.capacity());
            assert_eq!((slab.len(), slab[stays]), (1, stays));
            check(&slab);
        }
    }

    #[test]
    fn a_value_that_comes_and_goes_at_the_end_of_a_chunk_allocates_nothing() {
        let mut slab = Slab::new();
        for value in 0..CHUNK {
            slab.insert(value);
        }
        for round in 0..10 {
            let index = slab.insert(round);
            assert_eq!((index as usize, slab.capacity()), (CHUNK, 2 * CHUNK));
            assert_eq!(slab.remove(index), Some(round));
            assert_eq!(slab.capacity(), 2 * CHUNK);
        }
        check(&slab);
    }

    #[test]
    fn new_values_fill_the_low_chunks_so_that_the_high_ones_empty() {
        let mut slab = Slab::new();
        let mut all: Vec<u32> = (0..64 * CHUNK).map(|value| slab.insert(value)).collect();
        // Each 64th stays, in every chunk; then the oldest go as new ones come.
        let mut young = Vec::new();
        all.retain(|index| index % 64 == 0 || slab.remove(*index).is_none());
        assert_eq!(slab.capacity(), 64 * CHUNK);
        for index in all {
            young.push(slab.insert(0));
            assert!(slab.remove(index).is_some());
        }
        assert_eq!(young.len(), CHUNK);
        assert!(slab.capacity() <= 4 * CHUNK, "{}", slab.capacity());
        check(&slab);
    }

    #[test]
    fn a_random_walk_agrees_with_a_map() {
        let mut slab = Slab::new();
        let mut model = std::collections::BTreeMap::new();
        let mut random = 88_172_645_463_325_252_u64;
        for step in 0..200_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Up to some 130 chunks, and down again.
            let grows = step / 50_000 % 2 == 0;
            if (random & 7 != 0) == grows || model.is_empty() {
                for value in 0..2 {
                    let index = slab.next_index();
                    assert_eq!(slab.insert(step + value), index);
                    assert_eq!(model.insert(index, step + value), None);
                }
            } else {
                for _ in 0..2 {
                    let from = (random >> 32) as u32 % (model.len() as u32 + 1);
                    let Some((&index, _)) = model.range(from..).next() else {
                        break;
                    };
                    assert_eq!(slab.remove(index), model.remove(&index));
                    assert_eq!(slab.remove(index), None);
                }
            }
            if step % 5_000 == 0 {
                check(&slab);
                assert!(slab.iter().eq(model.iter().map(|(index, value)| (*index, value))));
            }
        }
        let mut left: Vec<u64> = slab.into_values().collect();
        left.sort_unstable();
        let mut expected: Vec<u64> = model.into_values().collect();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }
}
