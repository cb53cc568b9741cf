//! [`EventBase`]: joins the kernel queue, the sources, the timers and the notifier. The turn.
//!
//! Invariants:
//! * A source that is in the table, and isn't detached, is registered with the kernel under its key's token, as far
//!   as can be known: its descriptor may have been closed behind our back.
//! * Each event from the kernel and each expired timer is handed out exactly once, even if a handler panics: then `unfinished`
//!   is set, and the rest stays for the next turn.
//! * No payload is dropped here but by `register` when it fails, and by the drop of the base.
//! * In the child of a fork no call is made on the kernel queue, which is the parent's.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::fork::{self, Birth};
use super::histogram::Buckets;
use super::interest::{Event, Interest, Mode};
use super::notify::Notifier;
use super::precision::{Bound, Grid, Until, slack_matters};
use super::sources::{Key, Source, Sources};
use super::sys::{self, ALARM, Backend, Descriptor, NOTIFY, Queue, Watch};
use super::timers::{TimerKey, Wheel};
use crate::random::Random;

/// A kernel queue with the sources and timers that wait on it.
///
/// `S` is the payload of a source, `T` that of a timer. The base keeps them, hands them out in a [`turn`], and gives
/// them back when a source is deregistered or a timer disarmed; it never looks into them.
///
/// It is made on any thread. It is `Send` if its payloads are, and never `Sync`: everything needs `&mut self`, or at least the
/// thread that has the base. What other threads may do is to [`notify`](Notifier::notify).
///
/// ```compile_fail
/// fn sync<T: Sync>() {}
/// sync::<evbase::base::EventBase<()>>();
/// ```
///
/// # Forks
///
/// A base belongs to the process that made it. In the child of a `fork`, `register`, `reregister` and `turn` answer
/// an error, `deregister`, `clear` and the drop give payloads back or drop them without telling the kernel, and the
/// parent goes on undisturbed.
///
/// # Closed descriptors
///
/// Deregister a source before you close its descriptor. If you don't, the kernel forgets it when the last duplicate
/// of the descriptor is closed, and a descriptor that gets the same number can be registered at once. But as long as
/// a duplicate is open, Linux goes on reporting events of the old source, which nothing can stop any more: neither
/// its number nor a later [`deregister`](EventBase::deregister) leads to it. The base ignores events of a source that
/// it no longer has; yet if the mode was [`Mode::Level`], each turn will return at once.
///
/// And if such a duplicate is given the old number once more, in place of a newer source that was closed as well, Linux takes
/// the old registration for that of the newer source: a [`reregister`](EventBase::reregister) of that one watches the old
/// file. Any other file that has taken the number is found out.
///
/// [`turn`]: EventBase::turn
pub struct EventBase<S, T = S> {
    queue: Queue,
    sources: Sources<S>,
    timers: Wheel<T>,
    /// Tells the wheel's time.
    clock: Clock,
    notifier: Notifier,
    /// Another notifier that ends the waits: see `end_waits_by`.
    also: Option<Notifier>,
    /// What the alarm is set to: a deadline, or (within) none. `None` if it was never set, or has gone off since.
    alarm: Option<Option<u64>>,
    /// The order in which things are handed out is random.
    shuffle: Option<Random>,
    /// How late timers fire, if somebody has asked.
    lag: Option<Arc<Buckets>>,
    /// Called with the payload of each timer that is due, before any of them is handed out.
    announce: fn(&T),
    /// The notifier fired, and no turn has reported it yet.
    notified: bool,
    /// A handler panicked, so there may be events left that were not handed out.
    unfinished: bool,
    birth: Birth,
    _not_sync: PhantomData<Cell<()>>,
}

/// What a [`turn`](EventBase::turn) hands to its handler.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fired<'a, S, T> {
    /// A source is ready. It stays registered.
    Source {
        /// What [`register`](EventBase::register) returned.
        key: Key,
        /// What the kernel said.
        event: Event,
        /// What was given to [`register`](EventBase::register).
        payload: &'a mut S,
    },
    /// A deadline has passed. The timer is no longer armed.
    Timer {
        /// What [`arm`](EventBase::arm) returned. It finds nothing any more.
        key: TimerKey,
        /// What was given to [`arm`](EventBase::arm).
        payload: T,
    },
}

