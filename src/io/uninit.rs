//! Reads into memory that nobody has initialised: for the callers of hyper's and tokio's traits, who would otherwise have it
//! filled with zeroes before each read.

use std::io;
use std::mem::MaybeUninit;
#[cfg(feature = "tokio")]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use super::AsyncFd;

impl<T: AsFd> AsyncFd<T> {
    /// Calls `read`, past `T`'s own `Read`, which initialises as many bytes at the front of its buffer as it says.
    pub(crate) fn poll_read_uninit(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [MaybeUninit<u8>],
        mut read: impl FnMut(BorrowedFd<'_>, &mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // No system reads more at once; what it would read less is not to be taken for the end of what there is.
        let len = buf.len().min(MOST);
        self.poll_read_some(len, cx, |io| read(io.as_fd(), &mut buf[..len]))
    }
}

const MOST: usize = 1 << 30;

/// Reads from any descriptor.
#[cfg(feature = "tokio")]
pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: the descriptor is borrowed, and the memory belongs to this thread, for the length of the call; the kernel only
    // writes to it.
    let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
