//! A slab: values under small numbers, whose memory goes back while others stay.
//!
//! The table of sources and the timer wheel keep their entries here. Values live in chunks of [`CHUNK`] slots; a value's number
//! is that of its chunk and of the slot in it. A new value goes to the lowest chunk with room, so that the high ones empty. An
//! empty chunk is freed, but for one: a value that comes and goes alone allocates nothing. Bits say which slots of a chunk are
//! free, and which chunks have room: one word of these for four thousand values.
//!
//! Invariants:
//! * If chunk `n` has a free slot, or is `lowest`, bit `n` of `room` is set; of one that is full it is cleared when that is found. A
//!   chunk that was freed has room, but no memory.
//! * No chunk below `lowest` has room. It may be the number of the next chunk, which isn't there yet.
//! * `spare` is the only empty chunk that has memory, if there is one.
//!
//! A number is given again as soon as it is free: users that keep numbers for long keep a stamp beside them.

use std::ops::{Index, IndexMut};

/// How many values a chunk holds.
const CHUNK: usize = u64::BITS as usize;

#[derive(Debug)]
struct Chunk<T> {
    /// `None`: it was freed, or never used.
    values: Option<Box<[Option<T>; CHUNK]>>,
    /// A bit for each free slot.
    free: u64,
}

impl<T> Chunk<T> {
    const EMPTY: u64 = u64::MAX;

    const NEW: Chunk<T> = Chunk {
        values: None,
        free: Self::EMPTY,
    };

    /// Neither full nor empty.
    fn is_partly_free(&self) -> bool {
        self.free != 0 && self.free != Self::EMPTY
    }

    fn allocate(&mut self) {
        if self.values.is_none() {
            self.values = Some(Box::new([const { None }; CHUNK]));
        }
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
        let (number, slot) = split(index);
        self.chunks.get(number)?.values.as_ref()?[slot].as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (number, slot) = split(index);
        self.chunks.get_mut(number)?.values.as_mut()?[slot].as_mut()
    }

    /// The number that the next [`insert`](Slab::insert) will give.
    pub(super) fn next_index(&mut self) -> u32 {
        let number = self.chunk_with_room();
        join(number, self.chunks[number].free.trailing_zeros() as usize)
    }

    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let (number, chunk) = match self.chunks.get_mut(self.lowest) {
            Some(chunk) if chunk.is_partly_free() => (self.lowest, chunk),
            _ => self.next_chunk(),
        };
        let slot = chunk.free.trailing_zeros() as usize % CHUNK;
        chunk.free &= chunk.free - 1;
        let values = chunk.values.as_mut().expect("a chunk in use has memory");
        // There is none that it would replace: so the compiler need not drop one.
        std::mem::forget(values[slot].replace(value));
        self.len += 1;
        join(number, slot)
    }

    /// The chunk for the next value, if that is another one than `lowest`, or is empty.
    #[inline(never)]
    fn next_chunk(&mut self) -> (usize, &mut Chunk<T>) {
        let number = self.chunk_with_room();
        self.spare.take_if(|spare| *spare == number);
        let chunk = &mut self.chunks[number];
        chunk.allocate();
        (number, chunk)
    }

    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        self.remove_if(index, |_| true)
    }

    /// Removes a value if it is the one that is meant.
    #[inline]
    pub(super) fn remove_if(&mut self, index: u32, is_meant: impl FnOnce(&T) -> bool) -> Option<T> {
        let (number, slot) = split(index);
        let chunk = self.chunks.get_mut(number)?;
        let value = chunk.values.as_mut()?[slot].take_if(|value| is_meant(value))?;
        let was_full = chunk.free == 0;
        chunk.free |= 1 << slot;
        self.len -= 1;
        if was_full && number != self.lowest {
            self.has_room(number);
        } else if chunk.free == Chunk::<T>::EMPTY {
            self.emptied(number);
        }
        Some(value)
    }

    /// A chunk that was full, and is not the lowest with room, isn't full any more.
    fn has_room(&mut self, number: usize) {
        self.room[number / CHUNK] |= 1 << (number % CHUNK);
        self.lowest = self.lowest.min(number);
    }

    /// All values, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let all = self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let slots = chunk.values.iter().flat_map(|values| values.iter()).enumerate();
            slots.map(move |(slot, value)| (join(number, slot), value))
        });
        all.filter_map(|(index, value)| Some((index, value.as_ref()?)))
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = T> {
        let chunks = self.chunks.into_iter().filter_map(|chunk| chunk.values);
        chunks.flat_map(|values| *values).flatten()
    }

    /// How many values there is memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.chunks.iter().filter(|chunk| chunk.values.is_some()).count() * CHUNK
    }

    /// The number of the lowest chunk with room: `lowest`, from here on.
    #[inline]
    fn chunk_with_room(&mut self) -> usize {
        match self.chunks.get(self.lowest) {
            Some(chunk) if chunk.free != 0 => self.lowest,
            _ => self.find_room(),
        }
    }

    #[cold]
    fn find_room(&mut self) -> usize {
        for (at, word) in self.room.iter_mut().enumerate().skip(self.lowest / CHUNK) {
            while *word != 0 {
                self.lowest = at * CHUNK + word.trailing_zeros() as usize;
                if self.chunks[self.lowest].free != 0 {
                    return self.lowest;
                }
                *word &= *word - 1;
            }
        }
        // Full, and without its bit, `lowest` may be what was looked at last: it must not stay that.
        self.lowest = self.chunks.len();
        self.add_chunk()
    }

    fn add_chunk(&mut self) -> usize {
        let number = self.chunks.len();
        // As many values would need terabytes of memory.
        assert!(number < u32::MAX as usize / CHUNK, "fewer than 2^32 values");
        self.chunks.push(Chunk::NEW);
        self.room.resize(number / CHUNK + 1, 0);
        self.room[number / CHUNK] |= 1 << (number % CHUNK);
        number
    }

    /// A chunk has become empty: if there is another such one, the higher one of the two is freed.
    #[cold]
    fn emptied(&mut self, number: usize) {
        let Some(other) = self.spare.replace(number) else {
            return;
        };
        self.spare = Some(number.min(other));
        self.chunks[number.max(other)] = Chunk::NEW;
        while self.chunks.last().is_some_and(|chunk| chunk.values.is_none()) {
            self.chunks.pop();
            let number = self.chunks.len();
            self.room[number / CHUNK] &= !(1 << (number % CHUNK));
        }
        self.room.truncate(self.chunks.len().div_ceil(CHUNK));
        self.lowest = self.lowest.min(self.chunks.len());
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
            self.room.shrink_to(self.room.len() * 2);
        }
    }
}

