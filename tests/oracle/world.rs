//! What the threads of a program share, and what is written down about each task: the model, and its checks.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::Sleep;
use evbase::{Cause, JoinHandle, Report, Runtime, Shutdown, Spawner};

use crate::fork;
use crate::harness::lock;
use crate::program::{Program, SLOTS, TaskSpec};

/// Places that any thread may put something into, and take it out of.
pub(crate) struct Slots<T>([Mutex<Option<T>>; SLOTS]);

impl<T> Slots<T> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(None)))
    }

    pub(crate) fn take(&self, slot: usize) -> Option<T> {
        lock(&self.0[slot]).take()
    }

    /// What was there is dropped, but not under the lock.
    pub(crate) fn put(&self, slot: usize, value: T) {
        let old = lock(&self.0[slot]).replace(value);
        drop(old);
    }

    pub(crate) fn get(&self, slot: usize) -> Option<T>
    where
        T: Clone,
    {
        lock(&self.0[slot]).clone()
    }

    fn clear(&self) {
        (0..SLOTS).for_each(|slot| drop(self.take(slot)));
    }
}

/// A join handle, and what is known of its task.
pub(crate) struct Joining {
    pub(crate) handle: JoinHandle<Output>,
    pub(crate) record: Arc<Record>,
}

/// A waker, and what is known of its task.
#[derive(Clone)]
pub(crate) struct Waking {
    pub(crate) waker: Waker,
    pub(crate) record: Arc<Record>,
}

pub(crate) struct World {
    pub(crate) spawner: Spawner,
    pub(crate) shutdown: Shutdown,
    pub(crate) runtime: Mutex<Option<Arc<Runtime>>>,
    pub(crate) handles: Slots<Joining>,
    pub(crate) wakers: Slots<Waking>,
    pub(crate) sleeps: Slots<Sleep>,
    pub(crate) pairs: Slots<Arc<Pair>>,
    pub(crate) dups: Mutex<Vec<OwnedFd>>,
    /// Home drives until it is asked to stop.
    pub(crate) serves: bool,
    no_grace: bool,
    /// Home serves, and goes on after a stop, until all tasks are done or it is asked to end at once.
    has_long_grace: bool,
    /// How many tasks wait to be told of a stop.
    pub(crate) await_request: AtomicUsize,
    pub(crate) home: OnceLock<ThreadId>,
    /// How many foreign threads are neither done nor waiting for what perhaps only the end brings about.
    pub(crate) active: AtomicUsize,
    pub(crate) operations: AtomicU64,
    /// Orders what happens on all threads.
    sequence: AtomicU64,
    poll_starts: AtomicU64,
    /// How many polls there may be: set by what stops the runtime.
    poll_limit: AtomicU64,
    asked: Asked,
    terminated: Mutex<Option<(Report, u64)>>,
    records: Mutex<Vec<Arc<Record>>>,
    wrong: Mutex<Vec<String>>,
}

/// The ways in which somebody has begun to end the runtime.
#[derive(Default)]
struct Asked {
    request: AtomicBool,
    at_once: AtomicBool,
    drop: AtomicBool,
    exit: AtomicBool,
}

/// A way to end the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Request,
    RequestNow,
    Drop,
}

/// How long a wait for something that has to happen spins before it yields.
const SPINS: usize = 50;

