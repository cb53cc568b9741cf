//! The two sides of a TCP connection, for two tasks or two owners.

use std::error::Error;
use std::fmt;
use std::net::Shutdown;
use std::sync::Arc;

use super::tcp_stream::TcpStream;
use crate::io::by_ref::{async_read_by_ref, async_write_by_ref};

/// The reading side of a [`TcpStream`], borrowed; made by [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a TcpStream);

/// The writing side of a [`TcpStream`], borrowed; made by [`TcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a TcpStream);

/// The reading side of a [`TcpStream`], owned; made by [`TcpStream::into_split`].
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
///     let (reader, writer) = client.into_split();
///     let client: TcpStream = reader.reunite(writer).unwrap();
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<TcpStream>);

/// The writing side of a [`TcpStream`], owned; made by [`TcpStream::into_split`]. Dropping it shuts the writing side down.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<TcpStream>,
    shut_down_on_drop: bool,
}

pub(super) fn split(stream: &mut TcpStream) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf(stream), WriteHalf(stream))
}

pub(super) fn into_split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let stream = Arc::new(stream);
    let writer = OwnedWriteHalf {
        stream: stream.clone(),
        shut_down_on_drop: true,
    };
    (OwnedReadHalf(stream), writer)
}

impl AsRef<TcpStream> for ReadHalf<'_> {
    fn as_ref(&self) -> &TcpStream {
        self.0
    }
}

impl AsRef<TcpStream> for WriteHalf<'_> {
    fn as_ref(&self) -> &TcpStream {
        self.0
    }
}

impl AsRef<TcpStream> for OwnedReadHalf {
    fn as_ref(&self) -> &TcpStream {
        &self.0
    }
}

impl AsRef<TcpStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &TcpStream {
        &self.stream
    }
}

impl OwnedReadHalf {
    /// Puts the two halves of one connection together again.
    ///
    /// # Errors
    ///
    /// If they are of two connections; both come back.
    pub fn reunite(self, writer: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        reunite(self, writer)
    }
}

impl OwnedWriteHalf {
    /// Puts the two halves of one connection together again.
    ///
    /// # Errors
    ///
    /// If they are of two connections; both come back.
    pub fn reunite(self, reader: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        reunite(reader, self)
    }

    /// Drops the half without shutting the writing side down.
    pub fn forget(mut self) {
        self.shut_down_on_drop = false;
    }
}

fn reunite(reader: OwnedReadHalf, writer: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
    if !Arc::ptr_eq(&reader.0, &writer.stream) {
        return Err(ReuniteError(reader, writer));
    }
    writer.forget();
    Ok(Arc::try_unwrap(reader.0).expect("evbase: a connection has two halves, and both are here"))
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shut_down_on_drop {
            // An error says that the connection has ended.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}

/// The two halves given to `reunite` are of two connections; here they are.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are of two connections")
    }
}

impl Error for ReuniteError {}

async_read_by_ref!([] ReadHalf<'_>, half => half.as_ref());
async_read_by_ref!([] OwnedReadHalf, half => half.as_ref());
async_write_by_ref!([] WriteHalf<'_>, half => half.as_ref());
async_write_by_ref!([] OwnedWriteHalf, half => half.as_ref());
