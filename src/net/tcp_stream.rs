//! A TCP connection.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::addr::{ToSocketAddrs, first_that_works};
use super::tcp_listener::into_std;
use super::tcp_split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::base::Backend;
use crate::io::by_ref::{async_read_by_ref, async_write_by_ref};
use crate::io::{AsyncFd, Interest, Ready};
use crate::runtime::Direction;

/// A TCP connection: `futures`' [`AsyncRead`] and [`AsyncWrite`], also by reference. Closing it for writing shuts the
/// writing side down.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Dropping it closes the connection. Methods that
/// don't wait may be called on any thread; their errors are the operating system's.
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
    fd: AsyncFd<mio::net::TcpStream>,
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
            let stream = Self::from_mio(mio::net::TcpStream::connect(addr)?);
            loop {
                let mut ready = stream.fd.writable().await?;
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                match stream.peer_addr() {
                    Ok(_) => break,
                    // A spurious wake-up. (With the error flag it has failed, and the error was taken elsewhere.)
                    Err(error) if error.kind() == io::ErrorKind::NotConnected && !ready.ready().is_error() => {
                        ready.clear_ready();
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(stream)
        })
        .await
    }

    pub(super) fn from_mio(stream: mio::net::TcpStream) -> Self {
        Self {
            // kqueue doesn't report urgent data, which makes a read short.
            fd: AsyncFd::from_nonblocking(stream, Backend::default() == Backend::Epoll),
        }
    }

    /// Takes a connection of the standard library's, and sets it to non-blocking mode. On any thread.
    ///
    /// # Errors
    ///
    /// What the operating system says to that.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::from_mio(mio::net::TcpStream::from_std(stream)))
    }

    /// Gives it back as one of the standard library's, in non-blocking mode.
    ///
    /// # Errors
    ///
    /// As for [`AsyncFd::into_inner`], on another thread than its home: the error names both, and the connection is
    /// closed.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        into_std(self.fd)
    }

    /// Two halves that borrow the connection, one to read and one to write.
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
    ///     let (server, _) = listener.accept().await?;
    ///     // An echo.
    ///     evbase::spawn_local(async move { futures::io::copy(&server, &mut &server).await });
    ///     let (mut reader, mut writer) = client.split();
    ///     let mut buffer = [0; 5];
    ///     futures::try_join!(writer.write_all(b"hello"), reader.read_exact(&mut buffer))?;
    ///     assert_eq!(&buffer, b"hello");
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        tcp_split::split(self)
    }

    /// Two halves that own the connection together. Dropping the writing half shuts the writing side down.
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
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     let (reader, mut writer) = client.into_split();
    ///     evbase::spawn_local(async move { writer.write_all(b"hello").await });
    ///     let (mut text, mut server) = (String::new(), server);
    ///     server.read_to_string(&mut text).await?;
    ///     assert_eq!(text, "hello");
    ///     drop(reader);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        tcp_split::into_split(self)
    }

    /// Waits until there is something to be read, or the end, or an error. Cancel-safe; see [`ready`](TcpStream::ready).
    pub async fn readable(&self) -> io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    /// Waits until there is room to write, or an error. Cancel-safe; see [`ready`](TcpStream::ready).
    pub async fn writable(&self) -> io::Result<()> {
        self.fd.writable().await.map(drop)
    }

    /// Waits until the connection is ready in one of the ways of `interest`, or closed in that direction, or an error is there
    /// to be had; says in which.
    ///
    /// It is ready until an operation finds that it isn't: follow this up by [`try_read`](TcpStream::try_read),
    /// [`try_write`](TcpStream::try_write) or [`try_io`](TcpStream::try_io), which see to that.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::io::Interest;
    /// use evbase::net::{TcpListener, TcpStream};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     assert_eq!(client.try_write(b"hello")?, 5);
    ///     let mut buffer = [0; 16];
    ///     let n = loop {
    ///         let ready = server.ready(Interest::READABLE | Interest::PRIORITY).await?;
    ///         assert!(ready.is_readable());
    ///         match server.try_read(&mut buffer) {
    ///             Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
    ///             read => break read?,
    ///         }
    ///     };
    ///     assert_eq!(&buffer[..n], b"hello");
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        Ok(self.fd.ready(interest).await?.ready())
    }

    /// Reads what is there, at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.fd.try_io(Interest::READABLE, |mut stream| stream.read(buf))
    }

    /// Writes what there is room for, at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.fd.try_io(Interest::WRITABLE, |mut stream| stream.write(buf))
    }

    /// Runs a system call of the caller's on this connection, which must not block; see [`AsyncFd::try_io`].
    ///
    /// # Errors
    ///
    /// Those of the operation, `WouldBlock` among them.
    pub fn try_io<R>(&self, interest: Interest, mut operation: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        self.fd.try_io(interest, |_| operation())
    }

    /// Reads without taking what it reads; waits until there is something. Cancel-safe.
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

    /// As [`peek`](TcpStream::peek).
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_io(Direction::Read, cx, |stream| stream.peek(buf))
    }

    /// Shuts one side down, or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.fd.get_ref().shutdown(how)
    }

    /// The address of this side.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    /// The address of the other side.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().peer_addr()
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    pub fn nodelay(&self) -> io::Result<bool> {
        self.fd.get_ref().nodelay()
    }

    /// Says whether small writes are sent at once (`TCP_NODELAY`).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.fd.get_ref().set_nodelay(nodelay)
    }

    /// Whether the connection is probed while it is idle (`SO_KEEPALIVE`).
    pub fn keepalive(&self) -> io::Result<bool> {
        let mut on: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open while `self` lives; the option is an int, and both pointers are to locals.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_KEEPALIVE,
                (&raw mut on).cast(),
                &mut len,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(on != 0)
    }

    /// Says whether the connection is probed while it is idle (`SO_KEEPALIVE`).
    pub fn set_keepalive(&self, keepalive: bool) -> io::Result<()> {
        let on = libc::c_int::from(keepalive);
        // SAFETY: as in `keepalive`; the pointer is to a local, which is copied.
        let result = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_KEEPALIVE,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
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

impl AsyncRead for &TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_read_some(buf.len(), cx, |mut stream| stream.read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.fd).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_io(Direction::Write, cx, |mut stream| stream.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.fd).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match self.shutdown(Shutdown::Write) {
            // The other side has closed the connection.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut_down => Poll::Ready(shut_down),
        }
    }
}

async_read_by_ref!([] TcpStream, this => &*this);
async_write_by_ref!([] TcpStream, this => &*this);

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        Self::from_std(stream)
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fd.get_ref().fmt(f)
    }
}
