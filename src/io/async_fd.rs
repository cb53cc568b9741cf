//! A descriptor that tasks can wait for.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::by_ref::{async_read_by_ref, async_write_by_ref};
use super::error::{IntoInnerError, TryNewError};
use super::ready_guard::{Found, ReadyGuard, ReadyMutGuard};
use super::registration::{Registration, Source, Waiting};
use crate::base::Interest;
use crate::home::{self, Direction, Ready, Shared};

/// Any pollable descriptor (a socket, a pipe, a terminal, an eventfd, a timerfd, ...) on the loop.
///
/// It can be made and dropped on any thread. The first loop that polls it becomes its home: that loop's base watches the
/// descriptor, until the object is dropped. Dropped on another thread, it travels home and is closed there when home
/// next runs, after it was deregistered; in the child of a fork only the child's copy is closed. A future that holds a
/// reference to it is `Send` if `T: Sync`.
///
/// Any number of tasks may wait for each direction, by whichever method; an event wakes them all. A future that is dropped
/// waits no longer. Who waits by a `poll_` function, or by [`AsyncRead`] and [`AsyncWrite`], is on the list until the next event:
/// there can be 32 such tasks in a direction; one more wakes them all, to look again.
///
/// It implements `futures`' [`AsyncRead`] and [`AsyncWrite`], also by reference, if `&T` implements [`Read`] and
/// [`Write`]; closing it for writing only flushes.
///
/// # Errors
///
/// Of every method that waits, besides those of its system call: an error of kind `Other` when it is polled outside of a
/// runtime, in another loop than its home's (the error names both threads), or when its runtime is closed; `Unsupported`
/// for what the kernel can't poll, such as a regular file; `AlreadyExists` if another object has registered the same
/// descriptor with the same base.
///
/// # Cancel safety
///
/// All its futures may be dropped at any time: nothing is lost. An operation that has given its result has happened.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let runtime = evbase::Runtime::new()?;
/// let (reader, mut writer) = std::io::pipe()?;
/// runtime.block_on(async {
///     let reader = evbase::io::AsyncFd::new(reader)?;
///     writer.write_all(b"hello")?;
///     let mut buffer = [0; 16];
///     let n = reader.read_with(|mut pipe| pipe.read(&mut buffer)).await?;
///     assert_eq!(&buffer[..n], b"hello");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncFd<T> {
    /// `None` only while it is being dropped or consumed.
    io: Option<T>,
    registration: Registration,
    /// Deregisters the descriptor and drops it, at home. Made where `T: Send + 'static` is known, which a destructor can't
    /// ask for.
    drop_at_home: fn(T, &Source),
}

impl<T: AsFd + Send + 'static> AsyncFd<T> {
    /// Takes a descriptor, and sets it to non-blocking mode. It is registered when it is first polled, which is also when
    /// the kernel may refuse it. On any thread.
    ///
    /// # Errors
    ///
    /// What `fcntl(2)` says.
    pub fn new(io: T) -> io::Result<Self> {
        Ok(Self::try_new(io)?)
    }

    /// As [`new`](AsyncFd::new); what can't be used comes back with the error.
    ///
    /// # Errors
    ///
    /// What `fcntl(2)` says is the error's [`source`](std::error::Error::source).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::io::AsyncFd;
    ///
    /// let (reader, _writer) = std::io::pipe()?;
    /// match AsyncFd::try_new(reader) {
    ///     Ok(reader) => println!("{reader:?} is on the loop"),
    ///     Err(error) => {
    ///         println!("{error}");
    ///         let _still_usable = error.into_inner();
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_new(io: T) -> Result<Self, TryNewError<T>> {
        match set_nonblocking(io.as_fd(), true) {
            Ok(()) => Ok(Self::from_nonblocking(io, false)),
            Err(error) => Err(TryNewError::new(io, error)),
        }
    }

    /// As `new`, for a descriptor that is in non-blocking mode; `is_stream` as for [`Registration::new`].
    pub(crate) fn from_nonblocking(io: T, is_stream: bool) -> Self {
        Self {
            io: Some(io),
            registration: Registration::new(is_stream),
            drop_at_home: |io, source| {
                let key = source.key;
                source.owner.at_home(move |home| {
                    home.deregister(key);
                    drop(io);
                });
            },
        }
    }
}

/// How many buffers a vectored call takes on Linux (`UIO_MAXIOV`), where a short read tells something.
pub(crate) const MOST_BUFFERS: usize = 1024;

