//! Home is hit by ten thousand signals a second, whose handler doesn't restart what it interrupts, while it serves sockets,
//! timers and tasks from abroad: every call that is interrupted is made again, and nothing is lost.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use evbase::net::{TcpListener, TcpStream};
use evbase::time::{interval, sleep, timeout};
use evbase::{Builder, Cause, Runtime, Spawner, spawn_local};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Drops, alone};

/// How many have to come while the work is done.
const SIGNALS: usize = 10_000;

const EVERY: Duration = Duration::from_micros(100);

static SENT: AtomicUsize = AtomicUsize::new(0);
/// Fewer: two that come while home gets no time are one.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

/// Counts SIGUSR1, without SA_RESTART: system calls end with EINTR.
fn handle_signals() {
    // SAFETY: the structure is plain data, for which zeros are good; the handler does nothing but an atomic addition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
}

/// A thread that sends signals to another until it is dropped.
struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    /// The thread must outlive the storm.
    fn over(target: libc::pthread_t) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = over.clone();
            // A number on Linux, and a pointer elsewhere: what it names is not touched here.
            let target = target as usize;
            move || {
                let mut next = Instant::now();
                while !over.load(SeqCst) {
                    // SAFETY: the thread runs, as `over` was promised.
                    unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGUSR1) };
                    SENT.fetch_add(1, SeqCst);
                    next += EVERY;
                    // One that comes late is made up for, so that there are as many in a second.
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

fn me() -> libc::pthread_t {
    // SAFETY: takes nothing, and can't fail.
    unsafe { libc::pthread_self() }
}

/// Whether the storm has raged long enough; `since` is the count at its beginning.
fn enough(since: usize) -> bool {
    SENT.load(SeqCst) >= since + SIGNALS
}

/// Echoes; each connection until its end.
async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        drop(spawn_local(async move {
            let mut buffer = vec![0; 8192];
            loop {
                match (&stream).read(&mut buffer).await.unwrap() {
                    0 => break,
                    n => (&stream).write_all(&buffer[..n]).await.unwrap(),
                }
            }
        }));
    }
}

/// One connection, more bytes than the sockets hold, and all of them back. Gives how many.
async fn echo(address: std::net::SocketAddr, seed: u8) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let sent: Vec<u8> = (0..40_000_u32).map(|n| n as u8 ^ seed).collect();
    let (mut read, mut write) = TcpStream::split(&mut stream);
    let mut received = vec![0; sent.len()];
    let (written, read) = futures::join!(write.write_all(&sent), read.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert!(sent == received);
    stream.close().await.unwrap();
    received.len()
}

async fn clients(address: std::net::SocketAddr, since: usize) -> usize {
    let mut rounds = 0;
    while !enough(since) || rounds < 20 {
        assert_eq!(echo(address, rounds as u8).await, 40_000);
        rounds += 1;
    }
    rounds
}

async fn timers(since: usize) {
    let mut ticks = interval(Duration::from_micros(700));
    while !enough(since) {
        let start = Instant::now();
        sleep(Duration::from_micros(350)).await;
        assert!(start.elapsed() >= Duration::from_micros(350));
        assert!(
            timeout(Duration::from_micros(150), std::future::pending::<()>())
                .await
                .is_err()
        );
        ticks.tick().await;
    }
}

/// Tasks from abroad, until the storm has raged long enough; each one is waited for. Gives how many.
fn spawn_from_abroad(spawner: &Spawner, since: usize) -> u64 {
    let mut spawned = 0;
    while !enough(since) {
        let handles: Vec<_> = (0..8).map(|n| spawner.spawn(async move { n })).collect();
        spawned += handles.len() as u64;
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.wait().unwrap().unwrap(), n);
        }
    }
    spawned
}

/// All the work, with home wherever it is. Ends when every part of it has.
async fn work(since: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn_local(serve(listener));
    let parts: [std::pin::Pin<Box<dyn Future<Output = ()>>>; 3] = [
        Box::pin(async move { assert!(clients(address, since).await >= 20) }),
        Box::pin(async move { assert!(clients(address, since).await >= 20) }),
        Box::pin(timers(since)),
    ];
    futures::future::join_all(parts.map(spawn_local))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
}

#[test]
fn a_home_in_a_storm_of_signals_does_all_its_work() {
    alone(|| {
        handle_signals();
        // Who serves a connection may not have seen its end yet when the client has.
        let runtime = Runtime::builder().grace(Duration::MAX).build().unwrap();
        runtime.block_on(async {}).unwrap();
        let since = SENT.load(SeqCst);
        let abroad: Vec<_> = (0..2)
            .map(|_| {
                let spawner = runtime.spawner();
                thread::spawn(move || spawn_from_abroad(&spawner, since))
            })
            .collect();
        let storm = Storm::over(me());
        runtime.block_on(work(since)).unwrap();
        let waits = abroad
            .into_iter()
            .map(|thread| async { evbase::unblock(|| thread.join().unwrap()).await });
        let spawned: u64 = runtime.block_on(futures::future::join_all(waits)).unwrap().iter().sum();
        let report = runtime.shutdown().wait().unwrap();
        drop(storm);
        assert!(enough(since) && HANDLED.load(SeqCst) > 0);
        assert_eq!((report.panicked, report.cancelled), (0, 1));
        assert!(report.completed >= spawned + 43, "{report:?}, {spawned} from abroad");
    });
}

#[test]
fn a_home_thread_of_its_own_is_stopped_and_dropped_in_a_storm() {
    alone(|| {
        handle_signals();
        let since = SENT.load(SeqCst);
        let mut rounds = 0;
        while !enough(since) {
            let drops = Drops::new();
            let runtime = Builder::new().grace(Duration::from_secs(3600)).start("home").unwrap();
            let (home, spawner) = (runtime.home().unwrap(), runtime.spawner());
            let target = spawner.spawn(async { me() as usize }).wait().unwrap().unwrap();
            // Keeps home's thread there until the storm is over.
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let last = OnExit(Cell::new(Some(opened)));
            let kept = spawner.spawn_with(move || {
                LAST.with(|kept| kept.0.set(last.0.take()));
                async {}
            });
            kept.wait().unwrap().unwrap();
            let storm = Storm::over(target as libc::pthread_t);
            for n in 0..50 {
                let probe = drops.probe();
                let task = spawner.spawn(async move {
                    let _probe = probe;
                    sleep(Duration::from_micros(50 * (n % 4))).await;
                    n
                });
                if n % 2 == 0 {
                    assert_eq!(task.wait().unwrap().unwrap(), n);
                }
            }
            let report = runtime.shutdown().wait().unwrap();
            drop(storm);
            drop(gate);
            assert_eq!(
                (report.cause, report.cancelled, report.completed),
                (Cause::Dropped, 0, 52)
            );
            assert_eq!(drops.threads(), [home; 50]);
            rounds += 1;
        }
        assert!(rounds > 0 && HANDLED.load(SeqCst) > 0);
    });
}

/// Blocks the end of the thread until the other side of the channel is dropped.
struct OnExit(Cell<Option<std::sync::mpsc::Receiver<()>>>);

thread_local! {
    static LAST: OnExit = const { OnExit(Cell::new(None)) };
}

impl Drop for OnExit {
    fn drop(&mut self) {
        if let Some(opened) = self.0.take() {
            let _ = opened.recv();
        }
    }
}
