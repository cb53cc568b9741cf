//! macOS and the BSDs: a kqueue of its own for each child, with `EVFILT_PROC`, is readable when the child ends; the loop's kqueue
//! watches it as any descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::Duration;

use crate::base::{Descriptor, Kevent};

#[derive(Debug)]
pub(in super::super) struct ExitFd(Descriptor);

impl ExitFd {
    pub(in super::super) fn open(pid: u32) -> io::Result<Option<Self>> {
        let kqueue = Descriptor::new()?;
        let mut change = Kevent::zeroed();
        change.0.ident = pid as _;
        change.0.filter = libc::EVFILT_PROC as _;
        change.0.flags = (libc::EV_ADD | libc::EV_ONESHOT) as _;
        change.0.fflags = libc::NOTE_EXIT as _;
        match kqueue.submit(change) {
            Ok(()) => Ok(Some(Self(kqueue))),
            // A process that is ending isn't found any more, on some of these systems.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(in super::super) fn reap(&self, child: &mut std::process::Child) -> io::Result<Option<ExitStatus>> {
        match self.0.wait(&mut [Kevent::zeroed()], Some(Duration::ZERO))? {
            0 => Ok(None),
            // It is told of a process that has begun to end: in a moment it is there to be reaped.
            _ => child.wait().map(Some),
        }
    }
}

impl AsFd for ExitFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
