//! Where a descriptor is registered: nowhere, until a loop first polls it; then with that loop's base, for good.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};

use crate::base::{Interest, Key};
use crate::runtime::{Direction, Home, Ready, Seen, context, registry};

/// Written by the home of the registration; the fields but `home` are read there only.
#[derive(Debug)]
pub(super) struct Registration {
    /// The id of the runtime, or zero.
    home: AtomicU64,
    key: AtomicU64,
    /// Bits of `READ` and `WRITE`.
    interest: AtomicU8,
    is_stream: bool,
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
    /// `is_stream` says that a short read proves that the kernel has no more, unless the stream's end or urgent data is
    /// about: true of TCP on Linux, not of descriptors in general.
    pub(super) fn new(is_stream: bool) -> Self {
        Self {
            home: AtomicU64::new(0),
            key: AtomicU64::new(0),
            interest: AtomicU8::new(0),
            is_stream,
        }
    }

    /// The id of the runtime that it is registered with, and the key there.
    pub(super) fn place(&self) -> Option<(u64, Key)> {
        match self.home.load(Relaxed) {
            0 => None,
            id => Some((id, Key::from_token(self.key.load(Relaxed)))),
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
        match self.home.load(Relaxed) {
            0 => Ok(home),
            id if id == home.id() => Ok(home),
            id => Err(wrong_home(id, &home)),
        }
    }

    /// Registers the descriptor for the direction, unless it is.
    pub(super) fn register(&self, home: &Home, fd: impl AsFd, direction: Direction) -> io::Result<Key> {
        let wanted = bit(direction);
        // User code, which may panic, or come back here: not under a borrow, and before anything is claimed.
        let fd = fd.as_fd();
        match self.home.compare_exchange(0, home.id(), Relaxed, Relaxed) {
            Ok(_) => {
                // It is this home's from here on; nobody else gets further than the comparison.
                match home.register(fd, self.interest(wanted)) {
                    Ok(key) => {
                        self.key.store(key.token(), Relaxed);
                        self.interest.store(wanted, Relaxed);
                        Ok(key)
                    }
                    Err(error) => {
                        self.home.store(0, Relaxed);
                        Err(error)
                    }
                }
            }
            Err(id) if id == home.id() => {
                let key = Key::from_token(self.key.load(Relaxed));
                let bits = self.interest.load(Relaxed);
                if bits & wanted == 0 {
                    home.extend_interest(key, self.interest(bits | wanted), direction)?;
                    self.interest.store(bits | wanted, Relaxed);
                }
                Ok(key)
            }
            Err(id) => Err(wrong_home(id, home)),
        }
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
        let (id, _) = self.place()?;
        if context::home(id).is_some() {
            return None;
        }
        let shared = registry::find(id)?;
        if shared.is_forked() {
            return None;
        }
        shared.home()
    }
}

fn wrong_home(id: u64, here: &Home) -> io::Error {
    let Some(shared) = registry::find(id) else {
        return io::Error::other(
            "an evbase object belongs to the runtime that polled it first, and that one is closed; get the descriptor \
             back by into_inner, and make a new object",
        );
    };
    io::Error::other(format!(
        "an evbase object belongs to the loop that polled it first, that of runtime {id} on {}; it was polled in the \
         loop of runtime {} on {:?}",
        shared.home().map_or("no thread".into(), |home| format!("{home:?}")),
        here.id(),
        thread::current().id(),
    ))
}
