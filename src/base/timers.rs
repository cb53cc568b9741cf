//! The timer wheel: which deadline is next, and which have passed.
//!
//! It knows no clock, only `u64` nanoseconds since some epoch; `EventBase` is its only user, and translates.
//!
//! # How it works
//!
//! Time is cut into ticks of 2^10 ns, and a tick number into digits of six bits. A timer is kept in level `n`, slot
//! `d`, if `n` is the highest digit in which its tick differs from that of `elapsed`, and `d` is its value there. So
//! each level has 64 slots, each a linked list, and each slot of a level is as long as the whole level below it:
//!
//! ```text
//!   level 0   [.|.|x|.| ... |.]   64 slots of  1 us          elapsed = the time up to which timers have been fired
//!   level 1   [.|.|.|.| ... |x]   64 slots of 66 us
//!   level 2   [.|x|.|.| ... |.]   64 slots of  4 ms          `occupied`: a bit for each slot that isn't empty
//!   ...                                                      `slot.earliest`: the first deadline in it
//!   level 8   [.|.|.|.| ... |.]   64 slots of  9 years       `slot.wake`: the first time to wake up for it
//! ```
//!
//! The first deadline of all is in the first occupied slot of the first occupied level, and a slot knows its first
//! deadline, so the base never wakes up only to move timers down ("cascade"), and ticks never round a deadline.
//! When time moves on, the slots that it reaches are emptied: what is due is fired, and the rest of the last slot is
//! placed anew, at a lower level. So a timer moves at most once a level, and most are disarmed before they ever do.
//!
//! A timer may have a *grid*: a number of nanoseconds (`precision.rs` says which). The wake-up for it is at the first multiple
//! of that at or after its deadline, so that timers that needn't be exact share a wake-up. If the base is awake between the
//! two, for another reason, it fires then: all that is due fires, in the order of deadlines.
//!
//! # Invariants
//!
//! * Every timer is either linked in the slot that its `slot` names, or in `expired`.
//! * A slot's `earliest` is never later than its first deadline, nor `wake` than its first wake-up. They are exactly
//!   that, unless the slot is `dirty`.
//! * `elapsed` never goes back, and no timer is in a slot before that of `elapsed`.
//! * Each arming has a stamp of its own, so a key never finds a later timer in its node. (Stamps wrap after 2^32.)
//! * Memory follows the number of timers down as well as up: the nodes are in a [`Slab`], and `expired` shrinks when it has
//!   been handed out. The slots, 14 KB, stay.

use std::cmp::Reverse;

use super::precision::Grid;
use super::slab::Slab;
use crate::random::Random;

/// Names a timer that is armed in an [`EventBase`](super::EventBase).
///
/// Once its timer has fired or was disarmed, a key finds nothing, until the base has armed 2^32 further ones. It means something only
/// to the base that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    /// The node's index below, the arming's stamp above: one word, since a timer is often disarmed while the stores are still on
    /// their way to the cache, where a load of two of them would wait.
    bits: u64,
}

impl TimerKey {
    fn new(index: u32, stamp: u32) -> TimerKey {
        TimerKey {
            bits: u64::from(stamp) << 32 | u64::from(index),
        }
    }

    fn index(self) -> u32 {
        self.bits as u32
    }

    fn stamp(self) -> u32 {
        (self.bits >> 32) as u32
    }
}

const TICK_BITS: u32 = 10;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Enough for all 64 bits.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(DIGIT_BITS) as usize;

/// "No node": the end of a list.
const NONE: u32 = u32::MAX;

/// Up to how many timers of a dirty slot are looked through for the first deadline. With more, a lower bound has to do,
/// at the cost of at most one wake-up that finds nothing due.
const RESCAN: usize = 128;

/// How many entries `expired` keeps memory for when it is empty.
const KEEP: usize = 1024;

/// The `slot` of a timer that is due, and so in `expired`.
const EXPIRED: u16 = u16::MAX;

#[derive(Debug)]
struct Node<T> {
    timer: Timer,
    payload: T,
}

/// A timer without its payload.
#[derive(Clone, Copy, Debug)]
struct Timer {
    deadline: u64,
    stamp: u32,
    previous: u32,
    next: u32,
    /// `level * SLOTS + slot`, or [`EXPIRED`].
    slot: u16,
    grid: Grid,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    earliest: u64,
    wake: u64,
}

