//! tokio's [`AsyncRead`] and [`AsyncWrite`] for sockets, a child's pipes and descriptors, so that they go where those are asked for: codecs,
//! TLS, `tokio::io`'s own adapters. Nothing of tokio's runtime comes with them.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{AsyncFd, uninit};
use crate::process::{ChildStderr, ChildStdin, ChildStdout};

/// `AsyncRead` for a type, by an expression for the descriptor that it reads from, and what reads from it.
macro_rules! async_read {
    ($type:ty, $this:ident => $fd:expr, $read:path) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                let $this = &*self;
                poll_read_uninit($fd, cx, buf, $read)
            }
        }
    };
}

fn poll_read_uninit<T: AsFd>(
    fd: &AsyncFd<T>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    read: impl FnMut(BorrowedFd<'_>, &mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> Poll<io::Result<()>> {
    // SAFETY: the kernel writes to this memory, and nobody uninitialises it.
    let unfilled = unsafe { buf.unfilled_mut() };
    let n = ready!(fd.poll_read_uninit(cx, unfilled, read))?;
    // SAFETY: so many bytes were read, which initialised them.
    unsafe { buf.assume_init(n) };
    buf.advance(n);
    Poll::Ready(Ok(()))
}

/// `AsyncWrite` for a type that has the one of `futures`.
macro_rules! async_write {
    ([$($generics:tt)*] $type:ty $(, where $($bounds:tt)*)?) => {
        impl<$($generics)*> AsyncWrite for $type $(where $($bounds)*)? {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                futures_io::AsyncWrite::poll_write(self, cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                futures_io::AsyncWrite::poll_write_vectored(self, cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                futures_io::AsyncWrite::poll_flush(self, cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                futures_io::AsyncWrite::poll_close(self, cx)
            }
        }
    };
}

impl<T> AsyncRead for AsyncFd<T>
where
    T: AsFd,
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What `T` reads isn't always what its descriptor has, and it may look at the buffer.
        let n = ready!(futures_io::AsyncRead::poll_read(self, cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

async_write!([T] AsyncFd<T>, where T: AsFd, for<'a> &'a T: Write);

async_read!(ChildStdout, pipe => &pipe.fd, uninit::read);
async_read!(ChildStderr, pipe => &pipe.fd, uninit::read);
async_write!([] ChildStdin);

#[cfg(feature = "net")]
mod sockets {
    use super::*;
    use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, UnixStream, WriteHalf, recv};

    async_read!(TcpStream, stream => &stream.fd, recv);
    async_read!(ReadHalf<'_, TcpStream>, half => &half.as_ref().fd, recv);
    async_read!(OwnedReadHalf<TcpStream>, half => &half.as_ref().fd, recv);
    async_read!(UnixStream, stream => &stream.fd, recv);
    async_read!(ReadHalf<'_, UnixStream>, half => &half.as_ref().fd, recv);
    async_read!(OwnedReadHalf<UnixStream>, half => &half.as_ref().fd, recv);
    async_write!([] TcpStream);
    async_write!([] UnixStream);
    async_write!([S] WriteHalf<'_, S>, where for<'a> &'a S: futures_io::AsyncWrite);
    async_write!([S] OwnedWriteHalf<S>, where for<'a> &'a S: futures_io::AsyncWrite);
}