/// What happened in a [`turn`](EventBase::turn).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turned {
    /// How many events of sources were handed out.
    pub events: usize,
    /// How many timers were handed out.
    pub timers: usize,
    /// Whether a [`Notifier`] was used since the last turn.
    pub notified: bool,
}

impl<S, T> EventBase<S, T> {
    /// A base on the platform's default [`Backend`].
    ///
    /// # Errors
    ///
    /// What the kernel reports when it can't make the descriptors: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Self::with_backend(Backend::default())
    }

    /// A base on the given backend.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](io::ErrorKind::Unsupported) if this platform doesn't have it; else as
    /// [`new`](EventBase::new).
    pub fn with_backend(backend: Backend) -> io::Result<Self> {
        if backend != sys::KIND {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("there is no {backend} on this platform; its backend is {}", sys::KIND),
            ));
        }
        fork::watch()?;
        let notifier = Notifier::new()?;
        let mut queue = Queue::new()?;
        let (fd, watch) = watch_of_notifier(&notifier);
        queue.add(fd, watch, None)?;
        Ok(EventBase {
            queue,
            sources: Sources::new(),
            timers: Wheel::new(),
            clock: Clock::new(),
            notifier,
            also: None,
            alarm: None,
            shuffle: None,
            lag: None,
            announce: |_| {},
            notified: false,
            unfinished: false,
            birth: Birth::here(),
            _not_sync: PhantomData,
        })
    }

    /// The backend in use.
    pub fn backend(&self) -> Backend {
        sys::KIND
    }

    /// A handle with which any thread, or a signal handler, can end a turn's wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::base::EventBase;
    ///
    /// let mut base = EventBase::<()>::new()?;
    /// base.notifier().notify()?;
    /// assert!(base.turn(None, |_| {})?.notified);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// From here on, another notifier ends the waits of turns as well. There can be one of these, and it stays.
    pub(crate) fn end_waits_by(&mut self, notifier: &Notifier) -> io::Result<()> {
        self.check_process()?;
        let (fd, watch) = watch_of_notifier(notifier);
        self.queue.add(fd, watch, None)?;
        self.also = Some(notifier.clone());
        Ok(())
    }

    // ---- Sources ----

    /// Watches a descriptor.
    ///
    /// The base doesn't own the descriptor. [`deregister`](EventBase::deregister) it before you close it; see
    /// [above](EventBase#closed-descriptors).
    ///
    /// # Errors
    ///
    /// The payload is dropped, and nothing is registered, if the answer is
    /// * [`ErrorKind::AlreadyExists`](io::ErrorKind::AlreadyExists): the descriptor is registered already;
    /// * [`ErrorKind::Unsupported`](io::ErrorKind::Unsupported): it can't be polled, as a regular file;
    /// * another error of the kernel: `EBADF`, `ENOMEM`, `ENOSPC` (Linux's `max_user_watches`), or `EPIPE` (some
    ///   kqueues, if it is to be written to, and there is no reader);
    /// * an error that speaks of `fork()`: this is the child of the process that made the base.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use evbase::base::{EventBase, Interest, Mode};
    ///
    /// let mut base = EventBase::<&str>::new()?;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let key = base.register(&reader, Interest::READABLE, Mode::Level, "a pipe")?;
    /// let again = base.register(&reader, Interest::READABLE, Mode::Level, "the same");
    /// assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    /// assert_eq!((base.sources(), base.get(key)), (1, Some(&"a pipe")));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn register(&mut self, fd: impl AsFd, interest: Interest, mode: Mode, payload: S) -> io::Result<Key> {
        self.check_process()?;
        let fd = fd.as_fd().as_raw_fd();
        let known = self.sources.by_fd(fd).map(|(key, source)| watch(key, source));
        let key = self.sources.next_key();
        self.queue.add(
            fd,
            Watch {
                token: key.token(),
                interest,
                mode,
            },
            known,
        )?;
        self.sources.insert(
            key,
            Source {
                fd,
                interest,
                mode,
                detached: false,
                payload,
            },
        );
        Ok(key)
    }

    /// Changes what a source is watched for.
    ///
    /// This also arms a [`Mode::OneShot`] source anew, and makes a [`Mode::Edge`] source that is ready be reported
    /// once more.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](io::ErrorKind::NotFound) if the key is stale, or if the descriptor was closed and its
    /// number is another file's now (with one exception on Linux, see [above](EventBase#closed-descriptors)); `EBADF` if the
    /// number is nobody's; else as [`register`](EventBase::register). The source stays in the base, payload
    /// and all, until it is deregistered; on kqueue, it may no longer be watched.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use evbase::base::{EventBase, Interest, Mode};
    ///
    /// let mut base = EventBase::<()>::new()?;
    /// let (socket, _peer) = UnixStream::pair()?;
    /// let key = base.register(&socket, Interest::WRITABLE, Mode::OneShot, ())?;
    /// let mut count = 0;
    /// for _ in 0..3 {
    ///     base.turn(Some(Duration::ZERO), |_| count += 1)?;
    /// }
    /// assert_eq!(count, 1);
    /// base.reregister(key, Interest::WRITABLE, Mode::OneShot)?;
    /// base.turn(None, |_| count += 1)?;
    /// assert_eq!(count, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reregister(&mut self, key: Key, interest: Interest, mode: Mode) -> io::Result<()> {
        self.check_process()?;
        let Some(source) = self.sources.get_mut(key).filter(|source| !source.detached) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the source was deregistered, or its descriptor was closed, and this key is stale",
            ));
        };
        self.queue.modify(
            source.fd,
            watch(key, source),
            Watch {
                token: key.token(),
                interest,
                mode,
            },
        )?;
        (source.interest, source.mode) = (interest, mode);
        Ok(())
    }

    /// Forgets a source and gives its payload back. `None` if the key is stale.
    ///
    /// No event of the source is handed out after this, not even one that the kernel has reported already. A
    /// descriptor that was closed before is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::base::{EventBase, Interest, Mode};
    ///
    /// let mut base = EventBase::<&str>::new()?;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let key = base.register(&reader, Interest::READABLE, Mode::Level, "a pipe")?;
    /// assert_eq!(base.deregister(key), Some("a pipe"));
    /// assert_eq!(base.deregister(key), None);
    /// drop(reader);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn deregister(&mut self, key: Key) -> Option<S> {
        let source = self.sources.remove(key)?;
        // The number of a detached source is that of a newer source.
        if !source.detached && !self.birth.is_child() {
            self.queue.remove(source.fd, watch(key, &source));
        }
        Some(source.payload)
    }

    /// The payload of a source. `None` if the key is stale.
    pub fn get(&self, key: Key) -> Option<&S> {
        self.sources.get(key).map(|source| &source.payload)
    }

    /// The payload of a source. `None` if the key is stale.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        self.sources.get_mut(key).map(|source| &mut source.payload)
    }

    /// How many sources are registered.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    // ---- Timers ----

    /// Arms a timer. It fires in the first turn that ends at or after its deadline, and never before it.
    ///
    /// A deadline in the past fires in the next turn. O(1), and no system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use evbase::base::{EventBase, Fired};
    ///
    /// let mut base = EventBase::<&str>::new()?;
    /// let now = Instant::now();
    /// base.arm(now + Duration::from_millis(2), "second");
    /// base.arm(now + Duration::from_millis(1), "first");
    /// let mut fired = Vec::new();
    /// while base.timers() > 0 {
    ///     base.turn(None, |event| {
    ///         if let Fired::Timer { payload, .. } = event {
    ///             fired.push(payload);
    ///         }
    ///     })?;
    /// }
    /// assert_eq!(fired, ["first", "second"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn arm(&mut self, deadline: Instant, payload: T) -> TimerKey {
        let deadline = self.clock.at(deadline);
        self.timers.arm(deadline, Grid::EXACT, payload)
    }

    /// Whether a deadline has come.
    pub(crate) fn has_come(&self, deadline: Instant) -> bool {
        Until::new(&self.clock, deadline).has_come(&self.clock)
    }

    /// As `arm`, unless the deadline has come. By the rule of `precision.rs`, with that bound: the timer may come later, in order to
    /// share a wake-up. A turn that ends anyway takes it along.
    #[inline]
    pub(crate) fn arm_late(&mut self, deadline: Instant, bound: Bound, payload: T) -> Result<TimerKey, T> {
        let until = Until::new(&self.clock, deadline);
        if until.has_come(&self.clock) {
            return Err(payload);
        }
        Ok(self.timers.arm(until.deadline(), until.grid(bound), payload))
    }

    /// Moves a timer to another deadline, earlier or later. `false` if it has fired or was disarmed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use evbase::base::EventBase;
    ///
    /// let mut base = EventBase::<()>::new()?;
    /// let key = base.arm(Instant::now() + Duration::from_secs(3600), ());
    /// assert!(base.reset(key, Instant::now()));
    /// assert_eq!(base.turn(None, |_| {})?.timers, 1);
    /// assert!(!base.reset(key, Instant::now()), "it has fired");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reset(&mut self, key: TimerKey, deadline: Instant) -> bool {
        let deadline = self.clock.at(deadline);
        self.timers.reset(key, deadline, Grid::EXACT)
    }

    /// As `reset`; for the bound, see `arm_late`.
    pub(crate) fn reset_late(&mut self, key: TimerKey, deadline: Instant, bound: Bound) -> bool {
        let until = Until::new(&self.clock, deadline);
        self.timers.reset(key, until.deadline(), until.grid(bound))
    }

    /// All sources: their descriptors, and payloads.
    pub(crate) fn all_sources(&self) -> impl Iterator<Item = (RawFd, &S)> {
        self.sources.iter().map(|source| (source.fd, &source.payload))
    }

    /// All timers that are armed: their deadlines, and payloads.
    pub(crate) fn all_timers(&self) -> impl Iterator<Item = (Instant, &T)> {
        let at = |deadline| self.clock.instant(deadline);
        self.timers
            .iter()
            .filter_map(move |(deadline, payload)| Some((at(deadline)?, payload)))
    }

    /// Has events, and timers with equal deadlines, handed out in a random order from here on.
    pub(crate) fn shuffle(&mut self, random: Random) {
        self.shuffle = Some(random);
    }

    /// Has `announce` called from here on with the payload of each timer that is due, before any of them is handed out: the processor may
    /// fetch what payloads point to while the base looks for more.
    pub(crate) fn announce_timers(&mut self, announce: fn(&T)) {
        self.announce = announce;
    }

    /// Has it recorded from here on how late timers fire.
    pub(crate) fn measure_lag(&mut self, lag: Arc<Buckets>) {
        self.lag = Some(lag);
    }

    /// From here on the time of this base stands still, but for `advance_clock`: no wait ends for a timer.
    pub(crate) fn pause_clock(&mut self) {
        self.clock.pause();
    }

    /// Moves a paused clock to when the next timer fires, or to `end` if that is before. False if there is neither, or the base
    /// would be as old as `age`.
    pub(crate) fn advance_clock(&mut self, end: Option<Instant>, age: Duration) -> bool {
        let end = end.map(|end| self.clock.at(end));
        let next = self.timers.next_wake().into_iter().chain(end).min();
        let next = next.filter(|next| Duration::from_nanos(*next) < age);
        if let Some(next) = next {
            self.clock.advance(next);
        }
        next.is_some()
    }

    /// The time by which timers fire.
    pub(crate) fn now(&self) -> Instant {
        let now = self
            .clock
            .is_paused()
            .then(|| self.clock.instant(self.clock.now()))
            .flatten();
        now.unwrap_or_else(Instant::now)
    }

    /// Disarms a timer and gives its payload back. `None` if it has fired or was disarmed. O(1).
    ///
    /// The memory of disarmed and fired timers is used again, and freed when few are left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    /// use evbase::base::EventBase;
    ///
    /// let mut base = EventBase::<&str>::new()?;
    /// let key = base.arm(Instant::now(), "a timeout");
    /// assert_eq!(base.disarm(key), Some("a timeout"));
    /// assert_eq!(base.disarm(key), None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn disarm(&mut self, key: TimerKey) -> Option<T> {
        self.timers.disarm(key)
    }

    /// The payload of a timer. `None` if it has fired or was disarmed.
    pub fn timer(&self, key: TimerKey) -> Option<&T> {
        self.timers.get(key)
    }

    /// The payload of a timer. `None` if it has fired or was disarmed.
    pub fn timer_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        self.timers.get_mut(key)
    }

    /// How many timers are armed.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Until when a turn without a timeout waits, if no source becomes ready. `None`: for ever.
    ///
    /// This is the first deadline. Only if the timer that was first has been disarmed, or reset, and there are more
    /// than a hundred close to it, it may be a time before that; the turn then finds nothing due, once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use evbase::base::EventBase;
    ///
    /// let mut base = EventBase::<()>::new()?;
    /// assert_eq!(base.next_deadline(), None);
    /// let deadline = Instant::now() + Duration::from_secs(1);
    /// base.arm(deadline, ());
    /// assert_eq!(base.next_deadline(), Some(deadline));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let deadline = self.timers.next_wake()?;
        self.clock.instant(deadline)
    }

    // ---- In somebody else's loop ----

    /// Sets the alarm: from here on, the base's descriptor ([`AsFd`]) becomes readable at
    /// [`next_deadline`](EventBase::next_deadline), too.
    ///
    /// For programs with a loop of their own, which poll the base's descriptor among others, and call
    /// [`turn`](EventBase::turn) with a timeout of zero when it is readable. Without an alarm, it becomes readable for sources and
    /// for the [`Notifier`] only. Call this after each turn, and after each change of a timer outside of one. It makes a system
    /// call only if the deadline has changed.
    ///
    /// The descriptor is readable as long as a turn has something to hand out. A program that waits for an edge of it calls
    /// `turn` until one has handed out nothing.
    ///
    /// # Errors
    ///
    /// What the kernel reports; the first call may find no descriptor left, for it needs one on Linux (a `timerfd`). In the child
    /// of a fork, an error that speaks of `fork()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use std::time::{Duration, Instant};
    /// use evbase::base::{EventBase, Fired, Interest, Mode};
    ///
    /// let mut guest = EventBase::<&str>::new()?;
    /// guest.arm(Instant::now() + Duration::from_millis(2), "the guest's timer");
    /// guest.set_alarm()?;
    ///
    /// // The host is another base here; it could be any loop that polls descriptors.
    /// let mut host = EventBase::<&str>::new()?;
    /// host.register(&guest, Interest::READABLE, Mode::Level, "the guest")?;
    /// let mut fired = None;
    /// while fired.is_none() {
    ///     host.turn(None, |_| {})?;
    ///     guest.turn(Some(Duration::ZERO), |event| match event {
    ///         Fired::Timer { payload, .. } => fired = Some(payload),
    ///         _ => {}
    ///     })?;
    ///     guest.set_alarm()?;
    /// }
    /// assert_eq!(fired, Some("the guest's timer"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_alarm(&mut self) -> io::Result<()> {
        self.set_alarm_until(None)
    }

    /// As `set_alarm`, but for a time that is no later than `end`.
    pub(crate) fn set_alarm_until(&mut self, end: Option<Instant>) -> io::Result<()> {
        self.check_process()?;
        let end = end.map(|end| self.clock.at(end));
        // What a handler that panicked has left shall be handed out at once.
        let at_once = (self.unfinished || self.notified).then_some(0);
        // A paused clock comes to no deadline by itself.
        let timer = self.timers.next_wake().filter(|_| !self.clock.is_paused());
        let deadline = timer.into_iter().chain(end).chain(at_once).min();
        if self.alarm == Some(deadline) {
            return Ok(());
        }
        self.alarm = None;
        let left = deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(self.clock.now())));
        self.queue.set_alarm(left)?;
        self.alarm = Some(deadline);
        Ok(())
    }

    /// Asks the kernel, without waiting, whether there is an event. If so, the next turn hands it out, and doesn't ask again.
    pub(crate) fn has_events(&mut self) -> io::Result<bool> {
        self.check_process()?;
        if !self.unfinished {
            self.wait(Some(Duration::ZERO), || {})?;
            self.unfinished = self.queue.has_next();
        }
        Ok(self.unfinished)
    }

    /// Whether there may be events that the last turn had no room for: then the descriptor is readable still, but has had its edge.
    pub(crate) fn may_have_more(&self) -> bool {
        self.unfinished || self.queue.may_have_more()
    }

    /// The base's descriptor, to be polled by others. When the base is dropped, it stays open with them, and is never readable
    /// again.
    pub(crate) fn descriptor(&self) -> Arc<Descriptor> {
        self.queue.descriptor().clone()
    }

    // ---- The turn ----

    /// Waits once, and hands out what has happened: events of sources first, then timers in the order of their
    /// deadlines (those with equal deadlines in the order in which they were armed).
    ///
    /// The wait ends when a source is ready, when the first timer is due, when a [`Notifier`] is used, when `timeout`
    /// has passed (`None`: never; zero: at once), or when a signal handler has run. So a turn may well return
    /// before its timeout with nothing to show for it, and callers loop.
    ///
    /// On Linux the wait for a timer may end late by the slack of the thread, 50 us by default. That is the program's to set
    /// (`PR_SET_TIMERSLACK` in `prctl(2)`): a base alone leaves the thread as it is. The [alarm](EventBase::set_alarm) has no
    /// slack.
    ///
    /// If `handler` panics, what it was given is gone, and what it wasn't given yet comes in the next turn, which
    /// then doesn't wait. This base remains usable.
    ///
    /// # Errors
    ///
    /// What the kernel reports about the wait. `EINTR` isn't among that. In the child of a fork, an error that
    /// speaks of `fork()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::time::Instant;
    /// use evbase::base::{EventBase, Fired, Interest, Mode};
    ///
    /// let mut base = EventBase::<&str>::new()?;
    /// let (mut reader, mut writer) = std::io::pipe()?;
    /// base.register(&reader, Interest::READABLE, Mode::Level, "the pipe")?;
    /// base.arm(Instant::now(), "a timer");
    /// writer.write_all(b"hello")?;
    /// let turned = base.turn(None, |fired| match fired {
    ///     Fired::Source { payload, .. } => {
    ///         assert_eq!(*payload, "the pipe");
    ///         reader.read_exact(&mut [0; 5]).unwrap();
    ///     }
    ///     Fired::Timer { payload, .. } => assert_eq!(payload, "a timer"),
    ///     _ => {}
    /// })?;
    /// assert_eq!((turned.events, turned.timers, turned.notified), (1, 1, false));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn turn(&mut self, timeout: Option<Duration>, handler: impl FnMut(Fired<'_, S, T>)) -> io::Result<Turned> {
        self.turn_in_time(timeout, || {}, handler)
    }

    /// As `turn`, which calls `be_exact` before a wait for a timer that would be late by the slack of the thread.
    pub(crate) fn turn_in_time(
        &mut self,
        timeout: Option<Duration>,
        be_exact: impl Fn(),
        mut handler: impl FnMut(Fired<'_, S, T>),
    ) -> io::Result<Turned> {
        self.check_process()?;
        if !self.unfinished {
            self.wait(timeout, be_exact)?;
        }
        self.expire_timers();

        let mut turned = Turned::default();
        self.unfinished = true;
        while let Some((token, event)) = self.queue.next() {
            if token == NOTIFY {
                self.notifier.acknowledge();
                self.also.iter().for_each(Notifier::acknowledge);
                self.notified = true;
                continue;
            }
            if token == ALARM {
                self.alarm = None;
                continue;
            }
            let key = Key::from_token(token);
            if let Some(source) = self.sources.get_mut(key).filter(|source| !source.detached) {
                turned.events += 1;
                handler(Fired::Source {
                    key,
                    event,
                    payload: &mut source.payload,
                });
            }
        }
        turned.timers = self.hand_out_timers(handler);
        self.unfinished = false;
        turned.notified = mem::take(&mut self.notified);
        Ok(turned)
    }

    /// Hands out the timers that are due, as a turn does, without asking the kernel for anything. Returns how many there
    /// were.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    /// use evbase::base::EventBase;
    ///
    /// let mut base = EventBase::<()>::new()?;
    /// base.arm(Instant::now(), ());
    /// assert_eq!(base.fire_timers(|_| {}), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fire_timers(&mut self, handler: impl FnMut(Fired<'_, S, T>)) -> usize {
        self.expire_timers();
        self.hand_out_timers(handler)
    }

    /// Reads the clock, if a timer is armed, and moves the timers that are due to the wheel's `expired`.
    #[inline(always)]
    fn expire_timers(&mut self) {
        if self.timers.len() > 0 {
            self.timers.expire(self.clock.now(), self.announce);
            if let Some(random) = &mut self.shuffle {
                self.timers.shuffle(random);
            }
        }
    }

    /// Hands out the timers in the wheel's `expired`.
    #[inline(always)]
    fn hand_out_timers(&mut self, mut handler: impl FnMut(Fired<'_, S, T>)) -> usize {
        let mut count = 0;
        if !self.timers.has_expired() {
            return count;
        }
        while let Some((deadline, key, payload)) = self.timers.pop_expired() {
            count += 1;
            if let Some(lag) = &self.lag {
                lag.record(Duration::from_nanos(self.clock.now().saturating_sub(deadline)));
            }
            handler(Fired::Timer { key, payload });
        }
        count
    }

    /// Deregisters and disarms everything, and gives the payloads back, in no particular order.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Instant;
    /// use evbase::base::{EventBase, Interest, Mode};
    ///
    /// let mut base = EventBase::<&str, u32>::new()?;
    /// let (reader, _writer) = std::io::pipe()?;
    /// base.register(&reader, Interest::READABLE, Mode::Level, "a pipe")?;
    /// base.arm(Instant::now(), 1);
    /// assert_eq!(base.clear(), (vec!["a pipe"], vec![1]));
    /// assert_eq!((base.sources(), base.timers()), (0, 0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn clear(&mut self) -> (Vec<S>, Vec<T>) {
        let payloads = self
            .sources
            .keys()
            .into_iter()
            .filter_map(|key| self.deregister(key))
            .collect();
        (payloads, self.timers.clear())
    }

    /// Waits in the kernel until the first wake-up of a timer, but for `timeout` at most. For `be_exact`, see `turn_in_time`.
    fn wait(&mut self, timeout: Option<Duration>, be_exact: impl Fn()) -> io::Result<()> {
        self.wait_in_order(timeout, be_exact)?;
        if let Some(random) = &mut self.shuffle {
            self.queue.shuffle(random);
        }
        Ok(())
    }

    /// As `wait`; the events are in the kernel's order.
    fn wait_in_order(&mut self, timeout: Option<Duration>, be_exact: impl Fn()) -> io::Result<()> {
        let wake = match timeout {
            Some(Duration::ZERO) => None,
            _ if self.clock.is_paused() => return self.queue.wait(timeout, || Duration::ZERO),
            _ if self.timers.len() == 0 => None,
            _ => self.timers.next_wake(),
        };
        if wake.is_none() && timeout.is_none_or(|timeout| timeout.is_zero()) {
            return self.queue.wait(timeout, || Duration::ZERO);
        }
        let clock = self.clock;
        let now = clock.now();
        let end = timeout.map(|timeout| now.saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)));
        let is_for_timer = wake.is_some_and(|wake| end.is_none_or(|end| wake <= end));
        let end = wake.into_iter().chain(end).min().unwrap_or(now);
        let left = |now| {
            let left = Duration::from_nanos(end.saturating_sub(now));
            if is_for_timer && slack_matters(left) {
                be_exact();
            }
            left
        };
        self.queue.wait(Some(left(now)), || left(clock.now()))
    }

    fn check_process(&self) -> io::Result<()> {
        if self.birth.is_child() {
            Err(fork::error())
        } else {
            Ok(())
        }
    }
}

