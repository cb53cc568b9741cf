//! The backend for Linux: `epoll(7)`.
//!
//! One `epoll_ctl` for each change, one wait for each turn. Waits are exact to the nanosecond where the kernel has
//! `epoll_pwait2` (5.11); elsewhere, and where a sandbox forbids it, they are rounded up to milliseconds.
//!
//! The alarm is a timerfd in the epoll's own set: registered edge-triggered and never read, since each setting of it raises a
//! fresh edge when its time has come.
//!
//! Invariants: the events in `events[next..filled]` are those of the last wait that nobody has taken; a wait starts
//! only when there are none.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::interest::{Event, Interest, Mode};
use super::super::precision::first_part;
use crate::random::Random;

use super::{ALARM, Backend, Known, Watch, already_exists, new_descriptor, not_found, unsupported};

/// The backend that this file is.
pub(in super::super) const KIND: Backend = Backend::Epoll;

/// How many events one wait can report, at first and at most. A wait that filled the buffer doubles it.
const FIRST_EVENTS: usize = 64;
const MOST_EVENTS: usize = 1024;

/// The longest alarm, which fits any `time_t`. One that has gone off too early for this ends in a turn with nothing to do.
const LONGEST_ALARM: Duration = Duration::from_secs(1_000_000_000);

/// The descriptor of an epoll instance.
pub(crate) type Descriptor = OwnedFd;

/// An epoll instance, and the events of its last wait.
pub(in super::super) struct Queue {
    epoll: Arc<Descriptor>,
    /// Made when it is first set.
    alarm: Option<OwnedFd>,
    /// Allocated by the first wait.
    events: Vec<libc::epoll_event>,
    filled: usize,
    next: usize,
}

impl Queue {
    pub(in super::super) fn new() -> io::Result<Queue> {
        // SAFETY: takes no pointers, and makes a descriptor.
        let epoll = unsafe { new_descriptor(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }?;
        Ok(Queue {
            epoll: Arc::new(epoll),
            alarm: None,
            events: Vec::new(),
            filled: 0,
            next: 0,
        })
    }

    pub(in super::super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.epoll
    }

    pub(in super::super) fn set_alarm(&mut self, left: Option<Duration>) -> io::Result<()> {
        let fd = match &self.alarm {
            Some(alarm) => alarm.as_raw_fd(),
            None => {
                let alarm = timerfd()?;
                let watch = Watch {
                    token: ALARM,
                    interest: Interest::READABLE,
                    mode: Mode::Edge,
                };
                self.control(libc::EPOLL_CTL_ADD, alarm.as_raw_fd(), watch)?;
                self.alarm.insert(alarm).as_raw_fd()
            }
        };
        // Zero would disarm it.
        let left = left.map_or(Duration::ZERO, |left| {
            left.clamp(Duration::from_nanos(1), LONGEST_ALARM)
        });
        let setting = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                // A `c_long`, but for one platform.
                tv_nsec: left.subsec_nanos() as _,
            },
        };
        // SAFETY: the kernel reads `setting` during the call, and is asked for no old one. `fd` is ours, and open.
        if unsafe { libc::timerfd_settime(fd, 0, &setting, ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    pub(in super::super) fn may_have_more(&self) -> bool {
        self.filled > 0 && self.filled == self.events.len()
    }

    pub(in super::super) fn add(&mut self, fd: RawFd, watch: Watch, known: Known) -> io::Result<()> {
        let Err(error) = self.control(libc::EPOLL_CTL_ADD, fd, watch) else {
            // The kernel finds a registration by number and open file. That it accepted this one proves that the
            // file behind a source known under the same number is no longer open under it.
            return Ok(());
        };
        match error.raw_os_error() {
            Some(libc::EEXIST) if known.is_some() => Err(already_exists(fd)),
            // No source in the base has this number, so the registration is left over: its descriptor was closed before it was
            // deregistered, a duplicate kept the file open, and has the old number now.
            Some(libc::EEXIST) => self.control(libc::EPOLL_CTL_MOD, fd, watch),
            Some(libc::EPERM) => Err(unsupported(fd)),
            _ => Err(error),
        }
    }

    pub(in super::super) fn modify(&mut self, fd: RawFd, _old: Watch, new: Watch) -> io::Result<()> {
        // The kernel looks for the file that has the number now. There is one case in which it finds another one's
        // registration: see `EventBase`, "Closed descriptors". No `epoll_ctl` tells the two apart: each finds the file that
        // has the number, and none says with which token.
        let changed = self.control(libc::EPOLL_CTL_MOD, fd, new);
        changed.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => not_found(fd),
            _ => error,
        })
    }

    pub(in super::super) fn remove(&mut self, fd: RawFd, watch: Watch) {
        // EBADF and ENOENT mean that the descriptor was closed, which has ended the registration; there is no
        // other error that a removal could meet.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, watch);
    }

