//! The watch for stalls: a thread that notices, while it lasts, that home is busy with one thing for too long.
//!
//! ```text
//!   home           begin(task), set_idle      writes into its runtime's Watchpoint what it does, and since when
//!   evbase-watch   every half of the limit    looks into all watchpoints, and reports
//!                  all are idle               sleeps, without an end, until a home that wakes up wakes it
//! ```
//!
//! There is one thread a process, only while there are watchpoints. It sleeps for the shortest pause of the homes that are busy, and a
//! home that wakes up ends a sleep that is longer than its own. A home that was busy since the last look counts as one that is, so
//! that one which wakes up often wakes the thread once a pause at most.
//!
//! Going to sleep and waking up is the pattern of Dekker: each side says first what it is up to, and then looks at the other.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::task_info::{TaskInfo, Tasks};
use crate::base::{fork, with_own_slack};
use crate::executor::{TaskId, catch_panic};

/// Home has been busy with one thing for too long: what [`Builder::on_stall`](crate::Builder::on_stall) is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stall {
    /// The task whose poll it is; `None` if it is something else: the future of `block_on`, a hook, a destructor, a waker.
    pub task: Option<TaskInfo>,
    /// For how long, so far.
    pub lasted: Duration,
    /// It goes on; otherwise this is the last call about it.
    pub ongoing: bool,
    /// The home thread.
    pub home: ThreadId,
    /// The home thread's number, by which the operating system's tools know it. Zero if home was never asked.
    pub os_thread: u64,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.ongoing { "has been busy" } else { "was busy" };
        write!(
            f,
            "{:?} (thread {}) {verb} for {:?} with ",
            self.home, self.os_thread, self.lasted
        )?;
        match &self.task {
            Some(task) => write!(f, "one poll of the task {task}"),
            None => f.write_str("something that is no task: a future of block_on, a hook, a destructor, a waker"),
        }
    }
}

type Report = dyn FnMut(&Stall) + Send;

/// What a builder was asked for.
#[derive(Clone)]
pub(crate) struct Stalls {
    pub(crate) limit: Duration,
    pub(crate) report: Arc<Mutex<Report>>,
}

/// What a home does, and since when.
pub(crate) struct Watchpoint {
    section: Mutex<Section>,
    tasks: Arc<Tasks>,
    stalls: Stalls,
    /// For how many nanoseconds the watching thread may sleep while home is busy.
    pause: u64,
    birth: fork::Birth,
    /// The runtime is closed.
    is_gone: AtomicBool,
    /// Only the watching thread uses it.
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy)]
struct Section {
    /// Counts sections, so that two of the same task differ.
    number: u64,
    /// `None`: home is idle.
    since: Option<Instant>,
    task: Option<TaskId>,
    home: Option<(ThreadId, u64)>,
    /// The number of the last section that was longer than the limit, and how long it was.
    long: (u64, Duration),
}

/// What the last look has found.
#[derive(Default)]
struct Seen {
    /// The number of the section.
    number: u64,
    told: Option<Told>,
}

/// What was reported of a stall that may go on.
struct Told {
    number: u64,
    /// When to report again.
    next: Duration,
    stall: Stall,
}

