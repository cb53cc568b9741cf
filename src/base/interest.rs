//! What a source is watched for, and what the kernel reports.
//!
//! [`Interest`] and [`Mode`] go down to the backend, [`Event`] comes up from it. All three are small `Copy` values
//! without any knowledge of a platform; the backends in `sys/` translate. `crate::io` shows [`Event`] as `Ready`.

use std::fmt;
use std::num::NonZeroU8;
use std::ops::{BitOr, BitOrAssign};

/// The kinds of readiness that a source is watched for. Never empty.
///
/// Combine them with `|`, or with [`add`](Interest::add) where a `const` is needed. Errors and hang-ups are always
/// reported, whatever is asked for.
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
    /// An error that is pending on the descriptor, such as what `MSG_ERRQUEUE` of `recvmsg(2)` gets: `EPOLLERR`.
    ///
    /// Every other interest includes it. Alone, it is for those who want to hear of nothing else (epoll still reports hang-ups).
    /// kqueue tells errors with other readiness only: there, it is watched for as `READABLE` is, and reported as that, too.
    pub const ERROR: Interest = Interest(NonZeroU8::new(8).unwrap());

    /// Both interests together; what `|` does, for a `const`.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::base::Interest;
    ///
    /// const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
    /// assert_eq!(BOTH, Interest::READABLE | Interest::WRITABLE);
    /// ```
    #[must_use]
    pub const fn add(self, other: Interest) -> Interest {
        // `BitOr` of `NonZero` is not const yet. This is never `None`.
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

    /// Whether this includes [`ERROR`](Interest::ERROR) by name: what others include is not asked for here.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0.get() & Interest::ERROR.0.get() != 0
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
            (self.is_error(), "ERROR"),
        ];
        write_set(f, &names)
    }
}

/// When a source that is ready is reported.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use std::time::Duration;
/// use evbase::base::{EventBase, Interest, Mode};
///
/// let mut base = EventBase::new()?;
/// let (reader, mut writer) = std::io::pipe()?;
/// let key = base.register(&reader, Interest::READABLE, Mode::Level, ())?;
/// let events = |base: &mut EventBase<()>| base.turn(Some(Duration::ZERO), |_| {}).map(|turned| turned.events);
/// writer.write_all(b"never read")?;
/// // As long as there is something to read.
/// assert_eq!((events(&mut base)?, events(&mut base)?), (1, 1));
/// // Once, and then when there is more.
/// base.reregister(key, Interest::READABLE, Mode::Edge)?;
/// assert_eq!((events(&mut base)?, events(&mut base)?), (1, 0));
/// writer.write_all(b"more")?;
/// assert_eq!((events(&mut base)?, events(&mut base)?), (1, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
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

/// The ways in which a source is ready: what the kernel said about it.
///
/// It is a set of flags; [`io::Ready`](crate::io::Ready) is the same type under another name. The constants are what the
/// kernel tells apart, and [`contains`](Event::contains) asks for them to the letter. The `is_` questions are those that
/// somebody asks who is about to make a system call: [`is_readable`](Event::is_readable) is true of an end or an error as
/// well, which a read would bring to light without blocking.
///
/// An event may report more than was asked for (errors and hang-ups), and readiness may be gone again by the time
/// that it is looked at: the system call on the descriptor has the last word. kqueue reports the two directions of one
/// source as two events.
///
/// ```
/// use evbase::base::Event;
///
/// let end_of_stream = Event::READ_CLOSED;
/// assert!(end_of_stream.is_readable() && !end_of_stream.contains(Event::READABLE));
/// assert!(!end_of_stream.is_writable());
/// let both = Event::READABLE | Event::WRITABLE;
/// assert!(both.contains(Event::READABLE) && !Event::READABLE.contains(both));
/// assert_eq!(format!("{both:?}"), "READABLE | WRITABLE");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Event(u8);

impl Event {
    /// Ready for nothing.
    pub const EMPTY: Event = Event(0);
    /// There is something to read, or to accept.
    pub const READABLE: Event = Event(1);
    /// There is room to write, or a connection attempt has come to its end.
    pub const WRITABLE: Event = Event(1 << 1);
    /// The peer will send nothing more; what it sent before may still be there to read.
    ///
    /// `EPOLLRDHUP` or `EPOLLHUP`; `EV_EOF` of the read filter.
    pub const READ_CLOSED: Event = Event(1 << 2);
    /// The source is hung up: nothing that is written will be read by anyone.
    ///
    /// `EPOLLHUP`; `EV_EOF` of the write filter. The write end of a pipe whose reader has gone is
    /// [`ERROR`](Event::ERROR) on epoll.
    pub const WRITE_CLOSED: Event = Event(1 << 3);
    /// An error is pending on the descriptor, which the next system call will give.
    ///
    /// `EPOLLERR`; `EV_ERROR`, or `EV_EOF` with an error code.
    pub const ERROR: Event = Event(1 << 4);
    /// There is out-of-band data. `EPOLLPRI`; never on kqueue.
    pub const PRIORITY: Event = Event(1 << 5);

