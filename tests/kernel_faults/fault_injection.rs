//! Every system call of the loop fails, the first time, the second time, and so on, in every way that its man page allows.
//!
//! A round of real work (tasks from abroad, timers, sockets, a panic, an abort, a stop with a grace period) is repeated once
//! for each call that it makes. After each: nobody hangs; whoever asked has heard of the error, and no other, or the work is
//! done; of an error that passes, the work is done in a second try; accepted = completed + cancelled + panicked; each future
//! was dropped once, at home; no descriptor is left, and none was closed twice; the number of system calls has a bound.

// The sanitizers put themselves in the place of the same functions.

use std::future::{Future, pending};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::net::{TcpListener, TcpStream};
use evbase::time::{interval, sleep, timeout};
use evbase::{Builder, Cause, JoinHandle, Report, RunError, Shutdown, Spawner};
use futures::channel::oneshot;
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::faulty_calls::{Call, Counted, FOR_EVER, Plan, SPURIOUS, with_faults};
use crate::support::{DropProbe, Drops, alone_within, open_descriptors, watchdog};

/// Longer than any test runs: whoever waits it out hangs.
const LONG: Duration = Duration::from_secs(3600);

/// What a round knows of itself.
struct Round {
    plan: Option<Plan>,
    /// The runtime has a thread of its own, and nobody who could drive it again.
    is_started: bool,
    /// Errors that somebody was told.
    told: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    drops: Drops,
}

impl Round {
    fn new(plan: Option<Plan>, is_started: bool) -> Arc<Self> {
        Arc::new(Self {
            plan,
            is_started,
            told: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            drops: Drops::new(),
        })
    }

    /// How often something is tried: an error that passes has passed by the last time.
    fn tries(&self) -> usize {
        match self.plan {
            Some(plan) if !plan.is_lasting() => plan.times + 1,
            _ => 2,
        }
    }

    /// Whether everything has to work, sooner or later.
    fn is_to_work(&self) -> bool {
        self.plan.is_none_or(|plan| {
            let is_error = !matches!(plan.errno, libc::EINTR | SPURIOUS);
            !(plan.is_lasting() || self.is_started && is_wait(plan.call) && is_error)
        })
    }

    /// Somebody was told an error: the one that was planned, by its name.
    fn hear(&self, error: &io::Error) {
        self.told.fetch_add(1, SeqCst);
        let plan = self.plan.unwrap_or_else(|| panic!("an error without a plan: {error}"));
        let as_planned = error.raw_os_error() == Some(plan.errno)
            || match plan.errno {
                // A kernel that says so of a descriptor that is not registered contradicts itself in the next call.
                libc::EEXIST => error.raw_os_error() == Some(libc::ENOENT),
                libc::EPERM => error.kind() == ErrorKind::Unsupported && error.to_string().contains("regular file"),
                libc::ENOENT => error.kind() == ErrorKind::NotFound && error.to_string().contains("not registered"),
                _ => false,
            };
        // What a lasting error has cut off.
        let consequence = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::NotConnected
        );
        assert!(
            as_planned || plan.is_lasting() && consequence,
            "{plan:?}, but somebody heard of {error:?}"
        );
        assert!(!error.to_string().is_empty());
    }

    /// Tries again while there is hope.
    fn persist<R>(&self, mut operation: impl FnMut() -> io::Result<R>) -> Option<R> {
        for _ in 0..self.tries() {
            match operation() {
                Ok(value) => return Some(value),
                Err(error) => self.hear(&error),
            }
        }
        assert!(!self.is_to_work(), "{:?}: {} tries in vain", self.plan, self.tries());
        None
    }

    async fn persist_async<R, F: Future<Output = io::Result<R>>>(&self, mut operation: impl FnMut() -> F) -> Option<R> {
        for _ in 0..self.tries() {
            match operation().await {
                Ok(value) => return Some(value),
                Err(error) => self.hear(&error),
            }
        }
        assert!(!self.is_to_work(), "{:?}: {} tries in vain", self.plan, self.tries());
        None
    }

    /// Spawns from wherever this is, as a task that is counted and has a probe.
    fn spawn<F>(
        self: &Arc<Self>,
        spawner: &Spawner,
        make: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Option<Handle>
    where
        F: Future<Output = ()> + 'static,
    {
        let (round, probe) = (self.clone(), self.drops.probe());
        let task = move || {
            let future = make(round);
            async move {
                let _probe: DropProbe = probe;
                future.await;
            }
        };
        match spawner.try_spawn_with(task) {
            Ok(handle) => {
                self.accepted.fetch_add(1, SeqCst);
                Some(handle)
            }
            Err(error) => {
                assert!(!self.is_to_work(), "{:?}: {error}", self.plan);
                self.refused.fetch_add(1, SeqCst);
                None
            }
        }
    }

    /// What holds of every round when its runtime has ended.
    fn check(&self, home: ThreadId, report: Report) {
        let (accepted, refused) = (self.accepted.load(SeqCst), self.refused.load(SeqCst));
        assert_eq!(
            accepted,
            report.completed + report.cancelled + report.panicked,
            "{:?}: {report:?}",
            self.plan
        );
        let drops = self.drops.threads();
        let at_home = drops.iter().filter(|thread| **thread == home).count() as u64;
        // Refused tasks are dropped by whoever wanted to spawn them, which may be home.
        assert_eq!(drops.len() as u64, accepted + refused, "{:?}", self.plan);
        assert!(at_home >= accepted, "{:?}: {at_home} of {accepted}", self.plan);
    }
}

