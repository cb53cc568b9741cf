//! What each thread does, said by itself; the end of the process, with all of that, when something hangs or is wrong.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::THREADS;

/// So long may a thread do one thing. Each takes milliseconds; this is for sanitizers on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The workers, and the conductor.
const SEATS: usize = THREADS + 1;

struct Seat {
    doing: Mutex<(&'static str, Option<Instant>)>,
    done: AtomicU64,
}

static ALL: [Seat; SEATS] = [const {
    Seat {
        doing: Mutex::new(("not there yet", None)),
        done: AtomicU64::new(0),
    }
}; SEATS];

static SEED: OnceLock<u64> = OnceLock::new();

thread_local! {
    static MINE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which seat is this thread's. A thread that a worker makes, and waits for, takes its seat.
pub(crate) fn sit(seat: Option<usize>) {
    MINE.set(seat);
}

pub(crate) fn seat() -> Option<usize> {
    MINE.get()
}

/// This thread begins with something, which must not take long.
pub(crate) fn doing(what: &'static str) {
    note(what, Some(Instant::now()));
}

/// This thread does nothing, for as long as it likes.
pub(crate) fn resting() {
    note("rests", None);
}

fn note(what: &'static str, since: Option<Instant>) {
    if let Some(seat) = MINE.get() {
        *ALL[seat].doing.lock().unwrap() = (what, since);
        ALL[seat].done.fetch_add(1, Relaxed);
    }
}

/// How many things all threads have done.
pub(crate) fn operations() -> u64 {
    ALL.iter().map(|seat| seat.done.load(Relaxed)).sum()
}

/// Looks after all seats until the process ends, and turns what is wrong elsewhere into its end.
pub(crate) fn start(seed: u64) {
    SEED.set(seed).expect("one soak a process");
    std::panic::set_hook(Box::new(|info| {
        if !info.payload_as_str().is_some_and(|text| text.contains("on purpose")) {
            violation(&format!("{info}"));
        }
    }));
    let watch = || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let is_stuck = |seat: &Seat| (seat.doing.lock().unwrap().1).is_some_and(|since| since.elapsed() > LIMIT);
            if ALL.iter().any(is_stuck) {
                violation("a thread hangs");
            }
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).unwrap();
}

/// Something is wrong: says what, and what each thread was doing, and ends the process.
pub(crate) fn violation(what: &str) -> ! {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let mut out = std::io::stderr().lock();
    let name = thread::current().name().unwrap_or("a thread of the runtime").to_owned();
    let _ = writeln!(out, "\nsoak: {what}\non: {name}\nseed: {:?}", SEED.get());
    for (number, seat) in ALL.iter().enumerate() {
        // Whoever ends the process may hold its own.
        let Ok(doing) = seat.doing.try_lock() else { continue };
        let since = doing.1.map_or(Duration::ZERO, |since| since.elapsed());
        let done = seat.done.load(Relaxed);
        let _ = writeln!(out, "{number:3}: {} for {since:?}, its {done}th", doing.0);
    }
    if std::env::var_os("EVBASE_HANG").is_some() {
        // For a debugger.
        loop {
            thread::park();
        }
    }
    std::process::abort();
}
