//! Where a descriptor is registered: nowhere, until a loop first polls it; then with that loop's base, for good.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};

use crate::base::{Interest, Key};
use crate::runtime::{Direction, Home, Ready, Seen, Shared, context};

/// Which runtime's it is, for good; the other fields are read and written at home only.
#[derive(Debug)]
pub(super) struct Registration {
    owner: OnceLock<Arc<Shared>>,
    /// The token of the key; [`NO_KEY`] until the kernel has taken the descriptor.
    key: AtomicU64,
    /// Bits of `READ` and `WRITE`.
    interest: AtomicU8,
    is_stream: bool,
}

/// The token of no key.
const NO_KEY: u64 = u64::MAX;

const READ: u8 = 1;
const WRITE: u8 = 1 << 1;

fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Read => READ,
        Direction::Write => WRITE,
    }
}

impl Registration {
    /// `is_stream` says that a short read proves that the kernel has no more, unless the stream's end or urgent data is
    /// about: true of TCP on Linux, not of descriptors in general.
    pub(super) fn new(is_stream: bool) -> Self {
        Self {
            owner: OnceLock::new(),
            key: AtomicU64::new(NO_KEY),
            interest: AtomicU8::new(0),
            is_stream,
        }
    }

    /// The runtime that it is registered with, and the key there.
    pub(super) fn place(&self) -> Option<(&Arc<Shared>, Key)> {
        match (self.owner.get(), self.key.load(Relaxed)) {
            (None, _) | (_, NO_KEY) => None,
            (Some(owner), token) => Some((owner, Key::from_token(token))),
        }
    }

    pub(super) fn waits_for(&self, direction: Direction) -> bool {
        self.interest.load(Relaxed) & bit(direction) != 0
    }

    fn interest(&self, bits: u8) -> Interest {
        // Urgent data ends a read of a stream short as well: it has to be known of. Others may wait for it.
        let read = Interest::READABLE | Interest::PRIORITY;
        match bits {
            READ => read,
            WRITE => Interest::WRITABLE,
            _ => read | Interest::WRITABLE,
        }
    }

    /// The loop that this code runs in, if it may touch the descriptor: nobody has, or it did.
    pub(super) fn current_home(&self) -> io::Result<Rc<Home>> {
        let Some(home) = context::current() else {
            return Err(io::Error::other(
                "an evbase object was polled outside of a runtime: await it in block_on or in a task",
            ));
        };
        match self.owner.get() {
            Some(owner) if !Arc::ptr_eq(owner, home.shared()) => Err(wrong_home(owner)),
            _ => Ok(home),
        }
    }

    /// Registers the descriptor for the direction, unless it is.
    pub(super) fn register(&self, home: &Home, fd: impl AsFd, direction: Direction) -> io::Result<Key> {
        let wanted = bit(direction);
        // User code, which may panic, or come back here: not under a borrow, and before anything is claimed.
        let fd = fd.as_fd();
        let owner = self.owner.get_or_init(|| home.shared().clone());
        if !Arc::ptr_eq(owner, home.shared()) {
            return Err(wrong_home(owner));
        }
        let Some((_, key)) = self.place() else {
            let key = home.register(fd, self.interest(wanted))?;
            self.key.store(key.token(), Relaxed);
            self.interest.store(wanted, Relaxed);
            return Ok(key);
        };
        let bits = self.interest.load(Relaxed);
        if bits & wanted == 0 {
            home.extend_interest(key, self.interest(bits | wanted), direction)?;
            self.interest.store(bits | wanted, Relaxed);
        }
        Ok(key)
    }

    /// How the descriptor is ready, if it is in one of the `wanted` ways, or a place among those who wait for it to be.
    pub(super) fn poll_ready(
        &self,
        fd: impl AsFd,
        direction: Direction,
        wanted: Ready,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Seen>> {
        let home = self.current_home()?;
        let key = self.register(&home, fd, direction)?;
        home.poll_source(key, direction, wanted, cx)
    }

    /// Runs a system call whenever the descriptor is ready, until it doesn't block. `drained` says of a result that
    /// nothing is left to be had.
    pub(super) fn poll_io<T: AsFd, R>(
        &self,
        io: &T,
        direction: Direction,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        let home = self.current_home()?;
        let wanted = match direction {
            Direction::Read => Ready::wanted(Interest::READABLE, direction),
            Direction::Write => Ready::wanted(Interest::WRITABLE, direction),
        };
        loop {
            // Nobody waits for room before a write has found none: registered earlier, each read of the peer would wake
            // this side.
            let seen = if direction == Direction::Write && !self.waits_for(Direction::Write) {
                if self.place().is_none() {
                    // It is at home here all the same, and the kernel says if it can't be polled.
                    self.register(&home, io, Direction::Read)?;
                }
                ready!(home.spend(cx));
                None
            } else {
                let key = self.register(&home, io, direction)?;
                Some((key, ready!(home.poll_source(key, direction, wanted, cx))?))
            };
            match (operation(io), seen) {
                (Err(error), Some((key, seen))) if error.kind() == io::ErrorKind::WouldBlock => {
                    home.clear(key, direction, seen, seen.ready);
                }
                (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.register(&home, io, direction)?;
                }
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Ok(value), Some((key, seen))) if self.is_stream && drained(&value) => {
                    // Proven for a stream, as long as neither its end nor urgent data is about.
                    if seen.ready == Ready::READABLE {
                        home.clear(key, direction, seen, seen.ready);
                    }
                    return Poll::Ready(Ok(value));
                }
                (result, _) => return Poll::Ready(result),
            }
        }
    }

    /// The home thread, if it is another one than this, and still there.
    pub(super) fn foreign_home(&self) -> Option<ThreadId> {
        let (owner, _) = self.place()?;
        if owner.is_forked() || context::home_of(owner).is_some() || owner.report().is_some() {
            return None;
        }
        owner.home()
    }
}

fn wrong_home(owner: &Shared) -> io::Error {
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
