//! macOS and the BSDs: a kqueue of its own for each child, with `EVFILT_PROC`, is readable when the child ends; the loop's kqueue
//! watches it as any descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::process::ExitStatus;
use std::ptr;

use crate::base::fork::Birth;

#[derive(Debug)]
pub(in super::super) struct ExitFd {
    /// `None` only while dropping.
    kqueue: Option<OwnedFd>,
    birth: Birth,
}

impl ExitFd {
    pub(in super::super) fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::kqueue() };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let this = Self {
            // SAFETY: the kernel just made this descriptor for us, and nobody else knows its number.
            kqueue: Some(unsafe { OwnedFd::from_raw_fd(fd) }),
            birth: Birth::here(),
        };
        // SAFETY: `fd` is open, and is ours.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut change = zeroed();
        change.ident = pid as _;
        change.filter = libc::EVFILT_PROC as _;
        change.flags = (libc::EV_ADD | libc::EV_ONESHOT) as _;
        change.fflags = libc::NOTE_EXIT as _;
        // SAFETY: the kernel reads one change, which outlives the call, and writes no events, for there is room for none.
        let result = unsafe { libc::kevent(fd, &raw const change, 1, ptr::null_mut(), 0, ptr::null()) };
        if result >= 0 {
            return Ok(Some(this));
        }
        match io::Error::last_os_error() {
            // "All changes in the changelist have been applied", kqueue(2) says.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(Some(this)),
            // A process that is ending isn't found any more, on some of these systems.
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            error => Err(error),
        }
    }

    pub(in super::super) fn reap(&self, child: &mut std::process::Child) -> io::Result<Option<ExitStatus>> {
        let mut event = zeroed();
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let fd = self.as_fd().as_raw_fd();
        // SAFETY: the kernel writes one event at most, to the local, and reads the timeout; both outlive the call.
        let count = unsafe { libc::kevent(fd, ptr::null(), 0, &raw mut event, 1, &raw const at_once) };
        match count {
            0 => Ok(None),
            // It is told of a process that has begun to end: in a moment it is there to be reaped.
            1 => child.wait().map(Some),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for ExitFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue
            .as_ref()
            .expect("evbase: the kqueue is there until the drop")
            .as_fd()
    }
}

impl Drop for ExitFd {
    fn drop(&mut self) {
        if self.birth.is_child() {
            // Not inherited: the number is free, or another file's.
            let _ = self.kqueue.take().map(OwnedFd::into_raw_fd);
        }
    }
}

fn zeroed() -> libc::kevent {
    // SAFETY: a `struct kevent` is integers and a pointer (and reserved integers), for all of which zero is valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
