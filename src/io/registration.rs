//! With which base a descriptor is registered: none, until a loop first polls it; then that loop's, for good.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};

use crate::base::{Interest, Key};
use crate::home::{self, Direction, Home, Ready, Seen, Shared, WaiterKey, context, coop};

#[derive(Debug)]
pub(super) struct Registration {
    /// Set when a base has taken the descriptor.
    source: OnceLock<Source>,
    /// Bits of `READ` and `WRITE`: the directions that the base watches. Read and written at home only.
    interest: AtomicU8,
    is_stream: bool,
}

/// A descriptor in the base of a runtime.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) owner: Arc<Shared>,
    pub(super) key: Key,
}

impl Source {
    fn is_at(&self, home: &Home) -> bool {
        Arc::ptr_eq(&self.owner, home.shared())
    }
}

const READ: u8 = 1;
const WRITE: u8 = 1 << 1;

fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Read => READ,
        Direction::Write => WRITE,
    }
}

impl Registration {
    /// `is_stream` says that a short read proves that the kernel has no more, unless its end or urgent data has been reported:
    /// true of TCP on Linux, not of descriptors in general.
    pub(super) fn new(is_stream: bool) -> Self {
        Self {
            source: OnceLock::new(),
            interest: AtomicU8::new(0),
            is_stream,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Where it is registered, if it is.
    pub(super) fn source(&self) -> Option<&Source> {
        self.source.get()
    }

    /// Whether it is registered with another base than that of the loop that runs here.
    pub(super) fn is_elsewhere(&self) -> bool {
        let registered_with = |home: Rc<Home>| self.source().is_some_and(|source| !source.is_at(&home));
        context::current().is_some_and(registered_with)
    }

    fn waits_for(&self, direction: Direction) -> bool {
        self.interest.load(Relaxed) & bit(direction) != 0
    }

    fn interest(&self, bits: u8) -> Interest {
        // PRIORITY, too: some wait for it, and for a stream it tells why a read was short.
        let read = Interest::READABLE | Interest::PRIORITY;
        match bits {
            READ => read,
            WRITE => Interest::WRITABLE,
            _ => read | Interest::WRITABLE,
        }
    }

    /// The home of the current context, and the descriptor's key there, registered for the direction. An error if there is no home, or
    /// the descriptor is registered with another one.
    #[inline(always)]
    fn registered(&self, fd: BorrowedFd<'_>, direction: Direction) -> io::Result<(Rc<Home>, Key)> {
        let Some(home) = context::current() else {
            return Err(no_home());
        };
        let key = match self.source() {
            Some(source) if source.is_at(&home) && self.waits_for(direction) => source.key,
            _ => self.register(&home, fd, direction)?,
        };
        Ok((home, key))
    }

    /// Registers a descriptor that was not, or not for the direction. An error if it is another home's.
    #[cold]
    fn register(&self, home: &Home, fd: BorrowedFd<'_>, direction: Direction) -> io::Result<Key> {
        let wanted = bit(direction);
        let Some(source) = self.source() else {
            let key = home.register(fd, self.interest(wanted))?;
            let source = Source {
                owner: home.shared().clone(),
                key,
            };
            if self.source.set(source).is_ok() {
                self.interest.store(wanted, Relaxed);
                return Ok(key);
            }
            // A loop on another thread polled it at the same time, and was faster.
            home.deregister(key);
            return self.register(home, fd, direction);
        };
        if !source.is_at(home) {
            return Err(wrong_home(&source.owner));
        }
        let bits = self.interest.load(Relaxed);
        if bits & wanted == 0 {
            home.extend_interest(source.key, self.interest(bits | wanted), direction)?;
            self.interest.store(bits | wanted, Relaxed);
        }
        Ok(source.key)
    }

    /// The readiness of the descriptor, if it has one of the `wanted` flags. Else Pending: the next event wakes the waiter.
    pub(super) fn poll_ready(
        &self,
        fd: BorrowedFd<'_>,
        direction: Direction,
        wanted: Ready,
        waiter: home::Waiter<'_>,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Seen>> {
        match self.registered(fd, direction) {
            Ok((home, key)) => home.poll_source(key, direction, wanted, None, waiter, cx),
            Err(error) => refused(error, cx),
        }
    }

    /// The readiness of the descriptor; `None` abroad.
    pub(super) fn seen(&self, direction: Direction) -> Option<Seen> {
        let source = self.source()?;
        context::home_of(&source.owner)?.seen(source.key, direction)
    }

    /// Runs a system call whenever the descriptor is ready, until it doesn't answer `WouldBlock`. `drained` says whether a result
    /// shows that the kernel has no more, unless its end or urgent data has been reported.
    pub(super) fn poll_io<T: AsFd, R>(
        &self,
        io: &T,
        direction: Direction,
        mut waiter: home::Waiter<'_>,
        cx: &Context<'_>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        // Before a write has found no room, that direction isn't registered: each read of the peer would wake this side. The other
        // one is: so it is at home here, and an error says so if it can't be polled.
        let first = match self.waits_for(direction) {
            true => direction,
            false => Direction::Read,
        };
        let mut waits = first == direction;
        let (home, key) = match self.registered(io.as_fd(), first) {
            Ok(registered) => registered,
            Err(error) => return refused(error, cx),
        };
        // What was seen before the system call that has answered `WouldBlock`.
        let mut drained_at = None;
        loop {
            let seen = if waits {
                let wanted = direction.wanted();
                let seen = home.poll_source(key, direction, wanted, drained_at.take(), waiter.reborrow(), cx);
                Some(ready!(seen)?)
            } else {
                ready!(coop::spend(cx));
                None
            };
            match operation(io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match seen {
                    Some(seen) => drained_at = Some(seen),
                    None => {
                        self.register(&home, io.as_fd(), direction)?;
                        waits = true;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(value) => {
                    if let Some(seen) = seen.filter(|seen| seen.short_means_empty() && drained(&value)) {
                        home.clear(key, direction, seen, seen.ready);
                    }
                    return Poll::Ready(Ok(value));
                }
            }
        }
    }

    /// The home thread, if it is another one than this, and still there.
    pub(super) fn foreign_home(&self) -> Option<ThreadId> {
        let owner = &self.source()?.owner;
        if owner.is_forked() || context::home_of(owner).is_some() || owner.report().is_some() {
            return None;
        }
        owner.home()
    }
}

/// A future's wait for one direction of a descriptor. Dropping it removes the future's waker.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    registration: &'a Registration,
    direction: Direction,
    key: Option<WaiterKey>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(registration: &'a Registration, direction: Direction) -> Self {
        Self {
            registration,
            direction,
            key: None,
        }
    }

    /// As [`Registration::poll_ready`].
    pub(super) fn poll_ready(&mut self, fd: BorrowedFd<'_>, wanted: Ready, cx: &Context<'_>) -> Poll<io::Result<Seen>> {
        let waiter = home::Waiter::Future(&mut self.key);
        let polled = (self.registration).poll_ready(fd, self.direction, wanted, waiter, cx);
        self.note(polled)
    }

    /// As [`Registration::poll_io`].
    pub(super) fn poll_io<T: AsFd, R>(
        &mut self,
        io: &T,
        cx: &Context<'_>,
        operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let waiter = home::Waiter::Future(&mut self.key);
        let polled = (self.registration).poll_io(io, self.direction, waiter, cx, operation, |_| false);
        self.note(polled)
    }

    /// A future that is ready waits no longer: the event has taken its waker.
    fn note<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Ok(_)) = polled {
            self.key = None;
        }
        polled
    }
}

impl Waiting<'_> {
    fn leave(&self, waiter: WaiterKey) {
        if let Some(Source { owner, key }) = self.registration.source() {
            let (key, direction) = (*key, self.direction);
            owner.at_home(move |home| home.leave_source(key, direction, waiter));
        }
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = self.key.take() {
            self.leave(waiter);
        }
    }
}

/// An error that comes at once. It spends budget as what is ready does: a loop that tries again and again has to yield.
#[cold]
fn refused<R>(error: io::Error, cx: &Context<'_>) -> Poll<io::Result<R>> {
    coop::spend(cx).map(|()| Err(error))
}

#[cold]
fn no_home() -> io::Error {
    io::Error::other("an evbase object was polled outside of a runtime: await it in block_on or in a task")
}

#[cold]
fn wrong_home(owner: &Shared) -> io::Error {
    if owner.is_forked() {
        return io::Error::other(
            "an evbase object belongs to the runtime that polled it first, which was made before a fork, and is the parent \
             process's; get the descriptor back by into_inner, and make a new object in the child",
        );
    }
    if owner.report().is_some() {
        return io::Error::other(
            "an evbase object belongs to the runtime that polled it first, and that one is closed; get the descriptor \
             back by into_inner, and make a new object",
        );
    }
    io::Error::other(format!(
        "an evbase object belongs to the loop that polled it first, which is another one, on {}; it was polled on {:?}",
        owner.home().map_or("no thread".into(), |home| format!("{home:?}")),
        thread::current().id(),
    ))
}
