//! A host of an event loop, by `poll(2)`.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use evbase::{Embedded, Turn};

/// Whether the descriptor is readable, or becomes so within that time.
pub(crate) fn readable_within<T: AsFd>(fd: &T, longest: Duration) -> bool {
    let mut fd = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid element.
    unsafe { libc::poll(&mut fd, 1, longest.as_millis() as i32) == 1 }
}

/// Waits until an embedded runtime wants its turn, and gives it that.
#[track_caller]
pub(crate) fn turn_when_readable(embedded: &Embedded) -> Turn {
    assert!(readable_within(embedded, Duration::from_secs(10)));
    embedded.turn().unwrap()
}
