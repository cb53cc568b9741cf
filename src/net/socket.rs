//! What the sockets have in common, written once: macros over `AsyncFd<inner socket>`.
//!
//! Each type has a field `fd`. `$from_std` makes it of a non-blocking socket of the standard library's. Its module imports what is
//! named here.
//! `$made` are lines of an example that make two connected sockets, `one` and `other`.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockRef, Type};

use crate::io::AsyncFd;

/// Whether a socket that somebody else has made is one for bytes, of which a short read may tell that the kernel has no more. One of
/// packets may be behind the same type of the standard library's.
pub(super) fn is_stream(socket: &impl AsFd) -> bool {
    let socket = SockRef::from(socket);
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}

/// Of every socket: in from the standard library and out to it, the pending error, the descriptor.
macro_rules! socket {
    ($type:ident, $std:ty, $from_std:expr) => {
        impl $type {
            /// Takes a socket of the standard library's, and sets it to non-blocking mode. On any thread.
            ///
            /// # Errors
            ///
            /// What the operating system says to that.
            pub fn from_std(socket: $std) -> io::Result<Self> {
                socket.set_nonblocking(true)?;
                Ok($from_std(socket))
            }

            /// Gives it back as one of the standard library's, in non-blocking mode.
            ///
            /// # Errors
            ///
            /// As for [`AsyncFd::into_inner`], on another thread than its home: the error names both, and the socket is
            /// closed.
            pub fn into_std(self) -> io::Result<$std> {
                $crate::net::socket::into_inner(self.fd).map(<$std>::from)
            }

            /// Takes the pending error of the socket (`SO_ERROR`), if there is one.
            ///
            /// # Errors
            ///
            /// Those of `getsockopt(2)`.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.fd.get_ref().take_error()
            }
        }

        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.as_raw_fd()
            }
        }

        impl TryFrom<$std> for $type {
            type Error = io::Error;

            fn try_from(socket: $std) -> io::Result<Self> {
                Self::from_std(socket)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.fd.get_ref().fmt(f)
            }
        }
    };
}

/// Of what is read and written: the waits for that.
macro_rules! readiness {
    ($type:ident, $try_read:literal, $try_write:literal, $made:literal) => {
        impl $type {
            /// Waits until there is something to be read, or the end, or an error. Cancel-safe; see
            #[doc = concat!("[`ready`](", stringify!($type), "::ready).")]
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub async fn readable(&self) -> io::Result<()> {
                self.fd.readable().await.map(drop)
            }

            /// Waits until there is room to write, or an error. Cancel-safe; see
            #[doc = concat!("[`ready`](", stringify!($type), "::ready).")]
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub async fn writable(&self) -> io::Result<()> {
                self.fd.writable().await.map(drop)
            }

            /// Waits until the socket is ready in one of the ways of `interest`, or closed in that direction, or an error is
            /// there to be had; says in which. Cancel-safe.
            ///
            /// It is ready until an operation finds that it isn't: follow this up by
            #[doc = concat!("[`", $try_read, "`](", stringify!($type), "::", $try_read, "),")]
            #[doc = concat!("[`", $try_write, "`](", stringify!($type), "::", $try_write, ") or")]
            #[doc = concat!("[`try_io`](", stringify!($type), "::try_io),")]
            /// which see to that.
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            ///
            /// # Examples
            ///
            /// ```
            /// use evbase::io::Interest;
            /// use evbase::net::*;
            ///
            /// let runtime = evbase::Runtime::new()?;
            /// runtime.block_on(async {
            #[doc = $made]
            #[doc = concat!("    assert_eq!(one.", $try_write, "(b\"hello\")?, 5);")]
            ///     let mut buffer = [0; 16];
            ///     let n = loop {
            ///         let ready = other.ready(Interest::READABLE).await?;
            ///         assert!(ready.is_readable());
            #[doc = concat!("        match other.", $try_read, "(&mut buffer) {")]
            ///             // It was not ready after all: wait again.
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

            /// Runs a system call of the caller's on this socket, which must not block; see [`AsyncFd::try_io`].
            ///
            /// # Errors
            ///
            /// Those of the operation, `WouldBlock` among them.
            pub fn try_io<R>(&self, interest: Interest, mut operation: impl FnMut() -> io::Result<R>) -> io::Result<R> {
                self.fd.try_io(interest, |_| operation())
            }
        }
    };
}