impl Watchpoint {
    /// Starts the watching thread, unless there is one.
    pub(crate) fn new(stalls: Stalls) -> io::Result<Arc<Self>> {
        let pause = (stalls.limit / 2).max(SHORTEST_PAUSE);
        let watchpoint = Arc::new(Self {
            section: Mutex::new(Section {
                number: 0,
                since: None,
                task: None,
                home: None,
                long: (0, Duration::ZERO),
            }),
            tasks: Arc::default(),
            stalls,
            pause: u64::try_from(pause.as_nanos()).unwrap_or(NEVER),
            birth: fork::Birth::here(),
            is_gone: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        Watcher::of_process().add(&watchpoint)?;
        Ok(watchpoint)
    }

    pub(crate) fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// Home begins with something else: with a poll of that task, or with what is no task's.
    pub(crate) fn begin(&self, task: Option<TaskId>) {
        self.change(task, Some(Instant::now()));
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        let since = (!idle).then(Instant::now);
        let was_idle = self.change(None, since);
        if was_idle && !idle && !self.birth.is_child() {
            fence(SeqCst);
            Watcher::of_process().wake(self.pause);
        }
    }

    /// Home only. Returns whether home was idle.
    fn change(&self, task: Option<TaskId>, since: Option<Instant>) -> bool {
        if self.birth.is_child() {
            // The parent's thread may have held the lock at the fork, and watches nobody here.
            return false;
        }
        let mut section = self.section.lock();
        let before = *section;
        let now = since.unwrap_or_else(Instant::now);
        match before.since.map(|began| now - began) {
            Some(lasted) if lasted >= self.stalls.limit => section.long = (before.number, lasted),
            _ => {}
        }
        section.number += 1;
        section.since = since;
        section.task = task;
        section
            .home
            .get_or_insert_with(|| (thread::current().id(), os_thread()));
        before.since.is_none()
    }

    /// Nothing more comes of this runtime.
    pub(crate) fn leave(&self) {
        if !self.birth.is_child() {
            self.set_idle(true);
            self.is_gone.store(true, SeqCst);
            Watcher::of_process().wake(0);
        }
    }

    /// On the watching thread: reports what there is to report. Returns whether home is busy, or was since the last look.
    fn look(&self) -> bool {
        // A report is the user's code, which runs without the lock.
        let mut seen = mem::take(&mut *self.seen.lock());
        let section = *self.section.lock();
        self.tell(section, &mut seen.told);
        let was_busy = mem::replace(&mut seen.number, section.number) != section.number;
        *self.seen.lock() = seen;
        (was_busy || section.since.is_some()) && !self.is_gone.load(SeqCst)
    }

    fn tell(&self, section: Section, told: &mut Option<Told>) {
        if let Some(last) = told.take_if(|told| told.number != section.number) {
            let lasted = match section.long {
                (number, lasted) if number == last.number => lasted,
                _ => last.stall.lasted,
            };
            let ongoing = false;
            self.report(&Stall {
                lasted,
                ongoing,
                ..last.stall
            });
        }
        let (Some(since), Some((home, os_thread))) = (section.since, section.home) else {
            return;
        };
        let lasted = since.elapsed();
        if lasted < told.as_ref().map_or(self.stalls.limit, |told| told.next) {
            return;
        }
        let task = match told {
            Some(told) => told.stall.task.clone(),
            None => section
                .task
                .and_then(|id| self.tasks.lock().get(&id).map(|info| (**info).clone())),
        };
        // It has ended meanwhile: the next look reports whatever there is.
        if self.section.lock().number != section.number {
            return;
        }
        let stall = Stall {
            task,
            lasted,
            ongoing: true,
            home,
            os_thread,
        };
        self.report(&stall);
        let mut next = told.as_ref().map_or(self.stalls.limit, |told| told.next);
        while next <= lasted {
            next = next.saturating_mul(2);
        }
        *told = Some(Told {
            number: section.number,
            next,
            stall,
        });
    }

    fn report(&self, stall: &Stall) {
        catch_panic::run(|| (self.stalls.report.lock())(stall));
    }
}

/// The number of this thread, as the operating system's tools show it.
#[cfg(target_os = "linux")]
fn os_thread() -> u64 {
    // SAFETY: takes no pointers.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    id as u64
}

#[cfg(target_vendor = "apple")]
fn os_thread() -> u64 {
    let mut id = 0;
    // SAFETY: writes to the local; zero is this thread.
    unsafe { libc::pthread_threadid_np(0, &mut id) };
    id
}

/// On the others, by which `pthread_self` knows it.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn os_thread() -> u64 {
    // SAFETY: takes no pointers.
    (unsafe { libc::pthread_self() }) as u64
}

/// However short the limit is, so that the thread doesn't look all the time.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
/// In nanoseconds: without an end.
const NEVER: u64 = u64::MAX;

/// The thread that watches, and what it watches.
struct Watcher {
    watchpoints: Mutex<Vec<Arc<Watchpoint>>>,
    /// The thread exists. Changed under the lock of the watchpoints.
    runs: AtomicBool,
    /// For how many nanoseconds the thread sleeps at most; zero if it is awake, or was woken.
    sleeps_for: AtomicU64,
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Watcher {
    /// The one of this process. In the child of a fork that of the parent, whose thread is not there, is left alone.
    fn of_process() -> &'static Self {
        static WATCHER: fork::PerProcess<Watcher> = fork::PerProcess::new();
        let make = || Self {
            watchpoints: Mutex::default(),
            runs: AtomicBool::new(false),
            sleeps_for: AtomicU64::new(0),
            woken: Mutex::default(),
            wake: Condvar::new(),
        };
        WATCHER.get(make).0
    }

    fn add(&'static self, watchpoint: &Arc<Watchpoint>) -> io::Result<()> {
        let mut watchpoints = self.watchpoints.lock();
        if !self.runs.load(Relaxed) {
            let builder = thread::Builder::new().name("evbase-watch".into());
            with_own_slack(|| builder.spawn(move || self.watch()))?;
            self.runs.store(true, Relaxed);
        }
        watchpoints.push(watchpoint.clone());
        drop(watchpoints);
        self.wake(0);
        Ok(())
    }

    /// Ends the thread's sleep, if that is longer than the pause. Of several callers one does it.
    fn wake(&self, pause: u64) {
        if self.sleeps_for.load(SeqCst) > pause && self.sleeps_for.swap(0, SeqCst) > 0 {
            *self.woken.lock() = true;
            self.wake.notify_one();
        }
    }

    /// What the thread does.
    fn watch(&self) {
        loop {
            let longest = self.look();
            // From here on, a home that wakes up, and can't wait for so long, wakes this thread.
            self.sleeps_for.store(longest, SeqCst);
            fence(SeqCst);
            let rest = self.look().min(longest);
            if self.ends() {
                return;
            }
            let mut woken = self.woken.lock();
            match rest {
                _ if *woken => {}
                NEVER => self.wake.wait(&mut woken),
                rest => {
                    self.wake.wait_for(&mut woken, Duration::from_nanos(rest));
                }
            }
            *woken = false;
            self.sleeps_for.store(0, SeqCst);
        }
    }

    /// Looks at all. Returns after how many nanoseconds to look again; `NEVER`: not before somebody wakes up.
    fn look(&self) -> u64 {
        let watchpoints = self.watchpoints.lock().clone();
        let busy = watchpoints.iter().filter(|watchpoint| watchpoint.look());
        let rest = busy.map(|watchpoint| watchpoint.pause).min().unwrap_or(NEVER);
        self.watchpoints
            .lock()
            .retain(|watchpoint| !watchpoint.is_gone.load(SeqCst) || watchpoint.seen.lock().told.is_some());
        rest
    }

    /// Ends the thread if there is nothing left to watch.
    fn ends(&self) -> bool {
        let watchpoints = self.watchpoints.lock();
        if watchpoints.is_empty() {
            self.sleeps_for.store(0, SeqCst);
            self.runs.store(false, Relaxed);
        }
        watchpoints.is_empty()
    }
}
