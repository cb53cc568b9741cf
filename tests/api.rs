//! What the compiler can prove of the public types: who may cross threads, who may move, who can be copied. And the
//! errors: that they are errors, name the threads, and say what to do.

mod util;

use std::cell::Cell;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::marker::PhantomPinned;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::{AsyncFd, Interest, IntoInnerError, Ready, ReadyGuard};
use evbase::net::{Incoming, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, TcpListener, TcpStream, WriteHalf};
use evbase::time::{Elapsed, Interval, MissedTick, Sleep, Timeout};
use evbase::{
    AbortHandle, Builder, Cause, EnterGuard, JoinError, JoinHandle, LocalSpawner, Metrics, Report, Requested, RunError,
    Runtime, Shutdown, SignalGuard, SpawnError, SpawnErrorKind, Spawner, Terminated, Turn, WaitError, base,
};
use futures::Stream;
use futures::future::FusedFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::{LocalSpawn, Spawn};

use util::watch;

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
    copy::<Interest>();
    copy::<Ready>();
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

    fn reads<T: AsyncRead>() {}
    fn writes<T: AsyncWrite>() {}
    reads::<TcpStream>();
    writes::<TcpStream>();
    reads::<&TcpStream>();
    writes::<&TcpStream>();
    reads::<AsyncFd<std::os::unix::net::UnixStream>>();
    writes::<AsyncFd<std::os::unix::net::UnixStream>>();
    reads::<&AsyncFd<std::os::unix::net::UnixStream>>();
    writes::<&AsyncFd<std::os::unix::net::UnixStream>>();
    reads::<OwnedReadHalf>();
    writes::<OwnedWriteHalf>();
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
    copy::<MissedTick>();
    assert_eq!(MissedTick::default(), MissedTick::Burst);
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
fn an_error_about_the_wrong_thread_names_both_threads_and_what_to_do() {
    watch!();
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
        assert!(util::poll_once(std::pin::pin!(fd.readable())).await.is_pending());
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
    watch!();
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
