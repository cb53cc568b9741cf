//! An oracle for the event base alone, on one thread: random operations on sources, descriptors and timers, next to a model
//! that says for each turn exactly which events must come, which may, with which flags, and which timers, in which order.
//!
//! The model knows epoll's rules (a registration belongs to a number and an open file; what an edge is; duplicates; numbers
//! that are reused), and asks `poll(2)` how a descriptor is ready. A failure prints its seed: see `harness.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use evbase::base::{Event, EventBase, Fired, Interest, Key, Mode, Notifier, TimerKey};

use crate::support::{Random, alone_within, panic_text};
use crate::{harness, one_at_a_time};

#[test]
fn turns_hand_out_what_the_model_says() {
    let _one = one_at_a_time();
    alone_within(Duration::MAX, || harness::run("oracle -- base", program));
}

fn program(seed: u64, list: &dyn Fn(String)) -> Result<u64, String> {
    let mut run = Run::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| run.all()));
    list(run.log.join("\n"));
    match result {
        Ok(()) => Ok(run.log.len() as u64),
        Err(payload) => Err(panic_text(&*payload)),
    }
}

/// An open file: one end of a pair of sockets. Its peer has the number with the lowest bit flipped.
type File = usize;

/// What the payloads are: numbers that are never used twice.
type Id = u64;

/// A source, as the base should know it.
#[derive(Debug)]
struct Source {
    key: Key,
    fd: RawFd,
    /// A newer source has the number.
    detached: bool,
}

/// A registration, as the kernel knows it, under a number and an open file.
#[derive(Clone, Copy, Debug)]
struct Item {
    source: Id,
    interest: Interest,
    mode: Mode,
    /// One-shot: it was not reported yet.
    armed: bool,
    /// Edge: something has happened that has to be reported, if the file is ready.
    must: bool,
    /// Edge: something has happened that may be reported.
    may: bool,
}

#[derive(Debug)]
struct Timer {
    key: TimerKey,
    deadline: Instant,
}

/// How sources are ready, in `poll(2)`'s bits. One that was reregistered under a number that another file has got, and had
/// before, has two registrations.
#[derive(Debug, Default)]
struct Ready(Vec<(Id, i16)>);

/// What a turn is to hand out, or what one that a panic has cut short has left for the next one.
#[derive(Default)]
struct Left {
    must: Ready,
    may: Ready,
    /// That the notifier was used.
    notified: bool,
    /// Or perhaps not, because the rest of an earlier batch has told of it.
    perhaps_notified: bool,
}

struct Run {
    random: Random,
    log: Vec<String>,
    base: EventBase<Id, Id>,
    /// The base's zero lies between the two.
    made: (Instant, Instant),
    notifier: Notifier,
    notified: bool,
    perhaps_notified: bool,
    next_id: Id,
    files: usize,
    fds: BTreeMap<RawFd, (OwnedFd, File)>,
    sources: BTreeMap<Id, Source>,
    stale: Vec<Key>,
    /// The source that was registered last under a number.
    by_fd: HashMap<RawFd, Id>,
    items: BTreeMap<(File, RawFd), Item>,
    timers: BTreeMap<Id, Timer>,
    stale_timers: Vec<TimerKey>,
    left: Option<Left>,
    most_timers: u64,
}

impl Ready {
    /// Takes out what this event says.
    fn take(&mut self, id: Id, event: Event) -> bool {
        let at = self.0.iter().position(|(of, ready)| *of == id && agrees(*ready, event));
        at.map(|at| self.0.remove(at)).is_some()
    }
}

/// Thrown by a handler.
struct OnPurpose;

/// So many stale keys are looked at.
const LAST: usize = 50;

