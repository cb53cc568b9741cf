//! The table of sources: from [`Key`] to payload, and from descriptor to slot.
//!
//! Only `EventBase` uses it, and it makes no system call. A look-up is a bounds check and a comparison.
//!
//! Invariants:
//! * Each source has a stamp of its own, so that a stale key, or an event that the kernel reported before, never reaches a later
//!   source in the same slot. (Stamps wrap after 2^32.)
//! * `by_fd[n]` is the slot of the source that was registered last under descriptor number `n`, if it is still in
//!   the table. An older source with the same number is *detached*: its descriptor was closed without being
//!   deregistered, so what the kernel knows under that number belongs to the newer one.

use std::os::fd::RawFd;

use super::interest::{Interest, Mode};
use super::slab::Slab;

/// Names a source that is registered with an [`EventBase`](super::EventBase).
///
/// Once its source was deregistered, a key finds nothing, until the base has registered 2^32 further ones. It means something only to
/// the base that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    stamp: u32,
}

/// "No slot", in the index by descriptor. Never the index of a slot, so that no key has this token's lower half.
pub(super) const NONE: u32 = u32::MAX;

impl Key {
    /// The 64 bits that the kernel hands back with an event.
    pub(crate) fn token(self) -> u64 {
        u64::from(self.stamp) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_token(token: u64) -> Key {
        Key {
            index: token as u32,
            stamp: (token >> 32) as u32,
        }
    }
}

/// What the table keeps of a source.
#[derive(Debug)]
pub(super) struct Source<S> {
    /// The number at registration. Whether it still names the same file is not known.
    pub(super) fd: RawFd,
    pub(super) interest: Interest,
    pub(super) mode: Mode,
    /// The number was closed and registered again by a newer source.
    pub(super) detached: bool,
    pub(super) payload: S,
}

#[derive(Debug)]
struct Slot<S> {
    stamp: u32,
    source: Source<S>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sources<S> {
    slots: Slab<Slot<S>>,
    next_stamp: u32,
    /// Indexed by descriptor number, in pages. It grows with the highest number there ever was: 8 bytes a page.
    by_fd: Vec<Option<Box<Page>>>,
}

/// How many descriptor numbers a page stands for.
const PAGE: usize = 256;

/// A part of `by_fd`; an empty one is freed.
#[derive(Debug)]
struct Page {
    /// How many entries are not [`NONE`].
    used: usize,
    /// Indices of slots, or [`NONE`].
    indices: [u32; PAGE],
}

impl<S> Sources<S> {
    pub(super) const fn new() -> Sources<S> {
        Sources {
            slots: Slab::new(),
            next_stamp: 0,
            by_fd: Vec::new(),
        }
    }

