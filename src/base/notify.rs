//! [`Notifier`]: ends the wait of a base, from any thread.
//!
//! ```text
//!   abroad, signal handlers                        home
//!   Notifier::notify ── write(2) ──> [ fd ] ──> the kernel queue ──> the turn returns, `notified`
//! ```
//!
//! The descriptor is an eventfd on Linux: registered edge-triggered and never read by a turn, since each write
//! raises a fresh edge, even if the counter isn't zero. Everywhere else, and where there is no eventfd, it is a
//! pair of sockets: registered level-triggered, and emptied by the base.
//!
//! Invariants:
//! * [`Notifier::notify`] is async-signal-safe: it takes no lock, allocates nothing, and keeps `errno`.
//! * Both sockets of a pair live as long as any handle, so that a late write meets neither EPIPE nor another file.
//! * In the child of a fork [`Notifier::notify`] doesn't write: the descriptor is the parent's, too.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::fork::Birth;
use super::interest::Mode;
use super::poll::poll;

/// Wakes an [`EventBase`](super::EventBase) that waits in a turn. From any thread, and from a signal handler.
///
/// Made by [`EventBase::notifier`](super::EventBase::notifier). It may outlive the base, and then does nothing.
///
/// ```
/// use evbase::base::EventBase;
///
/// # fn main() -> std::io::Result<()> {
/// let mut base = EventBase::<()>::new()?;
/// let notifier = base.notifier();
/// let abroad = std::thread::spawn(move || notifier.notify());
/// // Without a timeout, without a source and without a timer: only the notifier can end this.
/// while !base.turn(None, |_| {})?.notified {}
/// abroad.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Notifier(Arc<Wire>);

/// The descriptors, shared by the base and all handles. Files, even if they are sockets: for their plain `read` and `write`.
struct Wire {
    read: File,
    /// `None`: an eventfd, which is both ends in one.
    write: Option<File>,
    birth: Birth,
}

/// How often a full eventfd is emptied, or a write tried that the kernel had no memory for, before the notifier gives up.
const ATTEMPTS: usize = 16;

impl Notifier {
    /// Makes the descriptors.
    pub(crate) fn new() -> io::Result<Notifier> {
        let (read, write) = match eventfd()? {
            Some(eventfd) => (eventfd, None),
            None => socket_pair().map(|(read, write)| (read, Some(write)))?,
        };
        Ok(Notifier(Arc::new(Wire {
            read,
            write,
            birth: Birth::here(),
        })))
    }

    /// Ends the wait of the turn that is running, or else of the next one.
    ///
    /// Several calls before a turn may be reported by it as one. To pass data along, publish it first, through an
    /// atomic or a lock, and then notify: the turn that this ends comes after it.
    ///
    /// Never blocks. It is async-signal-safe, and leaves `errno` as it was. In the child of a `fork`, it does nothing
    /// and answers `Ok`.
    ///
    /// # Errors
    ///
    /// What `write(2)` reports. On a descriptor that nobody else tampers with, that is nothing; where there is no eventfd, a lack of
    /// memory for sockets.
    pub fn notify(&self) -> io::Result<()> {
        let wire = &*self.0;
        if wire.birth.is_child() {
            return Ok(());
        }
        let saved = errno();
        let result = match &wire.write {
            Some(socket) => write_socket(socket),
            None => write_eventfd(&wire.read),
        };
        set_errno(saved);
        result
    }

    /// The descriptor for the base to watch for reading, and how.
    pub(super) fn watched(&self) -> (RawFd, Mode) {
        let mode = if self.0.write.is_some() {
            Mode::Level
        } else {
            Mode::Edge
        };
        (self.0.read.as_raw_fd(), mode)
    }

    /// Has the next `wait` ignore earlier calls. The base may report them all the same.
    pub(crate) fn clear(&self) {
        match self.0.write {
            Some(_) => self.acknowledge(),
            None => drop(read(&self.0.read, &mut [0; 8])),
        }
    }

    /// Waits without a base: until `notify` is called, unless it was since the last `clear`; until `timeout` has passed; or until
    /// a signal handler has run.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fd = libc::pollfd {
            fd: self.0.read.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        if poll(std::slice::from_mut(&mut fd), timeout) < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        match fd.revents & libc::POLLNVAL != 0 {
            // Other code in this process has closed it.
            true => Err(io::Error::from_raw_os_error(libc::EBADF)),
            false => Ok(()),
        }
    }

    /// Another descriptor of the reading end, for whoever waits by itself. It is in non-blocking mode, and can be read after each
    /// `notify` until it is empty.
    pub(crate) fn reader(&self) -> io::Result<File> {
        self.0.read.try_clone()
    }

    /// Called by the base when the descriptor was reported: a socket that isn't emptied would be reported for ever.
    pub(super) fn acknowledge(&self) {
        if self.0.write.is_none() {
            return;
        }
        let mut sink = [0_u8; 256];
        // Until it is empty, which an error or a short read says.
        while read(&self.0.read, &mut sink).is_ok_and(|count| count == sink.len()) {}
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.write {
            Some(_) => "socket pair",
            None => "eventfd",
        };
        f.debug_struct("Notifier")
            .field("kind", &kind)
            .field("fd", &self.0.read.as_raw_fd())
            .finish()
    }
}

