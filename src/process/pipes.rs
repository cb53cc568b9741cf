//! The pipes to and from a child.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use futures_io::AsyncWrite;

use crate::home::coop;
use crate::io::AsyncFd;
use crate::io::by_ref::async_read_by_ref;
use crate::io::set_nonblocking;

/// The pipe to a child's standard input: `futures`' [`AsyncWrite`]. Closing it, like dropping it, lets the child read its end.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]; writing to what nobody reads any more is `BrokenPipe`,
/// and so is writing to it after it was closed. A program that doesn't ignore `SIGPIPE`, as those written in Rust do, gets that signal,
/// too: it is a pipe. To hand it to another child, make a [`Stdio`] of it.
#[derive(Debug)]
pub struct ChildStdin {
    /// `None` once it is closed.
    fd: Option<AsyncFd<File>>,
}

impl ChildStdin {
    pub(super) fn new(pipe: impl Into<OwnedFd>) -> io::Result<Self> {
        let fd = AsyncFd::new(File::from(pipe.into()))?;
        Ok(Self { fd: Some(fd) })
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<io::Result<&AsyncFd<File>>> {
        match &self.fd {
            Some(fd) => Poll::Ready(Ok(fd)),
            None => coop::spend(cx).map(|()| Err(closed())),
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the pipe to the child's stdin was closed")
}

impl AsyncWrite for ChildStdin {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut ready!(self.poll_open(cx))?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut ready!(self.poll_open(cx))?).poll_write_vectored(cx, bufs)
    }

    /// A pipe has no buffer on this side.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd = None;
        Poll::Ready(Ok(()))
    }
}

impl TryFrom<ChildStdin> for Stdio {
    type Error = io::Error;

    /// The pipe, in blocking mode, for another child; or an error if it was closed, or on another thread than its home.
    fn try_from(stdin: ChildStdin) -> io::Result<Self> {
        into_stdio(stdin.fd.ok_or_else(closed)?)
    }
}

/// A pipe from a child.
macro_rules! output_pipe {
    ($name:ident, $stream:literal) => {
        #[doc = concat!("The pipe from a child's standard ", $stream, ": `futures`' [`AsyncRead`](futures_io::AsyncRead).")]
        ///
        /// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Dropping it closes it. To hand it to another
        /// child, make a [`Stdio`] of it.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::process::Stdio;
        /// use evbase::process::Command;
        ///
        /// let runtime = evbase::Runtime::new()?;
        /// runtime.block_on(async {
        ///     // echo hello | cat
        ///     let mut echo = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
        ///     let pipe = Stdio::try_from(echo.stdout.take().unwrap())?;
        ///     let cat = Command::new("cat").stdin(pipe).output().await?;
        ///     assert_eq!(cat.stdout, b"hello\n");
        ///     assert!(echo.wait().await?.success());
        ///     Ok::<(), std::io::Error>(())
        /// })??;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[derive(Debug)]
        pub struct $name {
            pub(crate) fd: AsyncFd<File>,
        }

        impl $name {
            pub(super) fn new(pipe: impl Into<OwnedFd>) -> io::Result<Self> {
                let fd = AsyncFd::new(File::from(pipe.into()))?;
                Ok(Self { fd })
            }
        }

        async_read_by_ref!([] $name, this => &this.fd);

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.as_raw_fd()
            }
        }

        impl TryFrom<$name> for Stdio {
            type Error = io::Error;

            /// The pipe, in blocking mode, for another child; or an error on another thread than its home.
            fn try_from(pipe: $name) -> io::Result<Self> {
                into_stdio(pipe.fd)
            }
        }
    };
}

output_pipe!(ChildStdout, "output");
output_pipe!(ChildStderr, "error");

fn into_stdio<T: AsFd + Into<Stdio>>(fd: AsyncFd<T>) -> io::Result<Stdio> {
    let pipe = fd.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    // The next child may know nothing of non-blocking mode.
    set_nonblocking(pipe.as_fd(), false)?;
    Ok(pipe.into())
}
