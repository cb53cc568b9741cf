//! [`Incoming`]: connections as a stream.

use super::TcpListener;

/// The stream of [`TcpListener::incoming`] and [`UnixListener::incoming`](super::UnixListener::incoming).
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a, L = TcpListener> {
    listener: &'a L,
}

impl<'a, L> Incoming<'a, L> {
    pub(super) fn of(listener: &'a L) -> Self {
        Self { listener }
    }

    pub(super) fn listener(&self) -> &'a L {
        self.listener
    }
}
