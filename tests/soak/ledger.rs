//! The books of a runtime: what it took, what was dropped, where and when; compared with its own report.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use evbase::{JoinHandle, Report, Shutdown, SpawnErrorKind, Spawner};

use crate::watch::violation;

/// The books of one runtime.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    home: OnceLock<ThreadId>,
    /// Probes, one a task; those whose task was refused; those that were dropped with their task.
    made: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    report: OnceLock<Report>,
}

thread_local! {
    /// This thread is in a call that spawns into the runtime with these books: a probe of theirs that is dropped meanwhile
    /// is of a task that was refused. (Such a task may hold another runtime, which is closed here.)
    static SPAWNING: Cell<*const Ledger> = const { Cell::new(ptr::null()) };
}

impl Ledger {
    fn spawning<R>(&self, spawn: impl FnOnce() -> R) -> R {
        let outer = SPAWNING.replace(self);
        let result = spawn();
        SPAWNING.set(outer);
        result
    }

    /// Everything of a runtime happens on one thread.
    fn at_home(&self, what: &str) {
        let here = thread::current().id();
        let home = *self.home.get_or_init(|| here);
        if home != here {
            violation(&format!("a task of {home:?} was {what} on {here:?}: {self:?}"));
        }
    }

    /// Somebody saw the end: from now on, nothing may be dropped, and everybody sees the same.
    pub(crate) fn saw_end(&self, report: Report) {
        let first = *self.report.get_or_init(|| report);
        if first != report {
            violation(&format!("two reports: {first:?}, {report:?}"));
        }
    }

    /// Compares the books when nobody touches the runtime any more.
    fn check(&self) {
        let report = self.report.get().expect("closed");
        let [made, refused, dropped] = [&self.made, &self.refused, &self.dropped].map(|count| count.load(SeqCst));
        if dropped != made - refused {
            violation(&format!("accepted tasks were not dropped once each: {self:?}"));
        }
        if report.completed + report.cancelled + report.panicked != dropped {
            violation(&format!("the report doesn't account for what was accepted: {self:?}"));
        }
    }

    fn probe(self: &Arc<Self>) -> Probe {
        self.made.fetch_add(1, SeqCst);
        Probe {
            ledger: self.clone(),
            mark: ALIVE,
            panics: false,
        }
    }
}

/// Lives and dies with a task.
pub(crate) struct Probe {
    ledger: Arc<Ledger>,
    mark: u64,
    panics: bool,
}

const ALIVE: u64 = 0x600d_600d_600d_600d;
const DEAD: u64 = 0xdead_dead_dead_dead;

impl Drop for Probe {
    fn drop(&mut self) {
        if mem::replace(black_box(&mut self.mark), DEAD) != ALIVE {
            violation("a task was dropped twice");
        }
        black_box(&mut self.mark);
        if ptr::eq(SPAWNING.get(), &*self.ledger) {
            self.ledger.refused.fetch_add(1, SeqCst);
            return;
        }
        self.ledger.at_home("dropped");
        if self.ledger.report.get().is_some() {
            violation(&format!("a task was dropped after the end: {:?}", self.ledger));
        }
        self.ledger.dropped.fetch_add(1, SeqCst);
        if self.panics && !thread::panicking() {
            panic!("a destructor, on purpose");
        }
    }
}

/// Where tasks go in, and are entered in the books; any thread may have one.
#[derive(Clone)]
pub(crate) struct Door {
    spawner: Spawner,
    pub(crate) ledger: Arc<Ledger>,
}

impl Door {
    /// Of a new runtime.
    pub(crate) fn new(spawner: Spawner, shutdown: Shutdown) -> Self {
        let ledger = Arc::new(Ledger::default());
        OPEN.lock().unwrap().push((ledger.clone(), shutdown));
        Self { spawner, ledger }
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = tracked(self.ledger.probe(), future);
        self.ledger.spawning(|| self.spawner.spawn(task))
    }

    /// A task whose destructor panics.
    pub(crate) fn spawn_bad<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut probe = self.ledger.probe();
        probe.panics = true;
        let task = tracked(probe, future);
        self.ledger.spawning(|| self.spawner.spawn(task))
    }

    /// `None`: it was refused, and came back.
    pub(crate) fn try_spawn<F>(&self, future: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = tracked(self.ledger.probe(), future);
        self.ledger.spawning(|| match self.spawner.try_spawn(task) {
            Ok(handle) => Some(handle),
            Err(error) => {
                if error.kind() != SpawnErrorKind::Stopped {
                    violation(&format!("try_spawn: {:?}", error.kind()));
                }
                drop(error.into_inner());
                None
            }
        })
    }

    pub(crate) fn spawn_with<C, F>(&self, make: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output: Send> + 'static,
    {
        let probe = self.ledger.probe();
        let make = move || tracked(probe, make());
        self.ledger.spawning(|| self.spawner.spawn_with(make))
    }

    /// At home, inside the loop.
    pub(crate) fn spawn_local<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        let task = tracked(self.ledger.probe(), future);
        self.ledger.spawning(|| evbase::spawn_local(task))
    }
}

async fn tracked<F: Future>(probe: Probe, future: F) -> F::Output {
    probe.ledger.at_home("polled");
    let output = future.await;
    probe.ledger.at_home("polled");
    output
}

static OPEN: Mutex<Vec<(Arc<Ledger>, Shutdown)>> = Mutex::new(Vec::new());
static CLOSED: Mutex<Vec<Arc<Ledger>>> = Mutex::new(Vec::new());

/// Notes which runtimes have ended since. True: none is left. Their books can be compared only when nobody is in them.
pub(crate) fn collect() -> bool {
    // Not under the lock: if nobody has driven a runtime yet, this closes it.
    let open = mem::take(&mut *OPEN.lock().unwrap());
    let mut still = Vec::new();
    for (ledger, shutdown) in open {
        match shutdown.terminated().wait_timeout(Duration::ZERO) {
            Ok(Some(report)) => {
                ledger.saw_end(report);
                CLOSED.lock().unwrap().push(ledger);
            }
            // On its way; or nobody has driven it, or asked it to stop, yet.
            Ok(None) | Err(evbase::WaitError::Unbound) => still.push((ledger, shutdown)),
            Err(error) => violation(&format!("wait_timeout: {error}")),
        }
    }
    let none = still.is_empty();
    OPEN.lock().unwrap().append(&mut still);
    none
}

/// What the runtimes of all the books have done with their tasks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) runtimes: u64,
    pub(crate) refused: u64,
    pub(crate) completed: u64,
    pub(crate) cancelled: u64,
    pub(crate) panicked: u64,
}

/// Compares the books of all that have ended, and closes them. Nobody may be in them.
pub(crate) fn check(sums: &mut Sums) {
    for ledger in mem::take(&mut *CLOSED.lock().unwrap()) {
        ledger.check();
        let report = ledger.report.get().expect("closed");
        sums.runtimes += 1;
        sums.refused += ledger.refused.load(SeqCst);
        sums.completed += report.completed;
        sums.cancelled += report.cancelled;
        sums.panicked += report.panicked;
    }
}
