//! What a runtime knows of a descriptor: its readiness, and the wakers of those who wait for it.
//!
//! Sources are registered edge-triggered, so what an event says is kept until a system call answers `WouldBlock`. It is
//! cleared only if no event of the same direction came since it was read: each event adds one to that direction's tick.
//!
//! An event wakes all who wait for its direction, and drops their wakers: whoever has to wait on is polled, and waits again.
//! Until the next event,
//!
//! * a future has a [`WaiterKey`], by which its waker is replaced, or removed when the future is dropped. The key holds the tick,
//!   so that it finds nothing after the next event;
//! * the caller of a `poll_*` function has no key. Its waker is kept once, compared by `will_wake`. There may be
//!   [`MOST_POLLERS`] of these in a direction: one more wakes and drops them all, so that wakers of tasks that no longer wait
//!   don't pile up.
//!
//! All of this happens under a borrow of the base. Waking and dropping wakers may run user code, so they are returned to the
//! caller, which does that after the borrow.

use std::task::Waker;

pub(crate) use crate::base::Event as Ready;
use crate::base::{EventBase, Interest};
use crate::executor::catch_panic;

/// The event base of a runtime: readiness for each source, a waker for each timer.
pub(crate) type Base = EventBase<Readiness, Waker>;

/// Reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Read, Self::Write];

    /// The flags of an event that concern this direction.
    const fn ready(self) -> Ready {
        match self {
            Self::Read => Ready::READABLE
                .or(Ready::READ_CLOSED)
                .or(Ready::PRIORITY)
                .or(Ready::ERROR),
            Self::Write => Ready::WRITABLE.or(Ready::WRITE_CLOSED).or(Ready::ERROR),
        }
    }

    /// The flags that end a wait for data, or for room.
    pub(crate) const fn wanted(self) -> Ready {
        match self {
            Self::Read => self.ready().without(Ready::PRIORITY),
            Self::Write => self.ready(),
        }
    }
}

impl Ready {
    /// The flags of one direction that end a wait with that interest.
    pub(crate) fn wanted(interest: Interest, direction: Direction) -> Self {
        match direction {
            Direction::Read => {
                let priority = Self::PRIORITY | Self::READ_CLOSED | Self::ERROR;
                direction.wanted().when(interest.is_readable())
                    | priority.when(interest.is_priority())
                    // Both directions have it: who waits for writing gets it there.
                    | Self::ERROR.when(interest.is_error() && !interest.is_writable())
            }
            Direction::Write => direction.wanted().when(interest.is_writable()),
        }
    }
}

/// The readiness of one direction, and the tick at which it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) ready: Ready,
    tick: u32,
    was_urgent: bool,
}

impl Seen {
    /// Whether a short read of a stream shows that there is no more to read: neither the end is near, nor can urgent data have cut it
    /// short. That does so also when it was taken, and what was seen of it is cleared.
    pub(crate) fn short_means_empty(self) -> bool {
        self.ready == Ready::READABLE && !self.was_urgent
    }
}

/// Who waits for a direction of a descriptor.
#[derive(Debug)]
pub(crate) enum Waiter<'a> {
    /// A future, which keeps its key here while it waits.
    Future(&'a mut Option<WaiterKey>),
    /// The caller of a `poll_*` function.
    Poller,
}

impl Waiter<'_> {
    pub(crate) fn reborrow(&mut self) -> Waiter<'_> {
        match self {
            Self::Future(key) => Waiter::Future(key),
            Self::Poller => Waiter::Poller,
        }
    }
}

/// Names a future among those that wait for the same direction of a descriptor.
#[derive(Debug)]
pub(crate) struct WaiterKey {
    tick: u32,
    /// [`FIRST`], or one more than the index in [`Further::futures`].
    index: u32,
}

/// The index of the waiter in [`Side::first`].
const FIRST: u32 = 0;

/// How many wakers of pollers are kept for one direction.
const MOST_POLLERS: usize = 32;

