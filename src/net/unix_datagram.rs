//! A Unix socket for datagrams.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{self as std_unix, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::peer_cred::{UCred, peer_cred};
use super::socket::{datagram, socket};
use crate::base::is_writable;
use crate::home::{Direction, coop, is_virtual};
use crate::io::{AsyncFd, Interest, Ready};
use crate::time::timeout;

/// A Unix socket for datagrams, which come in order, and whole. All methods take `&self`: any number of tasks may use it at once.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Methods that don't wait may be called on any
/// thread; their errors are the operating system's. Dropping it leaves its path, if it has one. Options:
/// [see the module](super#options).
///
/// # Examples
///
/// ```
/// use evbase::net::UnixDatagram;
///
/// let path = std::env::temp_dir().join(format!("evbase-datagram-{}", std::process::id()));
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let server = UnixDatagram::bind(&path)?;
///     let client = UnixDatagram::unbound()?;
///     client.send_to(b"hello", &path).await?;
///     let mut buffer = [0; 16];
///     let (n, sender) = server.recv_from(&mut buffer).await?;
///     assert_eq!(&buffer[..n], b"hello");
///     assert!(sender.is_unnamed());
///     Ok::<(), std::io::Error>(())
/// })??;
/// std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixDatagram {
    // Not mio's, which knows no abstract names to send to.
    fd: AsyncFd<std_unix::UnixDatagram>,
}

/// Of a receiver's room, Linux tells those who are connected with it, and those whose datagrams it has taken (`unix_dgram_poll`,
/// `sock_wfree`). Others look again after pauses from the shortest to the longest, each twice as long as the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl UnixDatagram {
    /// Binds to a path, which it makes. Doesn't wait; on any thread.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`: `AddrInUse` if the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Binds to an address, which may be a name of Linux's abstract namespace.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<Self> {
        mio::net::UnixDatagram::bind_addr(addr).map(Self::from_mio)
    }

    /// One without an address, to send with.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn unbound() -> io::Result<Self> {
        mio::net::UnixDatagram::unbound().map(Self::from_mio)
    }

    /// Two that are connected with each other.
    ///
    /// # Errors
    ///
    /// Those of `socketpair(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::net::UnixDatagram;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let (one, other) = UnixDatagram::pair()?;
    ///     one.send(b"hello").await?;
    ///     let mut buffer = [0; 16];
    ///     assert_eq!(other.recv(&mut buffer).await?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = mio::net::UnixDatagram::pair()?;
        Ok((Self::from_mio(one), Self::from_mio(other)))
    }

    fn from_mio(socket: mio::net::UnixDatagram) -> Self {
        Self::from_inner(socket.into())
    }

    fn from_inner(socket: std_unix::UnixDatagram) -> Self {
        Self {
            fd: AsyncFd::from_nonblocking(socket, false),
        }
    }

    /// Connects the socket with the one at that path: from now on [`send`](UnixDatagram::send) sends there, and, unless it is
    /// connected elsewhere, it receives from there only. Doesn't wait; on any thread.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.fd.get_ref().connect(path)
    }

    /// As [`connect`](UnixDatagram::connect), with an address, which may be a name of Linux's abstract namespace.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn connect_addr(&self, addr: &SocketAddr) -> io::Result<()> {
        self.fd.get_ref().connect_addr(addr)
    }

    /// Sends a datagram to the socket at that path; says how many bytes. Waits while there is no room. Cancel-safe: a future that is
    /// dropped before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`, and [of every `AsyncFd`](AsyncFd#errors).
    pub async fn send_to(&self, buf: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.send_to_addr(buf, &SocketAddr::from_pathname(path)?).await
    }

    /// As [`send_to`](UnixDatagram::send_to), to an address, which may be a name of Linux's abstract namespace.
    /// Cancel-safe as well.
    ///
    /// # Errors
    ///
    /// As for [`send_to`](UnixDatagram::send_to).
    pub async fn send_to_addr(&self, buf: &[u8], addr: &SocketAddr) -> io::Result<usize> {
        let first = {
            let mut send = pin!(self.fd.write_with(|socket| socket.send_to_addr(buf, addr)));
            poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx))).await
        };
        if let Poll::Ready(sent) = first {
            return sent;
        }
        // That would try again at each event, and at nothing else.
        let mut pause = SHORTEST_PAUSE;
        loop {
            coop::unit().await;
            match self
                .fd
                .try_io(Interest::WRITABLE, |socket| socket.send_to_addr(buf, addr))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent,
            }
            // Virtual time must not jump to the end of a pause, which is nobody's deadline.
            if is_virtual() {
                self.room().await?;
            } else if let Ok(failed) = timeout(pause, self.room()).await {
                failed?;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// An attempt to send has found no room: waits for an event that may tell of some.
    async fn room(&self) -> io::Result<()> {
        // If this socket has room, the receiver has none. Linux finds out when it has allocated the datagram, and frees that: so
        // each attempt comes with an event that tells of nothing. (In virtual time, without pauses, each event counts, and the loop
        // looks again and again.)
        if is_writable(self.as_fd()) && !is_virtual() {
            self.fd.writable().await?.clear_ready();
        }
        self.fd.writable().await.map(drop)
    }

    /// As [`send_to`](UnixDatagram::send_to), for futures written by hand; but it takes no pauses: while the receiver is full, Linux
    /// answers each attempt by an event of room in this socket, and the task is polled again and again. With
    /// [`connect`](UnixDatagram::connect) and [`poll_send`](UnixDatagram::poll_send) it isn't.
    ///
    /// # Errors
    ///
    /// As for [`send_to`](UnixDatagram::send_to).
    pub fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], path: impl AsRef<Path>) -> Poll<io::Result<usize>> {
        let path = path.as_ref();
        self.fd
            .poll_io(Direction::Write, cx, |socket| socket.send_to(buf, path))
    }

    /// As [`send_to`](UnixDatagram::send_to), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room, and those of `sendto(2)`.
    pub fn try_send_to(&self, buf: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let path = path.as_ref();
        self.fd.try_io(Interest::WRITABLE, |socket| socket.send_to(buf, path))
    }

    /// Waits for a datagram; says how long it is and who sent it. What doesn't fit into `buf` is lost. Cancel-safe: a future that is
    /// dropped before it is ready has taken nothing.
    ///
    /// # Errors
    ///
    /// Those of `recvfrom(2)`, and [of every `AsyncFd`](AsyncFd#errors).
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.read_with(|socket| socket.recv_from(buf)).await
    }

    /// As [`recv_from`](UnixDatagram::recv_from), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`recv_from`](UnixDatagram::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.fd.poll_io(Direction::Read, cx, |socket| socket.recv_from(buf))
    }

    /// As [`recv_from`](UnixDatagram::recv_from), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing, and those of `recvfrom(2)`.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.try_io(Interest::READABLE, |socket| socket.recv_from(buf))
    }

    /// Shuts one side down, or both.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.fd.get_ref().shutdown(how)
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    /// The address that it is connected with.
    ///
    /// # Errors
    ///
    /// `NotConnected` if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().peer_addr()
    }

    /// Who made the other one of a [`pair`](UnixDatagram::pair).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)` or `getpeereid(3)`: the kernel may know nothing of others than pairs.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        peer_cred(self.as_fd())
    }
}

socket!(UnixDatagram, std_unix::UnixDatagram, Self::from_inner);
datagram!(UnixDatagram, "    let (one, other) = UnixDatagram::pair()?;");