type Handle = JoinHandle<()>;

// ---- The work ----

/// Sends more through a pair of sockets than they hold: both sides have to wait, and the writer's interest is extended.
async fn through_a_pair(round: Arc<Round>) {
    const LEN: usize = 300_000;
    let Some((near, far)) = round.persist(UnixStream::pair) else {
        return;
    };
    let read = read_to_the_end(round.clone(), far);
    let write = async {
        let Some(near) = round.persist(|| AsyncFd::new(near.try_clone().unwrap())) else {
            return drop(near.shutdown(std::net::Shutdown::Both));
        };
        let mut left = LEN;
        while left > 0 {
            let bytes = vec![7; left.min(64 * 1024)];
            let write = || near.write_with(|mut socket| socket.write(&bytes));
            let Some(n) = round.persist_async(write).await else {
                break;
            };
            left -= n;
        }
        // Given back, and registered again under the same number.
        let near = near.into_inner().unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        if let Some(near) = round.persist(|| AsyncFd::new(near.try_clone().unwrap())) {
            round.persist_async(|| async { near.writable().await.map(drop) }).await;
        }
    };
    let (read, ()) = futures::join!(read, write);
    if round.is_to_work() {
        assert_eq!(read, Some(LEN), "{:?}", round.plan);
    }
}

/// How much there was; `None` if it can't be read.
async fn read_to_the_end(round: Arc<Round>, socket: UnixStream) -> Option<usize> {
    let socket = round.persist(|| AsyncFd::new(socket.try_clone().unwrap()))?;
    let mut sum = 0;
    loop {
        let read = || async {
            let mut buffer = vec![0; 64 * 1024];
            socket.read_with(|mut socket| socket.read(&mut buffer)).await
        };
        match round.persist_async(read).await? {
            0 => return Some(sum),
            n => sum += n,
        }
    }
}

/// A connection, a greeting both ways, and the end.
async fn through_tcp(round: Arc<Round>) {
    let end = try_tcp(&round).await;
    if round.is_to_work() {
        assert_eq!(end, Some(0), "{:?}", round.plan);
    }
}

async fn try_tcp(round: &Round) -> Option<usize> {
    let listener = round.persist_async(|| TcpListener::bind("127.0.0.1:0")).await?;
    let address = listener.local_addr().unwrap();
    let mut client = round.persist_async(|| TcpStream::connect(address)).await?;
    let ours = client.local_addr().unwrap();
    let mut server = loop {
        let (server, peer) = round.persist_async(|| listener.accept()).await?;
        // A client that was given up may be in the queue before this one.
        if peer == ours {
            break server;
        }
    };
    for (one, other) in [(&client, &server), (&server, &client)] {
        round
            .persist_async(|| async { (&*one).write_all(b"hello").await })
            .await?;
        let read = || async {
            let mut buffer = [0; 5];
            (&*other).read_exact(&mut buffer).await.map(|()| buffer)
        };
        assert_eq!(round.persist_async(read).await?, *b"hello");
    }
    client.close().await.unwrap();
    let end = round
        .persist_async(|| async { (&server).read(&mut [0; 5]).await })
        .await;
    server.close().await.unwrap();
    end
}