/// The payload of a source in the base.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    sides: [Side; 2],
    /// The waiters beyond the first of each side. `None` if there are none, as is the rule.
    more: Option<Box<[Further; 2]>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Side {
    /// The first waiter.
    first: Option<Waker>,
    /// How many events of this direction there were.
    tick: u32,
    ready: Ready,
    /// An event had PRIORITY, once.
    was_urgent: bool,
    first_is_poller: bool,
}

/// The waiters of a direction beyond the first.
#[derive(Debug, Default)]
struct Further {
    /// Those of futures, each under the index that its future knows.
    futures: Vec<Option<Waker>>,
    /// Indices without a waker.
    free: Vec<u32>,
    pollers: Vec<Waker>,
}

/// Wakers for the caller to drop or wake, after the borrow.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Leftover {
    /// To drop: the waker of an earlier poll of the same future, or a clone that wasn't needed.
    replaced: Option<Waker>,
    /// To wake: there were too many pollers.
    crowd: Vec<Waker>,
}

impl Leftover {
    /// After the borrow.
    pub(super) fn discard(self) {
        self.crowd.into_iter().for_each(catch_panic::wake);
        drop(self.replaced);
    }
}

impl Readiness {
    pub(super) fn seen(&self, direction: Direction) -> Seen {
        let side = &self.sides[direction as usize];
        Seen {
            ready: side.ready,
            tick: side.tick,
            was_urgent: side.was_urgent,
        }
    }

    /// Clears `ready`, unless an event came since `seen` was read.
    pub(super) fn clear(&mut self, direction: Direction, seen: Seen, ready: Ready) {
        let side = &mut self.sides[direction as usize];
        if side.tick == seen.tick {
            side.ready = side.ready.without(ready);
        }
    }

    /// Clears the readiness of a direction: the caller registers it anew, and the kernel reports it once more.
    pub(super) fn forget(&mut self, direction: Direction) {
        self.sides[direction as usize].ready = Ready::EMPTY;
    }

    /// Takes an event in, and calls `wake` with the waker of each that waits for it.
    pub(super) fn event(&mut self, event: Ready, wake: &mut impl FnMut(Waker)) {
        for direction in Direction::BOTH {
            let ready = event.and(direction.ready());
            if ready.is_empty() {
                continue;
            }
            let side = &mut self.sides[direction as usize];
            side.ready |= ready;
            side.was_urgent |= ready.is_priority();
            side.tick = side.tick.wrapping_add(1);
            side.first.take().into_iter().for_each(&mut *wake);
            if let Some(more) = &mut self.more {
                std::mem::take(&mut more[direction as usize])
                    .into_wakers()
                    .for_each(&mut *wake);
                self.free_if_empty();
            }
        }
    }

    /// Whether the waiter waits already, with a waker that wakes the same task.
    fn waits(&self, direction: Direction, waiter: &Waiter<'_>, waker: &Waker) -> bool {
        let side = &self.sides[direction as usize];
        let further = || self.more.as_ref().map(|more| &more[direction as usize]);
        match waiter {
            Waiter::Future(key) => {
                let held = match key.as_ref().filter(|key| key.tick == side.tick) {
                    None => None,
                    Some(WaiterKey { index: FIRST, .. }) => side.first.as_ref(),
                    Some(key) => further().and_then(|further| further.futures[key.index as usize - 1].as_ref()),
                };
                held.is_some_and(|held| held.will_wake(waker))
            }
            Waiter::Poller => {
                let is_same = |held: &Waker| held.will_wake(waker);
                side.first_is_poller && side.first.as_ref().is_some_and(is_same)
                    || further().is_some_and(|further| further.pollers.iter().any(is_same))
            }
        }
    }

    /// Keeps a waker until the next event, as the first one.
    fn wait_first(&mut self, direction: Direction, waiter: &mut Waiter<'_>, waker: Waker) {
        let side = &mut self.sides[direction as usize];
        side.first = Some(waker);
        side.first_is_poller = matches!(waiter, Waiter::Poller);
        if let Waiter::Future(key) = waiter {
            **key = Some(WaiterKey {
                tick: side.tick,
                index: FIRST,
            });
        }
    }

