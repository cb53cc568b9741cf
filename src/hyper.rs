//! [hyper](https://docs.rs/hyper) on the loop: servers and clients of HTTP/1 and HTTP/2, whose services and bodies need not
//! be `Send`.
//!
//! | hyper asks for | here |
//! |---|---|
//! | an executor | [`LocalExecutor`], for whatever runs in the loop; [`Executor`], to send futures home from any thread |
//! | a timer | [`Timer`] |
//! | I/O | [`Io`], around a [`TcpStream`], a [`UnixStream`], or whatever else implements `futures`' [`AsyncRead`] and [`AsyncWrite`] |
//!
//! # Examples
//!
//! A server whose connections share a counter that is no atomic one, and a client.
//!
//! ```
//! use std::cell::Cell;
//! use std::convert::Infallible;
//! use std::rc::Rc;
//!
//! use evbase::hyper::{Io, LocalExecutor, Timer};
//! use evbase::net::{TcpListener, TcpStream};
//! use http_body_util::{BodyExt, Empty, Full};
//! use hyper::body::{Bytes, Incoming};
//! use hyper::service::service_fn;
//! use hyper::{Request, Response};
//!
//! async fn serve(listener: TcpListener) -> std::io::Result<()> {
//!     let requests = Rc::new(Cell::new(0));
//!     loop {
//!         let (stream, _) = listener.accept().await?;
//!         let requests = requests.clone();
//!         let service = service_fn(move |_: Request<Incoming>| {
//!             requests.set(requests.get() + 1);
//!             let text = format!("request {}", requests.get());
//!             async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text))) }
//!         });
//!         evbase::spawn_local(async move {
//!             let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
//!                 .timer(Timer)
//!                 .serve_connection(Io::new(stream), service);
//!             if let Err(error) = connection.await {
//!                 eprintln!("a connection failed: {error}");
//!             }
//!         });
//!     }
//! }
//!
//! let runtime = evbase::Runtime::new()?;
//! let text = runtime.block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let stream = TcpStream::connect(listener.local_addr()?).await?;
//!     evbase::spawn_local(serve(listener));
//!
//!     let (mut sender, connection) = hyper::client::conn::http2::handshake(LocalExecutor, Io::new(stream)).await?;
//!     evbase::spawn_local(connection);
//!     let response = sender.send_request(Request::new(Empty::<Bytes>::new())).await?;
//!     Ok::<_, Box<dyn std::error::Error>>(response.into_body().collect().await?.to_bytes())
//! })??;
//! assert_eq!(text, "request 1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::any::Any;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt;
use futures_io::{AsyncRead, AsyncWrite};
use pin_project_lite::pin_project;

use crate::net::{TcpStream, UnixStream, recv};
use crate::runtime::{Spawner, spawn_local};
use crate::time::{Sleep, now, sleep, sleep_until};

/// Gives hyper's tasks to a runtime, from any thread, as [`Spawner::spawn`] does: a runtime that takes no tasks any more drops
/// them, and the connection they belong to ends.
///
/// Its futures are `Send`. It is what a client needs that is used outside of the loop; inside, [`LocalExecutor`] asks for less.
///
/// # Examples
///
/// A connection at home, whose requests come from another thread.
///
/// ```
/// use evbase::hyper::{Executor, Io};
/// use evbase::net::{TcpListener, TcpStream};
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
///
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let addr = listener.local_addr()?;
/// let runtime = evbase::Builder::new().start("http")?;
/// let executor = Executor::new(runtime.spawner());
/// let stream = runtime.spawner().spawn(TcpStream::connect(addr)).wait()???;
/// let (sender, connection) = futures::executor::block_on(
///     hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(Io::new(stream)),
/// )?;
/// hyper::rt::Executor::execute(&executor, connection);
/// assert!(!sender.is_closed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Executor {
    spawner: Spawner,
}

impl Executor {
    /// One whose tasks run where the spawner's do.
    pub fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl<F> rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        drop(self.spawner.spawn(future));
    }
}

/// Runs hyper's tasks, which need not be `Send`, in the loop that polls the connection, as [`spawn_local`]
/// does.
///
/// # Panics
///
/// When hyper spawns a task outside of a runtime: a connection that has one is to be polled in a loop, or with an
/// [`EnterGuard`](crate::EnterGuard).
///
/// # Examples
///
/// [Of the module](self#examples).
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl LocalExecutor {
    /// The same as its only value, `LocalExecutor`.
    pub fn new() -> Self {
        Self
    }
}

