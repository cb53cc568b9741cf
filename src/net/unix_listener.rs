//! A Unix socket that accepts connections.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::incoming::Incoming;
use super::socket::{is_stream, listener, socket};
use super::unix_stream::UnixStream;
use crate::home::Direction;
use crate::io::AsyncFd;

/// A Unix socket that accepts connections.
///
/// Its errors and its home are those of every [`AsyncFd`]. Methods that don't wait may be called on any thread; their errors are
/// the operating system's. Dropping it leaves its path, which has to be removed before it can be bound to again.
///
/// # Examples
///
/// ```
/// use evbase::net::{UnixListener, UnixStream};
/// use futures::{AsyncReadExt, AsyncWriteExt};
///
/// let path = std::env::temp_dir().join(format!("evbase-listener-{}", std::process::id()));
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let listener = UnixListener::bind(&path)?;
///     let mut client = UnixStream::connect(&path).await?;
///     let (mut server, _) = listener.accept().await?;
///     client.write_all(b"hello").await?;
///     server.read_exact(&mut [0; 5]).await?;
///     Ok::<(), std::io::Error>(())
/// })??;
/// std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixListener {
    fd: AsyncFd<mio::net::UnixListener>,
}

impl UnixListener {
    /// Binds to a path, which it makes, and listens. Unlike a TCP socket's it doesn't wait, for there is no name to look up. On
    /// any thread.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`: `AddrInUse` if the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Binds to an address, which may be a name of Linux's abstract namespace, and listens; see
    /// [`UnixStream::connect_addr`].
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn bind_addr(addr: &SocketAddr) -> io::Result<Self> {
        mio::net::UnixListener::bind_addr(addr).map(|listener| Self::from_inner(listener, true))
    }

    /// `is_stream` as for [`UnixStream::from_inner`], of its connections.
    fn from_inner(listener: mio::net::UnixListener, is_stream: bool) -> Self {
        Self {
            fd: AsyncFd::from_nonblocking(listener, is_stream),
        }
    }
}

socket!(UnixListener, std::os::unix::net::UnixListener, |listener| {
    let is_stream = is_stream(&listener);
    Self::from_inner(mio::net::UnixListener::from_std(listener), is_stream)
});
listener!(
    UnixListener,
    UnixStream,
    SocketAddr,
    r#"    let path = std::env::temp_dir().join(format!("evbase-incoming-{}", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path).await?;
    std::fs::remove_file(&path)?;"#
);
