//! [`ReadyGuard`]: what a wait for readiness gives.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::AsyncFd;
use super::error::TryIoError;
use super::registration::Source;
use crate::runtime::{Direction, Ready, Seen};

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
    read: Option<Seen>,
    write: Option<Seen>,
}

impl<'a, T> ReadyGuard<'a, T> {
    pub(super) fn new(fd: &'a AsyncFd<T>) -> Self {
        Self {
            fd,
            read: None,
            write: None,
        }
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

    /// The ways in which the descriptor was found ready, without those that were cleared through this guard.
    pub fn ready(&self) -> Ready {
        let ready = |seen: Option<Seen>| seen.map_or(Ready::EMPTY, |seen| seen.ready);
        ready(self.read) | ready(self.write)
    }

    /// The object that is ready.
    pub fn get_ref(&self) -> &'a AsyncFd<T> {
        self.fd
    }

    /// Says that the descriptor isn't ready any more: call it only after an operation has answered `WouldBlock`. Any event that
    /// came since the guard was made stays.
    pub fn clear_ready(&mut self) {
        self.clear(self.ready());
    }

    /// As [`clear_ready`](ReadyGuard::clear_ready), for some of the ways only.
    pub fn clear_ready_matching(&mut self, ready: Ready) {
        self.clear(ready);
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

    fn clear(&mut self, ready: Ready) {
        let Some(&Source { ref owner, key }) = self.fd.registration().source() else {
            return;
        };
        for (direction, seen) in [(Direction::Read, &mut self.read), (Direction::Write, &mut self.write)] {
            let Some(seen) = seen else {
                continue;
            };
            let cleared = *seen;
            owner.at_home(move |home| home.clear(key, direction, cleared, ready));
            seen.ready = seen.ready.without(ready);
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
