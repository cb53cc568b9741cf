//! `poll(2)`: a look at a few descriptors, or a wait for them, beside the queue.

#[cfg(feature = "net")]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// `poll`, exact where it can be, and else not too short.
#[cfg(target_os = "linux")]
pub(super) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> libc::c_int {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        // A `c_long`, but for one platform.
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel reads the timeout, and reads and writes the slice, during the call. No signal mask.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, std::ptr::null()) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> libc::c_int {
    let milliseconds = timeout.map_or(-1, |timeout| {
        let whole = timeout.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(whole).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: the kernel reads and writes the slice during the call.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) }
}

/// Whether a write would find room, as far as the descriptor itself goes.
#[cfg(feature = "net")]
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fd = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    poll(std::slice::from_mut(&mut fd), Some(Duration::ZERO)) == 1
}