/// A timer that is due: its deadline, its age in arming order, its node and its stamp.
type Due = (u64, u32, u32, u32);

/// See the module.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    elapsed: u64,
    /// Bit `n`: level `n` has an occupied slot.
    levels: u16,
    occupied: [u64; LEVELS],
    dirty: [u64; LEVELS],
    /// All slots of all levels. Empty until the first timer is armed.
    slots: Vec<Slot>,
    nodes: Slab<Node<T>>,
    next_stamp: u32,
    /// Due, and not handed out yet; the next one last. An entry whose timer was disarmed or reset is skipped.
    expired: Vec<Reverse<Due>>,
}

impl<T> Wheel<T> {
    /// A wheel at time 0. Allocates nothing.
    pub(super) const fn new() -> Wheel<T> {
        Wheel {
            elapsed: 0,
            levels: 0,
            occupied: [0; LEVELS],
            dirty: [0; LEVELS],
            slots: Vec::new(),
            nodes: Slab::new(),
            next_stamp: 0,
            expired: Vec::new(),
        }
    }

    /// How many timers are armed, those included that are due and were not handed out.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Arms a timer. A deadline that has passed is as good as any.
    pub(super) fn arm(&mut self, deadline: u64, grid: Grid, payload: T) -> TimerKey {
        if self.slots.is_empty() {
            self.slots = vec![
                Slot {
                    head: NONE,
                    earliest: 0,
                    wake: 0,
                };
                LEVELS * SLOTS
            ];
        }
        let stamp = self.next_stamp;
        self.next_stamp = stamp.wrapping_add(1);
        let slot = self.slot_for(deadline);
        let head = self.slots[slot].head;
        let index = self.nodes.insert(Node {
            timer: Timer {
                deadline,
                stamp,
                previous: NONE,
                next: head,
                slot: slot as u16,
                grid,
            },
            payload,
        });
        self.lead(index, head, slot, deadline, grid);
        TimerKey::new(index, stamp)
    }

    /// Moves a timer to another deadline. `false`: it has gone.
    pub(super) fn reset(&mut self, key: TimerKey, deadline: u64, grid: Grid) -> bool {
        let Some(node) = self
            .nodes
            .get(key.index())
            .filter(|node| node.timer.stamp == key.stamp())
        else {
            return false;
        };
        let timer = node.timer;
        self.unlink(timer);
        self.link(
            key.index(),
            Timer {
                deadline,
                grid,
                ..timer
            },
        );
        true
    }

    /// Takes a timer out. `None`: it has gone.
    pub(super) fn disarm(&mut self, key: TimerKey) -> Option<T> {
        let node = self
            .nodes
            .remove_if(key.index(), |node| node.timer.stamp == key.stamp())?;
        self.unlink(node.timer);
        Some(node.payload)
    }

    pub(super) fn get(&self, key: TimerKey) -> Option<&T> {
        let node = self
            .nodes
            .get(key.index())
            .filter(|node| node.timer.stamp == key.stamp())?;
        Some(&node.payload)
    }