    /// Keeps a waker until the next event, unless one that wakes the same task is kept for this waiter.
    #[inline]
    pub(super) fn wait(&mut self, direction: Direction, waiter: &mut Waiter<'_>, waker: Waker) -> Option<Leftover> {
        if self.sides[direction as usize].first.is_some() || self.more.is_some() {
            return Some(self.wait_beside(direction, waiter, waker));
        }
        self.wait_first(direction, waiter, waker);
        None
    }

    /// As `wait`, where somebody waits already.
    #[inline(never)]
    fn wait_beside(&mut self, direction: Direction, waiter: &mut Waiter<'_>, waker: Waker) -> Leftover {
        if self.waits(direction, waiter, &waker) {
            return Leftover {
                replaced: Some(waker),
                ..Leftover::default()
            };
        }
        let mut leftover = Leftover::default();
        let side = &mut self.sides[direction as usize];
        if let Waiter::Future(Some(key)) = waiter {
            if key.tick == side.tick {
                leftover.replaced = match (key.index, &mut self.more) {
                    (FIRST, _) => side.first.replace(waker),
                    (index, Some(more)) => more[direction as usize].futures[index as usize - 1].replace(waker),
                    (_, None) => unreachable!("evbase: a waiter that isn't the first has no memory"),
                };
                return leftover;
            }
        }
        if let (Waiter::Poller, Some(more)) = (&*waiter, &mut self.more) {
            let pollers = &mut more[direction as usize].pollers;
            if pollers.len() + usize::from(side.first_is_poller && side.first.is_some()) >= MOST_POLLERS {
                leftover.crowd = std::mem::take(pollers);
                leftover.crowd.extend(side.first.take_if(|_| side.first_is_poller));
            }
        }
        if side.first.is_none() {
            self.wait_first(direction, waiter, waker);
        } else {
            let further = &mut self.more.get_or_insert_default()[direction as usize];
            match waiter {
                Waiter::Poller => further.pollers.push(waker),
                Waiter::Future(key) => {
                    **key = Some(WaiterKey {
                        tick: side.tick,
                        index: further.insert(waker) + 1,
                    });
                }
            }
        }
        // Taking the pollers may have left `more` empty.
        self.free_if_empty();
        leftover
    }

    /// Removes a future that no longer waits. Returns its waker, unless an event has taken it.
    pub(super) fn leave(&mut self, direction: Direction, key: WaiterKey) -> Option<Waker> {
        let side = &mut self.sides[direction as usize];
        if key.tick != side.tick {
            return None;
        }
        if key.index == FIRST {
            return side.first.take();
        }
        let waker = self.more.as_mut()?[direction as usize].remove(key.index - 1);
        self.free_if_empty();
        waker
    }

    /// Calls `each` with the wakers of all who wait, and for what.
    pub(crate) fn each_waiting<'a>(&'a self, mut each: impl FnMut(Interest, &'a Waker)) {
        for direction in Direction::BOTH {
            let interest = match direction {
                Direction::Read => Interest::READABLE,
                Direction::Write => Interest::WRITABLE,
            };
            let first = self.sides[direction as usize].first.iter();
            let further = self.more.iter().map(|more| &more[direction as usize]);
            let further = further.flat_map(|more| more.futures.iter().flatten().chain(&more.pollers));
            first.chain(further).for_each(|waker| each(interest, waker));
        }
    }

    /// The wakers of all who wait.
    pub(super) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        let more = self
            .more
            .into_iter()
            .flat_map(|more| *more)
            .flat_map(Further::into_wakers);
        self.sides.into_iter().filter_map(|side| side.first).chain(more)
    }

    fn free_if_empty(&mut self) {
        if self
            .more
            .as_ref()
            .is_some_and(|more| more.iter().all(Further::is_empty))
        {
            self.more = None;
        }
    }
}