impl<S, T> Drop for EventBase<S, T> {
    fn drop(&mut self) {
        // Others go on polling the descriptor, and the notifiers may have other owners: they end nobody's wait any more.
        if Arc::strong_count(self.queue.descriptor()) > 1 && !self.birth.is_child() {
            for notifier in self.also.iter().chain([&self.notifier]) {
                let (fd, watch) = watch_of_notifier(notifier);
                self.queue.remove(fd, watch);
            }
            // A child of a fork may keep the alarm's descriptor open, and so its registration alive.
            if self.alarm.is_some() {
                let _ = self.queue.set_alarm(None);
            }
        }
    }
}

/// To be polled for reading by another loop: see [`set_alarm`](EventBase::set_alarm). Nothing else may be done with it.
impl<S, T> AsFd for EventBase<S, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.descriptor().as_fd()
    }
}

/// The descriptor of a notifier, and how the kernel is told to watch it.
fn watch_of_notifier(notifier: &Notifier) -> (RawFd, Watch) {
    let (fd, mode) = notifier.watched();
    let watch = Watch {
        token: NOTIFY,
        interest: Interest::READABLE,
        mode,
    };
    (fd, watch)
}

/// How the kernel was told to watch a source.
fn watch<S>(key: Key, source: &Source<S>) -> Watch {
    Watch {
        token: key.token(),
        interest: source.interest,
        mode: source.mode,
    }
}

impl<S, T> fmt::Debug for EventBase<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBase")
            .field("backend", &self.backend())
            .field("sources", &self.sources())
            .field("timers", &self.timers())
            .field("notifier", &self.notifier)
            .finish_non_exhaustive()
    }
}