/// How many bytes a call moves on Linux at most, so that it always fits (`MAX_RW_COUNT` is this, rounded down to a page).
pub(crate) const MOST_BYTES: usize = 0x7fff_0000;

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that is borrowed for the call, with commands that take no pointer.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags == -1 {
            return Err(io::Error::last_os_error());
        }
        let wanted = match on {
            true => flags | libc::O_NONBLOCK,
            false => flags & !libc::O_NONBLOCK,
        };
        if flags != wanted && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl<T> AsyncFd<T> {
    /// What was given to [`new`](AsyncFd::new).
    pub fn get_ref(&self) -> &T {
        self.io
            .as_ref()
            .expect("evbase: the descriptor is there until the drop")
    }

    /// What was given to [`new`](AsyncFd::new). If you put another descriptor in its place, the new one isn't watched.
    pub fn get_mut(&mut self) -> &mut T {
        self.io
            .as_mut()
            .expect("evbase: the descriptor is there until the drop")
    }

    /// Gives the descriptor back, in non-blocking mode and deregistered: at home, or if it is registered nowhere, or if
    /// its runtime is closed.
    ///
    /// # Errors
    ///
    /// On another thread than its home; the object comes back.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use evbase::io::AsyncFd;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// writer.write_all(b"hello")?;
    /// let reader = AsyncFd::new(reader)?;
    /// runtime.block_on(async { reader.readable().await.map(drop) })??;
    ///
    /// // It is registered here now, so no other thread gets it.
    /// let refused = std::thread::spawn(move || reader.into_inner().unwrap_err()).join().unwrap();
    /// assert_eq!(Some(refused.home()), runtime.home());
    /// let reader = refused.into_inner();
    /// let _pipe: std::io::PipeReader = reader.into_inner()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(mut self) -> Result<T, IntoInnerError<T>> {
        if let Some(home) = self.registration.foreign_home() {
            return Err(IntoInnerError::new(self, home));
        }
        if let Some(Source { owner, key }) = self.registration.source() {
            let key = *key;
            owner.at_home(move |home| home.deregister(key));
        }
        Ok(self.io.take().expect("evbase: the descriptor is there until the drop"))
    }

    /// Runs an operation that doesn't block, at once, until it gives anything but `Interrupted`. If it answers `WouldBlock`, the
    /// descriptor isn't ready any more in the ways of `interest`: who waits for them from now on waits for the next event.
    ///
    /// From any thread, and whether the descriptor is registered or not; only its home has readiness to forget.
    ///
    /// # Errors
    ///
    /// Those of the operation, `WouldBlock` among them.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use evbase::io::{AsyncFd, Interest};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// runtime.block_on(async {
    ///     let reader = AsyncFd::new(reader)?;
    ///     let mut buffer = [0; 16];
    ///     let mut read = || reader.try_io(Interest::READABLE, |mut pipe| pipe.read(&mut buffer));
    ///     assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
    ///     writer.write_all(b"hello")?;
    ///     assert_eq!(read()?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_io<R>(&self, interest: Interest, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        // Before the operation: what comes meanwhile is not forgotten.
        let mut found = Found::default();
        for direction in Direction::BOTH {
            if let Some(seen) = self.registration.seen(direction) {
                found.add(direction, seen, Ready::wanted(interest, direction));
            }
        }
        loop {
            match operation(self.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    found.clear_all(&self.registration);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The runtime whose base watches it, if one does.
    pub(crate) fn owner(&self) -> Option<&Arc<Shared>> {
        Some(&self.registration.source()?.owner)
    }

    /// Whether it belongs to another loop than the one that runs here: the reason why a poll has failed.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.registration.is_elsewhere()
    }
}

