//! The backends: the system calls of the event base.
//!
//! The platform is chosen here, once. To port the base to another kernel, write one file like `epoll.rs`, and add it to the
//! list below. Only `EventBase` calls a backend, always on the thread that owns the base.
//!
//! # What a backend must provide
//!
//! * `const KIND: Backend`.
//! * `Queue`, which is `Send`: a kernel queue, closed on exec, and the events that it reported last.
//!   * `new() -> io::Result<Queue>`. Allocates no event buffer yet.
//!   * `add(&mut self, fd: RawFd, watch: Watch, known: Known) -> io::Result<()>` starts to watch a descriptor.
//!     `known` is how the base believes that number to be watched already. The backend finds out whether the
//!     kernel agrees: if it does, the answer is `AlreadyExists` (see [`already_exists`]); if it doesn't, because that
//!     descriptor was closed meanwhile, `known` is not in the way. A descriptor that can't be watched, such as a
//!     regular file, is `Unsupported` (see [`unsupported`]). A failed `add` leaves nothing behind.
//!   * `modify(&mut self, fd: RawFd, old: Watch, new: Watch) -> io::Result<()>` changes interest or mode, arms
//!     `OneShot` anew, and has an `Edge` source that is ready reported once more. It is `NotFound` if the number isn't
//!     watched: then it is another file's by now (see [`not_found`]). A failure may leave the descriptor unwatched.
//!   * `remove(&mut self, fd: RawFd, watch: Watch)` ends the watch. It can't fail: a descriptor that was closed, or was
//!     never registered, is quietly no longer watched. It must not allocate.
//!   * `wait(&mut self, timeout: Option<Duration>, left: impl Fn() -> Duration) -> io::Result<()>` sleeps until something
//!     is ready or the timeout has passed; `None` is for ever. `left` says what is left of the timeout, to a backend that
//!     has to ask the kernel more than once. Never shorter than the timeout, except that it may cut short what
//!     the kernel can't express. `EINTR` is no error, and no event. Called only when `next` has come to its end.
//!   * `next(&mut self) -> Option<(u64, Event)>` takes the next event of the last wait, with the token it was
//!     registered under. An event that was taken isn't given again, and one that wasn't stays for the next call.
//!   * `has_next(&self) -> bool` says whether `next` has an event to take.
//!   * `shuffle(&mut self, random: &mut Random)` puts the events of the last wait that nobody has taken into a random order.
//!   * `may_have_more(&self) -> bool` says whether the last wait has filled its buffer.
//!   * `set_alarm(&mut self, left: Option<Duration>) -> io::Result<()>` makes the queue's descriptor readable when so much time
//!     has passed, once, by an event with the token [`ALARM`]; `None` is never. Whatever the kernel needs for that is made by
//!     the first call, and lasts as long as the queue.
//!   * `descriptor(&self) -> &Arc<Descriptor>`: the descriptor of the queue, which others may share in order to poll it.
//! * `Descriptor`, which is `Send`, `Sync` and `AsFd`. The drop of the last share closes it, in the process that it belongs to.
//!
//! Nobody calls `add`, `modify`, `remove`, `set_alarm` or `wait` in the child of a fork.

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::interest::{Interest, Mode};
use super::sources;

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(evbase_libkqueue)))] {
        mod epoll;
        pub(crate) use epoll::Descriptor;
        pub(super) use epoll::{KIND, Queue};
    } else if #[cfg(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
        evbase_libkqueue,
    ))] {
        mod kqueue;
        pub(crate) use kqueue::Descriptor;
        // For whoever waits for the end of a child, which Linux has pidfds for.
        #[cfg(not(target_os = "linux"))]
        pub(crate) use kqueue::Kevent;
        pub(super) use kqueue::{KIND, Queue};
    } else {
        compile_error!(
            "evbase has no event backend for this platform; it runs on Linux (epoll), and on macOS, FreeBSD, \
             NetBSD, OpenBSD and DragonFly (kqueue)"
        );
    }
}

/// The descriptor that a system call has made, or its error.
///
/// # Safety
///
/// `answer` comes straight from a system call that makes a descriptor, or answers -1.
pub(crate) unsafe fn new_descriptor(answer: libc::c_int) -> io::Result<OwnedFd> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for the caller, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(answer) })
}

/// The kernel's mechanism that an event base waits with.
///
/// The default is the platform's own, which is the only one available there.
///
/// # Examples
///
/// ```
/// use evbase::base::{Backend, EventBase};
///
/// let base = EventBase::<()>::with_backend(Backend::default())?;
/// # if cfg!(target_os = "linux") && !cfg!(evbase_libkqueue) {
/// assert_eq!(base.backend(), Backend::Epoll); // on Linux
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// `epoll(7)`, on Linux.
    Epoll,
    /// `kqueue(2)`, on macOS and the BSDs.
    Kqueue,
}

impl Default for Backend {
    fn default() -> Backend {
        KIND
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Epoll => "epoll",
            Backend::Kqueue => "kqueue",
        })
    }
}

/// The token of the notifier's descriptor. No [`Key`](super::Key) has it, nor the next one.
pub(super) const NOTIFY: u64 = sources::NONE as u64;

/// The token of the alarm.
pub(super) const ALARM: u64 = NOTIFY | 1 << 32;

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Comes back with each event.
    pub(super) token: u64,
    pub(super) interest: Interest,
    pub(super) mode: Mode,
}

/// The source that the base believes to be registered under a number, if any.
pub(super) type Known = Option<Watch>;

/// The answer to a descriptor that is registered already, and still open.
pub(super) fn already_exists(fd: RawFd) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!(
            "descriptor {fd} is registered with this event base already; deregister it first, or register a \
             duplicate of it"
        ),
    )
}

/// The answer to a change of a descriptor that isn't registered: the one that was has been closed.
pub(super) fn not_found(fd: RawFd) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "descriptor {fd} is not registered with this event base any more: the one that was has been closed, and \
             another file has its number"
        ),
    )
}

/// The answer to a descriptor that is never "not ready", and so can't be waited for.
pub(super) fn unsupported(fd: RawFd) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "descriptor {fd} can't be polled for readiness (as a regular file or a directory); read and write \
             files on a thread pool instead"
        ),
    )
}
