//! The soak: 64 threads do everything that may be done to runtimes, all at once, for as long as one likes. They are home,
//! or visit: spawn, wake, abort, join, drop; sockets, TCP, timers; stops of every kind at random moments, threads that exit
//! at home, panics in tasks and in destructors. New runtimes take the place of those that ended.
//!
//! Of each runtime it is proven that its report accounts for every task that was accepted, that each was dropped once, at
//! home, and before anybody saw the end, and that echoes came back as they were sent. Half of the runtimes nobody stops
//! while somebody waits in them: there, what has to come comes. Some of these are quiet, so that nothing else makes up for
//! a lost wake-up. Now and then all threads rest: then the process holds no more descriptors, threads and memory than
//! before.
//!
//! ```console
//! $ EVBASE_SOAK_SECONDS=3600 cargo test --release --test soak -- --ignored --nocapture    # an hour; without, a minute
//! ```
//!
//! `EVBASE_SOAK_SEED` sets the seed. It repeats what each thread chooses, but not how the threads meet.

#![cfg(feature = "net")]

mod heap;
mod homes;
mod ledger;
mod street;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod visits;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledger::Sums;
use street::Count;
use support::{Held, Random, held, until};
use watch::{doing, resting, violation};

const THREADS: usize = 64;

/// So many of them are home most of the time; the others visit.
const HOMES: usize = 16;

/// What may be on the heap, at rest, more than at the first rest: tables of others grow with what was alive at most.
const HEAP_TOLERANCE: usize = 128 << 10;

/// How much resident memory may rise in the second half of a run of a minute or more, by the line through what is measured
/// at rest: a twentieth, or so many bytes. Stacks and malloc's arena grow to the most they ever need, some 1 MiB each time
/// the run is twice as long; a leak of a byte a runtime is 4 MiB in an hour.
const RESIDENT_TOLERANCE: f64 = (4 << 20) as f64;

#[test]
fn seconds_of_mixed_load() {
    if support::is_alone() {
        return soak(Duration::from_secs(3), 3);
    }
    let output = support::alone_command(&[]).output().unwrap();
    support::assert_success(&output);
}

#[test]
#[ignore = "takes a minute, or EVBASE_SOAK_SECONDS"]
fn an_hour_of_mixed_load() {
    let seconds = number("EVBASE_SOAK_SECONDS").unwrap_or(60).max(4);
    if support::is_alone() {
        return soak(Duration::from_secs(seconds), seconds.clamp(4, 60) as u32);
    }
    let status = support::alone_command(&[]).status().unwrap();
    assert!(status.success(), "{status}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: a number, not {text:?}")),
    )
}

/// Where the workers and the conductor meet.
struct Gate {
    pause: AtomicBool,
    over: AtomicBool,
    at_rest: AtomicUsize,
    barrier: Barrier,
}

/// Runs the load for that long, with so many rests.
fn soak(length: Duration, rests: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = number("EVBASE_SOAK_SEED").unwrap_or(now.as_nanos() as u64);
    println!("soak: {THREADS} threads, {length:?}, {rests} rests, EVBASE_SOAK_SEED={seed}");
    support::limit_descriptors(8192);
    heap::one_arena();
    watch::start(seed);
    watch::sit(Some(THREADS));
    let before = held();
    let gate = Arc::new(Gate {
        pause: AtomicBool::new(false),
        over: AtomicBool::new(false),
        at_rest: AtomicUsize::new(0),
        barrier: Barrier::new(THREADS + 1),
    });
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let gate = gate.clone();
            let name = format!("worker {number}");
            let worker = thread::Builder::new().name(name);
            worker.spawn(move || work(number, seed, &gate)).unwrap()
        })
        .collect();

    let mut random = Random::new(seed);
    let mut books = Books::new(before);
    for rest in 1..=rests {
        let end = length * rest / rests;
        while books.start.elapsed() < end {
            doing("looks for runtimes that have ended");
            ledger::collect();
            thread::sleep(Duration::from_millis(10));
        }
        gate.over.store(rest == rests, SeqCst);
        pause(&gate, &mut random, &mut books);
    }
    resting();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    books.close();
}

/// Brings everything to rest, and looks at what is held then.
fn pause(gate: &Gate, random: &mut Random, books: &mut Books) {
    doing("waits until all rest");
    gate.pause.store(true, SeqCst);
    until(|| {
        street::all_move_out(random);
        ledger::collect();
        gate.at_rest.load(SeqCst) == THREADS
    });
    street::all_move_out(random);
    street::clear_pots();
    gate.at_rest.store(0, SeqCst);
    gate.barrier.wait();
    // The workers close what they are home to.
    gate.barrier.wait();
    doing("waits until all runtimes have ended");
    until(ledger::collect);
    books.look();
    gate.pause.store(false, SeqCst);
    gate.barrier.wait();
}