/// Async-signal-safe.
fn write_socket(socket: &File) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        match write(socket, &[1]) {
            Ok(()) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // Full: the base has more than enough to wake up for.
                Some(libc::EAGAIN) => return Ok(()),
                // The kernel has no memory for a byte at the moment.
                Some(libc::ENOBUFS | libc::ENOMEM) if attempts < ATTEMPTS => attempts += 1,
                _ => return Err(error),
            },
        }
    }
}

/// Async-signal-safe.
fn write_eventfd(eventfd: &File) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        match write(eventfd, &1_u64.to_ne_bytes()) {
            Ok(()) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The counter is at its maximum, so this write has raised no edge: empty it, and try again. If several callers
                // do so at once, each of them writes.
                Some(libc::EAGAIN) if attempts < ATTEMPTS => {
                    attempts += 1;
                    let _ = read(eventfd, &mut [0; 8]);
                }
                _ => return Err(error),
            },
        }
    }
}

/// Async-signal-safe: std makes one system call of it, and allocates nothing for an error.
fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    // Neither a socket nor an eventfd takes only a part of so few bytes.
    file.write(bytes).map(drop)
}

/// Async-signal-safe, as well.
fn read(mut file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    file.read(bytes)
}

/// An eventfd, or `None` where there is no such thing.
#[cfg(all(target_os = "linux", not(evbase_libkqueue), not(evbase_pipe_notify)))]
fn eventfd() -> io::Result<Option<File>> {
    // SAFETY: takes no pointers, and makes a descriptor.
    let made = unsafe { super::sys::new_descriptor(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) };
    match made {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        made => made.map(File::from).map(Some),
    }
}

#[cfg(not(all(target_os = "linux", not(evbase_libkqueue), not(evbase_pipe_notify))))]
fn eventfd() -> io::Result<Option<File>> {
    Ok(None)
}

/// Two sockets that are connected, both of them non-blocking and closed on exec.
fn socket_pair() -> io::Result<(File, File)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    Ok((OwnedFd::from(read).into(), OwnedFd::from(write).into()))
}

fn errno() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

fn set_errno(value: libc::c_int) {
    // SAFETY: the location is this thread's own, and is there for as long as the thread is. A signal handler that interrupts
    // this restores what it finds.
    unsafe { *errno_location() = value }
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_location;
#[cfg(target_os = "linux")]
use libc::__errno_location as errno_location;
#[cfg(target_os = "dragonfly")]
use libc::__errno_location as errno_location;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as errno_location;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notifier_is_send_sync_and_clone() {
        fn check<N: Clone + Send + Sync + 'static>() {}
        check::<Notifier>();
    }

    #[test]
    fn notify_keeps_errno() {
        let notifier = Notifier::new().unwrap();
        set_errno(libc::EXDEV);
        notifier.notify().unwrap();
        assert_eq!(errno(), libc::EXDEV);
        fill(&notifier);
        set_errno(libc::EXDEV);
        notifier.notify().unwrap();
        assert_eq!(errno(), libc::EXDEV);
    }

    /// Brings the descriptor to the point where it takes nothing more.
    fn fill(notifier: &Notifier) {
        match &notifier.0.write {
            Some(socket) => while write(socket, &[0]).is_ok() {},
            None => {
                let eventfd = &notifier.0.read;
                let _ = read(eventfd, &mut [0; 8]);
                write(eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
                assert!(write(eventfd, &1_u64.to_ne_bytes()).is_err());
            }
        }
    }

    #[test]
    fn a_full_descriptor_still_wakes() {
        let mut base = super::super::EventBase::<()>::new().unwrap();
        let notifier = base.notifier();
        fill(&notifier);
        // Take the edge that filling it has raised, so that only a fresh one can end the wait below. A socket is
        // emptied by that, and is filled again.
        assert!(base.turn(None, |_| {}).unwrap().notified);
        if notifier.0.write.is_some() {
            fill(&notifier);
        }
        notifier.notify().unwrap();
        let turned = base.turn(Some(Duration::from_secs(20)), |_| {});
        assert!(turned.unwrap().notified);
    }

    #[test]
    fn a_wait_ends_when_it_is_used_and_not_for_what_was_before() {
        let notifier = Notifier::new().unwrap();
        for _ in 0..2 {
            notifier.notify().unwrap();
            notifier.clear();
            // Nothing to see but the time.
            let start = std::time::Instant::now();
            notifier.wait(Some(Duration::from_millis(2))).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(2));
            notifier.notify().unwrap();
            notifier.wait(None).unwrap();
        }
    }

    #[test]
    fn a_notification_is_reported_once() {
        let mut base = super::super::EventBase::<()>::new().unwrap();
        let notifier = base.notifier();
        for _ in 0..3 {
            notifier.notify().unwrap();
            notifier.notify().unwrap();
            assert!(base.turn(None, |_| {}).unwrap().notified);
            assert!(!base.turn(Some(Duration::ZERO), |_| {}).unwrap().notified);
        }
    }
}
