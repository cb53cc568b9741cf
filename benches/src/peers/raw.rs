//! The limit for what needs no tasks: epoll, and nothing else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> Self {
        // SAFETY: a new descriptor, which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))) };
        Self {
            fd,
            events: Vec::with_capacity(1024),
        }
    }

    /// Watches a descriptor for reading, level-triggered.
    pub fn add(&self, fd: RawFd, token: usize) {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token);
    }

    /// The same, edge-triggered: for a stream that is read until a read is short, or an eventfd that nobody needs to read.
    pub fn add_edge(&self, fd: RawFd, token: usize) {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLET, token);
    }

    pub fn remove(&self, fd: RawFd) {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: usize) {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token as u64,
        };
        // SAFETY: the event is ours; the kernel copies it.
        checked(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) });
    }

    /// Waits, and returns the tokens of what is ready. A timeout in nanoseconds; `None` waits for ever.
    pub fn wait(&mut self, timeout: Option<u64>) -> impl Iterator<Item = usize> {
        let capacity = self.events.capacity() as i32;
        let timeout = timeout.map(|nanoseconds| libc::timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        });
        // SAFETY: the buffer has room for so many events; the kernel says how many it has written.
        unsafe {
            let n = libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                capacity,
                timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
                ptr::null::<libc::sigset_t>(),
                8_usize,
            );
            self.events.set_len(checked(n as i32) as usize);
        }
        self.events.iter().map(|event| event.u64 as usize)
    }
}

pub struct Eventfd(OwnedFd);

impl Eventfd {
    pub fn new() -> Self {
        // SAFETY: a new descriptor, which nobody else owns.
        Self(unsafe { OwnedFd::from_raw_fd(checked(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))) })
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn ring(&self) {
        assert_eq!(write(self.fd(), &1_u64.to_ne_bytes()), 8, "write to an eventfd");
    }
}

/// What read(2) returns.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> isize {
    // SAFETY: the buffer is ours, and as long as it says.
    unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) }
}

/// What write(2) returns.
pub fn write(fd: RawFd, buffer: &[u8]) -> isize {
    // SAFETY: the buffer is ours, and as long as it says.
    unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) }
}

/// A non-blocking connection; negative if there is none.
pub fn accept(listener: RawFd) -> RawFd {
    // SAFETY: no address is asked for.
    unsafe {
        libc::accept4(
            listener,
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    }
}

fn checked(result: i32) -> i32 {
    assert!(result >= 0, "a system call: {}", io::Error::last_os_error());
    result
}