impl<F> rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        drop(spawn_local(future));
    }
}

/// hyper's timeouts and keep-alive intervals, by [`Sleep`], on the clock of the runtime. It may be used on any thread; what waits for it is polled in a loop.
///
/// # Examples
///
/// A server that closes connections whose requests don't come.
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// use evbase::hyper::{Io, Timer};
/// use evbase::net::{TcpListener, TcpStream};
/// use hyper::body::Incoming;
/// use hyper::service::service_fn;
/// use hyper::{Request, Response};
///
/// let runtime = evbase::Runtime::new()?;
/// let error = runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let _silent = TcpStream::connect(listener.local_addr()?).await?;
///     let (stream, _) = listener.accept().await?;
///     let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(String::new())));
///     let connection = hyper::server::conn::http1::Builder::new()
///         .timer(Timer)
///         .header_read_timeout(Duration::from_millis(5))
///         .serve_connection(Io::new(stream), service);
///     Ok::<_, std::io::Error>(connection.await.unwrap_err())
/// })??;
/// assert!(error.is_timeout());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl Timer {
    /// The same as its only value, `Timer`.
    pub fn new() -> Self {
        Self
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep_until(deadline))
    }

    fn now(&self) -> Instant {
        now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(mut sleep) => sleep.reset(new_deadline),
            // Of another timer.
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

impl rt::Sleep for Sleep {}

pin_project! {
    /// Sockets, and whatever else implements `futures`' [`AsyncRead`] and [`AsyncWrite`], as hyper's [`Read`](rt::Read) and
    /// [`Write`](rt::Write); and the other way round, for what hyper gives away, such as its
    /// `Upgraded` connections.
    ///
    /// A [`TcpStream`] or [`UnixStream`] reads straight into hyper's buffers, and writes vectors; for other types, a buffer is filled with zeroes
    /// before it is read into.
    ///
    /// Errors, cancel-safety, and on which threads it may be polled: as for what is inside.
    ///
    /// # Examples
    ///
    /// [Of the module](self#examples).
    #[derive(Debug)]
    pub struct Io<T> {
        #[pin]
        inner: T,
    }
}

impl<T> Io<T> {
    /// Wraps it.
    pub fn new(inner: T) -> Self {
        Self { inner }
    }

    /// What is inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What is inside.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Unwraps it.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

/// What is inside of an `Io`, if it is one of this crate's sockets.
enum Socket<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

fn socket<T: 'static>(inner: &T) -> Option<Socket<'_>> {
    let inner: &dyn Any = inner;
    let unix = || inner.downcast_ref().map(Socket::Unix);
    inner.downcast_ref().map(Socket::Tcp).or_else(unix)
}

impl<T: AsyncRead + 'static> rt::Read for Io<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let inner = self.project().inner;
        let n = if let Some(socket) = socket(&*inner) {
            // SAFETY: the socket writes to this memory, and never uninitialises it.
            let unfilled = unsafe { buf.as_mut() };
            ready!(match socket {
                Socket::Tcp(stream) => stream.fd.poll_read_uninit(cx, unfilled, recv),
                Socket::Unix(stream) => stream.fd.poll_read_uninit(cx, unfilled, recv),
            })?
        } else {
            let unfilled = buf.initialize_unfilled();
            let len = unfilled.len();
            let n = ready!(inner.poll_read(cx, unfilled))?;
            assert!(
                n <= len,
                "evbase: an AsyncRead says that it has read {n} bytes into {len}"
            );
            n
        };
        // SAFETY: `n` bytes were initialised, by the socket or by the zeroes, and the buffer has them.
        unsafe { buf.advance(n) };
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + 'static> rt::Write for Io<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_close(cx)
    }

    fn is_write_vectored(&self) -> bool {
        // Others may write the first of the slices only, which is worse than one copy of them all.
        socket(&self.inner).is_some()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }
}

impl<T: rt::Read> AsyncRead for Io<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = rt::ReadBuf::new(buf);
        ready!(self.project().inner.poll_read(cx, buf.unfilled()))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<T: rt::Write> AsyncWrite for Io<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }
}
