//! The error types that are not an `io::Error`.

use std::error::Error;
use std::fmt;
use std::io;
use std::thread::ThreadId;

use super::AsyncFd;

/// The descriptor is registered with a runtime of another thread, and can't be had here: [`AsyncFd::into_inner`] gives the object
/// back.
pub struct IntoInnerError<T> {
    fd: AsyncFd<T>,
    home: ThreadId,
}

impl<T> IntoInnerError<T> {
    pub(super) fn new(fd: AsyncFd<T>, home: ThreadId) -> Self {
        Self { fd, home }
    }

    /// The thread on which it can be had.
    pub fn home(&self) -> ThreadId {
        self.home
    }

    /// The object, as it was.
    pub fn into_inner(self) -> AsyncFd<T> {
        self.fd
    }
}

impl<T> fmt::Debug for IntoInnerError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoInnerError")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for IntoInnerError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the descriptor is registered with the runtime of {:?}, which alone can give it back; this is {:?}",
            self.home,
            std::thread::current().id()
        )
    }
}

impl<T> Error for IntoInnerError<T> {}

/// The descriptor can't be set to non-blocking mode: [`AsyncFd::try_new`] gives it back.
///
/// Its [`source`](Error::source) is what the operating system said.
pub struct TryNewError<T> {
    io: T,
    source: io::Error,
}

impl<T> TryNewError<T> {
    pub(super) fn new(io: T, source: io::Error) -> Self {
        Self { io, source }
    }

    /// What was to be watched, as it was.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T> fmt::Debug for TryNewError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryNewError")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for TryNewError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the descriptor can't be set to non-blocking mode; it is given back")
    }
}

impl<T> Error for TryNewError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl<T> From<TryNewError<T>> for io::Error {
    fn from(error: TryNewError<T>) -> Self {
        error.source
    }
}

/// The operation of [`ReadyGuard::try_io`](super::ReadyGuard::try_io) would block; readiness was cleared. Wait for it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryIoError(pub(super) ());

impl fmt::Display for TryIoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operation would block")
    }
}

impl Error for TryIoError {}
