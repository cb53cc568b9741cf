//! Linux: a pidfd is readable when its process has ended (`pidfd_open(2)`, Linux 5.3).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitStatus;

#[derive(Debug)]
pub(in super::super) struct ExitFd(OwnedFd);

impl ExitFd {
    pub(in super::super) fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: takes no pointer. It is closed on exec.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else knows its number.
        Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })))
    }

    pub(in super::super) fn reap(&self, child: &mut std::process::Child) -> io::Result<Option<ExitStatus>> {
        child.try_wait()
    }
}

impl AsFd for ExitFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