async fn timers(_: Arc<Round>) {
    let start = Instant::now();
    sleep(Duration::from_micros(300)).await;
    assert!(start.elapsed() >= Duration::from_micros(300));
    assert!(timeout(Duration::from_micros(200), pending::<()>()).await.is_err());
    assert!(start.elapsed() >= Duration::from_micros(500));
    let mut interval = interval(Duration::from_micros(100));
    for _ in 0..4 {
        interval.tick().await;
    }
    assert!(start.elapsed() >= Duration::from_micros(800));
}

/// Ends in the grace period.
async fn until_a_stop(_: Arc<Round>) {
    Shutdown::current().requested().await;
    sleep(Duration::from_micros(200)).await;
}

/// The part of the work that comes from another thread: tasks that end, panic and are aborted, each waited for; and a
/// descriptor that is closed abroad.
fn from_abroad(round: &Arc<Round>, spawner: &Spawner) {
    let ends = round.spawn(spawner, timers);
    let panics = round.spawn(spawner, |_| async { panic!("on purpose") });
    let aborted = round.spawn(spawner, |_| pending());
    let (give, take) = mpsc::channel();
    let gives = round.spawn(spawner, move |round| async move {
        let Some((near, far)) = round.persist(UnixStream::pair) else {
            return;
        };
        let Some(fd) = round.persist(|| AsyncFd::new(near.try_clone().unwrap())) else {
            return;
        };
        let polled = std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = fd.poll_read_ready(cx) {
                round.hear(&error);
            }
            Poll::Ready(())
        });
        polled.await;
        let _ = give.send((fd, far));
    });
    // Registered there, closed here. It may be that it never comes.
    drop(take.recv());
    if let Some(aborted) = aborted {
        aborted.abort();
        assert!(aborted.wait().unwrap().unwrap_err().is_cancelled());
    }
    for (handle, is_to_end_well) in [(ends, true), (gives, true), (panics, false)] {
        let Some(handle) = handle else { continue };
        match handle.wait().unwrap() {
            Ok(()) => assert!(is_to_end_well),
            Err(error) => assert!(!is_to_end_well && error.is_panic() || !round.is_to_work() && error.is_cancelled()),
        }
    }
}

/// A runtime that is at home here, until it is shut down.
fn at_home(round: &Arc<Round>) {
    let Some(runtime) = round.persist(|| Builder::new().grace(LONG).build()) else {
        return;
    };
    // At home here, so that others can wait for it.
    drop(runtime.enter().unwrap());
    let spawner = runtime.spawner();
    let (done, mut is_done) = oneshot::channel();
    let abroad = thread::spawn({
        let (round, spawner) = (round.clone(), spawner.clone());
        move || {
            from_abroad(&round, &spawner);
            let _ = done.send(());
        }
    });
    let mut handles: Vec<Handle> = Vec::new();
    handles.extend(round.spawn(&spawner, through_a_pair));
    handles.extend(round.spawn(&spawner, through_tcp));
    handles.extend(round.spawn(&spawner, timers));
    drop(round.spawn(&spawner, until_a_stop));
    let mut failures = 0;
    loop {
        let root = async {
            for handle in &mut handles {
                if !handle.is_finished() {
                    handle.await.unwrap();
                }
            }
            (&mut is_done).await.unwrap();
        };
        match runtime.block_on(root) {
            Ok(()) => break,
            Err(RunError::Io(error)) => round.hear(&error),
            Err(error) => panic!("{error}"),
        }
        failures += 1;
        if failures >= round.tries() {
            assert!(!round.is_to_work());
            break;
        }
    }
    let home = thread::current().id();
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!(report.cause, Cause::Dropped);
    if round.is_to_work() {
        assert_eq!((report.panicked, abroad.join().is_ok()), (1, true), "{:?}", round.plan);
    } else {
        assert!(abroad.join().is_ok());
    }
    round.check(home, report);
}

/// A runtime with a thread of its own, used and dropped from here.
fn abroad(round: &Arc<Round>) {
    let Some(runtime) = round.persist(|| Builder::new().start("home")) else {
        return;
    };
    let home = runtime.home().unwrap();
    let (spawner, terminated) = (runtime.spawner(), runtime.shutdown_handle().terminated());
    let mut handles = Vec::new();
    let mut ends_early = 0;
    handles.extend(round.spawn(&spawner, through_tcp));
    handles.extend(round.spawn(&spawner, through_a_pair));
    for _ in 0..3 {
        drop(round.spawn(&spawner, |_| pending()));
    }
    from_abroad(round, &spawner);
    for handle in handles {
        ends_early += usize::from(handle.wait().unwrap().is_err());
    }
    drop(runtime);
    let report = terminated.wait().unwrap();
    match report.cause {
        // The kernel refused to wait, and the thread has ended.
        Cause::HomeExited => assert!(!round.is_to_work()),
        cause => assert_eq!((cause, ends_early), (Cause::Dropped, 0)),
    }
    round.check(home, report);
}