/// Of streams of bytes: the halves, `AsyncWrite`, and the forms of it and of `AsyncRead` that don't wait.
macro_rules! stream {
    ($type:ident, $made:literal) => {
        $crate::net::socket::readiness!($type, "try_read", "try_write", $made);

        impl $type {
            /// As
            #[doc = concat!("[`readable`](", stringify!($type), "::readable),")]
            /// for futures written by hand; see [`AsyncFd`] for how many tasks may wait like this.
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.fd.poll_read_ready(cx).map_ok(drop)
            }

            /// As
            #[doc = concat!("[`writable`](", stringify!($type), "::writable),")]
            /// for futures written by hand; see [`AsyncFd`] for how many tasks may wait like this.
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.fd.poll_write_ready(cx).map_ok(drop)
            }

            /// Reads what is there, at once. From any thread. `Ok(0)` is the end.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is nothing, and those of `read(2)`.
            pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.fd.try_io(Interest::READABLE, |mut socket| socket.read(buf))
            }

            /// As
            #[doc = concat!("[`try_read`](", stringify!($type), "::try_read),")]
            /// into several buffers.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is nothing, and those of `readv(2)`.
            pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.fd.try_io(Interest::READABLE, |mut socket| socket.read_vectored(bufs))
            }

            /// Writes what there is room for, at once. From any thread.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is none, and those of `send(2)`.
            pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
                self.fd.try_io(Interest::WRITABLE, |socket| send(socket, buf))
            }

            /// As
            #[doc = concat!("[`try_write`](", stringify!($type), "::try_write),")]
            /// from several buffers.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is no room, and those of `sendmsg(2)`.
            pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.fd.try_io(Interest::WRITABLE, |socket| send_vectored(socket, bufs))
            }

            /// Shuts one side down, or both. From any thread.
            ///
            /// # Errors
            ///
            /// Those of `shutdown(2)`: `NotConnected` if the other side has closed the connection, on some systems.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.fd.get_ref().shutdown(how)
            }

            /// Two halves that borrow the connection, one to read and one to write.
            ///
            /// # Examples
            ///
            /// ```
            /// use evbase::net::*;
            /// use futures::{AsyncReadExt, AsyncWriteExt};
            ///
            /// let runtime = evbase::Runtime::new()?;
            /// runtime.block_on(async {
            #[doc = $made]
            ///     // An echo.
            ///     evbase::spawn_local(async move { futures::io::copy(&other, &mut &other).await });
            ///     let mut one = one;
            ///     // Not `one.split()`, which is that of `AsyncReadExt` here.
            #[doc = concat!("    let (mut reader, mut writer) = ", stringify!($type), "::split(&mut one);")]
            ///     let mut buffer = [0; 5];
            ///     futures::try_join!(writer.write_all(b"hello"), reader.read_exact(&mut buffer))?;
            ///     assert_eq!(&buffer, b"hello");
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn split(&mut self) -> (ReadHalf<'_, Self>, WriteHalf<'_, Self>) {
                split::split(self)
            }

            /// Two halves that own the connection together. Dropping the writing half shuts the writing side down.
            ///
            /// # Examples
            ///
            /// ```
            /// use evbase::net::*;
            /// use futures::{AsyncReadExt, AsyncWriteExt};
            ///
            /// let runtime = evbase::Runtime::new()?;
            /// runtime.block_on(async {
            #[doc = $made]
            ///     let (reader, mut writer) = one.into_split();
            ///     evbase::spawn_local(async move { writer.write_all(b"hello").await });
            ///     let (mut text, mut other) = (String::new(), other);
            ///     other.read_to_string(&mut text).await?;
            ///     assert_eq!(text, "hello");
            ///     drop(reader);
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn into_split(self) -> (OwnedReadHalf<Self>, OwnedWriteHalf<Self>) {
                split::into_split(self, |stream| {
                    // An error says that the connection has ended.
                    let _ = stream.shutdown(Shutdown::Write);
                })
            }
        }

        impl AsyncWrite for &$type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.fd.poll_io(Direction::Write, cx, |socket| send(socket, buf))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.fd
                    .poll_io(Direction::Write, cx, |socket| send_vectored(socket, bufs))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.shutdown(Shutdown::Write) {
                    // The other side has closed the connection.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
                    shut_down => Poll::Ready(shut_down),
                }
            }
        }

        async_read_by_ref!([] $type, this => &*this);
        async_write_by_ref!([] $type, this => &*this);
    };
}

