//! Linux: a pidfd is readable when its process has ended (`pidfd_open(2)`, Linux 5.3).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;

use crate::base::new_descriptor;

#[derive(Debug)]
pub(in super::super) struct ExitFd(OwnedFd);

impl ExitFd {
    pub(in super::super) fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: takes no pointer, and makes a descriptor, which is closed on exec.
        let fd = unsafe {
            let answer = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
            new_descriptor(answer as libc::c_int)
        };
        fd.map(Self).map(Some)
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
