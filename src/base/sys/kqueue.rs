//! The backend for macOS and the BSDs: `kqueue(2)`.
//!
//! Each direction of a source is a filter of its own, and reports events of its own. Changes are submitted one a
//! call, with no room for events: then a change that fails is the call's `errno`, on every system alike, and no
//! event of another source can be returned, and lost, by the way.
//!
//! The alarm is a one-shot timer, whose identity is 0. On OpenBSD and DragonFly, it is rounded up to milliseconds.
//!
//! Out-of-band data (`Interest::PRIORITY`) has no filter that all these systems share, and is not watched.
//!
//! Invariants: the events in `events[next..filled]` are those of the last wait that nobody has taken; a wait starts
//! only when there are none. The queue's number is closed by the process that made it, and by no child: kqueues are
//! not inherited, so that in a child the number may be that of another file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::super::fork::Birth;
use super::super::interest::{Event, Interest, Mode};
use crate::random::Random;

use super::{ALARM, Backend, Known, Watch, already_exists, new_descriptor, not_found, unsupported};

#[cfg(not(evbase_libkqueue))]
use libc as abi;
/// Linux has no kqueue, but a library that imitates it, for the test suite.
#[cfg(evbase_libkqueue)]
#[path = "../../../tests/kernel/libkqueue.rs"]
mod abi;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("evbase's kqueue backend keeps 64-bit tokens in `udata`, which is a pointer");

/// The backend that this file is.
pub(in super::super) const KIND: Backend = Backend::Kqueue;

/// How many events one wait can report, at first and at most. A wait that filled the buffer doubles it.
const FIRST_EVENTS: usize = 64;
const MOST_EVENTS: usize = 1024;

/// The longest wait that all systems take for valid; a longer one ends in a turn without events.
const LONGEST_WAIT: Duration = Duration::from_secs(10_000_000);

/// A filter is an `i16`, and its flags are a `u16`, but not on NetBSD.
#[cfg(not(target_os = "netbsd"))]
type Filter = i16;
#[cfg(not(target_os = "netbsd"))]
type Flags = u16;
#[cfg(target_os = "netbsd")]
type Filter = u32;
#[cfg(target_os = "netbsd")]
type Flags = u32;

const READ: Filter = abi::EVFILT_READ as Filter;
const WRITE: Filter = abi::EVFILT_WRITE as Filter;
const ADD: Flags = abi::EV_ADD as Flags;
const DELETE: Flags = abi::EV_DELETE as Flags;
const ENABLE: Flags = abi::EV_ENABLE as Flags;
const CLEAR: Flags = abi::EV_CLEAR as Flags;
const DISPATCH: Flags = abi::EV_DISPATCH as Flags;
const EOF: Flags = abi::EV_EOF as Flags;
const ERROR: Flags = abi::EV_ERROR as Flags;
const TIMER: Filter = abi::EVFILT_TIMER as Filter;
const ONESHOT: Flags = abi::EV_ONESHOT as Flags;

/// The unit of a timer, as `fflags` say it, and how many nanoseconds it has. Where there is no choice, it is a millisecond.
#[cfg(not(any(target_os = "openbsd", target_os = "dragonfly")))]
const ALARM_UNIT: (u32, u128) = (abi::NOTE_NSECONDS, 1);
#[cfg(any(target_os = "openbsd", target_os = "dragonfly"))]
const ALARM_UNIT: (u32, u128) = (0, 1_000_000);

/// The descriptor of a kqueue. Not only a base has one: so has whoever waits for the end of a child.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// `None` only while dropping.
    kqueue: Option<OwnedFd>,
    birth: Birth,
}