/// More timers than this, and the next deadline is a bound only.
const EXACT: usize = 100;

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        (0..8).for_each(|_| {
            random.next();
        });
        let before = Instant::now();
        let base = EventBase::new().unwrap();
        let made = (before, Instant::now());
        Self {
            most_timers: [3, 20, 90, 400][random.below(4) as usize],
            random,
            log: Vec::new(),
            notifier: base.notifier(),
            base,
            made,
            notified: false,
            perhaps_notified: false,
            next_id: 0,
            files: 0,
            fds: BTreeMap::new(),
            sources: BTreeMap::new(),
            stale: Vec::new(),
            by_fd: HashMap::new(),
            items: BTreeMap::new(),
            timers: BTreeMap::new(),
            stale_timers: Vec::new(),
            left: None,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }

    fn id(&mut self) -> Id {
        self.next_id += 1;
        self.next_id
    }

    /// One of the open descriptors.
    fn fd(&mut self) -> Option<RawFd> {
        let n = self.below(self.fds.len().max(1));
        self.fds.keys().nth(n).copied()
    }

    fn source(&mut self) -> Option<Id> {
        let n = self.below(self.sources.len().max(1));
        self.sources.keys().nth(n).copied()
    }

    fn timer(&mut self) -> Option<Id> {
        let n = self.below(self.timers.len().max(1));
        self.timers.keys().nth(n).copied()
    }

    fn interest(&mut self) -> Interest {
        match self.below(6) {
            0..3 => Interest::READABLE,
            3 => Interest::WRITABLE,
            4 => Interest::READABLE | Interest::PRIORITY,
            _ => Interest::READABLE | Interest::WRITABLE,
        }
    }

    fn mode(&mut self) -> Mode {
        match self.below(5) {
            0..2 => Mode::Level,
            2..4 => Mode::Edge,
            _ => Mode::OneShot,
        }
    }

    fn deadline(&mut self) -> Instant {
        let now = Instant::now();
        match self.below(12) {
            // Before the base was made: all the same to it.
            0 => self.made.0 - Duration::from_secs(1 + self.below(3) as u64),
            1 => now,
            2 => now + Duration::from_secs(self.random.below(10_000_000_000)),
            3 => now + Duration::from_nanos(self.random.below(3000)),
            4 => {
                // That of another timer.
                let other = self.timer().map(|id| self.timers[&id].deadline);
                other.unwrap_or(now)
            }
            _ => now + Duration::from_nanos(self.random.below(1_500_000)),
        }
    }

    fn log(&mut self, what: String) {
        self.log.push(what);
    }

    fn all(&mut self) {
        let operations = 20 + self.below(200);
        for _ in 0..operations {
            self.step();
        }
        if self.below(2) == 0 {
            self.clear();
        }
    }

    fn step(&mut self) {
        match self.below(100) {
            0..6 if self.fds.len() < 24 => self.new_pair(),
            6..16 => self.register(),
            16..22 => self.reregister(),
            22..28 => self.deregister(),
            28..38 => self.write(),
            38..45 => self.read(),
            45..47 => self.shut_down(),
            47..51 => self.close(),
            51..54 if self.fds.len() < 24 => self.dup(),
            54..57 => self.replace(),
            57..66 => self.arm(),
            66..70 => self.reset(),
            70..74 => self.disarm(),
            74..76 => {
                self.log("notify".into());
                self.notifier.notify().unwrap();
                self.notified = true;
            }
            76 => self.fire_timers(),
            77 => self.refuse(),
            78..81 => self.ask(),
            81 if self.below(20) == 0 => self.clear(),
            _ => self.turn(),
        }
    }

    // ---- Descriptors ----

    fn new_pair(&mut self) {
        let (one, other) = UnixStream::pair().unwrap();
        let (a, b) = (one.as_raw_fd(), other.as_raw_fd());
        for socket in [one, other] {
            socket.set_nonblocking(true).unwrap();
            let fd = OwnedFd::from(socket);
            self.fds.insert(fd.as_raw_fd(), (fd, self.files));
            self.files += 1;
        }
        self.log(format!("pair {a} {b}"));
    }

    /// Runs something on a descriptor as a socket.
    fn socket<R>(&self, fd: RawFd, run: impl FnOnce(&UnixStream) -> R) -> R {
        let socket = UnixStream::from(self.fds[&fd].0.try_clone().unwrap());
        run(&socket)
    }

    /// Something has happened at a file: `must` says to whom it has to be reported.
    fn activity(&mut self, file: File, must: impl Fn(Interest) -> bool) {
        for ((of, _), item) in &mut self.items {
            if *of == file {
                item.may = true;
                item.must |= must(item.interest);
            }
        }
    }

    fn write(&mut self) {
        let Some(fd) = self.fd() else { return };
        let file = self.fds[&fd].1;
        let written = self.socket(fd, |mut socket| socket.write(b"hello").unwrap_or(0));
        self.log(format!("write to {fd}: {written}"));
        if written > 0 {
            self.activity(file ^ 1, Interest::is_readable);
        }
    }

    fn read(&mut self) {
        let Some(fd) = self.fd() else { return };
        let file = self.fds[&fd].1;
        let mut buffer = [0; 4096];
        let size = if self.below(3) == 0 { 3 } else { buffer.len() };
        let read = self.socket(fd, |mut socket| {
            socket.read(&mut buffer[..size]).map_err(|error| error.kind())
        });
        self.log(format!("read from {fd}: {read:?}"));
        self.activity(file ^ 1, |_| false);
    }

    fn shut_down(&mut self) {
        let Some(fd) = self.fd() else { return };
        let file = self.fds[&fd].1;
        self.log(format!("shut {fd} down for writing"));
        if self.socket(fd, |socket| socket.shutdown(Shutdown::Write)).is_ok() {
            self.activity(file ^ 1, Interest::is_readable);
            self.activity(file, |_| false);
        }
    }

    fn close(&mut self) {
        let Some(fd) = self.fd() else { return };
        self.log(format!("close {fd}"));
        let (closed, file) = self.fds.remove(&fd).unwrap();
        drop(closed);
        self.was_closed(file);
    }

    /// A descriptor of the file was closed: if it was the last one, the kernel forgets it.
    fn was_closed(&mut self, file: File) {
        if self.fds.values().all(|(_, of)| *of != file) {
            self.items.retain(|(of, _), _| *of != file);
            self.activity(file ^ 1, |_| true);
        }
    }

    fn dup(&mut self) {
        let Some(fd) = self.fd() else { return };
        let (original, file) = &self.fds[&fd];
        let (dup, file) = (original.try_clone().unwrap(), *file);
        self.log(format!("dup {fd}: {}", dup.as_raw_fd()));
        self.fds.insert(dup.as_raw_fd(), (dup, file));
    }

    /// Makes a number one for another open file.
    fn replace(&mut self) {
        let (Some(fd), Some(by)) = (self.fd(), self.fd()) else {
            return;
        };
        let (old, new) = (self.fds[&fd].1, self.fds[&by].1);
        self.log(format!("replace {fd} by {by}"));
        // SAFETY: both are open, and this run's own; whoever owns the number goes on with another file.
        assert_eq!(unsafe { libc::dup2(by, fd) }, fd);
        self.fds.get_mut(&fd).unwrap().1 = new;
        if fd != by {
            self.was_closed(old);
        }
    }

    // ---- Sources ----

    fn register(&mut self) {
        let Some(fd) = self.fd() else { return };
        let (interest, mode, id) = (self.interest(), self.mode(), self.id());
        let file = self.fds[&fd].1;
        let result = self.base.register(&self.fds[&fd].0, interest, mode, id);
        self.log(format!(
            "register {fd} {interest:?} {mode:?} as {id}: {}",
            result.is_ok()
        ));
        let known = self.by_fd.get(&fd).copied();
        if self.items.contains_key(&(file, fd)) && known.is_some() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
            return;
        }
        let key = result.unwrap();
        self.set_item(file, fd, id, interest, mode);
        if let Some(old) = known {
            self.sources.get_mut(&old).unwrap().detached = true;
        }
        self.by_fd.insert(fd, id);
        let detached = false;
        self.sources.insert(id, Source { key, fd, detached });
    }

    /// The kernel was told to watch a file, which looks at it at once.
    fn set_item(&mut self, file: File, fd: RawFd, source: Id, interest: Interest, mode: Mode) {
        let old = self.items.get(&(file, fd));
        let may = old.is_some_and(|item| item.may);
        let item = Item {
            source,
            interest,
            mode,
            armed: true,
            must: true,
            may,
        };
        let ready = self.readiness(file, &item) != 0;
        let item = Item {
            must: ready,
            may: may || ready,
            ..item
        };
        self.items.insert((file, fd), item);
    }

    fn reregister(&mut self) {
        let Some(id) = self.source() else { return };
        let (interest, mode) = (self.interest(), self.mode());
        let Source { key, fd, detached } = self.sources[&id];
        let result = self.base.reregister(key, interest, mode);
        self.log(format!("reregister {id} {interest:?} {mode:?}: {}", result.is_ok()));
        let file = self.fds.get(&fd).map(|(_, file)| *file);
        let item = file.filter(|file| self.items.contains_key(&(*file, fd)));
        match (detached, file, item) {
            (false, _, Some(file)) => {
                result.unwrap();
                self.set_item(file, fd, id, interest, mode);
            }
            (false, None, _) => assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF)),
            _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound),
        }
    }

    fn deregister(&mut self) {
        let Some(id) = self.source() else { return };
        self.log(format!("deregister {id}"));
        let key = self.sources[&id].key;
        assert_eq!(self.base.deregister(key), Some(id));
        self.forget(id);
    }

    fn forget(&mut self, id: Id) {
        let Source { key, fd, detached } = self.sources.remove(&id).unwrap();
        if !detached {
            self.by_fd.remove(&fd);
            if let Some((_, file)) = self.fds.get(&fd) {
                self.items.remove(&(*file, fd));
            }
        }
        self.stale.push(key);
    }

    fn clear(&mut self) {
        self.log("clear".into());
        let (sources, timers) = self.base.clear();
        let (sources, timers): (BTreeSet<_>, BTreeSet<_>) =
            (sources.into_iter().collect(), timers.into_iter().collect());
        assert!(sources.iter().eq(self.sources.keys()), "sources: {sources:?}");
        assert!(timers.iter().eq(self.timers.keys()), "timers: {timers:?}");
        sources.into_iter().for_each(|id| self.forget(id));
        let timers = std::mem::take(&mut self.timers).into_values();
        self.stale_timers.extend(timers.map(|timer| timer.key));
    }

    /// What can't be registered.
    fn refuse(&mut self) {
        let id = self.id();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let error = self
            .base
            .register(&file, Interest::READABLE, Mode::Edge, id)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        // SAFETY: it isn't a descriptor, and nothing but a refusal comes of it.
        let bad = unsafe { BorrowedFd::borrow_raw(100_000) };
        let error = self.base.register(bad, Interest::READABLE, Mode::Edge, id).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    // ---- Timers ----

    fn arm(&mut self) {
        let most = self.random.below(self.most_timers);
        for _ in 0..=most / 8 {
            let (deadline, id) = (self.deadline(), self.id());
            let key = self.base.arm(deadline, id);
            self.timers.insert(id, Timer { key, deadline });
        }
        self.log(format!("arm {}, now {}", 1 + most / 8, self.timers.len()));
    }

    fn reset(&mut self) {
        let Some(id) = self.timer() else { return };
        let deadline = self.deadline();
        self.log(format!("reset {id}"));
        let timer = self.timers.get_mut(&id).unwrap();
        timer.deadline = deadline;
        assert!(self.base.reset(timer.key, deadline));
    }

    fn disarm(&mut self) {
        let Some(first) = self.timer() else { return };
        let many = if self.below(4) == 0 { self.below(40) } else { 1 };
        let ids: Vec<_> = self.timers.range(first..).map(|(id, _)| *id).take(many).collect();
        self.log(format!("disarm {ids:?}"));
        for id in ids {
            let Timer { key, .. } = self.timers.remove(&id).unwrap();
            assert_eq!(self.base.disarm(key), Some(id));
            self.stale_timers.push(key);
        }
    }

    /// When the base takes a timer to be due.
    fn effective(&self, deadline: Instant) -> Instant {
        deadline.max(self.made.0)
    }

    /// Checks timers that were fired, in this order, at some time between the two; `all` of those that were due.
    fn check_timers(&mut self, fired: &[Id], between: (Instant, Instant), all: bool) {
        let due = |timer: &Timer, at: Instant| self.effective(timer.deadline) <= at;
        for id in fired {
            let timer = self.timers.get(id).unwrap_or_else(|| panic!("timer {id} is not armed"));
            assert!(due(timer, between.1), "timer {id} is early");
        }
        let order: Vec<_> = fired
            .iter()
            .map(|id| (self.effective(self.timers[id].deadline), *id))
            .collect();
        assert!(order.is_sorted(), "timers out of order: {order:?}");
        if all {
            let missing: Vec<_> = self
                .timers
                .iter()
                .filter(|(id, timer)| due(timer, between.0) && !fired.contains(id))
                .collect();
            assert!(missing.is_empty(), "timers that are due have not fired: {missing:?}");
        }
        for id in fired {
            let timer = self.timers.remove(id).unwrap();
            self.stale_timers.push(timer.key);
        }
        // Those that have not fired come after those that have.
        if let (Some((last, _)), Some(next)) = (order.last(), self.timers.values().map(|timer| timer.deadline).min()) {
            assert!(self.effective(next) >= *last, "a timer was passed over");
        }
    }

    fn fire_timers(&mut self) {
        self.log("fire timers".into());
        let before = Instant::now();
        let mut fired = Vec::new();
        let count = self.base.fire_timers(|event| match event {
            Fired::Timer { payload, .. } => fired.push(payload),
            _ => panic!("an event of a source, though only timers are fired"),
        });
        assert_eq!(count, fired.len());
        self.check_timers(&fired, (before, Instant::now()), true);
    }

    // ---- The turn ----

    /// How a file is ready for an item: `poll(2)`'s bits.
    fn readiness(&self, file: File, item: &Item) -> i16 {
        let fd = self.fds.iter().find(|(_, (_, of))| *of == file).map(|(fd, _)| *fd);
        let mut events = 0;
        if item.interest.is_readable() {
            events |= libc::POLLIN | libc::POLLRDHUP;
        }
        if item.interest.is_writable() {
            events |= libc::POLLOUT;
        }
        if item.interest.is_priority() {
            events |= libc::POLLPRI;
        }
        let fd = fd.expect("an open file has a descriptor");
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: the kernel reads and writes one entry during the call.
        assert!(unsafe { libc::poll(&mut poll, 1, 0) } >= 0);
        poll.revents
    }

    /// What the kernel reports, and may report, about each source that the base has and that is not detached.
    fn expected(&mut self) -> Left {
        // The rest of a batch comes without another look at the kernel.
        if let Some(mut left) = self.left.take() {
            // A socket is emptied, of what came since as well.
            if cfg!(evbase_pipe_notify) && left.notified {
                self.perhaps_notified |= std::mem::take(&mut self.notified);
            }
            let is_there = |id: &Id| self.sources.get(id).is_some_and(|source| !source.detached);
            left.must.0.retain(|(id, _)| is_there(id));
            left.may.0.retain(|(id, _)| is_there(id));
            return left;
        }
        let mut expected = Left {
            notified: std::mem::take(&mut self.notified),
            perhaps_notified: std::mem::take(&mut self.perhaps_notified),
            ..Left::default()
        };
        let mut items = std::mem::take(&mut self.items);
        for ((file, _), item) in &mut items {
            let ready = self.readiness(*file, item);
            let (must, may) = match item.mode {
                Mode::Level => (true, true),
                Mode::Edge => (item.must, item.may),
                Mode::OneShot => (item.armed, item.armed),
            };
            (item.must, item.may) = (false, false);
            if ready == 0 || !may {
                continue;
            }
            item.armed = false;
            if self.sources.get(&item.source).is_some_and(|source| !source.detached) {
                let to = if must { &mut expected.must } else { &mut expected.may };
                to.0.push((item.source, ready));
            }
        }
        self.items = items;
        expected
    }

    fn turn(&mut self) {
        let expected = self.expected();
        let soon = self
            .timers
            .values()
            .any(|timer| timer.deadline < Instant::now() + Duration::from_millis(2));
        let ends = soon || expected.notified || !expected.must.0.is_empty();
        let timeout = match self.below(8) {
            0 if ends => None,
            1 => Some(Duration::from_micros(self.random.below(200))),
            _ => Some(Duration::ZERO),
        };
        let panics_after = (self.below(15) == 0).then(|| self.below(6));

        let before = Instant::now();
        let (mut events, mut timers) = (Vec::new(), Vec::new());
        let mut handed = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.base.turn(timeout, |fired| {
                match fired {
                    Fired::Source { key, event, payload } => events.push((*payload, key, event)),
                    Fired::Timer { payload, .. } => timers.push(payload),
                    _ => {}
                }
                if panics_after == Some(handed) {
                    resume_unwind(Box::new(OnPurpose));
                }
                handed += 1;
            })
        }));
        let after = Instant::now();
        self.log(format!(
            "turn {timeout:?}: {:?} {timers:?} {result:?}",
            events.iter().map(|(id, _, event)| (id, event)).collect::<Vec<_>>()
        ));

        let mut left = expected;
        for (id, key, event) in events.iter().copied() {
            let due = left.must.take(id, event) || left.may.take(id, event);
            assert!(
                due,
                "source {id}: {event:?}, but {:?} and perhaps {:?}",
                left.must, left.may
            );
            assert_eq!(self.sources[&id].key, key, "the key of source {id}");
        }
        match result {
            Ok(turned) => {
                let turned = turned.unwrap();
                assert_eq!((turned.events, turned.timers), (events.len(), timers.len()));
                assert!(turned.notified == left.notified || left.perhaps_notified, "notified");
                assert!(
                    left.must.0.is_empty(),
                    "sources that were not reported: {:?}",
                    left.must
                );
                self.check_timers(&timers, (before, after), true);
            }
            Err(payload) => {
                assert!(payload.is::<OnPurpose>(), "{}", panic_text(&*payload));
                // Timers come after all events, and only then.
                assert!(timers.is_empty() || left.must.0.is_empty(), "timers before events");
                self.check_timers(&timers, (before, after), false);
                self.left = Some(left);
            }
        }
        self.ask();
    }

    /// All that can be asked without changing anything.
    fn ask(&mut self) {
        assert_eq!(self.base.sources(), self.sources.len());
        assert_eq!(self.base.timers(), self.timers.len());
        for (id, source) in &self.sources {
            assert_eq!(self.base.get(source.key), Some(id));
        }
        for (id, timer) in &self.timers {
            assert_eq!(self.base.timer(timer.key), Some(id));
        }
        for key in self.stale.iter().rev().take(LAST) {
            assert_eq!(self.base.get(*key), None, "a stale key finds something");
        }
        for key in self.stale_timers.iter().rev().take(LAST) {
            assert_eq!(self.base.timer(*key), None, "a stale timer key finds something");
        }
        let next = self.base.next_deadline();
        let first = self.timers.values().map(|timer| timer.deadline).min();
        match (next, first) {
            (None, None) => {}
            // The rest of a batch goes first, all of it due.
            (Some(next), Some(_)) if self.left.is_some() && next <= Instant::now() => {}
            (Some(next), Some(first)) if first < self.made.0 => assert!(next <= self.made.1),
            (Some(next), Some(first)) if self.timers.len() < EXACT => assert_eq!(next, first),
            (Some(next), Some(first)) => assert!(next <= first),
            _ => panic!("the next deadline is {next:?}, and should be {first:?}"),
        }
    }
}

/// Whether an event says what `poll(2)` says.
fn agrees(ready: i16, event: Event) -> bool {
    let has = |bits: i16| ready & bits != 0;
    let expected = [
        (event.contains(Event::READABLE), has(libc::POLLIN)),
        (event.contains(Event::WRITABLE), has(libc::POLLOUT)),
        (event.is_priority(), has(libc::POLLPRI)),
        (event.is_read_closed(), has(libc::POLLRDHUP | libc::POLLHUP)),
        (event.is_write_closed(), has(libc::POLLHUP)),
        (event.is_error(), has(libc::POLLERR)),
    ];
    expected.iter().all(|(said, is)| said == is)
}
