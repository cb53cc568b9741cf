//! What the oracles share: which seeds are run and for how long, a watchdog, and the command that runs a seed again.
//!
//! | environment | what it does |
//! |---|---|
//! | `EVBASE_ORACLE_SECONDS=n` | programs are made up for `n` seconds; a few by default |
//! | `EVBASE_SEED=n` | runs the program of this seed, once, or for as long as the other variable says |

use std::io::Write;
use std::process::abort;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long the programs of one test are made up if nobody says.
const SECONDS: u64 = 3;

/// How long one program may take. Most take about a millisecond.
const LIMIT: Duration = Duration::from_secs(60);

/// Locks, also after somebody has panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is to be a number, not {text}")),
    )
}

/// The seed and the test that run, for a process that crashes.
static SEED: AtomicU64 = AtomicU64::new(0);
static TARGET: OnceLock<&'static str> = OnceLock::new();

/// Makes a crash print the command that runs the seed again.
fn tell_of_crashes(target: &'static str) {
    extern "C" fn tell(signal: libc::c_int) {
        // Nothing that takes a lock or memory.
        let mut line = [0; 128];
        let mut rest = &mut line[..];
        let seed = SEED.load(Relaxed);
        let target = TARGET.get().copied().unwrap_or_default();
        let _ = writeln!(rest, "\nsignal {signal}\nEVBASE_SEED={seed} cargo test --test {target}");
        let left = rest.len();
        // SAFETY: the kernel reads the line during the call. The default action is back in its place.
        unsafe {
            libc::write(2, line.as_ptr().cast(), line.len() - left);
            libc::raise(signal);
        }
    }
    if TARGET.set(target).is_err() {
        return;
    }
    // SAFETY: all zero is a valid action without flags; the handler is a function for the life of the process, and is
    // async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tell as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGABRT] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// The program that runs.
struct Running {
    since: Instant,
    listing: String,
}

/// Runs programs, each from a seed of its own, until time is up. `program` leaves its listing in the place that it is
/// given, for the case that it hangs, and returns how many operations it had, or what it found wrong.
pub(crate) fn run(target: &'static str, mut program: impl FnMut(u64, &dyn Fn(String)) -> Result<u64, String>) {
    let seconds = from_environment("EVBASE_ORACLE_SECONDS");
    let one_seed = from_environment("EVBASE_SEED");
    let once = one_seed.is_some() && seconds.is_none();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let first = one_seed.unwrap_or(now.as_micros() as u64 % 1_000_000_000_000);
    let running = Arc::new(Mutex::new(Running {
        since: Instant::now(),
        listing: String::new(),
    }));
    let watched = running.clone();
    let (alive, gone) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        while gone.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let running = lock(&watched);
            if running.since.elapsed() > LIMIT {
                // Not `eprintln!`, which the test harness captures. The seed comes with the signal.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}\nwatchdog: this program hangs: still running after {LIMIT:?}",
                    running.listing
                );
                if std::env::var_os("EVBASE_HANG").is_some() {
                    // To look at it with a debugger.
                    thread::sleep(Duration::from_secs(3600));
                }
                abort();
            }
        }
    });

    tell_of_crashes(target);
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let (mut programs, mut operations) = (0, 0);
    let mut seed = first;
    loop {
        SEED.store(seed, Relaxed);
        *lock(&running) = Running {
            since: Instant::now(),
            listing: String::new(),
        };
        let list = |listing| lock(&running).listing = listing;
        match program(seed, &list) {
            Ok(more) => operations += more,
            Err(wrong) => {
                let listing = std::mem::take(&mut lock(&running).listing);
                panic!(
                    "{listing}\nafter {programs} programs, {:.1} s:\n{wrong}\n\
                     EVBASE_SEED={seed} cargo test --test {target}",
                    start.elapsed().as_secs_f64(),
                );
            }
        }
        programs += 1;
        if once || Instant::now() >= until {
            break;
        }
        if one_seed.is_none() {
            seed += 1;
        }
    }
    drop(alive);
    watchdog.join().unwrap();
    println!(
        "{target}: {programs} programs, {operations} operations, {:.1} s, from seed {first}",
        start.elapsed().as_secs_f64()
    );
}