impl Descriptor {
    /// Makes a kqueue, closed on exec.
    pub(crate) fn new() -> io::Result<Descriptor> {
        // SAFETY: takes no pointers, and makes a descriptor.
        let kqueue = unsafe { new_descriptor(abi::kqueue()) }?;
        let this = Descriptor {
            kqueue: Some(kqueue),
            birth: Birth::here(),
        };
        // `kqueue1`, which would set it at once, is not everywhere. A child that is forked in between doesn't
        // inherit the queue anyway; what is set here matters to a process that replaces itself.
        // SAFETY: the descriptor is open, and is ours; no pointers.
        if unsafe { libc::fcntl(this.raw(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(this)
    }

    /// Submits one change.
    pub(crate) fn submit(&self, change: Kevent) -> io::Result<()> {
        // SAFETY: the kernel reads one change, which outlives the call, and writes no events, for there is room for
        // none. The descriptor is borrowed for the call.
        let result = unsafe { abi::kevent(self.raw(), &raw const change.0, 1, ptr::null_mut(), 0, ptr::null()) };
        if result >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            // "All changes in the changelist have been applied", kqueue(2) says.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        }
    }

    /// Waits for events, but not longer than [`LONGEST_WAIT`], unless for ever. Returns how many it has put at the front.
    pub(crate) fn wait(&self, events: &mut [Kevent], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| {
            let timeout = timeout.min(LONGEST_WAIT);
            libc::timespec {
                tv_sec: timeout.as_secs() as libc::time_t,
                tv_nsec: timeout.subsec_nanos() as libc::c_long,
            }
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `Kevent` has the layout of `kevent`; the kernel writes at most `len` of them to the slice, which is
        // borrowed for the length of the call, as the descriptor is, and reads `timeout`, which outlives it too.
        let count = unsafe {
            abi::kevent(
                self.raw(),
                ptr::null(),
                0,
                events.as_mut_ptr().cast::<abi::kevent>(),
                events.len() as _,
                timeout,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn raw(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue
            .as_ref()
            .expect("evbase: it is there until the drop")
            .as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.birth.is_child() {
            // Not inherited: the number is free, or another file's.
            let _ = self.kqueue.take().map(OwnedFd::into_raw_fd);
        }
    }
}

/// A kqueue, and the events of its last wait.
pub(in super::super) struct Queue {
    kqueue: Arc<Descriptor>,
    /// Allocated by the first wait.
    events: Vec<Kevent>,
    filled: usize,
    next: usize,
}

/// One `struct kevent`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Kevent(pub(crate) abi::kevent);

// SAFETY: what keeps it from being `Send` is `udata`, which holds a number here, and is never used as a pointer.
unsafe impl Send for Kevent {}

impl Kevent {
    pub(crate) fn zeroed() -> Kevent {
        // SAFETY: a `struct kevent` is integers and a pointer (and reserved integers), for all of which zero is valid.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }
}

impl Queue {
    pub(in super::super) fn new() -> io::Result<Queue> {
        Ok(Queue {
            kqueue: Arc::new(Descriptor::new()?),
            events: Vec::new(),
            filled: 0,
            next: 0,
        })
    }

    pub(in super::super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.kqueue
    }

    pub(in super::super) fn set_alarm(&mut self, left: Option<Duration>) -> io::Result<()> {
        let mut alarm = Kevent::zeroed();
        alarm.0.filter = TIMER;
        alarm.0.udata = ALARM as usize as _;
        let Some(left) = left else {
            alarm.0.flags = DELETE;
            return match self.kqueue.submit(alarm) {
                // It has gone off, or was never set.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                result => result,
            };
        };
        let (unit, nanoseconds) = ALARM_UNIT;
        // Zero means various things.
        let units = left.min(LONGEST_WAIT).as_nanos().div_ceil(nanoseconds).max(1);
        alarm.0.flags = ADD | ONESHOT;
        alarm.0.fflags = unit;
        alarm.0.data = units
            .try_into()
            .unwrap_or_else(|_| unreachable!("evbase: the longest wait fits"));
        self.kqueue.submit(alarm)
    }

    pub(in super::super) fn may_have_more(&self) -> bool {
        self.filled > 0 && self.filled == self.events.len()
    }

    pub(in super::super) fn add(&mut self, fd: RawFd, watch: Watch, known: Known) -> io::Result<()> {
        check(watch.interest)?;
        if is_file(fd)? {
            return Err(unsupported(fd));
        }
        if let Some(known) = known {
            // EV_ADD would modify a registration that is alive, and say nothing. EV_ENABLE alone fails if there is
            // none: closing a descriptor ends what was registered under its number. (If there is one, and it is a
            // `OneShot` that has fired, this arms it: registering a descriptor twice is a mistake of the caller's.)
            for filter in filters(known.interest).take(1) {
                match self.change(fd, filter, ENABLE, known.token) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(error),
                    Ok(()) => return Err(already_exists(fd)),
                }
            }
        }
        self.set(fd, watch).inspect_err(|_| self.remove(fd, watch))
    }

    pub(in super::super) fn modify(&mut self, fd: RawFd, old: Watch, new: Watch) -> io::Result<()> {
        check(new.interest)?;
        // Anew from the ground: a filter that is there already would keep its EV_CLEAR and EV_DISPATCH. ENOENT ends it:
        // the descriptor was closed, and what has its number now was never given to us.
        for filter in filters(old.interest) {
            let deleted = self.change(fd, filter, DELETE, old.token);
            deleted.map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => not_found(fd),
                _ => error,
            })?;
        }
        self.set(fd, new)
    }

    pub(in super::super) fn remove(&mut self, fd: RawFd, watch: Watch) {
        for filter in filters(watch.interest) {
            // EBADF and ENOENT mean that the descriptor was closed, which has ended the registration; there is no
            // other error that a removal could meet.
            let _ = self.change(fd, filter, DELETE, watch.token);
        }
    }

    pub(in super::super) fn wait(&mut self, timeout: Option<Duration>, _: impl Fn() -> Duration) -> io::Result<()> {
        debug_assert_eq!(self.next, self.filled, "a wait would lose events");
        if self.events.is_empty() {
            self.resize(FIRST_EVENTS);
        } else if self.filled == self.events.len() && self.filled < MOST_EVENTS {
            self.resize(self.filled * 2);
        }
        (self.filled, self.next) = (0, 0);
        match self.kqueue.wait(&mut self.events, timeout) {
            Ok(filled) => self.filled = filled,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(in super::super) fn has_next(&self) -> bool {
        self.next < self.filled
    }

    pub(in super::super) fn shuffle(&mut self, random: &mut Random) {
        random.shuffle(&mut self.events[self.next..self.filled]);
    }

    pub(in super::super) fn next(&mut self) -> Option<(u64, Event)> {
        let Kevent(raw) = *self.events[..self.filled].get(self.next)?;
        self.next += 1;
        Some((raw.udata as usize as u64, translate(&raw)))
    }

    /// Adds the filters of `watch`. Each is looked at, and reported if it is ready.
    fn set(&self, fd: RawFd, watch: Watch) -> io::Result<()> {
        let mode = match watch.mode {
            Mode::Level => 0,
            Mode::Edge => CLEAR,
            Mode::OneShot => DISPATCH,
        };
        for filter in filters(watch.interest) {
            self.change(fd, filter, ADD | mode, watch.token)?;
        }
        Ok(())
    }

    /// Submits one change of a descriptor's filter.
    fn change(&self, fd: RawFd, filter: Filter, flags: Flags, token: u64) -> io::Result<()> {
        let mut change = Kevent::zeroed();
        change.0.ident = fd as _;
        change.0.filter = filter;
        change.0.flags = flags;
        change.0.udata = token as usize as _;
        self.kqueue.submit(change)
    }

    fn resize(&mut self, len: usize) {
        self.events.resize(len, Kevent::zeroed());
    }
}

/// The filters that an interest needs. At least one, if it passed [`check`].
fn filters(interest: Interest) -> impl Iterator<Item = Filter> {
    // An error comes with either of them.
    let error_alone = interest.is_error() && !interest.is_writable();
    let read = (interest.is_readable() || error_alone).then_some(READ);
    let write = interest.is_writable().then_some(WRITE);
    read.into_iter().chain(write)
}

/// Refuses an interest that no filter stands for.
fn check(interest: Interest) -> io::Result<()> {
    if filters(interest).next().is_some() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "kqueue can't watch for priority data alone; ask for READABLE or WRITABLE as well",
    ))
}

fn translate(raw: &abi::kevent) -> Event {
    let has = |flag: Flags| raw.flags & flag != 0;
    Event::READABLE.when(raw.filter == READ)
        | Event::WRITABLE.when(raw.filter == WRITE)
        | Event::READ_CLOSED.when(has(EOF) && raw.filter == READ)
        | Event::WRITE_CLOSED.when(has(EOF) && raw.filter == WRITE)
        | Event::ERROR.when(has(ERROR) || (has(EOF) && raw.fflags != 0))
}

/// Whether `fd` is a regular file or a directory. kqueue would take it, and mean something else by "readable".
fn is_file(fd: RawFd) -> io::Result<bool> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes to `stat`, which outlives the call; one that succeeds has filled it in. To the kernel, `fd`
    // is only a number.
    let mode = unsafe {
        if libc::fstat(fd, stat.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init().st_mode
    };
    Ok(matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR))
}
