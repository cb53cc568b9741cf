//! What the tasks do.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use evbase::net::TcpListener;
use evbase::time::{Sleep, interval, sleep, timeout};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ledger::Door;
use crate::street::Count;
use crate::support::Random;
use crate::watch::violation;

/// Rung by one thread, heard by a task of another.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn ring(&self) {
        self.rung.store(true, SeqCst);
        if let Some(waker) = self.waker() {
            waker.wake();
        }
    }

    /// The waker of who listens, if there is one.
    pub(crate) fn waker(&self) -> Option<Waker> {
        self.waker.lock().unwrap().take()
    }

    pub(crate) async fn heard(self: Arc<Self>) {
        poll_fn(|cx| {
            let old = self.waker.lock().unwrap().replace(cx.waker().clone());
            drop(old);
            match self.rung.load(SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Not `Send`; says so if it is dropped elsewhere nevertheless.
pub(crate) struct Homely {
    made_on: ThreadId,
    value: Rc<Cell<u64>>,
}

impl Homely {
    pub(crate) fn new(value: u64) -> Self {
        Self {
            made_on: thread::current().id(),
            value: Rc::new(Cell::new(value)),
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.value.get()
    }
}

impl Drop for Homely {
    fn drop(&mut self) {
        if self.made_on != thread::current().id() {
            violation("a value that is not Send was dropped abroad");
        }
    }
}

/// Sends back what comes, until nothing comes any more.
pub(crate) async fn echo_back<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

/// Sends a few messages, each of which has to come back as it was.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, mut random: Random) -> io::Result<()> {
    for _ in 0..=random.below(4) {
        let message = message(1 + random.below(3000) as usize);
        stream.write_all(&message).await?;
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).await?;
        came_back(&message, &answer);
    }
    Count::Echoes.add(1);
    Ok(())
}

/// Something to send, which says of each eight bytes of which message they are, and where in it.
pub(crate) fn message(len: usize) -> Vec<u8> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, SeqCst) + 1;
    let words = (0..len as u64).step_by(8).map(|at| (at << 48 | number).to_le_bytes());
    words.flatten().take(len).collect()
}

pub(crate) fn came_back(message: &[u8], answer: &[u8]) {
    if message != answer {
        let at = message
            .iter()
            .zip(answer)
            .take_while(|(sent, came)| sent == came)
            .count();
        let words = |bytes: &[u8]| -> Vec<String> {
            let from = at.saturating_sub(8) / 8 * 8;
            let words = bytes[from..].chunks_exact(8).take(6);
            let words = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
            words
                .map(|word| format!("{}@{}", word & 0xffff_ffff_ffff, word >> 48))
                .collect()
        };
        violation(&format!(
            "an echo of {} bytes is another at {at}: {:?}, and was sent as {:?}",
            message.len(),
            words(answer),
            words(message)
        ));
    }
    Count::Bytes.add(message.len() as u64);
}

/// Where this process listens. When a runtime has ended, its port may be another process's: that listens at 127.0.0.1, and answers
/// what it likes.
pub(crate) fn address(port: u16) -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ours = match cfg!(target_os = "linux") {
        true => [127, 64 | high & 63, middle, low],
        // Elsewhere, loopback has one address.
        false => [127, 0, 0, 1],
    };
    SocketAddr::from((ours, port))
}

/// Accepts connections, and tells the port.
pub(crate) async fn listen(door: Door, tell: impl FnOnce(u16)) {
    let listener = TcpListener::bind(address(0)).await.expect("a listener");
    tell(listener.local_addr().expect("bound").port());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(door.spawn_local(async { drop(echo_back(stream).await) })),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Arms timers, moves and cancels some, and sees that none is early.
pub(crate) async fn timers(mut random: Random) {
    let mut sleeps = Vec::new();
    for _ in 0..=random.below(12) {
        let mut sleep = sleep(Duration::from_micros(random.below(3000)));
        if random.below(4) > 0 {
            arm(&mut sleep).await;
        }
        match random.below(5) {
            0 => drop(sleep),
            1 => {
                sleep.reset(Instant::now() + Duration::from_micros(random.below(2000)));
                sleeps.push(sleep);
            }
            2 => {
                sleep.reset(Instant::now() + Duration::from_secs(3600));
                arm(&mut sleep).await;
            }
            _ => sleeps.push(sleep),
        }
    }
    for mut sleep in sleeps {
        (&mut sleep).await;
        if Instant::now() < sleep.deadline() {
            violation("a timer was early");
        }
        Count::Timers.add(1);
    }
    if timeout(Duration::from_micros(random.below(500)), pending::<()>())
        .await
        .is_ok()
    {
        violation("a future that never ends has ended");
    }
    let mut interval = interval(Duration::from_micros(100 + random.below(300)));
    for _ in 0..random.below(3) {
        interval.tick().await;
        Count::Timers.add(1);
    }
}

/// Polls it once.
pub(crate) async fn arm(sleep: &mut Sleep) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut *sleep).poll(cx);
        Poll::Ready(())
    })
    .await;
}

/// Ready at once, but only when its waker was cloned and dropped a few times.
pub(crate) async fn clones_wakers() {
    poll_fn(|cx: &mut Context<'_>| {
        let wakers: Vec<Waker> = (0..4).map(|_| cx.waker().clone()).collect();
        if !wakers.iter().all(|waker| waker.will_wake(cx.waker())) {
            violation("a clone of a waker wakes something else");
        }
        Poll::Ready(())
    })
    .await;
}