    /// How many sources there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Source<S>> {
        let slot = self.slots.get(key.index).filter(|slot| slot.stamp == key.stamp)?;
        Some(&slot.source)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Source<S>> {
        let slot = self.slots.get_mut(key.index).filter(|slot| slot.stamp == key.stamp)?;
        Some(&mut slot.source)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Source<S>> {
        self.slots.iter().map(|(_, slot)| &slot.source)
    }

    /// The source that was registered last under this number, if it is still here, with its key.
    pub(super) fn by_fd(&self, fd: RawFd) -> Option<(Key, &Source<S>)> {
        let number = usize::try_from(fd).ok()?;
        let page = self.by_fd.get(number / PAGE)?.as_ref()?;
        let index = page.indices[number % PAGE];
        let slot = self.slots.get(index)?;
        Some((slot.key(index), &slot.source))
    }

    /// The key for the next [`insert`](Sources::insert): the kernel is told it first.
    pub(super) fn next_key(&mut self) -> Key {
        Key {
            index: self.slots.next_index(),
            stamp: self.next_stamp,
        }
    }

    /// Adds a source under the key from [`next_key`](Sources::next_key), and detaches an older one with the same number.
    ///
    /// The kernel has accepted the number by now, so it is one of an open descriptor, and small.
    pub(super) fn insert(&mut self, key: Key, source: Source<S>) {
        let older = self.by_fd(source.fd).map(|(older, _)| older);
        if let Some(older) = older.and_then(|older| self.get_mut(older)) {
            older.detached = true;
        }
        self.set_index(source.fd, key.index);
        let stamp = key.stamp;
        self.next_stamp = stamp.wrapping_add(1);
        let index = self.slots.insert(Slot { stamp, source });
        debug_assert_eq!(index, key.index, "inserts where it was announced");
    }

    /// Takes a source out. Its key, and its token, are stale from here on.
    pub(super) fn remove(&mut self, key: Key) -> Option<Source<S>> {
        self.get(key)?;
        let source = self.slots.remove(key.index)?.source;
        if !source.detached {
            self.set_index(source.fd, NONE);
        }
        Some(source)
    }

    /// Sets the entry of a descriptor in `by_fd`.
    fn set_index(&mut self, fd: RawFd, index: u32) {
        let (page, entry) = (fd as usize / PAGE, fd as usize % PAGE);
        if page >= self.by_fd.len() {
            self.by_fd.resize_with(page + 1, || None);
        }
        let Page { used, indices } = &mut **self.by_fd[page].get_or_insert_with(|| {
            Box::new(Page {
                used: 0,
                indices: [NONE; PAGE],
            })
        });
        let old = std::mem::replace(&mut indices[entry], index);
        *used += usize::from(index != NONE);
        *used -= usize::from(old != NONE);
        if *used == 0 {
            self.by_fd[page] = None;
        }
    }

    /// The keys of all sources.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.slots.iter().map(|(index, slot)| slot.key(index)).collect()
    }
}

impl<S> Slot<S> {
    fn key(&self, index: u32) -> Key {
        Key {
            index,
            stamp: self.stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sources: &mut Sources<&'static str>, fd: RawFd, payload: &'static str) -> Key {
        let key = sources.next_key();
        let source = Source {
            fd,
            interest: Interest::READABLE,
            mode: Mode::Level,
            detached: false,
            payload,
        };
        sources.insert(key, source);
        key
    }

    fn payload(sources: &Sources<&'static str>, key: Key) -> Option<&'static str> {
        sources.get(key).map(|source| source.payload)
    }

    #[test]
    fn a_key_is_eight_bytes() {
        assert_eq!(size_of::<Key>(), 8);
    }

    #[test]
    fn a_token_is_a_key_and_back() {
        let key = Key {
            index: 7,
            stamp: u32::MAX,
        };
        assert_eq!(key.token(), 0xffff_ffff_0000_0007);
        assert_eq!(Key::from_token(key.token()), key);
    }

    #[test]
    fn a_stale_key_does_not_find_the_next_tenant() {
        let mut sources = Sources::new();
        let first = insert(&mut sources, 3, "first");
        assert_eq!(sources.remove(first).map(|source| source.payload), Some("first"));
        assert!(sources.remove(first).is_none());
        let second = insert(&mut sources, 3, "second");
        assert_eq!((first.index, sources.len()), (second.index, 1));
        assert_eq!(
            (payload(&sources, first), payload(&sources, second)),
            (None, Some("second"))
        );
        assert!(sources.get_mut(first).is_none());
    }

    #[test]
    fn a_key_that_was_announced_but_not_used_is_announced_again() {
        let mut sources = Sources::new();
        let key = sources.next_key();
        assert_eq!((sources.len(), payload(&sources, key)), (0, None));
        assert_eq!(insert(&mut sources, 5, "a"), key);
        assert_eq!(sources.len(), 1);
    }

    #[test]
    fn a_newer_source_detaches_an_older_one_with_the_same_number() {
        let mut sources = Sources::new();
        let old = insert(&mut sources, 4, "old");
        let new = insert(&mut sources, 4, "new");
        assert!(sources.get(old).is_some_and(|source| source.detached));
        assert_eq!(sources.by_fd(4).map(|(key, _)| key), Some(new));
        assert!(sources.remove(old).is_some());
        assert_eq!(sources.by_fd(4).map(|(key, _)| key), Some(new));
        assert!(sources.remove(new).is_some());
        assert!(sources.by_fd(4).is_none() && sources.by_fd(-1).is_none() && sources.by_fd(1000).is_none());
    }

    #[test]
    fn memory_follows_the_number_of_sources_whichever_stays() {
        for stays in [0, 50_000, 99_999] {
            let mut sources = Sources::new();
            let mut keys: Vec<_> = (0..100_000).map(|fd| insert(&mut sources, fd, "one of many")).collect();
            let kept = keys.remove(stays);
            assert!(keys.into_iter().all(|key| sources.remove(key).is_some()));
            assert!(sources.slots.capacity() <= 1024);
            assert_eq!(sources.by_fd.iter().flatten().count(), 1);
            assert!(payload(&sources, kept).is_some() && sources.by_fd(stays as RawFd).is_some());
        }
    }
}