/// Of datagram sockets: sending to and receiving from the peer that they are connected with.
macro_rules! datagram {
    ($type:ident, $made:literal) => {
        $crate::net::socket::readiness!($type, "try_recv", "try_send", $made);

        impl $type {
            /// Sends a datagram to the peer that the socket is connected with; says how many bytes. Waits while there is no
            /// room. Cancel-safe: a future that is dropped before it is ready has sent nothing.
            ///
            /// # Errors
            ///
            /// Those of `send(2)`: `NotConnected` or `DestinationAddressRequired` (`EDESTADDRREQ`) without a peer,
            /// `ConnectionRefused` if nobody is there; and [of every `AsyncFd`](AsyncFd#errors).
            pub async fn send(&self, buf: &[u8]) -> io::Result<usize> {
                self.fd.write_with(|socket| socket.send(buf)).await
            }

            /// As
            #[doc = concat!("[`send`](", stringify!($type), "::send),")]
            /// for futures written by hand.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`send`](", stringify!($type), "::send).")]
            pub fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.fd.poll_io(Direction::Write, cx, |socket| socket.send(buf))
            }

            /// As
            #[doc = concat!("[`send`](", stringify!($type), "::send),")]
            /// at once. From any thread.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is no room, and those of `send(2)`.
            pub fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
                self.fd.try_io(Interest::WRITABLE, |socket| socket.send(buf))
            }

            /// Waits for a datagram, from the peer if the socket is connected; says how long it is. What doesn't fit into `buf` is
            /// lost. Cancel-safe: a future that is dropped before it is ready has taken nothing.
            ///
            /// # Errors
            ///
            /// Those of `recv(2)`: `ConnectionRefused` if an earlier datagram found nobody; and
            /// [of every `AsyncFd`](AsyncFd#errors).
            pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.fd.read_with(|socket| socket.recv(buf)).await
            }

            /// As
            #[doc = concat!("[`recv`](", stringify!($type), "::recv),")]
            /// for futures written by hand.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`recv`](", stringify!($type), "::recv).")]
            pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
                self.fd.poll_io(Direction::Read, cx, |socket| socket.recv(buf))
            }

            /// As
            #[doc = concat!("[`recv`](", stringify!($type), "::recv),")]
            /// at once. From any thread.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is nothing, and those of `recv(2)`.
            pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.fd.try_io(Interest::READABLE, |socket| socket.recv(buf))
            }

            /// As
            #[doc = concat!("[`readable`](", stringify!($type), "::readable),")]
            /// for futures written by hand; see [`AsyncFd`] for how many tasks may wait like this.
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub fn poll_recv_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.fd.poll_read_ready(cx).map_ok(drop)
            }

            /// As
            #[doc = concat!("[`writable`](", stringify!($type), "::writable),")]
            /// for futures written by hand; see [`AsyncFd`] for how many tasks may wait like this.
            ///
            /// # Errors
            ///
            /// [As for every `AsyncFd`](AsyncFd#errors).
            pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.fd.poll_write_ready(cx).map_ok(drop)
            }
        }
    };
}

/// Of listeners: accepting, also as a stream of connections.
macro_rules! listener {
    ($type:ident, $stream:ident, $address:ty, $bound:literal) => {
        impl $type {
            /// Waits for a connection; gives it, and the address of the other side. Cancel-safe.
            ///
            /// # Errors
            ///
            /// Those of `accept(2)`, and [of every `AsyncFd`](AsyncFd#errors). An error leaves the listener usable: `EMFILE`, too
            /// many open files, comes again until some are closed, so wait a little before the next call; errors of a single
            /// connection (`ECONNABORTED`) need no wait.
            pub async fn accept(&self) -> io::Result<($stream, $address)> {
                let (stream, peer) = self.fd.read_with(|listener| listener.accept()).await?;
                Ok(($stream::from_inner(stream, self.fd.is_stream()), peer))
            }

            #[doc = concat!("As [`accept`](", stringify!($type), "::accept),")]
            /// for futures written by hand.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`accept`](", stringify!($type), "::accept).")]
            pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<($stream, $address)>> {
                self.fd
                    .poll_io(Direction::Read, cx, |listener| listener.accept())
                    .map_ok(|(stream, peer)| ($stream::from_inner(stream, self.fd.is_stream()), peer))
            }

            /// The connections, as a stream that never ends; errors as for
            #[doc = concat!("[`accept`](", stringify!($type), "::accept).")]
            ///
            /// # Examples
            ///
            /// ```
            /// use evbase::net::*;
            /// use futures::StreamExt;
            ///
            /// let runtime = evbase::Runtime::new()?;
            /// runtime.block_on(async {
            #[doc = $bound]
            ///     let mut server = listener.incoming().next().await.unwrap()?;
            ///     assert_eq!(client.try_write(b"hello")?, 5);
            ///     Ok::<(), std::io::Error>(())
            /// })??;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn incoming(&self) -> Incoming<'_, Self> {
                Incoming::of(self)
            }

            /// The address that it is bound to. From any thread.
            ///
            /// # Errors
            ///
            /// Those of `getsockname(2)`.
            pub fn local_addr(&self) -> io::Result<$address> {
                self.fd.get_ref().local_addr()
            }
        }

        impl Stream for Incoming<'_, $type> {
            type Item = io::Result<$stream>;

            fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                let accepted = self.listener().poll_accept(cx);
                accepted.map(|accepted| Some(accepted.map(|(stream, _)| stream)))
            }
        }
    };
}

pub(super) use {datagram, listener, readiness, socket, stream};

/// Takes a socket out of its loop.
pub(super) fn into_inner<T>(fd: AsyncFd<T>) -> io::Result<T> {
    fd.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// Waits until a connection that is being made is there, or has failed.
pub(super) async fn connected<T: AsFd, A>(
    fd: &AsyncFd<T>,
    take_error: impl Fn(&T) -> io::Result<Option<io::Error>>,
    peer_addr: impl Fn(&T) -> io::Result<A>,
) -> io::Result<()> {
    loop {
        let mut ready = fd.writable().await?;
        if let Some(error) = take_error(fd.get_ref())? {
            return Err(error);
        }
        match peer_addr(fd.get_ref()) {
            Ok(_) => return Ok(()),
            // A spurious wake-up. (With the error flag it has failed, and the error was taken elsewhere.)
            Err(error) if error.kind() == io::ErrorKind::NotConnected && !ready.ready().is_error() => {
                ready.clear_ready();
            }
            Err(error) => return Err(error),
        }
    }
}
