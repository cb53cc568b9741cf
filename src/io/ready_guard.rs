//! [`ReadyGuard`] and [`ReadyMutGuard`]: what a wait for readiness gives.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::AsyncFd;
use super::error::TryIoError;
use super::registration::{Registration, Source};
use crate::home::{Direction, Ready, Seen};

/// Readiness that was found; whoever learns that it is over says so through this.
///
/// Readiness is kept until an operation answers `WouldBlock`: run the operation in [`try_io`](ReadyGuard::try_io), which
/// sees to that, or call [`clear_ready`](ReadyGuard::clear_ready) when it does. Readiness that came since this guard was
/// made is never cleared by it. Dropping the guard keeps all readiness.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use evbase::io::AsyncFd;
///
/// let runtime = evbase::Runtime::new()?;
/// let (reader, mut writer) = std::io::pipe()?;
/// runtime.block_on(async {
///     let reader = AsyncFd::new(reader)?;
///     writer.write_all(b"hello")?;
///     let mut buffer = [0; 16];
///     let mut guard = reader.readable().await?;
///     assert!(guard.ready().is_readable());
///     let read = guard.try_io(|reader| reader.get_ref().read(&mut buffer));
///     assert_eq!(read.unwrap()?, 5);
///     // Dropping the guard has cleared nothing: as far as is known, there may be more.
///     drop(guard);
///     let mut guard = reader.readable().await?;
///     assert!(guard.try_io(|reader| reader.get_ref().read(&mut buffer)).is_err());
///     assert!(!guard.ready().is_readable());
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "readiness is kept until `try_io` or `clear_ready` finds that it is over"]
pub struct ReadyGuard<'a, T> {
    fd: &'a AsyncFd<T>,
    found: Found,
}

/// As [`ReadyGuard`], of a wait that has the descriptor to itself, as a `T` that is read by `&mut` needs it.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use evbase::io::AsyncFd;
///
/// /// Reads through a buffer, and so by `&mut` only.
/// struct Lines(BufReader<std::io::PipeReader>);
///
/// impl AsFd for Lines {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.get_ref().as_fd()
///     }
/// }
///
/// let runtime = evbase::Runtime::new()?;
/// let (reader, mut writer) = std::io::pipe()?;
/// runtime.block_on(async {
///     let mut lines = AsyncFd::new(Lines(BufReader::new(reader)))?;
///     writer.write_all(b"hello\n")?;
///     let mut line = String::new();
///     let mut guard = lines.readable_mut().await?;
///     let read = guard.try_io(|lines| lines.get_mut().0.read_line(&mut line));
///     assert_eq!((read.unwrap()?, line.as_str()), (6, "hello\n"));
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "readiness is kept until `try_io` or `clear_ready` finds that it is over"]
pub struct ReadyMutGuard<'a, T> {
    fd: &'a mut AsyncFd<T>,
    found: Found,
}

/// The readiness that a guard has found, and not cleared, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    read: Option<Seen>,
    write: Option<Seen>,
}

impl Found {
    pub(super) fn one(direction: Direction, seen: Seen, wanted: Ready) -> Self {
        let mut found = Self::default();
        found.add(direction, seen, wanted);
        found
    }

    /// Adds the readiness of one direction, as far as it was wanted.
    pub(super) fn add(&mut self, direction: Direction, seen: Seen, wanted: Ready) {
        let mut seen = seen;
        seen.ready = seen.ready.and(wanted);
        match direction {
            Direction::Read => self.read = Some(seen),
            Direction::Write => self.write = Some(seen),
        }
    }

    fn ready(&self) -> Ready {
        let ready = |seen: Option<Seen>| seen.map_or(Ready::EMPTY, |seen| seen.ready);
        ready(self.read) | ready(self.write)
    }