impl World {
    pub(crate) fn new(program: &Program, runtime: Runtime) -> Self {
        Self {
            spawner: runtime.spawner(),
            shutdown: runtime.shutdown_handle(),
            runtime: Mutex::new(Some(Arc::new(runtime))),
            handles: Slots::new(),
            wakers: Slots::new(),
            sleeps: Slots::new(),
            pairs: Slots::new(),
            dups: Mutex::default(),
            serves: program.serves(),
            no_grace: program.grace.is_zero(),
            has_long_grace: program.grace == Duration::MAX && program.serves(),
            await_request: AtomicUsize::new(0),
            home: OnceLock::new(),
            active: AtomicUsize::new(program.threads.len()),
            operations: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            poll_starts: AtomicU64::new(0),
            poll_limit: AtomicU64::new(u64::MAX),
            asked: Asked::default(),
            terminated: Mutex::new(None),
            records: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Writes down what is wrong; the program goes on.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < 10 {
            wrong.push(what.into());
        }
    }

    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, SeqCst)
    }

    pub(crate) fn runtime(&self) -> Option<Arc<Runtime>> {
        lock(&self.runtime).clone()
    }

    pub(crate) fn new_record(&self, spec: &TaskSpec) -> Arc<Record> {
        let mut records = lock(&self.records);
        let record = Arc::new(Record {
            id: records.len(),
            is_finite: spec.is_finite,
            one_sleep: spec.is_one_sleep(),
            poll_limit: AtomicU64::new(u64::MAX),
            ..Record::default()
        });
        records.push(record.clone());
        record
    }

    // ---- The end ----

    /// Ends the runtime. `in_loop`: this is inside its loop.
    pub(crate) fn stop(&self, how: Stop, in_loop: bool, stop: impl FnOnce()) {
        let asked = match how {
            Stop::Request | Stop::RequestNow => &self.asked.request,
            Stop::Drop => &self.asked.drop,
        };
        asked.store(true, SeqCst);
        if how == Stop::RequestNow {
            self.asked.at_once.store(true, SeqCst);
        }
        stop();
        self.check(self.shutdown.is_requested(), || {
            format!("not stopped after {how:?} has returned")
        });
        // From here on nothing is polled but what home was about to poll, if there is no grace.
        if self.no_grace || how == Stop::RequestNow {
            let more = u64::from(!in_loop);
            self.poll_limit.fetch_min(self.poll_starts.load(SeqCst) + more, SeqCst);
        }
    }

    /// Whoever has the last reference to the runtime drops it from here on, and so stops it.
    pub(crate) fn somebody_will_drop(&self) {
        self.asked.drop.store(true, SeqCst);
    }

    /// A thread that may be home is about to exit.
    pub(crate) fn thread_exits(&self) {
        self.asked.exit.store(true, SeqCst);
    }

    /// Whether the runtime was stopped; nobody but the program can have done that.
    pub(crate) fn is_stopped(&self) -> bool {
        let is_stopped = self.shutdown.is_requested();
        let asked = &self.asked;
        if is_stopped && !(asked.request.load(SeqCst) || asked.drop.load(SeqCst) || asked.exit.load(SeqCst)) {
            self.wrong("it was stopped, though nobody asked for it");
        }
        is_stopped
    }

    /// Somebody saw the report.
    pub(crate) fn saw(&self, report: Report) {
        let now = self.next();
        let mut terminated = lock(&self.terminated);
        match *terminated {
            None => *terminated = Some((report, now)),
            Some((first, before)) => {
                *terminated = Some((first, before.min(now)));
                drop(terminated);
                self.check(first == report, || format!("two reports: {first:?} and {report:?}"));
            }
        }
    }

    /// Something was polled or dropped at home, here.
    fn is_home(&self, what: &str) {
        let here = thread::current().id();
        let home = *self.home.get_or_init(|| here);
        self.check(here == home, || format!("{what} on {here:?}, but home is {home:?}"));
    }

    /// Waits for what must happen while a home serves, unless the end comes first.
    pub(crate) fn until(&self, mut happened: impl FnMut() -> bool) {
        if self.serves {
            wait(|| happened() || self.is_stopped());
        }
    }

    /// After a stop, waits until all tasks that wait for it are told, if there is the time for that.
    pub(crate) fn until_told(&self) {
        if self.has_long_grace {
            wait(|| self.await_request.load(SeqCst) == 0 || self.asked.at_once.load(SeqCst));
        }
    }

    /// Drops what the slots hold.
    pub(crate) fn clear_slots(&self) {
        self.handles.clear();
        self.wakers.clear();
        self.sleeps.clear();
        self.pairs.clear();
        let dups = std::mem::take(&mut *lock(&self.dups));
        drop(dups);
    }

    /// All the books. To be called when all is over, and nothing is left in a slot.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let terminated = *lock(&self.terminated);
        let (report, terminated) = terminated.ok_or("nobody saw the report")?;
        let records = lock(&self.records).clone();
        for record in &records {
            record.audit(self, terminated);
        }
        let accepted: Vec<_> = records.iter().filter(|record| record.is_accepted()).collect();
        let ended = |end: Ended| accepted.iter().filter(|record| record.ended() == end).count() as u64;
        let expected = (ended(Ended::Returned), ended(Ended::Not), ended(Ended::Panicked));
        let reported = (report.completed, report.cancelled, report.panicked);
        self.check(reported == expected, || {
            format!("{reported:?} completed, cancelled and panicked, says the report; it were {expected:?}")
        });
        let homes: HashSet<_> = accepted
            .iter()
            .filter_map(|record| record.dropped_on.get())
            .chain(self.home.get())
            .collect();
        self.check(homes.len() <= 1, || format!("futures were dropped on {homes:?}"));
        let polls = (self.poll_starts.load(SeqCst), self.poll_limit.load(SeqCst));
        self.check(polls.0 <= polls.1, || {
            format!("{} polls, when {} were the most after the stop", polls.0, polls.1)
        });
        let asked = match report.cause {
            Cause::Requested => &self.asked.request,
            Cause::Dropped => &self.asked.drop,
            Cause::HomeExited => &self.asked.exit,
            other => return Err(format!("an unknown cause: {other:?}")),
        };
        self.check(asked.load(SeqCst), || format!("{:?}: nobody did that", report.cause));
        check_order_of_sleeps(self, &records);
        let wrong = lock(&self.wrong);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }
}