// ---- The sweep ----

/// More calls than this in a round are a spin.
const MOST_CALLS: usize = 5000;

fn round(plan: Option<Plan>, is_started: bool) -> (Counted, usize) {
    // A sweep may take long on a busy machine; a round may not.
    let _watchdog = watchdog();
    let before = open_descriptors();
    let round = Round::new(plan, is_started);
    let work = if is_started { abroad } else { at_home };
    let counted = with_faults(plan, || work(&round));
    // A home thread's own handles may keep its notify fd for a moment.
    crate::support::until(|| open_descriptors() == before);
    assert_eq!(counted.bad_closes, 0, "{plan:?}: closed twice");
    assert!(counted.all() < MOST_CALLS, "{plan:?}: {counted:?}");
    (counted, round.told.load(SeqCst))
}

fn is_wait(call: Call) -> bool {
    matches!(call, Call::Wait | Call::ExactWait | Call::Look)
}

/// Who hears of a failed call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Whoever asked. Of a wait: nobody, if it was home's own thread, or when there is an end to be made anyway.
    Told,
    /// Nobody: the call is made again, or does not matter.
    Hidden,
}

/// Fails the calls of one kind, one after the other, in each round another.
fn sweep(call: Call, cells: &[(libc::c_int, &[usize], Heard)]) {
    alone_within(LIMIT, || {
        std::panic::set_hook(Box::new({
            let loud = std::panic::take_hook();
            move |info| {
                if info.payload_as_str() != Some("on purpose") {
                    loud(info);
                }
            }
        }));
        // What is made once in a process.
        round(None, true);
        let (mut calls, mut rounds) = (0, 0);
        for is_started in [false, true] {
            let most = (0..3).map(|_| round(None, is_started).0.of(call)).max().unwrap();
            calls += most;
            for &(errno, times, heard) in cells {
                for &times in times {
                    let mut failed = 0;
                    for first in 1..=most.min(48) {
                        let plan = Plan {
                            call,
                            errno,
                            first,
                            times,
                        };
                        let (counted, told) = round(Some(plan), is_started);
                        failed += usize::from(counted.failed > 0);
                        match heard {
                            Hidden => assert_eq!(told, 0, "{plan:?}"),
                            Told => assert!(told > 0 || counted.failed == 0 || is_wait(call), "{plan:?}"),
                        }
                    }
                    println!("{call:?} started {is_started} errno {errno} times {times}: {failed} of {most}");
                    rounds += failed;
                }
            }
        }
        assert!(rounds > 0 || calls == 0, "{call:?}");
    });
}

use Heard::{Hidden, Told};

/// How long a sweep may take: some thousand rounds, each of which has a watchdog of its own.
const LIMIT: Duration = Duration::from_secs(600);

const ONCE: &[usize] = &[1];
const A_FEW: &[usize] = &[1, 3, 100];
const LASTING: &[usize] = &[1, 3, FOR_EVER];

/// A sweep, in a process of its own.
macro_rules! sweeps {
    ($($name:ident: $call:ident, [$($cell:expr),* $(,)?];)*) => {$(
        #[test]
        fn $name() {
            sweep(Call::$call, &[$($cell),*]);
        }
    )*};
}

