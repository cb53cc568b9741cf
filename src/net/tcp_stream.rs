//! A TCP connection.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
#[cfg(target_os = "linux")]
use socket2::Protocol;
use socket2::SockRef;

use super::addr::{ToSocketAddrs, first_that_works};
use super::bytes::{send, send_vectored};
use super::socket::{connected, is_stream, socket, stream};
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::base::Backend;
use crate::home::Direction;
use crate::io::by_ref::{async_read_by_ref, async_write_by_ref};
use crate::io::{AsyncFd, Interest, Ready};

/// A TCP connection: `futures`' [`AsyncRead`] and [`AsyncWrite`], also by reference. Closing it for writing shuts the
/// writing side down.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Dropping it closes the connection. Methods that
/// don't wait may be called on any thread; their errors are the operating system's. Options beyond those here:
/// [see the module](super#options).
///
/// Urgent data cuts a read short: take it after [`ready`](TcpStream::ready) has told of it, with
/// [`Interest::PRIORITY`]. Taken before that, it may hide what came behind it until more comes.
///
/// # Examples
///
/// ```
/// use evbase::net::{TcpListener, TcpStream};
/// use futures::{AsyncReadExt, AsyncWriteExt};
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let mut client = TcpStream::connect(listener.local_addr()?).await?;
///     let (mut server, _) = listener.accept().await?;
///     client.write_all(b"hello").await?;
///     client.close().await?;
///     let mut text = String::new();
///     server.read_to_string(&mut text).await?;
///     assert_eq!(text, "hello");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TcpStream {
    pub(crate) fd: AsyncFd<mio::net::TcpStream>,
}

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// Cancel-safe: a connection that is being made is closed.
    ///
    /// # Errors
    ///
    /// That of the last address, or of the look-up of a name.
    pub async fn connect(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first_that_works(addrs, |addr| async move {
            Self::from_inner(mio::net::TcpStream::connect(addr)?, true)
                .connected()
                .await
        })
        .await
    }

    /// Connects a socket that is not connected yet: one that got its options, or its own address, before.
    ///
    /// Cancel-safe: a connection that is being made is closed.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`, and [of every `AsyncFd`](AsyncFd#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use evbase::net::{TcpListener, TcpStream};
    /// use socket2::{Domain, Socket, Type};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let server = listener.local_addr()?;
    ///
    ///     let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    ///     socket.set_recv_buffer_size(100_000)?;
    ///     let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
    ///     socket.bind(&here.into())?;
    ///     let client = TcpStream::connect_std(socket.into(), server).await?;
    ///     assert_eq!(client.peer_addr()?, server);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect_std(socket: std::net::TcpStream, addr: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        match SockRef::from(&socket).connect(&addr.into()) {
            // Interrupted by a signal, the attempt goes on.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => return Err(error),
            _ => {}
        }
        Self::from_nonblocking(socket).connected().await
    }

    /// Waits until the connection is there.
    async fn connected(self) -> io::Result<Self> {
        connected(
            &self.fd,
            mio::net::TcpStream::take_error,
            mio::net::TcpStream::peer_addr,
        )
        .await?;
        Ok(self)
    }

    /// `is_tcp`: it is what it should be, and not another kind of socket behind that type.
    pub(super) fn from_inner(stream: mio::net::TcpStream, is_tcp: bool) -> Self {
        Self {
            // kqueue doesn't report urgent data, which makes a read short.
            fd: AsyncFd::from_nonblocking(stream, is_tcp && Backend::default() == Backend::Epoll),
        }
    }

    fn from_nonblocking(stream: std::net::TcpStream) -> Self {
        let is_tcp = is_tcp(&stream);
        Self::from_inner(mio::net::TcpStream::from_std(stream), is_tcp)
    }

    /// Reads without taking what it reads; waits until there is something. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, and [of every `AsyncFd`](AsyncFd#errors).
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
    ///     let (server, _) = listener.accept().await?;
    ///     client.try_write(b"hello")?;
    ///     let mut buffer = [0; 5];
    ///     assert_eq!(server.peek(&mut buffer).await?, 5);
    ///     // It is still there.
    ///     assert_eq!(server.try_read(&mut buffer)?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.fd.read_with(|stream| stream.peek(buf)).await
    }

    /// As [`peek`](TcpStream::peek), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`peek`](TcpStream::peek).
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_io(Direction::Read, cx, |stream| stream.peek(buf))
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`: `NotConnected` after the connection was reset.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().peer_addr()
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.get_ref().nodelay()
    }

    /// Says whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.get_ref().set_nodelay(nodelay)
    }

    /// Whether the connection is probed while it is idle (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn keepalive(&self) -> io::Result<bool> {
        SockRef::from(self).keepalive()
    }

    /// Says whether the connection is probed while it is idle (`SO_KEEPALIVE`). How often: [see the module](super#options).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        SockRef::from(self).set_keepalive(keepalive)
    }

    /// What closing does with data that wasn't sent yet (`SO_LINGER`); see [`set_linger`](TcpStream::set_linger).
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Says what closing does with data that wasn't sent yet (`SO_LINGER`), in whole seconds. `None`, as from the start: the
    /// kernel goes on sending it, and closing doesn't wait. Zero: it is thrown away, and the connection reset. More than that
    /// makes the close, which is home's, **wait** so long: don't.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// The time to live of the packets it sends.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.fd.get_ref().ttl()
    }

    /// Sets the time to live of the packets it sends.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.fd.get_ref().set_ttl(ttl)
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.fd).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.fd).poll_read_vectored(cx, bufs)
    }
}

/// Whether a socket that somebody else has made is one of TCP. (Asked where the answer counts.)
pub(super) fn is_tcp(socket: &impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    let is_other = !matches!(SockRef::from(socket).protocol(), Ok(Some(Protocol::TCP)));
    #[cfg(not(target_os = "linux"))]
    let is_other = false;
    is_stream(socket) && !is_other
}

socket!(TcpStream, std::net::TcpStream, Self::from_nonblocking);
stream!(
    TcpStream,
    r#"    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let one = TcpStream::connect(listener.local_addr()?).await?;
    let (other, _) = listener.accept().await?;"#
);
