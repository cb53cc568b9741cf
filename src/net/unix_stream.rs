//! A connection through a Unix socket.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::bytes::{send, send_vectored};
use super::peer_cred::{UCred, peer_cred};
use super::socket::{connected, is_stream, socket, stream};
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::home::{Direction, coop};
use crate::io::by_ref::{async_read_by_ref, async_write_by_ref};
use crate::io::{AsyncFd, Interest, Ready};
#[cfg(target_os = "linux")]
use crate::io::{MOST_BUFFERS, MOST_BYTES};

/// A connection through a Unix socket: `futures`' [`AsyncRead`] and [`AsyncWrite`], also by reference. Closing it for writing
/// shuts the writing side down.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Dropping it closes the connection. Methods that
/// don't wait may be called on any thread; their errors are the operating system's. Options:
/// [see the module](super#options).
///
/// Urgent data cuts a read short: take it after [`ready`](UnixStream::ready) has told of it, with
/// [`Interest::PRIORITY`]. Taken before that, it may hide what came behind it until more comes.
///
/// # Examples
///
/// ```
/// use evbase::net::UnixStream;
/// use futures::{AsyncReadExt, AsyncWriteExt};
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let (mut one, mut other) = UnixStream::pair()?;
///     one.write_all(b"hello").await?;
///     one.close().await?;
///     let mut text = String::new();
///     other.read_to_string(&mut text).await?;
///     assert_eq!(text, "hello");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixStream {
    pub(crate) fd: AsyncFd<mio::net::UnixStream>,
    #[cfg(target_os = "linux")]
    is_stream: bool,
    /// The last read has filled its buffers, and the next one may: a guess, for the choice of a system call.
    #[cfg(target_os = "linux")]
    reads_are_full: AtomicBool,
}

impl UnixStream {
    /// Connects to the listener at that path. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`. If too many connections wait to be accepted, that is `WouldBlock` on Linux, which doesn't tell when
    /// there is room: wait a little, and try again.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::net::{UnixListener, UnixStream};
    ///
    /// let path = std::env::temp_dir().join(format!("evbase-connect-{}", std::process::id()));
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let listener = UnixListener::bind(&path)?;
    ///     let client = UnixStream::connect(&path).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     assert_eq!(server.peer_cred()?.pid, client.peer_cred()?.pid);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::connect_addr(&SocketAddr::from_pathname(path)?).await
    }

    /// Connects to the listener at that address, which may be a name of Linux's abstract namespace. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As for [`connect`](UnixStream::connect).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::os::linux::net::SocketAddrExt;
    /// use std::os::unix::net::SocketAddr;
    /// use evbase::net::{UnixListener, UnixStream};
    ///
    /// let name = SocketAddr::from_abstract_name(format!("evbase-{}", std::process::id()))?;
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let listener = UnixListener::bind_addr(&name)?;
    ///     let _client = UnixStream::connect_addr(&name).await?;
    ///     listener.accept().await?;
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect_addr(addr: &SocketAddr) -> io::Result<Self> {
        coop::unit().await;
        let stream = Self::from_inner(mio::net::UnixStream::connect_addr(addr)?, true);
        // On Linux it is always there at once.
        if stream.peer_addr().is_err() {
            connected(
                &stream.fd,
                mio::net::UnixStream::take_error,
                mio::net::UnixStream::peer_addr,
            )
            .await?;
        }
        Ok(stream)
    }

    /// Two that are connected with each other. On any thread.
    ///
    /// # Errors
    ///
    /// Those of `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = mio::net::UnixStream::pair()?;
        Ok((Self::from_inner(one, true), Self::from_inner(other, true)))
    }

    /// `is_stream`: it is what it should be, and not one of packets.
    pub(super) fn from_inner(stream: mio::net::UnixStream, is_stream: bool) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = is_stream;
        Self {
            // A short read is no proof here that there is no more: see `read_and_tell`.
            fd: AsyncFd::from_nonblocking(stream, false),
            #[cfg(target_os = "linux")]
            is_stream,
            #[cfg(target_os = "linux")]
            reads_are_full: AtomicBool::new(false),
        }
    }

    /// The address of this side; most often it has no name.
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
    /// Those of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().peer_addr()
    }

    /// Who the other side was when it connected, listened, or made the pair.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)` or `getpeereid(3)`.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        peer_cred(self.as_fd())
    }
}

impl AsyncRead for &UnixStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(cx, &mut [IoSliceMut::new(buf)])
    }

    #[cfg(target_os = "linux")]
    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = bufs.len().min(MOST_BUFFERS);
        let bufs = &mut bufs[..count];
        let asked_for = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MOST_BYTES);
        self.fd.poll_read_drained(cx, |mut socket| {
            // `recv` tells no more than how much it has read, but costs less.
            let (n, is_all) = match &mut *bufs {
                [buf] if self.reads_are_full.load(Relaxed) => (socket.read(buf)?, false),
                bufs => read_and_tell(socket.as_fd(), bufs)?,
            };
            let is_full = 0 < n && n == asked_for;
            self.reads_are_full.store(is_full, Relaxed);
            Ok((n, self.is_stream && is_all && 0 < n && !is_full))
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &self.fd).poll_read_vectored(cx, bufs)
    }
}

/// Reads; and says whether a read that didn't fill the buffers has left nothing in the kernel, unless its end or urgent data was
/// reported.
///
/// Linux goes from one packet of bytes to the next until the buffers are full or the queue is empty, but stops behind a packet that
/// came with descriptors, and, with `SO_PASSCRED` and its like, before one from another sender (`unix_stream_read_generic`). In
/// all these cases there is ancillary data, for which there is no room here: `MSG_CTRUNC` says so. Descriptors that come along are
/// closed, as `read(2)` does.
#[cfg(target_os = "linux")]
fn read_and_tell(socket: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<(usize, bool)> {
    // SAFETY: all zeroes are a `msghdr`: null pointers, and nothing behind them. A literal can't be: its padding is private.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bufs.as_mut_ptr().cast();
    message.msg_iovlen = bufs.len() as _;
    // SAFETY: the descriptor is borrowed for the call. An `IoSliceMut` is an `iovec` to memory that is borrowed mutably for the
    // call, which is the only one that the kernel writes to: there are so many of them.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    Ok((n, message.msg_flags & libc::MSG_CTRUNC == 0))
}

socket!(UnixStream, std::os::unix::net::UnixStream, |stream| {
    let is_stream = is_stream(&stream);
    Self::from_inner(mio::net::UnixStream::from_std(stream), is_stream)
});
stream!(UnixStream, "    let (one, other) = UnixStream::pair()?;");
