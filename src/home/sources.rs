//! Home's operations on descriptors in its base, and on those who wait for them.

use std::cell::RefMut;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker};

use super::home::Home;
use super::readiness::{Direction, Readiness, Ready, Seen, Waiter, WaiterKey};
use crate::base::{Interest, Key, Mode};
use crate::executor::{coop, is_task_waker};

impl Home {
    /// Registers a descriptor, edge-triggered.
    pub(crate) fn register(&self, fd: impl AsFd, interest: Interest) -> io::Result<Key> {
        match self.try_register(&fd, interest) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Perhaps an object with the same descriptor was dropped abroad, and the message is in the inbox.
                self.executor().receive_all();
                self.try_register(&fd, interest)
            }
            registered => registered,
        }
    }

    fn try_register(&self, fd: impl AsFd, interest: Interest) -> io::Result<Key> {
        if !self.is_open() {
            return Err(closed());
        }
        match &mut *self.base() {
            Some(base) => base.register(fd, interest, Mode::Edge, Readiness::default()),
            None => Err(closed()),
        }
    }

    /// Asks for events of a new direction as well; `interest` is all that is asked for from now on.
    pub(crate) fn extend_interest(&self, key: Key, interest: Interest, new: Direction) -> io::Result<()> {
        match &mut *self.base() {
            Some(base) => {
                if let Some(source) = base.get_mut(key) {
                    source.forget(new);
                }
                base.reregister(key, interest, Mode::Edge)
            }
            None => Err(closed()),
        }
    }

    /// Deregisters a source, if it is still registered.
    pub(crate) fn deregister(&self, key: Key) {
        let source = self.base().as_mut().and_then(|base| base.deregister(key));
        drop(source);
    }

    /// The readiness of a source, if it has one of the `wanted` flags. Else Pending: the next event wakes the waiter. `drained` is
    /// what was seen before a system call answered `WouldBlock`: it is cleared first, unless an event has come since.
    #[inline(always)]
    pub(crate) fn poll_source(
        &self,
        key: Key,
        direction: Direction,
        wanted: Ready,
        drained: Option<Seen>,
        waiter: Waiter<'_>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Seen>> {
        // To clone a foreign waker may be user code, which may change anything: so that comes first.
        let foreign = match is_task_waker(cx.waker()) {
            true => None,
            false => Some(cx.waker().clone()),
        };
        let Ok(mut source) = RefMut::filter_map(self.base(), |base| base.as_mut()?.get_mut(key)) else {
            return coop::spend(cx).map(|()| Err(closed()));
        };
        if let Some(seen) = drained {
            source.clear(direction, seen, seen.ready);
        }
        let seen = source.seen(direction);
        if seen.ready.and(wanted).is_empty() {
            wait(source, direction, waiter, cx, foreign);
            return Poll::Pending;
        }
        drop(source);
        coop::spend(cx).map(|()| Ok(seen))
    }

    /// A future that waited for a source was dropped.
    pub(crate) fn leave_source(&self, key: Key, direction: Direction, waiter: WaiterKey) {
        let waker = (self.base().as_mut())
            .and_then(|base| base.get_mut(key))
            .and_then(|source| source.leave(direction, waiter));
        drop(waker);
    }

    /// The readiness of a source.
    pub(crate) fn seen(&self, key: Key, direction: Direction) -> Option<Seen> {
        let base = self.base();
        Some(base.as_ref()?.get(key)?.seen(direction))
    }

    /// A system call has answered `WouldBlock`: clears `ready`, unless an event came since `seen` was read.
    pub(crate) fn clear(&self, key: Key, direction: Direction, seen: Seen, ready: Ready) {
        if let Some(source) = self.base().as_mut().and_then(|base| base.get_mut(key)) {
            source.clear(direction, seen, ready);
        }
    }
}

/// Keeps the waker of a waiter until the next event; `foreign` is its clone, if it isn't one of a task of this crate.
#[inline]
fn wait(
    mut source: RefMut<'_, Readiness>,
    direction: Direction,
    mut waiter: Waiter<'_>,
    cx: &Context<'_>,
    foreign: Option<Waker>,
) {
    let waker = foreign.unwrap_or_else(|| cx.waker().clone());
    let leftover = source.wait(direction, &mut waiter, waker);
    drop(source);
    if let Some(leftover) = leftover {
        leftover.discard();
    }
}

#[cold]
fn closed() -> io::Error {
    io::Error::other(
        "the evbase runtime that this object was registered with is closed; make a new object in another one",
    )
}
