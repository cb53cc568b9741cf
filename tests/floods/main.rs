//! Three threads do one thing as fast as they can, for a second, or `EVBASE_FLOOD_SECONDS`. Meanwhile a sleep of a millisecond
//! at home is hardly late, what has to be bounded in memory is; and a stop that comes in the middle of it closes at once, but
//! for the work that was accepted.
//!
//! One at a time, each in a process of its own: memory is the whole process's, and so are the cores.

#[path = "../support/mod.rs"]
mod support;

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use evbase::time::{Sleep, sleep};
use evbase::{Builder, Runtime};

use support::{alone_within, heap_bytes, poll_here, waker_of};

#[global_allocator]
static ALLOCATOR: support::Counting = support::Counting;

const THREADS: usize = 3;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How late a sleep may be, not counting that home had no core, and beyond how late a thread was that slept beside it: on a busy
/// machine everybody is late.
const MOST_LATE: Duration = Duration::from_millis(50);
/// How long a stop may take, beyond the work that was accepted, and beyond the same.
const LONGEST_STOP: Duration = Duration::from_millis(100);
/// What a flood may have on the heap at any time, if its memory is bounded.
const MOST_MEMORY: isize = 1 << 20;

/// How late sleeps of a millisecond are, one after the other: the latest of them, the one that isn't over included. A home
/// that is starved ends none.
struct Lateness {
    made: Instant,
    /// When the one that isn't over began, in nanoseconds since `made`.
    began: AtomicU64,
    /// How long the thread had waited for a core by then.
    queued: AtomicU64,
    most: AtomicU64,
}

/// For how many nanoseconds this thread has been ready and had no core: the flooding threads want them, too. Zero where the kernel
/// doesn't count that.
fn queued() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = counts.split_whitespace().nth(1).and_then(|count| count.parse().ok());
    waited.unwrap_or(0)
}

impl Lateness {
    fn new() -> Self {
        Self {
            made: Instant::now(),
            began: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    /// One sleep is over, and the next begins; the thread has been `queued` for so long by now.
    fn next(&self, queued: u64) {
        let now = self.made.elapsed().as_nanos() as u64;
        let took = now - self.began.swap(now, Relaxed);
        let without_core = queued - self.queued.swap(queued, Relaxed);
        self.most.fetch_max(took.saturating_sub(without_core), Relaxed);
    }

    fn get(&self) -> Duration {
        let open = self.made.elapsed().as_nanos() as u64 - self.began.load(Relaxed);
        Duration::from_nanos(open.max(self.most.load(Relaxed))).saturating_sub(MS)
    }
}

/// How long a task takes from its spawn abroad to its end, one of many, when there is no flood.
fn pace(runtime: &Runtime) -> Duration {
    const MANY: u32 = 20_000;
    let start = Instant::now();
    for _ in 1..MANY {
        drop(runtime.spawner().spawn(async {}));
    }
    // They begin in their order: when the last one is over, all are.
    runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
    start.elapsed() / MANY
}

fn flood<W: FnMut() + Send>(is_bounded: bool, work: impl Fn(&Runtime) -> W + Sync) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = std::env::var("EVBASE_FLOOD_SECONDS").map_or(1, |text| text.parse().expect("a number of seconds"));
    alone_within(Duration::from_secs(seconds + 70), || {
        let runtime = Builder::new().start("home").unwrap();
        let works: Vec<_> = (0..THREADS).map(|_| work(&runtime)).collect();
        let over = AtomicBool::new(false);
        let pace = pace(&runtime);
        let (at_home, beside) = (Arc::new(Lateness::new()), Lateness::new());
        let most = AtomicIsize::new(0);
        let before = heap_bytes();
        thread::scope(|scope| {
            for mut work in works {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Relaxed) {
                        work();
                    }
                });
            }
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    thread::sleep(MS);
                    beside.next(0);
                    most.fetch_max(heap_bytes() - before, Relaxed);
                }
            });
            let lateness = at_home.clone();
            drop(runtime.spawner().spawn(async move {
                loop {
                    sleep(MS).await;
                    lateness.next(queued());
                }
            }));
            thread::sleep(Duration::from_secs(seconds));
            // Before the stop, which ends the sleeps.
            let (late, machine) = (at_home.get(), beside.get());
            let metrics = runtime.metrics();
            let ended = metrics.completed + metrics.cancelled + metrics.panicked;

            let end = runtime.shutdown_handle();
            let stop = Instant::now();
            end.request();
            let report = end.terminated().wait_timeout(Duration::from_secs(60));
            let took = stop.elapsed();
            over.store(true, Relaxed);
            let report = report.unwrap().expect("it closes under the flood");

            let accepted = (report.completed + report.cancelled + report.panicked).saturating_sub(ended);
            // Four runnable threads share the cores with it, and millions of tasks are in no cache, as those that set the pace were.
            let for_work = pace.mul_f64(8.0 * accepted as f64);
            println!("late {late:?} (a thread: {machine:?}), stopped in {took:?} ({for_work:?} for {accepted} tasks)");
            assert!(
                late <= MOST_LATE + machine,
                "a sleep was late by {late:?}, a thread by {machine:?}"
            );
            assert!(
                took <= LONGEST_STOP + machine + for_work,
                "a stop took {took:?}, with {accepted} tasks to end, {for_work:?} for them"
            );
            let most = most.load(Relaxed);
            assert!(!is_bounded || most <= MOST_MEMORY, "{most} bytes at once");
        });
    });
}

#[test]
fn of_spawns() {
    flood(false, |runtime| {
        let spawner = runtime.spawner();
        move || drop(spawner.spawn(async {}))
    });
}

#[test]
fn of_aborts() {
    flood(false, |runtime| {
        let spawner = runtime.spawner();
        move || spawner.spawn(pending::<()>()).abort()
    });
}

#[test]
fn of_wakes() {
    flood(true, |runtime| {
        let waker = waker_of(runtime);
        move || waker.wake_by_ref()
    });
}

#[test]
fn of_resets() {
    flood(true, |runtime| {
        let armed = runtime.spawner().spawn(async {
            let mut sleep: Sleep = sleep(HOUR);
            assert!(poll_here(&mut sleep).await.is_pending());
            [sleep]
        });
        let [mut sleep] = armed.wait().unwrap().unwrap();
        move || sleep.reset(Instant::now() + HOUR)
    });
}
