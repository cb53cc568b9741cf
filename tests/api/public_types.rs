//! What the compiler can prove of the public types: who may cross threads, who may move, who can be copied. And the
//! errors: that they are errors, name the threads, and say what to do.

use std::any::Any;
use std::cell::Cell;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::io;
use std::marker::PhantomPinned;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use evbase::io::{AsyncFd, Interest, IntoInnerError, Ready, ReadyGuard, ReadyMutGuard, TryIoError};
use evbase::net::{
    Incoming, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, TcpListener, TcpStream, ToSocketAddrs, UCred,
    UdpSocket, UnixDatagram, UnixListener, UnixStream, WriteHalf,
};
use evbase::task::{AccessError, LocalKey, TaskLocalFuture};
use evbase::time::{Elapsed, Hold, Interval, MissedTickBehavior, Sleep, Timeout};
use evbase::{
    AbortHandle, AbortOnDrop, Builder, Cause, Dump, Embedded, End, EnterGuard, Histogram, JoinError, JoinHandle,
    JoinSet, LocalSpawner, Metrics, Observer, Priority, Report, Requested, RunError, Runtime, Shutdown, SignalGuard,
    SpawnError, SpawnErrorKind, Spawner, Stall, TaskDump, TaskId, TaskInfo, TaskState, Terminated, Turn, Wait,
    WaitError, WaitHook, WaitsFor, base,
};
use futures::Stream;
use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::{LocalSpawn, Spawn};

use crate::support::watchdog;

fn send<T: ?Sized + Send>() {}
fn sync<T: ?Sized + Sync>() {}
fn unpin<T: ?Sized + Unpin>() {}
fn clone<T: Clone>() {}
fn copy<T: Copy>() {}
fn error<T: Error + Debug + Display>() {}
fn is_send<T: Send>(_: &T) {}
fn is_send_sync_unpin<T: Send + Sync + Unpin>(_: &T) {}

/// Fails to compile if the type implements the trait.
macro_rules! never {
    ($type:ty: $trait:path) => {{
        trait AmbiguousIfImplemented<A> {
            fn item() {}
        }
        impl<T: ?Sized> AmbiguousIfImplemented<()> for T {}
        #[allow(dead_code)]
        struct Implemented;
        impl<T: ?Sized + $trait> AmbiguousIfImplemented<Implemented> for T {}
        let _ = <$type as AmbiguousIfImplemented<_>>::item;
    }};
}

/// Neither `Send` nor `Sync`, and no `Debug`, `Clone` or `Unpin` either.
#[allow(dead_code)]
struct Nothing(Rc<()>, PhantomPinned);

/// `Send`, but not `Sync`.
type SendOnly = Cell<u8>;