    pub(super) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let node = self
            .nodes
            .get_mut(key.index())
            .filter(|node| node.timer.stamp == key.stamp())?;
        Some(&mut node.payload)
    }

    /// When to wake up next, or (see [`RESCAN`]) a time shortly before that.
    pub(super) fn next_wake(&mut self) -> Option<u64> {
        // Whatever is due already is before everything that is not.
        while let Some(Reverse(due)) = self.expired.last() {
            if self.is_due(due) {
                return Some(due.0);
            }
            self.expired.pop();
        }
        let mut first = None;
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros() as usize;
            levels &= levels - 1;
            let mut digits = self.occupied[level];
            while digits != 0 {
                let digit = digits.trailing_zeros() as usize;
                digits &= digits - 1;
                // A grid may put a wake-up off to where later slots are, but nothing wakes before its slot begins.
                if first.is_some_and(|first| first <= self.start_of(level, digit)) {
                    return first;
                }
                let wake = self.wake_of(level, digit);
                first = Some(first.map_or(wake, |first: u64| first.min(wake)));
            }
        }
        first
    }

    /// Moves time on to `now`: what is due is ready for [`pop_expired`](Wheel::pop_expired) from here on. `announce` is called with
    /// each payload for which that is new.
    pub(super) fn expire(&mut self, now: u64, announce: fn(&T)) {
        if self.levels == 0 {
            self.elapsed = self.elapsed.max(now);
            return;
        }
        // Without anything to fire, time stands still, and no timer has to be placed anew.
        let level = self.levels.trailing_zeros() as usize;
        let digit = self.occupied[level].trailing_zeros() as usize;
        if self.slots[level * SLOTS + digit].earliest > now || self.elapsed > now {
            return;
        }
        // Entries left by a handler's panic: ages are counted from the newest stamp, which has moved on.
        for Reverse((_, age, _, stamp)) in &mut self.expired {
            *age = age_of(*stamp, self.next_stamp);
        }
        let before = self.elapsed >> TICK_BITS;
        let after = now >> TICK_BITS;
        self.elapsed = now;
        // All slots of the levels below the highest digit that has changed have passed, and some of that level. The last of
        // these is the current one: some of its timers may be yet to come.
        let top = level_of(before, after);
        for level in 0..top {
            self.empty(level, self.occupied[level], now, announce);
        }
        let reached = u64::MAX >> (SLOTS - 1 - digit_of(after, top));
        self.empty(top, self.occupied[top] & reached, now, announce);
        // Mostly short, and nearly sorted.
        self.expired.sort_unstable();
    }

    /// Whether there may be timers for [`pop_expired`](Wheel::pop_expired).
    #[inline]
    pub(super) fn has_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// Hands out the next timer that is due, after its deadline: by deadline, and by age if deadlines are equal.
    pub(super) fn pop_expired(&mut self) -> Option<(u64, TimerKey, T)> {
        while let Some(Reverse(due)) = self.expired.pop() {
            if self.is_due(&due) {
                let (deadline, _, index, stamp) = due;
                let node = self.nodes.remove(index);
                return node.map(|node| (deadline, TimerKey::new(index, stamp), node.payload));
            }
        }
        self.expired.shrink_to(KEEP);
        None
    }

    /// Puts those of the timers that are due whose deadlines are equal into a random order.
    pub(super) fn shuffle(&mut self, random: &mut Random) {
        for equal in self
            .expired
            .chunk_by_mut(|Reverse(one), Reverse(other)| one.0 == other.0)
        {
            random.shuffle(equal);
        }
    }

    /// All timers, with their deadlines.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.nodes.iter().map(|(_, node)| (node.timer.deadline, &node.payload))
    }

    /// Disarms everything.
    pub(super) fn clear(&mut self) -> Vec<T> {
        let emptied = Wheel {
            elapsed: self.elapsed,
            next_stamp: self.next_stamp,
            ..Wheel::new()
        };
        let nodes = std::mem::replace(self, emptied).nodes;
        nodes.into_values().map(|node| node.payload).collect()
    }

    /// Empties slots of one level: what is due at `now` goes to `expired`, the rest is placed anew.
    fn empty(&mut self, level: usize, slots: u64, now: u64, announce: fn(&T)) {
        self.occupied[level] &= !slots;
        self.dirty[level] &= !slots;
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
        let mut rest = slots;
        while rest != 0 {
            let digit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let mut index = std::mem::replace(&mut self.slots[level * SLOTS + digit].head, NONE);
            while index != NONE {
                let Node { timer, payload } = &mut self.nodes[index];
                let next = timer.next;
                if timer.deadline <= now {
                    announce(payload);
                    timer.slot = EXPIRED;
                    let age = age_of(timer.stamp, self.next_stamp);
                    self.expired.push(Reverse((timer.deadline, age, index, timer.stamp)));
                } else {
                    let timer = *timer;
                    self.link(index, timer);
                }
                index = next;
            }
        }
    }

    /// Whether an entry of `expired` still stands for a timer.
    fn is_due(&self, due: &Due) -> bool {
        let (deadline, _, index, stamp) = *due;
        // One that was reset may have become due once more, at another deadline.
        self.nodes
            .get(index)
            .map(|node| node.timer)
            .is_some_and(|timer| timer.slot == EXPIRED && timer.stamp == stamp && timer.deadline == deadline)
    }

    /// When an occupied slot begins.
    fn start_of(&self, level: usize, digit: usize) -> u64 {
        let ticks = self.elapsed >> TICK_BITS;
        let shift = level as u32 * DIGIT_BITS;
        let above = ticks.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        (above << DIGIT_BITS | digit as u64) << shift << TICK_BITS
    }

    /// When to wake up for an occupied slot, after a look through it if it is dirty and not too long.
    fn wake_of(&mut self, level: usize, digit: usize) -> u64 {
        let bit = 1 << digit;
        let slot = level * SLOTS + digit;
        if self.dirty[level] & bit != 0 {
            if let Some((earliest, wake)) = self.first_of(self.slots[slot].head) {
                (self.slots[slot].earliest, self.slots[slot].wake) = (earliest, wake);
                self.dirty[level] &= !bit;
            }
        }
        self.slots[slot].wake
    }

    /// The first deadline of a list and its first wake-up, unless it is too long.
    fn first_of(&self, head: u32) -> Option<(u64, u64)> {
        let (mut earliest, mut wake) = (u64::MAX, u64::MAX);
        let mut index = head;
        for _ in 0..RESCAN {
            if index == NONE {
                return Some((earliest, wake));
            }
            let timer = &self.nodes[index].timer;
            earliest = earliest.min(timer.deadline);
            wake = wake.min(timer.grid.round_up(timer.deadline));
            index = timer.next;
        }
        None
    }

    /// Puts a node that is in no slot into the one where its deadline belongs.
    fn link(&mut self, index: u32, timer: Timer) {
        let slot = self.slot_for(timer.deadline);
        let head = self.slots[slot].head;
        self.nodes[index].timer = Timer {
            previous: NONE,
            next: head,
            slot: slot as u16,
            ..timer
        };
        self.lead(index, head, slot, timer.deadline, timer.grid);
    }

    /// The slot where a deadline belongs.
    fn slot_for(&self, deadline: u64) -> usize {
        // A deadline that has passed is kept with those of the current tick.
        let tick = deadline.max(self.elapsed) >> TICK_BITS;
        let level = level_of(self.elapsed >> TICK_BITS, tick);
        level * SLOTS + digit_of(tick, level)
    }

    /// Makes a node the head of its slot, before the one that was.
    #[inline(always)]
    fn lead(&mut self, index: u32, head: u32, slot: usize, deadline: u64, grid: Grid) {
        let (level, bit) = (slot / SLOTS, 1 << (slot % SLOTS));
        let list = &mut self.slots[slot];
        list.head = index;
        if head == NONE {
            (list.earliest, list.wake) = (deadline, grid.round_up(deadline));
            self.occupied[level] |= bit;
            self.levels |= 1 << level;
            return;
        }
        // The wake-up for a deadline isn't before it: after the bound of the one, it is after that of the other.
        if deadline <= list.wake {
            let wake = grid.round_up(deadline);
            if deadline <= list.earliest && wake <= list.wake {
                // At or before the bounds, so it is the first now, and the bounds are exact.
                self.dirty[level] &= !bit;
            }
            list.earliest = list.earliest.min(deadline);
            list.wake = list.wake.min(wake);
        }
        self.nodes[head].timer.previous = index;
    }

    /// Takes a node out of its slot. One that is due just leaves its entry in `expired` behind.
    #[inline(always)]
    fn unlink(&mut self, timer: Timer) {
        let slot = usize::from(timer.slot);
        if timer.slot == EXPIRED {
            return;
        }
        if timer.next != NONE {
            self.nodes[timer.next].timer.previous = timer.previous;
        }
        if timer.previous != NONE {
            self.nodes[timer.previous].timer.next = timer.next;
        } else {
            self.slots[slot].head = timer.next;
        }
        let (level, bit) = (slot / SLOTS, 1 << (slot % SLOTS));
        let list = &self.slots[slot];
        if list.head == NONE {
            self.occupied[level] &= !bit;
            self.dirty[level] &= !bit;
            if self.occupied[level] == 0 {
                self.levels &= !(1 << level);
            }
        } else if timer.deadline <= list.wake
            && (timer.deadline == list.earliest || timer.grid.round_up(timer.deadline) == list.wake)
        {
            self.dirty[level] |= bit;
        }
    }
}

/// Where a stamp stands in the order of arming: the youngest one is that before the next.
fn age_of(stamp: u32, next_stamp: u32) -> u32 {
    u32::MAX - next_stamp.wrapping_sub(stamp)
}

/// The highest digit in which two ticks differ, or 0.
fn level_of(one: u64, other: u64) -> usize {
    ((one ^ other) | 1).ilog2() as usize / DIGIT_BITS as usize
}

fn digit_of(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
}

#[cfg(test)]
mod tests;
