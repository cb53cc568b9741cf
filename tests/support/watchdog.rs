//! A hang is a failure: the watchdog, and what waits under it.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test may take that should take about a second.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A bound for what has to happen "soon", which only a bug exceeds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// How long is surely too long for something that does not happen by itself.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// The sanitizer that the tests are built with: `.ci/asan` says "address", `.ci/tsan` says "thread".
pub(crate) fn is_under_sanitizer(name: &str) -> bool {
    std::env::var("EVBASE_SANITIZER").is_ok_and(|sanitizer| sanitizer == name)
}

/// Ends the process, and says which test hung, if it is not dropped in time.
#[must_use]
pub(crate) struct Watchdog {
    alive: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Puts the rest of the test under a watchdog.
pub(crate) fn watchdog() -> Watchdog {
    watchdog_of(DEADLINE)
}

fn watchdog_of(deadline: Duration) -> Watchdog {
    let (alive, gone) = mpsc::channel::<()>();
    let name = test_name();
    // What a million of something takes there.
    let times = if is_under_sanitizer("thread") { 4 } else { 1 };
    let deadline = deadline.saturating_mul(times);
    let watch = move || {
        if gone.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln`, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "\nwatchdog: `{name}` hangs (deadline {deadline:?})");
            if std::env::var_os("EVBASE_HANG").is_some() {
                // To look at it with a debugger.
                loop {
                    thread::park();
                }
            }
            std::process::abort();
        }
    };
    let thread = thread::Builder::new().name("watchdog".into()).spawn(watch).unwrap();
    Watchdog {
        alive: Some(alive),
        thread: Some(thread),
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `body` on this thread, while another one ends the process, with the test's name, if it takes longer.
pub(crate) fn within<R>(deadline: Duration, body: impl FnOnce() -> R) -> R {
    let _watchdog = watchdog_of(deadline);
    body()
}

/// `within` the usual deadline.
pub(crate) fn watched<R>(body: impl FnOnce() -> R) -> R {
    within(DEADLINE, body)
}

/// Runs `round` again and again under the watchdog; each makes its own runtimes. On a machine that is busy, or under a
/// sanitizer, as often as it can in ten seconds.
pub(crate) fn rounds(n: usize, mut round: impl FnMut(usize)) {
    watched(|| in_seconds(0..n, 10).for_each(&mut round));
}

/// As many of the rounds as a busy machine, or a sanitizer, gets through in that time; one at least.
pub(crate) fn in_seconds(rounds: std::ops::Range<usize>, seconds: u64) -> impl Iterator<Item = usize> {
    let (first, end) = (rounds.start, Instant::now() + Duration::from_secs(seconds));
    rounds.take_while(move |round| *round == first || Instant::now() < end)
}

/// Measures until a measurement is as it should be, for ten seconds at most: other work on the machine, or a sanitizer, spoils
/// some of them, but not all. An `Err` says what was measured.
pub(crate) fn once_undisturbed(mut measure: impl FnMut() -> Result<(), String>) {
    watched(|| {
        let mut spoilt = Vec::new();
        let found = in_seconds(0..1000, 10).any(|_| measure().map_err(|what| spoilt.push(what)).is_ok());
        assert!(
            found,
            "{} attempts, the last ones: {:?}",
            spoilt.len(),
            &spoilt[spoilt.len().saturating_sub(5)..]
        );
    });
}

/// The name of the test that runs on this thread, as the harness knows it.
pub(crate) fn test_name() -> String {
    let alone = std::env::var("EVBASE_ALONE").ok();
    alone.unwrap_or_else(|| thread::current().name().unwrap_or("unnamed").to_owned())
}

/// Waits for something that other threads bring about; the watchdog says when that takes too long.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let mut looks = 0;
    while !done() {
        looks += 1;
        if looks < 200 {
            thread::yield_now();
        } else {
            // Out of the way of those who bring it about.
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// As `until`, but gives up: false.
pub(crate) fn soon(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut is_done = false;
    until(|| {
        is_done = done();
        is_done || start.elapsed() > Duration::from_secs(10)
    });
    is_done
}