#[test]
fn the_runtime_and_its_handles_cross_threads_as_promised() {
    send::<Runtime>();
    sync::<Runtime>();
    never!(Runtime: Clone);
    send::<Builder>();

    send::<Spawner>();
    sync::<Spawner>();
    clone::<Spawner>();
    send::<Shutdown>();
    sync::<Shutdown>();
    clone::<Shutdown>();
    send::<SignalGuard>();
    send::<Requested>();
    unpin::<Requested>();
    send::<Terminated>();
    unpin::<Terminated>();

    clone::<LocalSpawner>();
    never!(LocalSpawner: Send);
    never!(LocalSpawner: Sync);
    never!(EnterGuard<'static>: Send);
    send::<Embedded>();
    sync::<Embedded>();
    never!(WaitHook: Send);

    copy::<Report>();
    send::<Report>();
    sync::<Report>();
    copy::<Cause>();
    copy::<Turn>();
    copy::<Metrics>();
    send::<Metrics>();
    copy::<WaitError>();
    copy::<SpawnErrorKind>();
}

#[test]
fn a_join_handle_crosses_threads_iff_the_output_does() {
    send::<JoinHandle<SendOnly>>();
    sync::<JoinHandle<SendOnly>>();
    never!(JoinHandle<Rc<()>>: Send);
    never!(JoinHandle<Rc<()>>: Sync);
    never!(JoinHandle<()>: Clone);
    unpin::<JoinHandle<PhantomPinned>>();
    send::<AbortHandle>();
    sync::<AbortHandle>();
    clone::<AbortHandle>();
    send::<AbortOnDrop<SendOnly>>();
    never!(AbortOnDrop<Rc<()>>: Send);
    unpin::<AbortOnDrop<PhantomPinned>>();
    send::<JoinSet<SendOnly>>();
    never!(JoinSet<Rc<()>>: Send);
    unpin::<JoinSet<PhantomPinned>>();
}

#[test]
fn a_task_local_and_its_scope_cross_threads_as_their_contents_do() {
    evbase::task_local!(static CELL: SendOnly);
    evbase::task_local!(static COUNTED: Rc<()>);
    sync::<LocalKey<Rc<()>>>();
    is_send(&CELL.scope(Cell::new(1), async {}));
    let _of_this_thread = COUNTED.scope(Rc::new(()), async {});
    never!(TaskLocalFuture<Rc<()>, std::future::Ready<()>>: Send);
    never!(TaskLocalFuture<u8, PhantomPinned>: Unpin);
    error::<AccessError>();
    copy::<AccessError>();
}

#[cfg(feature = "hyper")]
#[test]
fn what_hyper_is_given_crosses_threads_as_what_is_inside() {
    use evbase::hyper::{Executor, Io, LocalExecutor, Timer};
    use evbase::net::UnixStream;

    fn io<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + Sync>() {}
    io::<Io<TcpStream>>();
    io::<Io<UnixStream>>();
    io::<Io<AsyncFd<std::fs::File>>>();
    send::<Io<SendOnly>>();
    never!(Io<SendOnly>: Sync);
    never!(Io<Rc<()>>: Send);
    // And back.
    fn futures_io<T: AsyncRead + AsyncWrite>() {}
    futures_io::<Io<hyper::upgrade::Upgraded>>();

    send::<Executor>();
    sync::<Executor>();
    clone::<Executor>();
    copy::<LocalExecutor>();
    copy::<Timer>();
    fn timer<T: hyper::rt::Timer + Send + Sync + 'static>() {}
    timer::<Timer>();
    fn local<T: hyper::rt::Executor<std::future::Pending<Rc<()>>>>() {}
    local::<LocalExecutor>();
    fn abroad<T: hyper::rt::Executor<std::future::Ready<SendOnly>>>() {}
    abroad::<Executor>();
}

#[cfg(feature = "tokio")]
#[test]
fn streams_halves_pipes_and_descriptors_have_tokios_traits() {
    use evbase::net::UnixStream;
    use evbase::process::{ChildStderr, ChildStdin, ChildStdout};

    fn reads<T: tokio::io::AsyncRead>() {}
    fn writes<T: tokio::io::AsyncWrite>() {}
    reads::<TcpStream>();
    writes::<TcpStream>();
    reads::<UnixStream>();
    writes::<UnixStream>();
    reads::<ReadHalf<'_>>();
    reads::<ReadHalf<'_, UnixStream>>();
    reads::<OwnedReadHalf>();
    reads::<OwnedReadHalf<UnixStream>>();
    writes::<WriteHalf<'_>>();
    writes::<WriteHalf<'_, UnixStream>>();
    writes::<OwnedWriteHalf>();
    writes::<OwnedWriteHalf<UnixStream>>();
    reads::<ChildStdout>();
    reads::<ChildStderr>();
    writes::<ChildStdin>();
    reads::<AsyncFd<std::fs::File>>();
    writes::<AsyncFd<std::fs::File>>();
}

#[test]
fn errors_are_errors_for_every_type_they_carry() {
    error::<RunError>();
    error::<WaitError>();
    error::<JoinError>();
    error::<SpawnErrorKind>();
    error::<SpawnError<Nothing>>();
    error::<IntoInnerError<Nothing>>();
    error::<Elapsed>();
    error::<ReuniteError>();

    send::<RunError>();
    sync::<RunError>();
    send::<JoinError>();
    sync::<JoinError>();
    send::<SpawnError<SendOnly>>();
    sync::<SpawnError<SendOnly>>();
    never!(SpawnError<Nothing>: Send);
    never!(SpawnError<Nothing>: Sync);
    send::<IntoInnerError<SendOnly>>();

    assert_eq!(SpawnErrorKind::Stopped, SpawnErrorKind::Stopped);
    assert_eq!(WaitError::Unbound, WaitError::Unbound);
}

#[test]
fn an_async_fd_is_sync_iff_what_it_holds_is_and_its_guard_follows() {
    send::<AsyncFd<SendOnly>>();
    never!(AsyncFd<SendOnly>: Sync);
    sync::<AsyncFd<u8>>();
    never!(AsyncFd<Rc<()>>: Send);
    unpin::<AsyncFd<PhantomPinned>>();
    send::<ReadyGuard<'static, u8>>();
    never!(ReadyGuard<'static, SendOnly>: Send);
    send::<ReadyMutGuard<'static, SendOnly>>();
    copy::<Interest>();
    copy::<Ready>();
    fn same_event(ready: Ready) -> base::Event {
        ready
    }
    assert_eq!(same_event(Ready::ERROR), base::Event::ERROR);
    fn same_type(interest: Interest) -> base::Interest {
        interest
    }
    assert_eq!(same_type(Interest::READABLE), base::Interest::READABLE);
}

#[test]
fn sockets_and_their_halves_cross_threads_and_move() {
    fn io<T: Send + Sync + Unpin + Debug>() {}
    io::<TcpListener>();
    io::<TcpStream>();
    io::<OwnedReadHalf>();
    io::<OwnedWriteHalf>();
    io::<ReadHalf<'static>>();
    io::<WriteHalf<'static>>();
    io::<Incoming<'static>>();
    io::<UdpSocket>();
    io::<UnixListener>();
    io::<UnixStream>();
    io::<UnixDatagram>();
    io::<OwnedReadHalf<UnixStream>>();
    io::<OwnedWriteHalf<UnixStream>>();
    io::<ReadHalf<'static, UnixStream>>();
    io::<WriteHalf<'static, UnixStream>>();
    io::<Incoming<'static, UnixListener>>();
    copy::<UCred>();

    fn reads<T: AsyncRead>() {}
    fn writes<T: AsyncWrite>() {}
    reads::<TcpStream>();
    writes::<TcpStream>();
    reads::<&TcpStream>();
    writes::<&TcpStream>();
    reads::<UnixStream>();
    writes::<UnixStream>();
    reads::<&UnixStream>();
    writes::<&UnixStream>();
    reads::<AsyncFd<std::os::unix::net::UnixStream>>();
    writes::<AsyncFd<std::os::unix::net::UnixStream>>();
    reads::<&AsyncFd<std::os::unix::net::UnixStream>>();
    writes::<&AsyncFd<std::os::unix::net::UnixStream>>();
    reads::<OwnedReadHalf>();
    writes::<OwnedWriteHalf>();
    reads::<OwnedReadHalf<UnixStream>>();
    writes::<OwnedWriteHalf<UnixStream>>();
    never!(OwnedReadHalf: AsyncWrite);
    never!(OwnedWriteHalf: AsyncRead);
}

#[test]
fn timers_cross_threads_and_move() {
    send::<Sleep>();
    sync::<Sleep>();
    unpin::<Sleep>();
    send::<Interval>();
    sync::<Interval>();
    unpin::<Interval>();
    send::<Timeout<SendOnly>>();
    unpin::<Timeout<u8>>();
    never!(Timeout<PhantomPinned>: Unpin);
    copy::<MissedTickBehavior>();
    assert_eq!(MissedTickBehavior::default(), MissedTickBehavior::Burst);
    fn stream<S: Stream<Item = Instant>>() {}
    stream::<Interval>();
}

#[test]
fn the_traits_of_futures_are_there() {
    fn spawns<T: Spawn>() {}
    fn spawns_locally<T: LocalSpawn>() {}
    fn fused<T: FusedFuture<Output = Report>>() {}
    fn future<O, T: Future<Output = O>>() {}
    spawns::<Spawner>();
    spawns::<LocalSpawner>();
    spawns_locally::<LocalSpawner>();
    fused::<Terminated>();
    future::<(), Requested>();
    future::<Result<u8, JoinError>, JoinHandle<u8>>();
    future::<(), Sleep>();
    future::<Result<u8, Elapsed>, Timeout<std::future::Ready<u8>>>();
}

#[test]
fn the_base_is_send_and_not_sync_and_its_notifier_is_both() {
    send::<base::EventBase<SendOnly>>();
    never!(base::EventBase<u8>: Sync);
    never!(base::EventBase<Nothing>: Send);
    send::<base::Notifier>();
    sync::<base::Notifier>();
    clone::<base::Notifier>();
    copy::<base::Interest>();
    copy::<base::Event>();
    copy::<base::Key>();
    copy::<base::Backend>();
}

#[test]
fn futures_that_hold_io_across_an_await_are_send() {
    async fn of_fd(fd: &AsyncFd<std::os::unix::net::UnixStream>) {
        let guard = fd.readable().await.unwrap();
        evbase::yield_now().await;
        drop(guard);
        let _ = fd.writable().await;
        let _ = fd.ready(Interest::READABLE | Interest::WRITABLE).await;
        let _ = fd.read_with(|_| Ok(())).await;
        let _ = fd.write_with(|_| Ok(())).await;
    }
    async fn of_stream(stream: &TcpStream) {
        use futures::{AsyncReadExt, AsyncWriteExt};
        let mut stream = stream;
        let mut buffer = [0];
        let _ = stream.peek(&mut buffer).await;
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write(&buffer).await;
        let _ = stream.readable().await;
    }
    async fn of_listener(listener: &TcpListener) {
        let _ = listener.accept().await;
    }
    let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = AsyncFd::new(left).unwrap();
    is_send(&of_fd(&fd));
    #[allow(dead_code)]
    fn never_called(stream: &TcpStream, listener: &TcpListener) {
        is_send(&of_stream(stream));
        is_send(&of_listener(listener));
        is_send(&TcpStream::connect("localhost:1"));
        is_send(&TcpListener::bind(("localhost", 1)));
        is_send(&UdpSocket::bind("localhost:1"));
        is_send(&evbase::net::lookup_host("localhost:1"));
        is_send(&UnixStream::connect("path"));
    }
    async fn of_udp(socket: &UdpSocket) {
        let mut buffer = [0];
        let _ = socket.send_to(&buffer, "localhost:1").await;
        let _ = socket.recv_from(&mut buffer).await;
        let _ = socket.connect("localhost:1").await;
        let _ = socket.ready(Interest::READABLE).await;
    }
    async fn of_unix(listener: &UnixListener, datagrams: &UnixDatagram) {
        let mut buffer = [0];
        let _ = listener.accept().await;
        let _ = datagrams.send_to(&buffer, "path").await;
        let _ = datagrams.recv_from(&mut buffer).await;
    }
    #[allow(dead_code)]
    fn nor_is_this(udp: &UdpSocket, listener: &UnixListener, datagrams: &UnixDatagram) {
        is_send(&of_udp(udp));
        is_send(&of_unix(listener, datagrams));
    }
}

#[test]
fn futures_that_hold_handles_and_timers_across_an_await_are_send() {
    let runtime = Runtime::new().unwrap();
    let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
    is_send(&async move {
        let handle = spawner.spawn_with(|| {
            let not_send = Rc::new(1);
            async move { *not_send }
        });
        let abort = handle.abort_handle();
        let _ = handle.await;
        abort.abort();
        shutdown.requested().await;
        shutdown.terminated().await;
    });
    is_send(&async {
        evbase::time::sleep(Duration::ZERO).await;
        let mut interval = evbase::time::interval(Duration::from_secs(1));
        interval.tick().await;
        let _ = evbase::time::timeout(Duration::ZERO, interval.tick()).await;
    });
    let mut tasks = JoinSet::<SendOnly>::new();
    is_send(&tasks.join_next());
    is_send(&tasks.join_next_with_id());
    is_send(&tasks.shutdown());
    is_send(&tasks.join_all());
    is_send_sync_unpin(&evbase::yield_now());
    fn is_send_unpin<T: Send + Unpin>(_: &T) {}
    is_send_unpin(&evbase::unblock(|| Cell::new(1)));
}

#[test]
#[expect(clippy::needless_borrows_for_generic_args, reason = "references are what is tested")]
fn addresses_come_in_all_the_promised_shapes() {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    fn addresses<T: evbase::net::ToSocketAddrs>(_: T) {}
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let addr = SocketAddr::new(ip, 1);
    addresses(addr);
    addresses((ip, 1));
    addresses(("localhost", 1));
    addresses(("localhost".to_owned(), 1));
    addresses("localhost:1");
    addresses("localhost:1".to_owned());
    addresses(&[addr][..]);
    addresses(&addr);
    addresses(&"localhost:1".to_owned());
    addresses(&("localhost", 1));
}

#[test]
fn the_calls_have_the_promised_signatures() {
    // What is not generic, as function pointers: a type that differs does not compile.
    let _: fn() -> io::Result<Runtime> = Runtime::new;
    let _: fn() -> Builder = Runtime::builder;
    let _: fn(&Runtime) -> Result<Report, RunError> = Runtime::run;
    let _: fn(&Runtime, Option<Duration>) -> Result<Turn, RunError> = Runtime::turn;
    let _: for<'a> fn(&'a Runtime) -> Result<EnterGuard<'a>, RunError> = Runtime::enter;
    let _: fn(&Runtime) -> Spawner = Runtime::spawner;
    let _: fn(&Runtime) -> Result<LocalSpawner, RunError> = Runtime::local_spawner;
    let _: fn(&Runtime) -> Shutdown = Runtime::shutdown_handle;
    let _: fn(Runtime) -> Terminated = Runtime::shutdown;
    let _: fn(&Runtime) -> Option<ThreadId> = Runtime::home;
    let _: fn(&Runtime) -> Metrics = Runtime::metrics;

    let _: fn(&Runtime) -> Result<Embedded, RunError> = Runtime::embed;
    let _: fn(&Embedded) -> Result<Turn, RunError> = Embedded::turn;
    let _: fn(&Embedded) -> Result<Option<Instant>, RunError> = Embedded::next_deadline;
    let _: fn(&Wait) -> Option<Duration> = Wait::timeout;
    let _: fn(&mut Wait, Duration) = Wait::at_most;
    let _: fn(Spawner, Priority) -> Spawner = Spawner::with_priority;
    let _: fn(LocalSpawner, Priority) -> LocalSpawner = LocalSpawner::with_priority;
    let _: fn(&mut base::EventBase<Nothing>) -> io::Result<()> = base::EventBase::set_alarm;
    let _ = |runtime: &Runtime, spawner: &LocalSpawner| -> [Result<WaitHook, RunError>; 4] {
        [
            runtime.before_wait(|_: &mut Wait| {}),
            runtime.after_wait(|| {}),
            spawner.before_wait(|_: &mut Wait| {}),
            spawner.after_wait(|| {}),
        ]
    };

    let _: fn() -> Builder = Builder::new;
    let _: fn(Builder, Duration) -> Builder = Builder::grace;
    let _: fn(Builder, u32) -> Builder = Builder::event_interval;
    let _: fn(Builder, Duration) -> Builder = Builder::timer_slack;
    let _: fn(Builder, Duration) -> Builder = Builder::event_time;
    let _: fn(Builder) -> io::Result<Runtime> = Builder::build;
    let _: fn(Builder, &'static str) -> io::Result<Runtime> = Builder::start;
    let _: fn(Builder, String) -> io::Result<Runtime> = Builder::start;

    let _: fn() -> Spawner = Spawner::current;
    let _: fn() -> Option<Spawner> = Spawner::try_current;
    let _: fn() -> Shutdown = Shutdown::current;
    let _: fn() -> Option<Shutdown> = Shutdown::try_current;
    let _: fn() -> LocalSpawner = LocalSpawner::current;
    let _: fn() -> Option<LocalSpawner> = LocalSpawner::try_current;

    let _: [fn(&Shutdown); 2] = [Shutdown::request, Shutdown::request_now];
    let _: fn(&Shutdown) -> bool = Shutdown::is_requested;
    let _: fn(&Shutdown) -> Requested = Shutdown::requested;
    let _: fn(&Shutdown) -> Terminated = Shutdown::terminated;
    let _: fn(&Shutdown, &[libc::c_int]) -> io::Result<SignalGuard> = Shutdown::on_signals;
    let _: fn(Terminated) -> Result<Report, WaitError> = Terminated::wait;
    let _: fn(&Terminated, Duration) -> Result<Option<Report>, WaitError> = Terminated::wait_timeout;

    let _: fn(&JoinHandle<Nothing>) = JoinHandle::abort;
    let _: fn(&JoinHandle<Nothing>) -> AbortHandle = JoinHandle::abort_handle;
    let _: fn(&JoinHandle<Nothing>) -> bool = JoinHandle::is_finished;
    type Joined = Result<Nothing, JoinError>;
    let _: fn(JoinHandle<Nothing>) -> Result<Joined, WaitError> = JoinHandle::wait;
    let _: fn(JoinHandle<Nothing>) -> AbortOnDrop<Nothing> = JoinHandle::abort_on_drop;
    let _: fn(AbortOnDrop<Nothing>) -> JoinHandle<Nothing> = AbortOnDrop::detach;
    let _: fn(&mut JoinSet<Nothing>, JoinHandle<Nothing>) -> AbortHandle = JoinSet::insert;
    let _: fn(&mut JoinSet<Nothing>) -> Option<Joined> = JoinSet::try_join_next;
    let _: fn(&mut JoinSet<Nothing>, &mut Context<'_>) -> Poll<Option<Joined>> = JoinSet::poll_join_next;
    type JoinedWithId = Option<Result<(TaskId, Nothing), JoinError>>;
    let _: fn(&mut JoinSet<Nothing>) -> JoinedWithId = JoinSet::try_join_next_with_id;
    let _: fn(&mut JoinSet<Nothing>, &mut Context<'_>) -> Poll<JoinedWithId> = JoinSet::poll_join_next_with_id;
    let _: fn(&JoinSet<Nothing>) -> usize = JoinSet::len;
    let _: fn(&mut JoinSet<Nothing>) = JoinSet::detach_all;
    let _: fn(&AbortHandle) = AbortHandle::abort;
    let _: fn(&AbortHandle) -> bool = AbortHandle::is_finished;
    let _: [fn(&JoinError) -> bool; 2] = [JoinError::is_cancelled, JoinError::is_panic];
    let _: fn(JoinError) -> Box<dyn Any + Send> = JoinError::into_panic;
    let _: fn(&SpawnError<Nothing>) -> SpawnErrorKind = SpawnError::kind;
    let _: fn(SpawnError<Nothing>) -> Nothing = SpawnError::into_inner;

    let _: fn(Duration) -> Sleep = evbase::time::sleep;
    let _: fn(Instant) -> Sleep = evbase::time::sleep_until;
    let _: fn(&mut Sleep, Instant) = Sleep::reset;
    let _: fn(&Sleep) -> Instant = Sleep::deadline;
    let _: fn(Duration) -> Interval = evbase::time::interval;
    let _: fn(Instant, Duration) -> Interval = evbase::time::interval_at;
    let _: fn(&IntoInnerError<Nothing>) -> ThreadId = IntoInnerError::home;
    let _: fn(IntoInnerError<Nothing>) -> AsyncFd<Nothing> = IntoInnerError::into_inner;
    let _: fn(AsyncFd<Nothing>) -> Result<Nothing, IntoInnerError<Nothing>> = AsyncFd::into_inner;
    let _: fn(&AsyncFd<Nothing>) -> &Nothing = AsyncFd::get_ref;
    let _: fn(std::net::TcpStream) -> io::Result<TcpStream> = TcpStream::from_std;
    let _: fn(TcpStream) -> io::Result<std::net::TcpStream> = TcpStream::into_std;
    let _: fn(std::net::TcpListener) -> io::Result<TcpListener> = TcpListener::from_std;
    let _: fn(TcpListener) -> io::Result<std::net::TcpListener> = TcpListener::into_std;
    let _: fn(std::net::UdpSocket) -> io::Result<UdpSocket> = UdpSocket::from_std;
    let _: fn(UdpSocket) -> io::Result<std::net::UdpSocket> = UdpSocket::into_std;
    type Received = io::Result<(usize, SocketAddr)>;
    let _: fn(&UdpSocket, &mut [u8]) -> Received = UdpSocket::try_recv_from;
    let _: fn(&UdpSocket, &[u8], SocketAddr) -> io::Result<usize> = UdpSocket::try_send_to;
    let _: fn() -> io::Result<(UnixStream, UnixStream)> = UnixStream::pair;
    let _: fn() -> io::Result<(UnixDatagram, UnixDatagram)> = UnixDatagram::pair;
    let _: fn() -> io::Result<UnixDatagram> = UnixDatagram::unbound;
    let _: fn(&std::os::unix::net::SocketAddr) -> io::Result<UnixListener> = UnixListener::bind_addr;
    let _: fn(&UnixStream) -> io::Result<UCred> = UnixStream::peer_cred;
    let _ = |cred: UCred| -> (u32, u32, Option<i32>) { (cred.uid, cred.gid, cred.pid) };
}

/// Each asks for no more of its caller than was promised.
#[test]
fn the_generic_calls_ask_for_no_more_than_was_promised() {
    #![allow(dead_code)]

    fn block_on<F: Future>(runtime: &Runtime, future: F) -> Result<F::Output, RunError> {
        runtime.block_on(future)
    }
    type Spawned<X, T> = Result<JoinHandle<T>, SpawnError<X>>;
    fn spawn_local<F: Future + 'static>(runtime: &Runtime, future: F) -> Spawned<F, F::Output> {
        runtime.spawn_local(future)
    }
    fn spawn_local_by_handle<F: Future + 'static>(spawner: &LocalSpawner, future: F) -> Spawned<F, F::Output> {
        spawner.spawn_local(future)
    }
    fn spawn_free<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
        evbase::spawn_local(future)
    }
    fn spawn<F: Future<Output: Send> + Send + 'static>(spawner: &Spawner, future: F) -> JoinHandle<F::Output> {
        spawner.spawn(future)
    }
    fn try_spawn<F: Future<Output: Send> + Send + 'static>(spawner: &Spawner, future: F) -> Spawned<F, F::Output> {
        spawner.try_spawn(future)
    }
    fn spawn_with<C, F>(spawner: &Spawner, make: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output: Send> + 'static,
    {
        spawner.spawn_with(make)
    }
    fn try_spawn_with<C, F>(spawner: &Spawner, make: C) -> Spawned<C, F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output: Send> + 'static,
    {
        spawner.try_spawn_with(make)
    }
    fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> + Send + Unpin {
        evbase::unblock(work)
    }
    fn block_on_free<F: Future>(future: F) -> Result<F::Output, RunError> {
        evbase::block_on(future)
    }
    async fn set<T: 'static>(tasks: &mut JoinSet<T>, future: impl Future<Output = T> + 'static) {
        let _: AbortHandle = tasks.spawn_local(future);
        let _: Option<Result<T, JoinError>> = tasks.join_next().await;
        let _: Option<Result<(TaskId, T), JoinError>> = tasks.join_next_with_id().await;
        tasks.abort_all();
        tasks.shutdown().await;
    }
    fn set_from_abroad<T: Send + 'static>(
        tasks: &mut JoinSet<T>,
        future: impl Future<Output = T> + Send + 'static,
        spawner: &Spawner,
    ) -> AbortHandle {
        tasks.spawn_on(future, spawner)
    }
    fn set_of<T: 'static>(futures: Vec<impl Future<Output = T> + 'static>) -> JoinSet<T> {
        futures.into_iter().collect()
    }
    async fn all<T>(tasks: JoinSet<T>) -> Vec<T> {
        tasks.join_all().await
    }
    fn timeout<F: Future>(limit: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
        evbase::time::timeout(limit, future)
    }
    fn timeout_at<F: Future>(limit: Instant, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
        evbase::time::timeout_at(limit, future)
    }
    fn tick(interval: &mut Interval) -> impl Future<Output = Instant> {
        interval.tick()
    }

    fn new<T: AsFd + Send + 'static>(io: T) -> io::Result<AsyncFd<T>> {
        AsyncFd::new(io)
    }
    async fn ready<T: AsFd>(fd: &AsyncFd<T>, interest: Interest) -> [io::Result<ReadyGuard<'_, T>>; 3] {
        [fd.readable().await, fd.writable().await, fd.ready(interest).await]
    }
    async fn with<T: AsFd, R>(fd: &AsyncFd<T>, mut call: impl FnMut(&T) -> io::Result<R>) -> [io::Result<R>; 2] {
        [fd.read_with(&mut call).await, fd.write_with(&mut call).await]
    }
    fn poll<'a, T: AsFd>(fd: &'a AsyncFd<T>, cx: &mut Context<'_>) -> [Poll<io::Result<ReadyGuard<'a, T>>>; 2] {
        [fd.poll_read_ready(cx), fd.poll_write_ready(cx)]
    }
    fn guard<T: AsFd, R>(guard: &mut ReadyGuard<'_, T>, call: impl FnOnce(&AsyncFd<T>) -> io::Result<R>) -> Ready {
        let _: Result<io::Result<R>, TryIoError> = guard.try_io(call);
        guard.clear_ready();
        guard.retain_ready();
        guard.ready()
    }
    fn reads_and_writes<T: AsFd>()
    where
        for<'a> &'a T: io::Read + io::Write,
    {
        fn both<T: AsyncRead + AsyncWrite>() {}
        both::<AsyncFd<T>>();
        both::<&AsyncFd<T>>();
    }
    async fn sockets(stream: &mut TcpStream, listener: &TcpListener) -> io::Result<()> {
        let _: (TcpStream, SocketAddr) = listener.accept().await?;
        let _: Incoming<'_> = listener.incoming();
        let _: usize = stream.peek(&mut [0]).await?;
        let _: (bool, bool, u32) = (stream.nodelay()?, stream.keepalive()?, stream.ttl()?);
        let _: (ReadHalf<'_>, WriteHalf<'_>) = TcpStream::split(stream);
        let other: TcpStream = TcpStream::connect(listener.local_addr()?).await?;
        let _: (OwnedReadHalf, OwnedWriteHalf) = other.into_split();
        let _: Ready = stream.ready(Interest::READABLE).await?;
        Ok(())
    }
    async fn names(addrs: impl ToSocketAddrs) -> io::Result<Option<SocketAddr>> {
        let mut found = evbase::net::lookup_host(addrs).await?;
        Ok(found.next())
    }
    async fn datagrams(socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0];
        let _: usize = socket.send_to(&buffer, "127.0.0.1:1").await?;
        let _: (usize, SocketAddr) = socket.recv_from(&mut buffer).await?;
        let _: (usize, SocketAddr) = socket.peek_from(&mut buffer).await?;
        let _: Ready = socket.ready(Interest::WRITABLE).await?;
        let _: io::Result<()> = socket.try_io(Interest::WRITABLE, || Ok(()));
        Ok(())
    }
}

