//! A TCP socket that accepts connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::addr::{ToSocketAddrs, first_that_works};
use super::tcp_stream::TcpStream;
use crate::io::AsyncFd;
use crate::runtime::Direction;

/// A TCP socket that accepts connections.
///
/// Its errors and its home are those of every [`AsyncFd`]. Methods that don't wait may be called on any thread; their errors are
/// the operating system's.
///
/// # Examples
///
/// ```
/// use evbase::net::{TcpListener, TcpStream};
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (server, peer) = listener.accept().await?;
///     assert_eq!(peer, client.local_addr()?);
///     assert_eq!(server.local_addr()?, client.peer_addr()?);
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TcpListener {
    fd: AsyncFd<mio::net::TcpListener>,
}

impl TcpListener {
    /// Binds to the first of the addresses that works, with `SO_REUSEADDR`, and listens.
    ///
    /// # Errors
    ///
    /// That of the last address (`AddrInUse` if its port is taken), or of the look-up of a name.
    pub async fn bind(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first_that_works(addrs, |addr| async move {
            mio::net::TcpListener::bind(addr).map(Self::from_mio)
        })
        .await
    }

    fn from_mio(listener: mio::net::TcpListener) -> Self {
        Self {
            fd: AsyncFd::from_nonblocking(listener, false),
        }
    }

    /// Takes a listener of the standard library's, and sets it to non-blocking mode. On any thread.
    ///
    /// # Errors
    ///
    /// What the operating system says to that.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::from_mio(mio::net::TcpListener::from_std(listener)))
    }

    /// Gives it back as one of the standard library's, in non-blocking mode.
    ///
    /// # Errors
    ///
    /// As for [`AsyncFd::into_inner`], on another thread than its home: the error names both, and the listener is closed.
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        into_std(self.fd)
    }

    /// Waits for a connection. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`, and [of every `AsyncFd`](AsyncFd#errors). An error leaves the listener usable: `EMFILE`, too many open files, comes again until some are
    /// closed, so wait a little before the next call; errors of a single connection (`ECONNABORTED`) need no wait.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.fd.read_with(mio::net::TcpListener::accept).await?;
        Ok((TcpStream::from_mio(stream), peer))
    }

    /// As [`accept`](TcpListener::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.fd
            .poll_io(Direction::Read, cx, mio::net::TcpListener::accept)
            .map_ok(|(stream, peer)| (TcpStream::from_mio(stream), peer))
    }

    /// The connections, as a stream that never ends; errors as for [`accept`](TcpListener::accept).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::net::{TcpListener, TcpStream};
    /// use futures::StreamExt;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let server = listener.incoming().next().await.unwrap()?;
    ///     assert_eq!(server.peer_addr()?, client.local_addr()?);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    /// The time to live of the packets it sends.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.get_ref().ttl()
    }

    /// Sets the time to live of the packets it sends.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.fd.get_ref().set_ttl(ttl)
    }

    /// Takes the pending error of the socket, if there is one.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.fd.get_ref().take_error()
    }
}

/// Takes a socket out of its loop, and gives it back as one of the standard library's.
pub(super) fn into_std<T, S: From<T>>(fd: AsyncFd<T>) -> io::Result<S> {
    fd.into_inner()
        .map(S::from)
        .map_err(|error| io::Error::other(error.to_string()))
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        Self::from_std(listener)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fd.get_ref().fmt(f)
    }
}

/// The stream of [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Stream for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = self.listener.poll_accept(cx);
        accepted.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}
