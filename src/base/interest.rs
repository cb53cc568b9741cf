//! What is asked of the kernel, and what it answers.
//!
//! [`Interest`] and [`Mode`] go down to the backend, [`Event`] comes up from it. All three are small `Copy` values
//! without any knowledge of a platform; the backends in `sys/` translate.

use std::fmt;
use std::num::NonZeroU8;
use std::ops::{BitOr, BitOrAssign};

/// The kinds of readiness that a source is watched for. Never empty.
///
/// Combine them with `|`, or with [`add`](Interest::add) where a `const` is needed. Errors and hang-ups are always
/// reported and can't be asked for.
///
/// ```
/// use evbase::base::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.is_readable() && both.is_writable() && !both.is_priority());
/// assert_eq!(format!("{both:?}"), "READABLE | WRITABLE");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(NonZeroU8);

impl Interest {
    /// Data, a connection to accept, or the end of the stream.
    pub const READABLE: Interest = Interest(NonZeroU8::new(1).unwrap());
    /// Room to write, or a connection attempt that came to its end.
    pub const WRITABLE: Interest = Interest(NonZeroU8::new(2).unwrap());
    /// Out-of-band data, or what a driver defines as exceptional (`EPOLLPRI`).
    ///
    /// Only epoll knows it. On kqueue it adds nothing to other interests, and alone it is refused with
    /// [`ErrorKind::Unsupported`](std::io::ErrorKind::Unsupported).
    pub const PRIORITY: Interest = Interest(NonZeroU8::new(4).unwrap());

    /// Both interests together; what `|` does, for a `const`.
    #[must_use]
    pub const fn add(self, other: Interest) -> Interest {
        // `BitOr` of `NonZero` is not const yet; the union of two values that aren't zero isn't zero either.
        match NonZeroU8::new(self.0.get() | other.0.get()) {
            Some(bits) => Interest(bits),
            None => self,
        }
    }

    /// Whether this includes [`READABLE`](Interest::READABLE).
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0.get() & Interest::READABLE.0.get() != 0
    }

    /// Whether this includes [`WRITABLE`](Interest::WRITABLE).
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0.get() & Interest::WRITABLE.0.get() != 0
    }

    /// Whether this includes [`PRIORITY`](Interest::PRIORITY).
    #[must_use]
    pub const fn is_priority(self) -> bool {
        self.0.get() & Interest::PRIORITY.0.get() != 0
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        self.add(other)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = self.add(other);
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.is_readable(), "READABLE"),
            (self.is_writable(), "WRITABLE"),
            (self.is_priority(), "PRIORITY"),
        ];
        write_set(f, &names)
    }
}

/// When a source that is ready is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In every turn, for as long as it is ready.
    Level,
    /// Once for each time that it becomes ready. Whoever is told must go on until the descriptor would block.
    ///
    /// [`reregister`](super::EventBase::reregister) looks again: a source that is ready then is reported once more.
    Edge,
    /// Once, and then not before the next [`reregister`](super::EventBase::reregister).
    ///
    /// On epoll that is once for all its interests. On kqueue, where each direction is a filter of its own, it is
    /// once for each direction.
    OneShot,
}

/// What the kernel said about a source.
///
/// An event may report more than was asked for (errors and hang-ups), and readiness may be gone again by the time
/// that it is looked at: the system call on the descriptor has the last word.
///
/// Whoever waits to read should go on when any of `is_readable`, `is_read_closed`, `is_write_closed` and `is_error`
/// is true, and whoever waits to write when any of `is_writable`, `is_write_closed` and `is_error` is. kqueue
/// reports the two directions of one source as two events.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event(u8);

impl Event {
    pub(super) const READABLE: Event = Event(1);
    pub(super) const WRITABLE: Event = Event(2);
    pub(super) const PRIORITY: Event = Event(4);
    pub(super) const READ_CLOSED: Event = Event(8);
    pub(super) const WRITE_CLOSED: Event = Event(16);
    pub(super) const ERROR: Event = Event(32);

    /// An event that says nothing, for a backend to add to.
    pub(super) const fn empty() -> Event {
        Event(0)
    }

    /// Adds `flag` if `condition` holds.
    pub(super) fn set_if(&mut self, flag: Event, condition: bool) {
        if condition {
            self.0 |= flag.0;
        }
    }

    const fn has(self, flag: Event) -> bool {
        self.0 & flag.0 != 0
    }

    /// There is something to read, or to accept.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.has(Event::READABLE)
    }

    /// There is room to write, or a connection attempt has come to its end.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.has(Event::WRITABLE)
    }

    /// The peer will send nothing more; what it sent before may still be there to read.
    ///
    /// `EPOLLRDHUP` or `EPOLLHUP`; `EV_EOF` of the read filter.
    #[must_use]
    pub const fn is_read_closed(&self) -> bool {
        self.has(Event::READ_CLOSED)
    }

    /// The source is hung up: nothing that is written will be read by anyone.
    ///
    /// `EPOLLHUP`; `EV_EOF` of the write filter. The write end of a pipe whose reader has gone is
    /// [`is_error`](Event::is_error) on epoll.
    #[must_use]
    pub const fn is_write_closed(&self) -> bool {
        self.has(Event::WRITE_CLOSED)
    }

    /// An error is pending on the descriptor. `EPOLLERR`; `EV_ERROR`, or `EV_EOF` with an error code.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.has(Event::ERROR)
    }

    /// There is out-of-band data. `EPOLLPRI`; never on kqueue.
    #[must_use]
    pub const fn is_priority(&self) -> bool {
        self.has(Event::PRIORITY)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.is_readable(), "READABLE"),
            (self.is_writable(), "WRITABLE"),
            (self.is_priority(), "PRIORITY"),
            (self.is_read_closed(), "READ_CLOSED"),
            (self.is_write_closed(), "WRITE_CLOSED"),
            (self.is_error(), "ERROR"),
        ];
        write_set(f, &names)
    }
}

/// Writes the names that hold, as `A | B`.
fn write_set(f: &mut fmt::Formatter<'_>, names: &[(bool, &str)]) -> fmt::Result {
    let mut separator = "";
    for (_, name) in names.iter().filter(|(holds, _)| *holds) {
        write!(f, "{separator}{name}")?;
        separator = " | ";
    }
    if separator.is_empty() {
        f.write_str("(nothing)")
    } else {
        Ok(())
    }
}
