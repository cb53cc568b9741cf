//! The two sides of a connection, for two tasks or two owners.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures_io::{AsyncRead, AsyncWrite};

use super::TcpStream;
use crate::io::by_ref::{async_read_by_ref, async_write_by_ref};

/// The reading side of a connection, borrowed; made by [`TcpStream::split`] and
/// [`UnixStream::split`](super::UnixStream::split).
#[derive(Debug)]
pub struct ReadHalf<'a, S = TcpStream>(&'a S);

/// The writing side of a connection, borrowed; made by [`TcpStream::split`] and
/// [`UnixStream::split`](super::UnixStream::split).
#[derive(Debug)]
pub struct WriteHalf<'a, S = TcpStream>(&'a S);

/// The reading side of a connection, owned; made by [`TcpStream::into_split`] and
/// [`UnixStream::into_split`](super::UnixStream::into_split).
///
/// What else the connection can do, `as_ref` gives: it is the connection.
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
///     assert_eq!(reader.as_ref().peer_addr()?, listener.local_addr()?);
///     let client: TcpStream = reader.reunite(writer).unwrap();
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OwnedReadHalf<S = TcpStream>(Arc<S>);

/// The writing side of a connection, owned; made by [`TcpStream::into_split`] and
/// [`UnixStream::into_split`](super::UnixStream::into_split). Dropping it shuts the writing side down.
#[derive(Debug)]
pub struct OwnedWriteHalf<S = TcpStream> {
    stream: Arc<S>,
    /// What a drop does; `None` if it shall do nothing.
    shut_down: Option<fn(&S)>,
}

pub(super) fn split<S>(stream: &mut S) -> (ReadHalf<'_, S>, WriteHalf<'_, S>) {
    (ReadHalf(stream), WriteHalf(stream))
}

pub(super) fn into_split<S>(stream: S, shut_down: fn(&S)) -> (OwnedReadHalf<S>, OwnedWriteHalf<S>) {
    let stream = Arc::new(stream);
    let writer = OwnedWriteHalf {
        stream: stream.clone(),
        shut_down: Some(shut_down),
    };
    (OwnedReadHalf(stream), writer)
}

impl<S> AsRef<S> for ReadHalf<'_, S> {
    fn as_ref(&self) -> &S {
        self.0
    }
}

impl<S> AsRef<S> for WriteHalf<'_, S> {
    fn as_ref(&self) -> &S {
        self.0
    }
}

impl<S> AsRef<S> for OwnedReadHalf<S> {
    fn as_ref(&self) -> &S {
        &self.0
    }
}

impl<S> AsRef<S> for OwnedWriteHalf<S> {
    fn as_ref(&self) -> &S {
        &self.stream
    }
}

impl<S> OwnedReadHalf<S> {
    /// Puts the two halves of one connection together again.
    ///
    /// # Errors
    ///
    /// If they are of two connections; both come back.
    pub fn reunite(self, writer: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
        reunite(self, writer)
    }
}

impl<S> OwnedWriteHalf<S> {
    /// Puts the two halves of one connection together again.
    ///
    /// # Errors
    ///
    /// If they are of two connections; both come back.
    pub fn reunite(self, reader: OwnedReadHalf<S>) -> Result<S, ReuniteError<S>> {
        reunite(reader, self)
    }

    /// Drops the half without shutting the writing side down.
    pub fn forget(mut self) {
        self.shut_down = None;
    }
}

fn reunite<S>(reader: OwnedReadHalf<S>, writer: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
    if !Arc::ptr_eq(&reader.0, &writer.stream) {
        return Err(ReuniteError(reader, writer));
    }
    writer.forget();
    Ok(Arc::into_inner(reader.0).expect("evbase: a connection has two halves, and both are here"))
}

impl<S> Drop for OwnedWriteHalf<S> {
    fn drop(&mut self) {
        if let Some(shut_down) = self.shut_down {
            shut_down(&self.stream);
        }
    }
}

/// The two halves given to `reunite` are of two connections; here they are.
#[derive(Debug)]
pub struct ReuniteError<S = TcpStream>(pub OwnedReadHalf<S>, pub OwnedWriteHalf<S>);

impl<S> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are of two connections")
    }
}

impl<S: fmt::Debug> Error for ReuniteError<S> {}

async_read_by_ref!([S] ReadHalf<'_, S>, half => half.as_ref(), where for<'a> &'a S: AsyncRead);
async_read_by_ref!([S] OwnedReadHalf<S>, half => half.as_ref(), where for<'a> &'a S: AsyncRead);
async_write_by_ref!([S] WriteHalf<'_, S>, half => half.as_ref(), where for<'a> &'a S: AsyncWrite);
async_write_by_ref!([S] OwnedWriteHalf<S>, half => half.as_ref(), where for<'a> &'a S: AsyncWrite);