    /// Clears these ways of being ready, unless an event came since.
    pub(super) fn clear(&mut self, registration: &Registration, ready: Ready) {
        let Some(&Source { ref owner, key }) = registration.source() else {
            return;
        };
        let clear = |direction, seen: &mut Option<Seen>| {
            if let Some(seen) = seen.as_mut().filter(|seen| !seen.ready.and(ready).is_empty()) {
                let cleared = *seen;
                owner.at_home(move |home| home.clear(key, direction, cleared, ready));
                seen.ready = seen.ready.without(ready);
            }
        };
        clear(Direction::Read, &mut self.read);
        clear(Direction::Write, &mut self.write);
    }

    pub(super) fn clear_all(&mut self, registration: &Registration) {
        self.clear(registration, self.ready());
    }
}

impl<'a, T> ReadyGuard<'a, T> {
    pub(super) fn new(fd: &'a AsyncFd<T>, found: Found) -> Self {
        Self { fd, found }
    }

    /// The ways in which the descriptor was found ready, without those that were cleared through this guard.
    pub fn ready(&self) -> Ready {
        self.found.ready()
    }

    /// The object that is ready.
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.fd
    }

    /// Says that the descriptor isn't ready any more: call it only after an operation has answered `WouldBlock`. Any event that
    /// came since the guard was made stays.
    pub fn clear_ready(&mut self) {
        self.found.clear_all(self.fd.registration());
    }

    /// As [`clear_ready`](ReadyGuard::clear_ready), for some of the ways only.
    pub fn clear_ready_matching(&mut self, ready: Ready) {
        self.found.clear(self.fd.registration(), ready);
    }

    /// Says that the descriptor is still ready, as dropping the guard does: it is here to be explicit.
    pub fn retain_ready(&mut self) {}

    /// Runs an operation that doesn't block. If it answers `WouldBlock`, readiness is cleared, and the outer result says
    /// so: wait again.
    ///
    /// # Errors
    ///
    /// The outer one is [`TryIoError`], for `WouldBlock`; the inner one is any other error of the operation.
    pub fn try_io<R>(
        &mut self,
        operation: impl FnOnce(&'a AsyncFd<T>) -> io::Result<R>,
    ) -> Result<io::Result<R>, TryIoError> {
        match operation(self.fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear_ready();
                Err(TryIoError(()))
            }
            result => Ok(result),
        }
    }
}

impl<'a, T> ReadyMutGuard<'a, T> {
    pub(super) fn new(fd: &'a mut AsyncFd<T>, found: Found) -> Self {
        Self { fd, found }
    }

    /// As [`ReadyGuard::ready`].
    pub fn ready(&self) -> Ready {
        self.found.ready()
    }

    /// The object that is ready.
    pub fn get_ref(&self) -> &AsyncFd<T> {
        self.fd
    }

    /// The object that is ready.
    pub fn get_mut(&mut self) -> &mut AsyncFd<T> {
        self.fd
    }

    /// As [`ReadyGuard::clear_ready`].
    pub fn clear_ready(&mut self) {
        self.found.clear_all(self.fd.registration());
    }

    /// As [`ReadyGuard::clear_ready_matching`].
    pub fn clear_ready_matching(&mut self, ready: Ready) {
        self.found.clear(self.fd.registration(), ready);
    }

    /// As [`ReadyGuard::retain_ready`].
    pub fn retain_ready(&mut self) {}

    /// As [`ReadyGuard::try_io`]; the operation has the object to itself.
    ///
    /// # Errors
    ///
    /// The outer one is [`TryIoError`], for `WouldBlock`; the inner one is any other error of the operation.
    pub fn try_io<R>(
        &mut self,
        operation: impl FnOnce(&mut AsyncFd<T>) -> io::Result<R>,
    ) -> Result<io::Result<R>, TryIoError> {
        match operation(self.fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.clear_ready();
                Err(TryIoError(()))
            }
            result => Ok(result),
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for ReadyGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyGuard")
            .field("ready", &self.ready())
            .field("fd", self.fd)
            .finish()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for ReadyMutGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyMutGuard")
            .field("ready", &self.ready())
            .field("fd", self.fd)
            .finish()
    }
}
