//! What the tests of handles, timers and I/O share: a watchdog, probes that record where things are dropped, random
//! numbers, and tests that run in a process of their own.

#![allow(dead_code, unused_macros, unused_imports, unreachable_pub)]

use std::io::Write;
use std::marker::PhantomData;
use std::process::{Command, abort};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// How long a test may take. Far more than any of them needs, also on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

/// A bound for what has to happen "soon", which only a bug exceeds.
pub const SOON: Duration = Duration::from_secs(10);

/// Aborts the process, and says which test hung, unless it is dropped in time.
pub struct Watchdog {
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    pub fn start(name: &'static str) -> Self {
        let name = name.trim_end_matches("::here");
        let (alive, gone) = mpsc::channel::<()>();
        thread::spawn(move || {
            if gone.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Not `eprintln!`, which the test harness captures.
                let _ = writeln!(
                    std::io::stderr(),
                    "\nwatchdog: {name} hangs: still running after {LIMIT:?}"
                );
                abort();
            }
        });
        Self { _alive: alive }
    }
}

/// Puts the rest of the test under a watchdog.
macro_rules! watch {
    () => {
        fn here() {}
        let _watchdog = $crate::util::Watchdog::start(std::any::type_name_of_val(&here));
    };
}
pub(crate) use watch;

/// Where probes were dropped.
#[derive(Clone, Debug, Default)]
pub struct DropLog(Arc<Mutex<Vec<ThreadId>>>);

impl DropLog {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn probe(&self) -> DropProbe {
        DropProbe(self.clone())
    }

    /// A probe that can't leave the thread on which it was made.
    pub fn local_probe(&self) -> LocalDropProbe {
        LocalDropProbe {
            _probe: self.probe(),
            made_on: thread::current().id(),
            _not_send: PhantomData,
        }
    }

    pub fn threads(&self) -> Vec<ThreadId> {
        self.0.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits until `count` probes were dropped.
    pub fn wait_for(&self, count: usize) -> Vec<ThreadId> {
        until(|| self.len() >= count);
        self.threads()
    }
}

/// Records the thread on which it is dropped.
#[derive(Debug)]
pub struct DropProbe(DropLog);

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().push(thread::current().id());
    }
}

/// As `DropProbe`, but not `Send`; checks that it never was somewhere else.
#[derive(Debug)]
pub struct LocalDropProbe {
    _probe: DropProbe,
    made_on: ThreadId,
    _not_send: PhantomData<Rc<()>>,
}

impl LocalDropProbe {
    pub fn check(&self) {
        assert_eq!(
            thread::current().id(),
            self.made_on,
            "touched on a thread where it was not made"
        );
    }
}

/// Lets other threads run until the condition holds. Only for what nobody announces; the watchdog ends it.
pub fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_micros(50));
    }
}

/// Small, and good enough to vary a test. The seed is in the panic message of whoever prints it.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// Runs `body` in a process of its own, which runs this one test again; `name` is the test's.
pub fn in_own_process(name: &str, body: impl FnOnce()) {
    const CHILD: &str = "EVBASE_TEST_CHILD";
    if std::env::var(CHILD).as_deref() == Ok(name) {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains("1 passed"),
        "in its own process: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The numbers of the open descriptors of this process.
pub fn open_descriptors() -> Vec<i32> {
    // SAFETY: F_GETFD takes no pointer, and answers EBADF for a number that is not open.
    (0..4096)
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1)
        .collect()
}

/// Sets the soft limit of open descriptors, and says what it was.
pub fn limit_descriptors(most: usize) -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the local for their length.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = (most as libc::rlim_t).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        before as usize
    }
}

/// Polls a future once, with the waker of the surrounding task.
pub async fn poll_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut future).poll(cx))).await
}

/// What a panic said.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    (payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no text)".to_owned())
}

/// Runs code that is to panic, and gives what the panic said.
pub fn panics<R>(code: impl FnOnce() -> R) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => panic_text(&*payload),
    }
}

/// Turns the loop until the condition holds.
pub fn turn_until(runtime: &evbase::Runtime, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "the loop turned for {SOON:?} in vain");
        runtime.turn(Some(Duration::from_millis(20))).unwrap();
    }
}