    /// Whether all of `other` is in this.
    #[must_use]
    pub const fn contains(self, other: Event) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is nothing in this.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a read will not block: there is data, the end, or an error to be read.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.intersects(Event::READABLE.or(Event::READ_CLOSED).or(Event::ERROR))
    }

    /// Whether a write will not block: there is room, or nobody to read it, or an error to be had.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.intersects(Event::WRITABLE.or(Event::WRITE_CLOSED).or(Event::ERROR))
    }

    /// Whether the reading side is closed. See [`READ_CLOSED`](Event::READ_CLOSED).
    #[must_use]
    pub const fn is_read_closed(self) -> bool {
        self.contains(Event::READ_CLOSED)
    }

    /// Whether the writing side is closed. See [`WRITE_CLOSED`](Event::WRITE_CLOSED).
    #[must_use]
    pub const fn is_write_closed(self) -> bool {
        self.contains(Event::WRITE_CLOSED)
    }

    /// Whether the descriptor has an error.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.contains(Event::ERROR)
    }

    /// Whether out-of-band data has come.
    #[must_use]
    pub const fn is_priority(self) -> bool {
        self.contains(Event::PRIORITY)
    }

    /// The flags of both: what `|` does, for a `const`.
    pub(crate) const fn or(self, other: Event) -> Event {
        Event(self.0 | other.0)
    }

    /// The flags that are in both.
    pub(crate) const fn and(self, other: Event) -> Event {
        Event(self.0 & other.0)
    }

    /// The flags of this that are not in `other`.
    pub(crate) const fn without(self, other: Event) -> Event {
        Event(self.0 & !other.0)
    }

    const fn intersects(self, other: Event) -> bool {
        !self.and(other).is_empty()
    }

    /// This if the condition holds, else no flag.
    pub(crate) const fn when(self, condition: bool) -> Event {
        if condition { self } else { Event::EMPTY }
    }
}

impl BitOr for Event {
    type Output = Event;

    fn bitor(self, other: Event) -> Event {
        self.or(other)
    }
}

impl BitOrAssign for Event {
    fn bitor_assign(&mut self, other: Event) {
        *self = self.or(other);
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Event::READABLE, "READABLE"),
            (Event::WRITABLE, "WRITABLE"),
            (Event::READ_CLOSED, "READ_CLOSED"),
            (Event::WRITE_CLOSED, "WRITE_CLOSED"),
            (Event::ERROR, "ERROR"),
            (Event::PRIORITY, "PRIORITY"),
        ];
        write_set(f, &names.map(|(flag, name)| (self.contains(flag), name)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_and_an_error_can_be_read_and_written_into() {
        for (event, [read, write]) in [
            (Event::EMPTY, [false, false]),
            (Event::READABLE, [true, false]),
            (Event::READ_CLOSED, [true, false]),
            (Event::WRITABLE, [false, true]),
            (Event::WRITE_CLOSED, [false, true]),
            (Event::ERROR, [true, true]),
            (Event::PRIORITY, [false, false]),
        ] {
            assert_eq!([event.is_readable(), event.is_writable()], [read, write], "{event:?}");
        }
    }

    #[test]
    fn events_are_sets_and_say_what_is_in_them() {
        let mut all = Event::EMPTY;
        assert_eq!((format!("{all:?}"), all.is_empty()), ("(nothing)".into(), true));
        for flag in [
            Event::READABLE,
            Event::WRITABLE,
            Event::READ_CLOSED,
            Event::WRITE_CLOSED,
            Event::ERROR,
            Event::PRIORITY,
        ] {
            assert!(!all.contains(flag) && all.contains(Event::EMPTY));
            assert_eq!((all | flag).without(flag), all);
            assert_eq!((flag.when(true), flag.when(false)), (flag, Event::EMPTY));
            all |= flag;
            assert_eq!(all.and(flag), flag);
        }
        assert_eq!(
            format!("{all:?}"),
            "READABLE | WRITABLE | READ_CLOSED | WRITE_CLOSED | ERROR | PRIORITY"
        );
    }
}