sweeps! {
    making_a_queue: EpollCreate, [
        (libc::EMFILE, LASTING, Told),
        (libc::ENFILE, LASTING, Told),
        (libc::ENOMEM, LASTING, Told),
    ];
    making_an_eventfd: Eventfd, [
        (libc::EMFILE, LASTING, Told),
        (libc::ENFILE, LASTING, Told),
        (libc::ENODEV, LASTING, Told),
        (libc::ENOMEM, LASTING, Told),
        // There is a socket pair, then.
        (libc::ENOSYS, LASTING, Hidden),
    ];
    making_a_socket_pair: SocketPair, [
        (libc::EMFILE, LASTING, Told),
        (libc::ENFILE, LASTING, Told),
    ];
    registering: EpollAdd, [
        (libc::ENOMEM, LASTING, Told),
        (libc::ENOSPC, LASTING, Told),
        (libc::EPERM, LASTING, Told),
        (libc::EBADF, LASTING, Told),
        (libc::EEXIST, LASTING, Told),
        (libc::ELOOP, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
    ];
    extending_an_interest: EpollModify, [
        (libc::ENOMEM, LASTING, Told),
        (libc::EBADF, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
        (libc::ENOENT, LASTING, Told),
    ];
    deregistering: EpollRemove, [
        (libc::ENOMEM, LASTING, Hidden),
        (libc::EBADF, LASTING, Hidden),
        (libc::EINVAL, LASTING, Hidden),
        (libc::ENOENT, LASTING, Hidden),
    ];
    waiting: Wait, [
        (libc::EINTR, A_FEW, Hidden),
        (SPURIOUS, A_FEW, Hidden),
        (libc::EBADF, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
        (libc::EFAULT, LASTING, Told),
    ];
    waiting_for_a_time: ExactWait, [
        (libc::EINTR, A_FEW, Hidden),
        (SPURIOUS, A_FEW, Hidden),
        (libc::EBADF, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
        (libc::EFAULT, LASTING, Told),
    ];
    looking_without_a_wait: Look, [
        (libc::EINTR, A_FEW, Hidden),
        (SPURIOUS, A_FEW, Hidden),
        (libc::EBADF, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
        (libc::EFAULT, LASTING, Told),
    ];
    notifying: NotifyWrite, [
        (libc::EINTR, A_FEW, Hidden),
        // A counter at its maximum, which others fill again each time. A socket that says so wakes home.
        (libc::EAGAIN, if cfg!(evbase_pipe_notify) { &[] } else { &[1, 3, 16] }, Hidden),
        // A socket for whose byte there is no memory.
        (libc::ENOBUFS, if cfg!(evbase_pipe_notify) { &[1, 3, 16] } else { &[] }, Hidden),
    ];
    emptying_the_socket: NotifyRead, [
        (libc::EINTR, A_FEW, Hidden),
        (libc::EAGAIN, A_FEW, Hidden),
    ];
    making_a_socket: Socket, [
        (libc::EMFILE, LASTING, Told),
        (libc::ENFILE, LASTING, Told),
        (libc::ENOBUFS, LASTING, Told),
        (libc::ENOMEM, LASTING, Told),
        (libc::EACCES, LASTING, Told),
        (libc::EAFNOSUPPORT, LASTING, Told),
    ];
    binding: Bind, [
        (libc::EADDRINUSE, LASTING, Told),
        (libc::EADDRNOTAVAIL, LASTING, Told),
        (libc::EACCES, LASTING, Told),
    ];
    listening: Listen, [
        (libc::EADDRINUSE, LASTING, Told),
    ];
    connecting: Connect, [
        (libc::ECONNREFUSED, LASTING, Told),
        (libc::ENETUNREACH, LASTING, Told),
        (libc::ETIMEDOUT, LASTING, Told),
        (libc::EADDRNOTAVAIL, LASTING, Told),
        (libc::EAGAIN, LASTING, Told),
        (libc::EINTR, LASTING, Told),
        (libc::EPERM, LASTING, Told),
    ];
    asking_what_became_of_a_connection: SocketQuestion, [
        (libc::ENOBUFS, LASTING, Told),
    ];
    setting_an_option: SocketOption, [
        (libc::ENOBUFS, LASTING, Told),
        (libc::EINVAL, LASTING, Told),
    ];
    accepting: Accept, [
        (libc::EMFILE, LASTING, Told),
        (libc::ENFILE, LASTING, Told),
        (libc::ENOBUFS, LASTING, Told),
        (libc::ENOMEM, LASTING, Told),
        (libc::ECONNABORTED, LASTING, Told),
        (libc::EPERM, LASTING, Told),
        (libc::EPROTO, LASTING, Told),
        (libc::ENETDOWN, LASTING, Told),
        (libc::EHOSTUNREACH, LASTING, Told),
        (libc::EINTR, A_FEW, Hidden),
    ];
    receiving: Receive, [
        (libc::EINTR, A_FEW, Hidden),
        (libc::ENOMEM, LASTING, Told),
    ];
    sending: Send, [
        (libc::EINTR, A_FEW, Hidden),
        (libc::ENOMEM, LASTING, Told),
        (libc::ENOBUFS, LASTING, Told),
    ];
    not_blocking: Flags, [
        (libc::EBADF, LASTING, Told),
        (libc::EPERM, LASTING, Told),
    ];
    closing: Close, [
        (libc::EINTR, ONCE, Hidden),
        (libc::EIO, LASTING, Hidden),
    ];
}