fn wait(mut is_over: impl FnMut() -> bool) {
    let mut looks = 0;
    while !is_over() {
        looks += 1;
        if looks > 4 * SPINS {
            thread::sleep(Duration::from_micros(30));
        } else if looks > SPINS {
            thread::yield_now();
        }
    }
}

/// Of two that were armed, the one with the earlier deadline is ready first.
fn check_order_of_sleeps(world: &World, records: &[Arc<Record>]) {
    let mut slept: Vec<_> = records.iter().filter_map(|record| record.slept()).collect();
    slept.sort_by_key(|sleep| sleep.deadline);
    // The last one that is not ready, or the first one of those that are, of all with a later deadline.
    for pair in slept.windows(2) {
        let [early, late] = pair else { continue };
        if early.deadline < late.deadline {
            world.check(early.ready <= late.ready, || {
                format!("timers out of order: {early:?}, {late:?}")
            });
        }
    }
}

// ---- Tasks ----

/// How a task ended, as it saw it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Not,
    Returned,
    Panicked,
}

/// What happened to a task, or to the future of a `block_on`.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) id: usize,
    is_root: AtomicBool,
    /// It comes to its end by itself.
    pub(crate) is_finite: bool,
    one_sleep: bool,
    refused: AtomicBool,
    polls: AtomicU64,
    /// How many polls there may be: set by whoever aborts it.
    poll_limit: AtomicU64,
    aborted: AtomicBool,
    in_poll: AtomicBool,
    ended: AtomicU8,
    dropped: AtomicUsize,
    dropped_on: OnceLock<ThreadId>,
    dropped_at: AtomicU64,
    outputs: AtomicUsize,
    outputs_dropped: AtomicUsize,
    slept: Mutex<Option<Slept>>,
}

/// A sleep that had to wait.
#[derive(Clone, Copy, Debug)]
struct Slept {
    deadline: Instant,
    /// Not yet: the greatest number.
    ready: u64,
}

thread_local! {
    /// The task that this thread is spawning: whose future, if dropped meanwhile, was refused.
    static SPAWNING: Cell<Option<usize>> = const { Cell::new(None) };
    /// Dropped when the thread exits.
    static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// This thread is the program's own, which waits for its end.
pub(crate) fn is_own_thread() {
    IS_OWN.set(true);
}

/// Keeps something until the thread exits, if it is one of the program's own.
pub(crate) fn keep_until_exit(value: impl Any) {
    if IS_OWN.get() {
        let value: Box<dyn Any> = Box::new(value);
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(value));
    }
}

