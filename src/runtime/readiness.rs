//! What a runtime knows of a descriptor: which ways it is ready, and who waits.
//!
//! Sources are registered edge-triggered, so what an event says is kept until a system call answers `WouldBlock`. It is
//! cleared only if no event came since it was read: each event has a tick.
//!
//! Any number of tasks may wait for a direction; an event wakes them all. The first one's waker stays in place after it
//! was woken, so that a task that waits again and again clones its waker once.

use std::io;
use std::task::{Context, Poll, Waker};

use super::home::Home;
pub(crate) use crate::base::Event as Ready;
use crate::base::{EventBase, Interest, Key, Mode};

/// The event base of a runtime: readiness for each source, a waker for each timer.
pub(crate) type Base = EventBase<Readiness, Waker>;
use crate::executor::is_task_waker;

/// One of the two ways that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// All that an event can say about this direction.
    const fn ready(self) -> Ready {
        match self {
            Self::Read => Ready::READABLE
                .or(Ready::READ_CLOSED)
                .or(Ready::PRIORITY)
                .or(Ready::ERROR),
            Self::Write => Ready::WRITABLE.or(Ready::WRITE_CLOSED).or(Ready::ERROR),
        }
    }
}

impl Ready {
    /// The ways of being ready, in one direction, that somebody with that interest waits for.
    pub(crate) fn wanted(interest: Interest, direction: Direction) -> Self {
        let answers = |is: bool, ready: Self| (ready | Self::ERROR).when(is);
        match direction {
            Direction::Read => {
                answers(interest.is_readable(), Self::READABLE | Self::READ_CLOSED)
                    | answers(interest.is_priority(), Self::PRIORITY | Self::READ_CLOSED)
            }
            Direction::Write => answers(interest.is_writable(), Self::WRITABLE | Self::WRITE_CLOSED),
        }
    }
}

/// Readiness of one direction at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) ready: Ready,
    tick: u32,
}

/// The payload of a source in the base.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// The first waiter of each direction. It waits, or was woken and is kept for the next time.
    wakers: [Option<Waker>; 2],
    /// Waiters beyond these: rare.
    more: Option<Box<More>>,
    tick: u32,
    ready: [Ready; 2],
    /// Whether the first waiter waits.
    waits: [bool; 2],
}

/// Behind a pointer, since a descriptor without it is the rule.
#[derive(Debug, Default)]
struct More(Vec<(Direction, Waker)>);

impl Readiness {
    /// An event came. Calls `wake` with the wakers of others; our own tasks are woken in place.
    pub(super) fn event(&mut self, event: Ready, wake: &mut impl FnMut(Waker)) {
        self.tick = self.tick.wrapping_add(1);
        for direction in [Direction::Read, Direction::Write] {
            let ready = event.and(direction.ready());
            if ready.is_empty() {
                continue;
            }
            let side = direction as usize;
            self.ready[side] |= ready;
            if std::mem::take(&mut self.waits[side]) {
                match &self.wakers[side] {
                    Some(waker) if is_task_waker(waker) => waker.wake_by_ref(),
                    _ => self.wakers[side].take().into_iter().for_each(&mut *wake),
                }
            }
            if let Some(more) = &mut self.more {
                more.0
                    .extract_if(.., |(waits_for, _)| *waits_for == direction)
                    .for_each(|(_, waker)| wake(waker));
            }
        }
    }

    /// What there is to be dropped: user code, each of it.
    pub(super) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        let more = self.more.into_iter().flat_map(|more| more.0).map(|(_, waker)| waker);
        self.wakers.into_iter().flatten().chain(more)
    }

    /// Marks a waker that is known already as waiting. False: it has to be cloned, and handed to `wait`.
    fn waits_again(&mut self, direction: Direction, waker: &Waker) -> bool {
        let side = direction as usize;
        if self.wakers[side].as_ref().is_some_and(|held| held.will_wake(waker)) {
            self.waits[side] = true;
            return true;
        }
        (self.more.iter())
            .flat_map(|more| &more.0)
            .any(|(waits_for, held)| *waits_for == direction && held.will_wake(waker))
    }

    /// Keeps a waker until the next event. Returns one that is not needed any more, to be dropped outside the base.
    fn wait(&mut self, direction: Direction, waker: Waker) -> Option<Waker> {
        let side = direction as usize;
        if self.waits[side] {
            self.more.get_or_insert_default().0.push((direction, waker));
            return None;
        }
        self.waits[side] = true;
        self.wakers[side].replace(waker)
    }
}

/// Sources of this home.
impl Home {
    /// Registers a descriptor, edge-triggered.
    pub(crate) fn register(&self, fd: impl std::os::fd::AsFd, interest: Interest) -> io::Result<Key> {
        if !self.is_open() {
            return Err(closed());
        }
        match &mut *self.base() {
            Some(base) => base.register(fd, interest, Mode::Edge, Readiness::default()),
            None => Err(closed()),
        }
    }

    /// Asks for events of another direction as well. What is known of that direction is forgotten first: the kernel says
    /// it anew.
    pub(crate) fn extend_interest(&self, key: Key, interest: Interest, new: Direction) -> io::Result<()> {
        match &mut *self.base() {
            Some(base) => {
                if let Some(source) = base.get_mut(key) {
                    source.ready[new as usize] = Ready::EMPTY;
                }
                base.reregister(key, interest, Mode::Edge)
            }
            None => Err(closed()),
        }
    }

    /// Forgets a source, if it is still known.
    pub(crate) fn deregister(&self, key: Key) {
        let source = match &mut *self.base() {
            Some(base) => base.deregister(key),
            None => None,
        };
        drop(source);
    }

    /// How a source is ready, if it is in one of the `wanted` ways, or a place among those who wait for it to be.
    pub(crate) fn poll_source(
        &self,
        key: Key,
        direction: Direction,
        wanted: Ready,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Seen>> {
        let mut cloned = None;
        loop {
            let mut base = self.base();
            let Some(source) = base.as_mut().and_then(|base| base.get_mut(key)) else {
                drop(base);
                return Poll::Ready(Err(closed()));
            };
            let seen = Seen {
                ready: source.ready[direction as usize],
                tick: source.tick,
            };
            if !seen.ready.and(wanted).is_empty() {
                drop(base);
                return self.spend(cx).map(|()| Ok(seen));
            }
            if source.waits_again(direction, cx.waker()) {
                return Poll::Pending;
            }
            if let Some(waker) = cloned.take() {
                let left = source.wait(direction, waker);
                drop(base);
                drop(left);
                return Poll::Pending;
            }
            // User code, which may do anything: look again afterwards.
            drop(base);
            cloned = Some(cx.waker().clone());
        }
    }

    /// A system call has answered `WouldBlock`: forgets `ready`, unless an event came since it was seen.
    pub(crate) fn clear(&self, key: Key, direction: Direction, seen: Seen, ready: Ready) {
        if let Some(source) = self.base().as_mut().and_then(|base| base.get_mut(key))
            && source.tick == seen.tick
        {
            let held = &mut source.ready[direction as usize];
            *held = held.without(ready);
        }
    }

    /// Spends one unit of the polled task's budget; pending, and woken again at once, when there is none left.
    pub(crate) fn spend(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_driven() && !self.executor().spend() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

fn closed() -> io::Error {
    io::Error::other(
        "the evbase runtime that this object was registered with is closed; make a new object in another one",
    )
}