/// For numbers that are known to have a value, as those in the wheel's lists.
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

/// The number of the chunk, and the slot in it.
fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK, index as usize % CHUNK)
}

fn join(number: usize, slot: usize) -> u32 {
    (number * CHUNK + slot) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at every invariant of the module's header.
    fn check<T>(slab: &Slab<T>) {
        let mut empty_with_memory = Vec::new();
        for (number, chunk) in slab.chunks.iter().enumerate() {
            let used = chunk.values.iter().flat_map(|values| values.iter().enumerate());
            let used = used
                .filter(|(_, value)| value.is_some())
                .fold(0, |bits, (slot, _)| bits | 1 << slot);
            assert_eq!(chunk.free, !used);
            let has_bit = slab.room[number / 64] >> (number % 64) & 1 == 1;
            assert!(has_bit || (chunk.free == 0 && number != slab.lowest));
            if used == 0 && chunk.values.is_some() {
                empty_with_memory.push(number);
            }
        }
        assert!(empty_with_memory.iter().all(|number| slab.spare == Some(*number)));
        assert!(slab.chunks.iter().take(slab.lowest).all(|chunk| chunk.free == 0));
        let bits: u32 = slab.room.iter().map(|word| word.count_ones()).sum();
        assert!(bits as usize <= slab.chunks.len());
        assert_eq!(slab.iter().count(), slab.len());
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
        assert_eq!(slab.remove(100), Some(100));
        assert_eq!((slab.next_index(), slab.next_index(), slab.insert(1)), (100, 100, 100));
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
    fn a_chunk_that_is_kept_is_not_forgotten_for_a_lower_one_without_memory() {
        let mut slab = Slab::new();
        let chunk = |number: usize| number * CHUNK..(number + 1) * CHUNK;
        (0..6 * CHUNK).for_each(|value| assert_eq!(slab.insert(value) as usize, value));
        let empty = |slab: &mut Slab<usize>, number| {
            chunk(number).for_each(|index| assert!(slab.remove(index as u32).is_some()))
        };
        // The first stays, the second is freed.
        empty(&mut slab, 1);
        empty(&mut slab, 3);
        assert_eq!(slab.insert(0) as usize, CHUNK);
        empty(&mut slab, 5);
        for value in chunk(1) {
            slab.insert(value);
        }
        check(&slab);
        assert_eq!(slab.capacity(), 6 * CHUNK);
        assert!(slab.remove(chunk(3).start as u32).is_some());
        check(&slab);
        for number in [0, 1, 2, 4] {
            empty(&mut slab, number);
            check(&slab);
        }
        assert_eq!((slab.len(), slab.capacity()), (0, CHUNK));
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
            if step % 500 == 0 {
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