impl<T: AsFd> AsyncFd<T> {
    /// Waits until the descriptor is ready to be read, or its end or an error is there to be had. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use evbase::io::AsyncFd;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// runtime.block_on(async {
    ///     let reader = AsyncFd::new(reader)?;
    ///     writer.write_all(b"hello")?;
    ///     let mut buffer = [0; 16];
    ///     let n = loop {
    ///         let mut guard = reader.readable().await?;
    ///         match guard.try_io(|reader| reader.get_ref().read(&mut buffer)) {
    ///             Ok(read) => break read?,
    ///             // It was not ready after all: wait again.
    ///             Err(_would_block) => {}
    ///         }
    ///     };
    ///     assert_eq!(&buffer[..n], b"hello");
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn readable(&self) -> io::Result<ReadyGuard<'_, T>> {
        Ok(ReadyGuard::new(self, self.found_in(Direction::Read).await?))
    }

    /// Waits until the descriptor is ready to be written to, or an error is there to be had. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use evbase::io::AsyncFd;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (_reader, writer) = std::io::pipe()?;
    /// runtime.block_on(async {
    ///     let writer = AsyncFd::new(writer)?;
    ///     let mut guard = writer.writable().await?;
    ///     assert_eq!(guard.try_io(|writer| writer.get_ref().write(b"hello")).unwrap()?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn writable(&self) -> io::Result<ReadyGuard<'_, T>> {
        Ok(ReadyGuard::new(self, self.found_in(Direction::Write).await?))
    }

    /// Waits until the descriptor is ready in one of the ways of `interest`, or closed in that direction, or an error is
    /// there to be had. The guard's [`ready`](ReadyGuard::ready) says in which. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use evbase::io::{AsyncFd, Interest};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (one, _other) = UnixStream::pair()?;
    /// runtime.block_on(async {
    ///     let one = AsyncFd::new(one)?;
    ///     let ready = one.ready(Interest::READABLE | Interest::WRITABLE).await?.ready();
    ///     assert!(ready.is_writable() && !ready.is_readable());
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn ready(&self, interest: Interest) -> io::Result<ReadyGuard<'_, T>> {
        Ok(ReadyGuard::new(self, self.found(interest).await?))
    }

    /// As [`readable`](AsyncFd::readable), with a guard that has the object to itself: for a `T` that is read by `&mut`.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    pub async fn readable_mut(&mut self) -> io::Result<ReadyMutGuard<'_, T>> {
        let found = self.found_in(Direction::Read).await?;
        Ok(ReadyMutGuard::new(self, found))
    }

    /// As [`writable`](AsyncFd::writable), with a guard that has the object to itself: for a `T` that is written by `&mut`.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    pub async fn writable_mut(&mut self) -> io::Result<ReadyMutGuard<'_, T>> {
        let found = self.found_in(Direction::Write).await?;
        Ok(ReadyMutGuard::new(self, found))
    }

    /// As [`ready`](AsyncFd::ready), with a guard that has the object to itself. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    pub async fn ready_mut(&mut self, interest: Interest) -> io::Result<ReadyMutGuard<'_, T>> {
        let found = self.found(interest).await?;
        Ok(ReadyMutGuard::new(self, found))
    }

    /// Waits until the descriptor is ready in one of the ways of `interest`.
    async fn found(&self, interest: Interest) -> io::Result<Found> {
        let mut waiters = Direction::BOTH.map(|direction| (direction, Waiting::new(&self.registration, direction)));
        poll_fn(|cx| {
            let mut found = Found::default();
            let mut last = Poll::Pending;
            for (direction, waiter) in &mut waiters {
                let wanted = Ready::wanted(interest, *direction);
                if wanted.is_empty() {
                    continue;
                }
                if let Poll::Ready(seen) = waiter.poll_ready(self.fd(), wanted, cx) {
                    found.add(*direction, seen?, wanted);
                    last = Poll::Ready(());
                }
            }
            last.map(|()| Ok(found))
        })
        .await
    }

    /// Waits until there is data, or room: as `found`, for one direction.
    async fn found_in(&self, direction: Direction) -> io::Result<Found> {
        let wanted = direction.wanted();
        let mut waiter = Waiting::new(&self.registration, direction);
        let seen = poll_fn(|cx| waiter.poll_ready(self.fd(), wanted, cx)).await?;
        Ok(Found::one(direction, seen, wanted))
    }

    /// As [`readable`](AsyncFd::readable), for futures written by hand. If it is pending, the task is woken by the next event;
    /// see [`AsyncFd`] for how many tasks may wait like this.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, PipeReader, Read, Write};
    /// use std::task::{Context, Poll, ready};
    /// use evbase::io::AsyncFd;
    ///
    /// fn poll_read(pipe: &AsyncFd<PipeReader>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    ///     loop {
    ///         let mut guard = ready!(pipe.poll_read_ready(cx))?;
    ///         if let Ok(read) = guard.try_io(|pipe| pipe.get_ref().read(buf)) {
    ///             return Poll::Ready(read);
    ///         }
    ///     }
    /// }
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (reader, mut writer) = io::pipe()?;
    /// let (reader, mut buffer) = (AsyncFd::new(reader)?, [0; 16]);
    /// writer.write_all(b"hello")?;
    /// let n = runtime.block_on(std::future::poll_fn(|cx| poll_read(&reader, cx, &mut buffer)))??;
    /// assert_eq!(&buffer[..n], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        self.poll_guard(Direction::Read, cx)
    }

    /// As [`writable`](AsyncFd::writable), for futures written by hand; see [`poll_read_ready`](AsyncFd::poll_read_ready).
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors).
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        self.poll_guard(Direction::Write, cx)
    }

    fn poll_guard(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<ReadyGuard<'_, T>>> {
        let wanted = direction.wanted();
        let waiter = home::Waiter::Poller;
        let seen = ready!(self.registration.poll_ready(self.fd(), direction, wanted, waiter, cx))?;
        Poll::Ready(Ok(ReadyGuard::new(self, Found::one(direction, seen, wanted))))
    }

    /// Runs `operation`, a read, whenever the descriptor is ready, until it gives anything but `WouldBlock` or
    /// `Interrupted`. Cancel-safe, if the operation is a single system call.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors), and those of the operation.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use evbase::io::AsyncFd;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// runtime.block_on(async {
    ///     let reader = AsyncFd::new(reader)?;
    ///     writer.write_all(b"hello")?;
    ///     let mut buffer = [0; 16];
    ///     let n = reader.read_with(|mut pipe| pipe.read(&mut buffer)).await?;
    ///     assert_eq!(&buffer[..n], b"hello");
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn read_with<R>(&self, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut waiter = Waiting::new(&self.registration, Direction::Read);
        poll_fn(|cx| waiter.poll_io(self.get_ref(), cx, &mut operation)).await
    }

    /// Runs `operation`, a write, at once and then whenever the descriptor has room, until it gives anything but
    /// `WouldBlock` or `Interrupted`. Cancel-safe, if the operation is a single system call.
    ///
    /// # Errors
    ///
    /// [As for every method that waits](AsyncFd#errors), and those of the operation.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use evbase::io::AsyncFd;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let (_reader, writer) = std::io::pipe()?;
    /// runtime.block_on(async {
    ///     let writer = AsyncFd::new(writer)?;
    ///     assert_eq!(writer.write_with(|mut pipe| pipe.write(b"hello")).await?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn write_with<R>(&self, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut waiter = Waiting::new(&self.registration, Direction::Write);
        poll_fn(|cx| waiter.poll_io(self.get_ref(), cx, &mut operation)).await
    }

    pub(crate) fn poll_io<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.registration
            .poll_io(self.get_ref(), direction, home::Waiter::Poller, cx, operation, |_| {
                false
            })
    }

    /// Reads into `buffer_len` bytes: a shorter read of a stream leaves nothing in the kernel. To be that of the buffers which a
    /// single call can fill.
    pub(crate) fn poll_read_some(
        &self,
        buffer_len: usize,
        cx: &mut Context<'_>,
        operation: impl FnMut(&T) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let (is_stream, asked_for) = (self.registration.is_stream(), buffer_len.min(MOST_BYTES));
        let drained = |&n: &usize| is_stream && 0 < n && n < asked_for;
        let waiter = home::Waiter::Poller;
        self.registration
            .poll_io(self.get_ref(), Direction::Read, waiter, cx, operation, drained)
    }

    /// As `poll_io`, for a read that says itself whether it leaves nothing in the kernel, unless the end or urgent data was reported.
    #[cfg(all(feature = "net", target_os = "linux"))]
    pub(crate) fn poll_read_drained<R>(
        &self,
        cx: &mut Context<'_>,
        operation: impl FnMut(&T) -> io::Result<(R, bool)>,
    ) -> Poll<io::Result<R>> {
        let waiter = home::Waiter::Poller;
        self.registration
            .poll_io(
                self.get_ref(),
                Direction::Read,
                waiter,
                cx,
                operation,
                |&(_, drained)| drained,
            )
            .map_ok(|(read, _)| read)
    }

    /// What it was made with; of a listener, what its connections are.
    #[cfg(feature = "net")]
    pub(crate) fn is_stream(&self) -> bool {
        self.registration.is_stream()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<T> Drop for AsyncFd<T> {
    fn drop(&mut self) {
        if let (Some(io), Some(source)) = (self.io.take(), self.registration.source()) {
            (self.drop_at_home)(io, source);
        }
    }
}

impl<T> AsyncRead for &AsyncFd<T>
where
    T: AsFd,
    for<'a> &'a T: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_some(buf.len(), cx, |mut io| io.read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        // The kernel fills the first ones only, and the standard library gives it no more.
        let len = bufs.iter().take(MOST_BUFFERS).map(|buf| buf.len()).sum();
        self.poll_read_some(len, cx, |mut io| io.read_vectored(bufs))
    }
}

impl<T> AsyncWrite for &AsyncFd<T>
where
    T: AsFd,
    for<'a> &'a T: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(Direction::Write, cx, |mut io| io.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(Direction::Write, cx, |mut io| io.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Most flushes do nothing, and shall not wait for room to do it.
        let mut io = self.get_ref();
        match io.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_io(Direction::Write, cx, |mut io| io.flush())
            }
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

async_read_by_ref!([T] AsyncFd<T>, this => &*this, where T: AsFd, for<'a> &'a T: Read);
async_write_by_ref!([T] AsyncFd<T>, this => &*this, where T: AsFd, for<'a> &'a T: Write);

impl<T> Unpin for AsyncFd<T> {}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl<T: AsFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd")
            .field("io", self.get_ref())
            .finish_non_exhaustive()
    }
}
