//! Clocks, pinning and statistics: everything that decides what a figure means.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

/// How long a cell repeats its batches. The driver hands it down in this variable.
pub const BUDGET_VARIABLE: &str = "EVBASE_BENCH_BUDGET_MS";

pub fn budget() -> Duration {
    let milliseconds = std::env::var(BUDGET_VARIABLE).ok().and_then(|text| text.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(500))
}

/// The same work timed again and again, until the budget is spent. The first batch warms up and isn't counted.
pub struct Batches {
    began: Instant,
    warm: bool,
    /// Nanoseconds an operation, one figure a batch.
    figures: Vec<f64>,
}

impl Batches {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            warm: false,
            figures: Vec::new(),
        }
    }

    pub fn more(&self) -> bool {
        self.figures.len() < 3 || self.began.elapsed() < budget()
    }

    /// A batch of so many operations ended just now.
    pub fn add(&mut self, start: Instant, operations: usize) {
        let figure = start.elapsed().as_nanos() as f64 / operations as f64;
        if mem::replace(&mut self.warm, true) {
            self.figures.push(figure);
        }
    }

    pub fn median(mut self) -> f64 {
        quantile(&mut self.figures, 0.5)
    }
}

/// Repeats a batch that needs no loop around it.
pub fn batches(operations: usize, mut batch: impl FnMut()) -> f64 {
    let mut batches = Batches::new();
    while batches.more() {
        let start = Instant::now();
        batch();
        batches.add(start, operations);
    }
    batches.median()
}

/// The nearest-rank quantile; NaN if there are no figures.
pub fn quantile(figures: &mut [f64], q: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let last = figures.len().saturating_sub(1);
    figures
        .get((last as f64 * q).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// CPU time, user and system, of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time, user and system, of all threads of this process.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    assert_eq!(result, 0, "clock_gettime: {}", io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Which of the two cores a thread belongs on.
#[derive(Clone, Copy, Debug)]
pub enum Core {
    /// The loop under test.
    Loop,
    /// Whoever talks to it: foreign threads, the load generator.
    Counterpart,
}

/// Pins the calling thread: the loop to the last core that this process may use, its counterpart to the first.
pub fn pin(core: Core) {
    let cores = cores();
    let index = match core {
        Core::Loop => cores.last(),
        Core::Counterpart => cores.first(),
    };
    // SAFETY: a cpu_set_t is plain bits; the pointer is to one of ours.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(*index.expect("a process has a core to run on"), &mut set);
        let result = libc::sched_setaffinity(0, size_of_val(&set), &set);
        assert_eq!(result, 0, "sched_setaffinity: {}", io::Error::last_os_error());
    }
}

/// The cores that the process was started with: those of the thread that asks first.
pub fn cores() -> &'static [usize] {
    static CORES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    CORES.get_or_init(|| {
        // SAFETY: a cpu_set_t is plain bits; the pointer is to one of ours.
        unsafe {
            let mut set: libc::cpu_set_t = mem::zeroed();
            let result = libc::sched_getaffinity(0, size_of_val(&set), &mut set);
            assert_eq!(result, 0, "sched_getaffinity: {}", io::Error::last_os_error());
            (0..libc::CPU_SETSIZE as usize)
                .filter(|&core| libc::CPU_ISSET(core, &set))
                .collect()
        }
    })
}

/// Asks for that many descriptors; an error says what the machine allows.
pub fn want_descriptors(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are to a limit of ours.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        if limit.rlim_cur >= wanted {
            return Ok(());
        }
        limit.rlim_cur = wanted;
        limit.rlim_max = limit.rlim_max.max(wanted);
        match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(format!(
                "needs {wanted} descriptors; raise the limit with `ulimit -n` ({})",
                io::Error::last_os_error()
            )),
        }
    }
}

/// Pseudo-random numbers below a bound, the same ones in each run.
pub fn scattered(below: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    })
}