impl Further {
    fn insert(&mut self, waker: Waker) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.futures[index as usize] = Some(waker);
                index
            }
            None => {
                self.futures.push(Some(waker));
                // So that index + 1 fits, too.
                u32::try_from(self.futures.len())
                    .map(|len| len - 1)
                    .expect("evbase: fewer than 2^32 futures wait for a descriptor")
            }
        }
    }

    fn remove(&mut self, index: u32) -> Option<Waker> {
        let waker = self.futures[index as usize].take();
        self.free.push(index);
        waker
    }

    fn is_empty(&self) -> bool {
        self.futures.len() == self.free.len() && self.pollers.is_empty()
    }

    fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.futures.into_iter().flatten().chain(self.pollers)
    }
}

#[cfg(all(test, not(evbase_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::Direction::{Read, Write};
    use super::*;

    /// Counts how often it was woken; `Arc::strong_count` says how many wakers there are.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    struct Task(Arc<Woken>, Option<WaiterKey>);

    impl Task {
        fn new() -> Self {
            Self(Arc::default(), None)
        }

        fn times(&self) -> usize {
            self.0.0.load(Relaxed)
        }

        fn wakers(&self) -> usize {
            Arc::strong_count(&self.0) - 1
        }

        /// Waits, as a future does; returns how many wakers were handed out for being too many.
        fn waits(&mut self, source: &mut Readiness, direction: Direction) -> usize {
            wait(source, direction, Waiter::Future(&mut self.1), &self.0)
        }

        fn polls(&self, source: &mut Readiness, direction: Direction) -> usize {
            wait(source, direction, Waiter::Poller, &self.0)
        }

        fn leaves(&mut self, source: &mut Readiness, direction: Direction) {
            drop(source.leave(direction, self.1.take().unwrap()));
        }
    }

    fn wait(source: &mut Readiness, direction: Direction, mut waiter: Waiter<'_>, task: &Arc<Woken>) -> usize {
        let waker = Waker::from(task.clone());
        let leftover = source.wait(direction, &mut waiter, waker);
        let crowd = leftover.map(|leftover| leftover.crowd).unwrap_or_default();
        assert!(source.waits(direction, &waiter, &Waker::from(task.clone())));
        let count = crowd.len();
        crowd.into_iter().for_each(Waker::wake);
        count
    }

    fn event(source: &mut Readiness, event: Ready) {
        let mut woken = Vec::new();
        source.event(event, &mut |waker| woken.push(waker));
        woken.into_iter().for_each(Waker::wake);
    }

    #[test]
    fn a_source_without_waiters_stays_small() {
        assert_eq!(size_of::<Readiness>(), 56);
    }

    #[test]
    fn an_event_wakes_everybody_of_its_direction_and_keeps_no_waker() {
        let mut source = Readiness::default();
        let mut tasks: Vec<_> = (0..5).map(|_| Task::new()).collect();
        let mut writer = Task::new();
        for _ in 0..3 {
            tasks[0].polls(&mut source, Read);
            for task in &mut tasks[1..] {
                task.waits(&mut source, Read);
            }
            writer.waits(&mut source, Write);
        }
        event(&mut source, Ready::READABLE);
        assert!(tasks.iter().all(|task| (task.times(), task.wakers()) == (1, 0)));
        assert_eq!((writer.times(), writer.wakers()), (0, 1));
        assert!(source.more.is_none(), "no memory is kept");
        event(&mut source, Ready::ERROR);
        assert!(tasks.iter().all(|task| task.times() == 1));
        assert_eq!((writer.times(), writer.wakers()), (1, 0));
    }

    #[test]
    fn a_future_that_goes_takes_its_waker_along_and_nobody_elses() {
        let mut source = Readiness::default();
        let mut tasks: Vec<_> = (0..100).map(|_| Task::new()).collect();
        for task in &mut tasks {
            task.waits(&mut source, Read);
        }
        for at in (0..100).step_by(3) {
            tasks[at].leaves(&mut source, Read);
            assert_eq!(tasks[at].wakers(), 0);
        }
        tasks[0].waits(&mut source, Read);
        tasks[30].waits(&mut source, Read);
        event(&mut source, Ready::READABLE);
        for (at, task) in tasks.iter().enumerate() {
            let waited = at % 3 != 0 || at == 0 || at == 30;
            assert_eq!((task.times(), task.wakers()), (usize::from(waited), 0), "{at}");
        }
    }

    #[test]
    fn what_comes_and_goes_leaves_no_memory() {
        let mut source = Readiness::default();
        let mut stays = Task::new();
        stays.waits(&mut source, Read);
        for _ in 0..1000 {
            let mut task = Task::new();
            task.waits(&mut source, Read);
            assert_eq!(source.more.as_ref().unwrap()[0].futures.len(), 1);
            task.leaves(&mut source, Read);
            assert!(source.more.is_none());
        }
        assert_eq!(stays.wakers(), 1);
    }

    #[test]
    fn a_key_from_before_an_event_finds_nobody() {
        let mut source = Readiness::default();
        let mut early = [Task::new(), Task::new()];
        let mut late = [Task::new(), Task::new()];
        for task in &mut early {
            task.waits(&mut source, Read);
        }
        event(&mut source, Ready::READABLE);
        for task in &mut late {
            task.waits(&mut source, Read);
        }
        early.iter_mut().for_each(|task| task.leaves(&mut source, Read));
        assert!(late.iter().all(|task| task.wakers() == 1));
        event(&mut source, Ready::READABLE);
        assert!(late.iter().all(|task| (task.times(), task.wakers()) == (1, 0)));
    }

    #[test]
    fn a_future_that_moves_to_another_task_is_woken_there() {
        let mut source = Readiness::default();
        let (mut first, mut second) = (Task::new(), Task::new());
        for holder in 0..2 {
            let mut others = Task::new();
            if holder == 1 {
                others.waits(&mut source, Read);
            }
            first.waits(&mut source, Read);
            second.1 = first.1.take();
            second.waits(&mut source, Read);
            assert_eq!((first.wakers(), second.wakers()), (0, 1));
            event(&mut source, Ready::READ_CLOSED);
        }
        assert_eq!((first.times(), second.times()), (0, 2));
    }

    #[test]
    fn pollers_are_kept_once_each_and_one_too_many_wakes_them_all() {
        let mut source = Readiness::default();
        let mut future = Task::new();
        for future_is_first in [false, true] {
            if future_is_first {
                future.waits(&mut source, Read);
            }
            let tasks: Vec<_> = (0..=MOST_POLLERS).map(|_| Task::new()).collect();
            let last = &tasks[MOST_POLLERS];
            for _ in 0..2 {
                for task in &tasks[..MOST_POLLERS] {
                    assert_eq!(task.polls(&mut source, Read), 0);
                    assert_eq!(task.wakers(), 1);
                }
            }
            if !future_is_first {
                future.waits(&mut source, Read);
            }
            assert_eq!(last.polls(&mut source, Write), 0, "each direction has its own");
            assert_eq!(last.polls(&mut source, Read), MOST_POLLERS);
            assert!(
                tasks[..MOST_POLLERS]
                    .iter()
                    .all(|task| (task.times(), task.wakers()) == (1, 0))
            );
            assert_eq!(
                (last.times(), future.times(), future.wakers()),
                (0, usize::from(future_is_first), 1)
            );
            event(&mut source, Ready::READABLE);
            event(&mut source, Ready::WRITABLE);
            assert_eq!((last.times(), last.wakers()), (2, 0));
            assert_eq!((future.times(), future.wakers()), (1 + usize::from(future_is_first), 0));
        }
    }

    #[test]
    fn readiness_is_cleared_unless_an_event_of_its_direction_came_since() {
        let mut source = Readiness::default();
        event(&mut source, Ready::READABLE);
        let seen = source.seen(Read);
        event(&mut source, Ready::READABLE);
        source.clear(Read, seen, seen.ready);
        assert_eq!(source.seen(Read).ready, Ready::READABLE, "an event came");
        let seen = source.seen(Read);
        event(&mut source, Ready::WRITABLE);
        source.clear(Read, seen, seen.ready);
        assert_eq!(source.seen(Read).ready, Ready::EMPTY, "it was the other direction's");
    }
}