#[test]
fn reports_turns_and_errors_have_the_promised_parts() {
    fn eq<T: Eq>() {}
    eq::<SpawnErrorKind>();
    let _ =
        |report: Report| -> (Cause, [u64; 3]) { (report.cause, [report.completed, report.cancelled, report.panicked]) };
    let _ = |turn: Turn| -> ([usize; 3], bool) { ([turn.events, turn.timers, turn.polls], turn.closed || turn.more) };
    let _ = |cause| match cause {
        Cause::Requested | Cause::Dropped | Cause::HomeExited | _ => {}
    };
    let _ = |error| -> Option<ThreadId> {
        match error {
            RunError::NotHome { home } => Some(home),
            RunError::Stopped | RunError::Nested | RunError::Forked | RunError::ThreadExiting => None,
            RunError::Io(error) => {
                let _: io::Error = error;
                None
            }
            _ => None,
        }
    };
    let _ = |kind| -> Option<ThreadId> {
        match kind {
            SpawnErrorKind::NotHome { home } => Some(home),
            SpawnErrorKind::Stopped | SpawnErrorKind::Forked | SpawnErrorKind::ThreadExiting => None,
            _ => None,
        }
    };
    let _ = [
        WaitError::InsideLoop,
        WaitError::Unbound,
        WaitError::Forked,
        WaitError::ThreadExiting,
    ];
}