    pub(in super::super) fn wait(&mut self, timeout: Option<Duration>, left: impl Fn() -> Duration) -> io::Result<()> {
        debug_assert_eq!(self.next, self.filled, "a wait would lose events");
        if self.events.is_empty() {
            self.resize(FIRST_EVENTS);
        } else if self.filled == self.events.len() && self.filled < MOST_EVENTS {
            self.resize(self.filled * 2);
        }
        (self.filled, self.next) = (0, 0);
        let mut timeout = timeout;
        let result = loop {
            let part = timeout.and_then(first_part);
            match wait(&self.epoll, &mut self.events, part.or(timeout)) {
                // Nothing has come in the first part, which has ended before the time, for what `first_part` says.
                Ok(0) if part.is_some() => timeout = Some(left()),
                result => break result,
            }
        };
        match result {
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
        let raw = *self.events[..self.filled].get(self.next)?;
        self.next += 1;
        Some((raw.u64, translate(raw.events)))
    }

    fn resize(&mut self, len: usize) {
        self.events.resize(len, libc::epoll_event { events: 0, u64: 0 });
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, watch: Watch) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: flags(watch.interest, watch.mode),
            u64: watch.token,
        };
        // SAFETY: `event` outlives the call, which doesn't keep the pointer; `fd` is only a number to the kernel,
        // which answers EBADF if it isn't open. The queue is ours, and this is the thread that owns it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

fn timerfd() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: takes no pointers, and makes a descriptor.
    unsafe { new_descriptor(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags)) }
}

fn flags(interest: Interest, mode: Mode) -> u32 {
    let mut flags = match mode {
        Mode::Level => 0,
        Mode::Edge => libc::EPOLLET,
        Mode::OneShot => libc::EPOLLONESHOT,
    };
    if interest.is_readable() {
        flags |= libc::EPOLLIN | libc::EPOLLRDHUP;
    }
    if interest.is_writable() {
        flags |= libc::EPOLLOUT;
    }
    if interest.is_priority() {
        flags |= libc::EPOLLPRI;
    }
    flags as u32
}

fn translate(flags: u32) -> Event {
    let has = |flag: libc::c_int| flags & flag as u32 != 0;
    Event::READABLE.when(has(libc::EPOLLIN))
        | Event::WRITABLE.when(has(libc::EPOLLOUT))
        | Event::PRIORITY.when(has(libc::EPOLLPRI))
        | Event::READ_CLOSED.when(has(libc::EPOLLRDHUP) || has(libc::EPOLLHUP))
        | Event::WRITE_CLOSED.when(has(libc::EPOLLHUP))
        | Event::ERROR.when(has(libc::EPOLLERR))
}

/// Set for ever once the kernel turned out to have no `epoll_pwait2`, or to forbid it.
static MILLISECONDS_ONLY: AtomicBool = AtomicBool::new(cfg!(evbase_millisecond_waits));

/// One wait, with the most exact call that the timeout needs and the kernel has.
fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = match timeout {
        None => return wait_milliseconds(epoll, events, -1),
        Some(Duration::ZERO) => return wait_milliseconds(epoll, events, 0),
        Some(timeout) => timeout,
    };
    if !MILLISECONDS_ONLY.load(Ordering::Relaxed) {
        match wait_exactly(epoll, events, timeout) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                MILLISECONDS_ONLY.store(true, Ordering::Relaxed);
            }
            result => return result,
        }
    }
    wait_milliseconds(epoll, events, milliseconds(timeout))
}

/// Rounds up, so that no timer is ever early; what doesn't fit (24 days) ends in a turn without events.
fn milliseconds(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

fn wait_milliseconds(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout: libc::c_int) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` events to the slice, which is borrowed for the length of the call.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), count_of(events), timeout) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn wait_exactly(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout: Duration) -> io::Result<usize> {
    /// `struct __kernel_timespec`, which has 64 bits a field on every architecture, as libc's has not.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    let timeout = Timespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i64::from(timeout.subsec_nanos()),
    };
    // SAFETY: as above; the kernel reads `timeout` during the call, and the signal mask is null, whose size (the
    // last argument) nobody looks at.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            count_of(events),
            &raw const timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The length of the buffer, which is never above [`MOST_EVENTS`].
fn count_of(events: &[libc::epoll_event]) -> libc::c_int {
    events.len() as libc::c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up_and_clamped() {
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::from_nanos(7_000_001)), 8);
        assert_eq!(milliseconds(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn the_buffer_grows_when_a_wait_fills_it_and_stops_at_its_bound() {
        let mut queue = Queue::new().unwrap();
        let mut ends = Vec::new();
        for token in 0..1100 {
            let (left, right) = std::os::unix::net::UnixDatagram::pair().unwrap();
            let watch = Watch {
                token,
                interest: Interest::WRITABLE,
                mode: Mode::Level,
            };
            match queue.add(left.as_raw_fd(), watch, None) {
                Ok(()) => ends.push((left, right)),
                Err(error) => panic!("{error}"),
            }
            if ends.len() * 2 + 256 > open_files_limit() {
                break;
            }
        }
        let mut sizes = Vec::new();
        for _ in 0..6 {
            queue.wait(Some(Duration::ZERO), || Duration::ZERO).unwrap();
            sizes.push(queue.filled);
            while queue.next().is_some() {}
        }
        let expected = [64, 128, 256, 512, 1024, 1024].map(|size: usize| size.min(ends.len()));
        assert_eq!(sizes, expected);
    }

    fn open_files_limit() -> usize {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let mut lines = limits.lines().filter_map(|line| line.strip_prefix("Max open files"));
        let soft = lines.next().unwrap().split_whitespace().next().unwrap();
        soft.parse().unwrap_or(usize::MAX)
    }
}
