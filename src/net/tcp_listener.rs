//! A TCP socket that accepts connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::addr::{ToSocketAddrs, first_that_works};
use super::incoming::Incoming;
use super::socket::{listener, socket};
use super::tcp_stream::{TcpStream, is_tcp};
use crate::home::Direction;
use crate::io::AsyncFd;

/// A TCP socket that accepts connections.
///
/// Its errors and its home are those of every [`AsyncFd`]. Methods that don't wait may be called on any thread; their errors are
/// the operating system's. Options beyond those here: [see the module](super#options).
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
    /// Binds to the first of the addresses that works, with `SO_REUSEADDR`, and listens: 128 connections may wait to be accepted.
    /// With another number, or other options: [see the module](super#options). Cancel-safe: a future that is dropped before it is ready
    /// has bound nothing.
    ///
    /// # Errors
    ///
    /// That of the last address (`AddrInUse` if its port is taken), or of the look-up of a name.
    pub async fn bind(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first_that_works(addrs, |addr| async move {
            mio::net::TcpListener::bind(addr).map(|listener| Self::from_inner(listener, true))
        })
        .await
    }

    /// `is_stream` as for [`TcpStream::from_inner`], of its connections.
    fn from_inner(listener: mio::net::TcpListener, is_stream: bool) -> Self {
        Self {
            fd: AsyncFd::from_nonblocking(listener, is_stream),
        }
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

socket!(TcpListener, std::net::TcpListener, |listener| {
    let is_tcp = is_tcp(&listener);
    Self::from_inner(mio::net::TcpListener::from_std(listener), is_tcp)
});
listener!(
    TcpListener,
    TcpStream,
    SocketAddr,
    r#"    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;"#
);