#[test]
fn what_is_watched_has_the_promised_parts() {
    fn told<T: Clone + Debug + Send + Sync + 'static>() {}
    told::<Dump>();
    told::<TaskDump>();
    told::<WaitsFor>();
    told::<TaskInfo>();
    told::<Stall>();
    fn value<T: Copy + Eq + Debug + Send + Sync + 'static>() {}
    value::<TaskId>();
    value::<TaskState>();
    value::<Priority>();
    value::<End>();
    value::<Histogram>();
    value::<Metrics>();
    send::<Hold>();
    clone::<Builder>();
    fn shown<T: Display>() {}
    shown::<Dump>();
    shown::<Histogram>();
    shown::<Stall>();

    let _: [fn(Builder) -> Builder; 2] = [Builder::measure, Builder::paused];
    let _: fn(Builder, u64) -> Builder = Builder::shuffle;
    let _: fn(&Runtime) -> Result<Dump, RunError> = Runtime::dump;
    let _: fn(&LocalSpawner) -> Result<Dump, RunError> = LocalSpawner::dump;
    let _: fn(&Histogram, usize) -> u64 = Histogram::count;
    let _: fn(&Histogram, usize) -> Duration = Histogram::bound;
    let _: fn() -> Option<TaskId> = evbase::task::id;
    let _: [fn(&'static str); 1] = [evbase::task::set_name];
    let _: fn(&JoinHandle<Nothing>) -> TaskId = JoinHandle::id;
    let _: fn() -> Instant = evbase::time::now;
    let _: fn() -> Hold = evbase::time::hold;
    // What is called there may be only `Send`.
    let calls: SendOnly = Cell::new(0);
    let _ = |builder: Builder| builder.on_stall(Duration::from_secs(1), move |_: &Stall| calls.set(1 + calls.get()));
    struct Silent(#[allow(dead_code)] SendOnly);
    impl Observer for Silent {}
    struct Loud;
    impl Observer for Loud {
        fn spawned(&mut self, _: &TaskInfo) {}
        fn before_poll(&mut self, _: &TaskInfo) {}
        fn after_poll(&mut self, _: &TaskInfo) {}
        fn ended(&mut self, _: &TaskInfo, end: End) {
            match end {
                End::Completed | End::Cancelled | End::Panicked => {}
            }
        }
    }
    let _ = |builder: Builder| builder.observe(Silent(Cell::new(0))).observe(Loud);

    let _ = |metrics: Metrics| -> ([u64; 6], [Duration; 2], [Histogram; 3]) {
        (
            [
                metrics.ready,
                metrics.sources,
                metrics.timers_armed,
                metrics.messages,
                metrics.notified,
                metrics.forced_yields,
            ],
            [metrics.busy, metrics.waited],
            [metrics.poll_times, metrics.pass_times, metrics.timer_lag],
        )
    };
    let _ = |dump: Dump| -> (Vec<TaskDump>, usize, usize, Option<Instant>) {
        (dump.tasks, dump.sources, dump.timers, dump.next_deadline)
    };
    let _ = |task: TaskDump| -> (TaskId, &'static str, Option<String>, Option<u32>, TaskState, Priority) {
        for waits in &task.waits {
            match waits {
                WaitsFor::Fd { fd, interest } => {
                    let _: (&i32, &Interest) = (fd, interest);
                }
                WaitsFor::Timer { deadline } => {
                    let _: &Instant = deadline;
                }
                _ => {}
            }
        }
        let line = task.location.map(|location| location.line());
        (task.id, task.type_name, task.name, line, task.state, task.priority)
    };
    let _ = |state| match state {
        TaskState::Ready | TaskState::Waiting | TaskState::Running => {}
    };
    let _ = |stall: Stall| -> (Option<TaskInfo>, Duration, bool, ThreadId, u64) {
        (stall.task, stall.lasted, stall.ongoing, stall.home, stall.os_thread)
    };
}

#[test]
fn an_error_about_the_wrong_thread_names_both_threads_and_what_to_do() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("the home").unwrap();
    let home = runtime.home().unwrap();
    let here = thread::current().id();
    let names_both = |text: String| {
        assert!(text.contains(&format!("{home:?}")), "it does not name the home: {text}");
        assert!(
            text.contains(&format!("{here:?}")),
            "it does not name this thread: {text}"
        );
    };

    for error in [
        runtime.block_on(async {}).unwrap_err(),
        runtime.run().unwrap_err(),
        runtime.turn(None).unwrap_err(),
        runtime.enter().unwrap_err(),
        runtime.local_spawner().unwrap_err(),
    ] {
        assert!(
            matches!(error, RunError::NotHome { home: named } if named == home),
            "{error:?}"
        );
        names_both(error.to_string());
    }

    let error = runtime.spawn_local(async {}).unwrap_err();
    assert_eq!(error.kind(), SpawnErrorKind::NotHome { home });
    names_both(error.to_string());
    assert!(error.to_string().contains("spawn_with"), "what to do instead: {error}");

    let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = runtime.spawner().spawn(async move {
        let fd = AsyncFd::new(left).unwrap();
        assert!(
            crate::support::poll_here(std::pin::pin!(fd.readable()))
                .await
                .is_pending()
        );
        fd
    });
    let error = fd.wait().unwrap().unwrap().into_inner().unwrap_err();
    assert_eq!(error.home(), home);
    names_both(error.to_string());
}

#[test]
fn errors_say_what_went_wrong_and_what_to_do() {
    let says = |error: &dyn Error, words: &[&str]| {
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{error:?} says {text:?}, and nothing of {word:?}");
        }
    };
    says(&RunError::Stopped, &["shut down", "make a new one"]);
    says(&RunError::Nested, &["inside", "spawn", "await"]);
    says(&RunError::Forked, &["fork", "make a new one"]);
    says(&RunError::ThreadExiting, &["exiting"]);
    says(&WaitError::InsideLoop, &["inside", "await"]);
    says(&WaitError::Unbound, &["no thread", "block_on"]);
    says(&WaitError::Forked, &["fork", "make a new one"]);
    says(&WaitError::ThreadExiting, &["exiting"]);
    says(&SpawnErrorKind::Stopped, &["shutting down"]);
    says(&SpawnErrorKind::Forked, &["fork", "make a new one"]);

    let io = RunError::Io(std::io::Error::from_raw_os_error(libc::EBADF));
    assert!(io.source().is_some(), "the cause is there");
}

#[test]
fn a_nested_call_and_a_blocking_wait_inside_the_loop_are_errors_not_deadlocks() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let other = Runtime::new().unwrap();
    runtime
        .block_on(async {
            assert!(matches!(runtime.block_on(async {}), Err(RunError::Nested)));
            assert!(matches!(runtime.run(), Err(RunError::Nested)));
            assert!(matches!(runtime.turn(None), Err(RunError::Nested)));
            assert!(matches!(other.block_on(async {}), Err(RunError::Nested)));
            let pending = evbase::spawn_local(std::future::pending::<()>());
            assert_eq!(pending.wait().unwrap_err(), WaitError::InsideLoop);
            assert_eq!(
                runtime.shutdown_handle().terminated().wait().unwrap_err(),
                WaitError::InsideLoop
            );
        })
        .unwrap();
}