fn work(number: usize, seed: u64, gate: &Gate) {
    watch::sit(Some(number));
    let mut random = Random::new(seed ^ (number as u64 + 1) << 48);
    loop {
        if gate.pause.load(SeqCst) {
            resting();
            gate.at_rest.fetch_add(1, SeqCst);
            gate.barrier.wait();
            doing("closes what it is home to");
            homes::sweep();
            resting();
            gate.barrier.wait();
            gate.barrier.wait();
            if gate.over.load(SeqCst) {
                return;
            }
        }
        let choice = match number < HOMES {
            true => random.below(8),
            false => random.below(256),
        };
        match choice {
            0 => homes::start(&mut random),
            1 => homes::stray(&mut random),
            2 => homes::exit_at_home(&mut random),
            _ if number < HOMES => homes::drive(&mut random),
            _ => {
                if !visits::visit(&mut random) {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        }
    }
}

/// What was seen at each rest.
struct Books {
    start: Instant,
    before: Option<Held>,
    sums: Sums,
    heap: Vec<usize>,
    resident: Vec<usize>,
}

impl Books {
    fn new(before: Option<Held>) -> Self {
        Self {
            start: Instant::now(),
            before,
            sums: Sums::default(),
            heap: Vec::new(),
            resident: Vec::new(),
        }
    }

    /// All workers rest; no runtime is left.
    fn look(&mut self) {
        ledger::check(&mut self.sums);
        let expected = self.before.map(|before| Held {
            threads: before.threads + THREADS,
            ..before
        });
        // Threads that have nothing to do any more may still be on their way out.
        if !support::soon(|| held() == expected) {
            violation(&format!("held at rest: {:?}, not {expected:?}", held()));
        }
        let heap = support::heap_bytes() as usize;
        self.heap.push(heap);
        heap::trim();
        let resident = support::resident_pages().unwrap_or_default() * page_size();
        self.resident.push(resident);
        let held = expected.map_or(String::new(), |held| {
            format!("{} descriptors, {} threads", held.descriptors, held.threads)
        });
        let Sums {
            runtimes,
            completed,
            cancelled,
            panicked,
            refused,
        } = self.sums;
        println!(
            "{:5} s: {held}, {} KiB on the heap, {} KiB resident; {runtimes} runtimes; tasks: {completed} completed, \
             {cancelled} cancelled, {panicked} panicked, {refused} refused",
            self.start.elapsed().as_secs(),
            heap >> 10,
            resident >> 10,
        );
        if heap > self.heap[0] + HEAP_TOLERANCE {
            violation(&format!("the heap grows: {:?}", self.heap));
        }
    }

    fn close(&self) {
        let counts = Count::ALL.map(|count| format!("{count:?} {}", count.get()));
        println!("operations {}, {}", watch::operations(), counts.join(", "));
        for count in Count::ALL {
            assert!(count.get() > 0 || matches!(count, Count::NoPort), "no {count:?} at all");
        }
        let resident = &self.resident[self.resident.len() / 2..];
        let rise = rise(resident);
        let least = *resident.iter().min().expect("a rest");
        println!("resident memory rises by {:.0} KiB in the second half", rise / 1024.0);
        if self.start.elapsed() >= Duration::from_secs(60) && !is_sanitized() {
            let tolerance = RESIDENT_TOLERANCE.max(least as f64 / 20.0);
            assert!(rise <= tolerance, "resident memory grows: {:?}", self.resident);
        }
    }
}

/// How much the straight line through the figures (least squares) rises from the first to the last.
fn rise(figures: &[usize]) -> f64 {
    let last = (figures.len() - 1) as f64;
    let mean = figures.iter().sum::<usize>() as f64 / figures.len() as f64;
    let (mut above, mut below) = (0.0, 0.0);
    for (i, &figure) in figures.iter().enumerate() {
        let x = i as f64 - last / 2.0;
        above += x * (figure as f64 - mean);
        below += x * x;
    }
    if below > 0.0 { above / below * last } else { 0.0 }
}

/// A sanitizer's shadow takes terabytes of address space, and what it keeps for itself is resident.
fn is_sanitized() -> bool {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').next().and_then(|pages| pages.parse::<usize>().ok());
    pages.is_some_and(|pages| pages > (1 << 40) / page_size())
}

fn page_size() -> usize {
    // SAFETY: takes no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