impl Record {
    /// Spawns this task: a future that is dropped here, during the call, was refused.
    pub(crate) fn spawning<R>(&self, spawn: impl FnOnce() -> R) -> R {
        struct Restore(Option<usize>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let _ = SPAWNING.try_with(|spawning| spawning.set(self.0));
            }
        }
        let outer = SPAWNING.try_with(|spawning| spawning.replace(Some(self.id)));
        let _restore = Restore(outer.ok().flatten());
        spawn()
    }

    pub(crate) fn is_of_a_root(&self) {
        self.is_root.store(true, SeqCst);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(SeqCst)
    }

    fn is_accepted(&self) -> bool {
        !self.is_root.load(SeqCst) && !self.is_refused()
    }

    pub(crate) fn ended(&self) -> Ended {
        match self.ended.load(SeqCst) {
            0 => Ended::Not,
            1 => Ended::Returned,
            _ => Ended::Panicked,
        }
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(SeqCst)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(SeqCst) > 0
    }

    /// Aborts it. `at_home`: home is this thread, so that it isn't about to poll it.
    pub(crate) fn abort(&self, at_home: bool, abort: impl FnOnce()) {
        self.aborted.store(true, SeqCst);
        abort();
        let more = u64::from(!at_home);
        self.poll_limit.fetch_min(self.polls() + more, SeqCst);
    }

    pub(crate) fn begin_poll(&self, world: &World) {
        world.poll_starts.fetch_add(1, SeqCst);
        self.polls.fetch_add(1, SeqCst);
        world.is_home("polled");
        let id = self.id;
        world.check(!self.in_poll.swap(true, SeqCst), || {
            format!("task {id} is polled inside its poll")
        });
        world.check(self.ended() == Ended::Not, || {
            format!("task {id} was polled after its end")
        });
        world.check(!self.is_dropped(), || format!("task {id} was polled after its drop"));
    }

    pub(crate) fn end_poll(&self, ended: Ended) {
        self.in_poll.store(false, SeqCst);
        self.end(ended);
    }

    pub(crate) fn end(&self, ended: Ended) {
        self.ended.store(ended as u8, SeqCst);
    }

    pub(crate) fn dropped(&self, world: &World) {
        let id = self.id;
        if SPAWNING.try_with(Cell::get) == Ok(Some(id)) {
            self.refused.store(true, SeqCst);
        }
        let _ = self.dropped_on.set(thread::current().id());
        world.check(self.dropped.fetch_add(1, SeqCst) == 0, || {
            format!("the future of task {id} was dropped twice")
        });
        world.check(!self.in_poll.load(SeqCst), || {
            format!("the future of task {id} was dropped in its poll")
        });
    }

    /// The destructor has come to its end.
    pub(crate) fn is_gone(&self, world: &World) {
        self.dropped_at.store(world.next(), SeqCst);
    }

    pub(crate) fn sleeps_until(&self, deadline: Instant) {
        if self.one_sleep {
            let ready = u64::MAX;
            lock(&self.slept).get_or_insert(Slept { deadline, ready });
        }
    }

    pub(crate) fn has_slept(&self, world: &World) {
        if let Some(slept) = &mut *lock(&self.slept) {
            slept.ready = world.next();
        }
    }

    fn slept(&self) -> Option<Slept> {
        // Who was aborted need not wait for its turn.
        let slept = *lock(&self.slept);
        slept.filter(|_| !self.aborted.load(SeqCst))
    }

    fn audit(&self, world: &World, terminated: u64) {
        let id = self.id;
        let dropped = self.dropped.load(SeqCst);
        world.check(dropped == 1, || {
            format!("the future of task {id} was dropped {dropped} times")
        });
        let outputs = (self.outputs.load(SeqCst), self.outputs_dropped.load(SeqCst));
        let expected = usize::from(self.ended() == Ended::Returned);
        world.check(outputs == (expected, expected), || {
            format!("(made, dropped) outputs of task {id}: {outputs:?}, not {expected}")
        });
        let polls = (self.polls(), self.poll_limit.load(SeqCst));
        world.check(polls.0 <= polls.1, || {
            format!(
                "task {id} was polled {} times, when {} were the most after the abort",
                polls.0, polls.1
            )
        });
        if self.is_refused() {
            world.check(polls.0 == 0, || format!("task {id} was refused, and polled"));
        } else if self.is_accepted() && dropped == 1 {
            let gone = self.dropped_at.load(SeqCst);
            world.check(gone < terminated, || {
                format!(
                    "the future of task {id} was dropped on {:?} after `Terminated` was seen to be ready",
                    self.dropped_on.get()
                )
            });
        }
    }

    /// What a join handle gave.
    pub(crate) fn joined(&self, world: &World, result: Result<Output, evbase::JoinError>) {
        let id = self.id;
        world.check(self.is_dropped(), || {
            format!("task {id} was joined while its future lived")
        });
        let (said, payload) = match result {
            Ok(output) => {
                world.check(output.record.id == id, || {
                    format!("task {id} gave the output of task {}", output.record.id)
                });
                (Ended::Returned, None)
            }
            Err(error) if error.is_panic() => (Ended::Panicked, Some(error.into_panic())),
            Err(_) => (Ended::Not, None),
        };
        world.check(said == self.ended(), || {
            format!("task {id}: joined as {said:?}, but it is {:?}", self.ended())
        });
        if let Some(payload) = payload {
            let thrown = payload.downcast_ref::<OnPurpose>();
            world.check(thrown.is_some_and(|thrown| thrown.0 == id), || {
                format!("task {id} was joined with the panic of another one: {thrown:?}")
            });
        }
    }
}

/// What a panic that belongs to the program throws: which task it was.
#[derive(Debug)]
pub(crate) struct OnPurpose(pub(crate) usize);

/// What a task gives.
pub(crate) struct Output {
    record: Arc<Record>,
}

impl Output {
    pub(crate) fn new(record: &Arc<Record>) -> Self {
        record.outputs.fetch_add(1, SeqCst);
        Self { record: record.clone() }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.record.outputs_dropped.fetch_add(1, SeqCst);
    }
}

// ---- Sockets ----

/// A pair of sockets: tasks have ours, and other threads theirs. What is sent is known by its place in the stream.
pub(crate) struct Pair {
    salt: u64,
    pub(crate) ours: Mutex<Option<Arc<AsyncFd<Socket>>>>,
    pub(crate) theirs: Mutex<Option<UnixStream>>,
    /// Somebody has begun to write, or to close.
    pub(crate) touched: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// From them to us.
    pub(crate) forth: Stream,
    /// From us to them.
    pub(crate) back: Stream,
    pub(crate) readers: AtomicUsize,
    pub(crate) writers: AtomicUsize,
}

/// One direction of a pair.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) written: AtomicU64,
    pub(crate) read: AtomicU64,
}

impl Pair {
    pub(crate) fn new(world: &Arc<World>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let ours = Socket {
            stream: ours,
            is_registered: AtomicBool::new(false),
            world: world.clone(),
        };
        Ok(Self {
            salt: world.next(),
            ours: Mutex::new(Some(Arc::new(AsyncFd::new(ours)?))),
            theirs: Mutex::new(Some(theirs)),
            touched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            forth: Stream::default(),
            back: Stream::default(),
            readers: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
        })
    }

    pub(crate) fn byte(&self, at: u64) -> u8 {
        (self.salt.wrapping_mul(89) ^ at.wrapping_mul(7) ^ (at >> 8)) as u8
    }

    /// What is sent from `at` on.
    pub(crate) fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        (at..).take(count).map(|at| self.byte(at)).collect()
    }

    /// These came next.
    pub(crate) fn came(&self, world: &World, stream: &Stream, bytes: &[u8]) {
        let at = stream.read.fetch_add(bytes.len() as u64, SeqCst);
        let expected = self.bytes(at, bytes.len());
        world.check(bytes == expected, || {
            format!("what was read at {at} is not what was written there")
        });
    }
}

/// Our end of a pair: once it is registered, it is closed at home.
pub(crate) struct Socket {
    stream: UnixStream,
    pub(crate) is_registered: AtomicBool,
    world: Arc<World>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // When the runtime is closed, nobody is home.
        if self.is_registered.load(SeqCst) && !fork::is_child() && !self.world.is_stopped() {
            self.world.is_home("closed");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&self.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts somebody while it lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
