//! The bell of a thread: how a stop reaches a home that isn't in its own loop.
//!
//! A thread may be home to several runtimes, but sleeps in one place: in the loop of one of them, in its grace period, or in a
//! blocking wait. PARKED in the gate of a runtime doesn't say where: one that is, or was, embedded has parked outside of its loop.
//! So each stop rings the bell of the home thread. Whatever sleeps there, and has to hear of other runtimes, listens to the bell, and
//! then looks which of the thread's runtimes are to be closed. A home that sleeps in its own loop and has nobody else to hear of
//! doesn't listen: a ring says so, and the stop writes to the notifier of that loop.
//!
//! ```text
//!   word = RUNG | ASLEEP | GONE
//!
//!   any thread, signal handlers   ring         RMW   RUNG; writes to the notifier if there is ASLEEP
//!   the thread of the bell        fall_asleep  CAS   ASLEEP, unless RUNG
//!                                 wake_up      RMW   clears ASLEEP
//!                                 answer       RMW   clears RUNG; then looks at the stops of all its runtimes
//!                                 go           RMW   GONE, for ever: another bell may have its place in a list
//! ```
//!
//! Invariants: no ring is slept over, since ringing and falling asleep are atomic steps on one word. Only the thread of the bell
//! writes ASLEEP, so that a ring that finds it has met a thread which listens. That thread answers, or, if its loop just ends, passes
//! the ring on (`context::pass_rings_on`). A ring may be for several: whoever answers it, and doesn't look at all that it may be for,
//! rings again, for the next loop or wait of the thread. A ring is a bounded number of atomic operations and at most one write.

use std::io;
use std::time::Duration;

use crate::base::{Notifier, fork};
use crate::executor::Inbox;
use crate::sync::{Arc, AtomicUsize, OnceLock, UnsafeCell};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

const RUNG: usize = 1;
const ASLEEP: usize = 1 << 1;
const GONE: usize = 1 << 2;

/// How long a thread sleeps at a time when there is no descriptor for its bell: then it has to look.
pub(super) const NAP: Duration = Duration::from_millis(5);

/// Ends the sleep of a thread, from any thread and from a signal handler.
pub(crate) trait EndSleep {
    /// False if it could not.
    fn end_sleep(&self) -> bool;
}

impl EndSleep for Notifier {
    fn end_sleep(&self) -> bool {
        self.notify().is_ok()
    }
}

/// The bell of a thread. The runtimes at home there hold it, too. (In a model, `N` stands for the descriptor.)
#[derive(Debug)]
pub(crate) struct Bell<N = Notifier> {
    word: AtomicUsize,
    /// Made when the thread first sleeps listening: most threads have one runtime, and never do.
    notifier: OnceLock<N>,
    birth: fork::Birth,
}

impl<N: EndSleep> Bell<N> {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            notifier: OnceLock::new(),
            birth: fork::Birth::here(),
        }
    }

    /// Whether this is the child of a fork, and the bell that of a thread of the parent.
    pub(super) fn is_forked(&self) -> bool {
        self.birth.is_child()
    }

    /// From any thread, and from a signal handler. True if the thread was asleep, and is being woken.
    pub(crate) fn ring(&self) -> bool {
        if self.word.fetch_or(RUNG, AcqRel) & ASLEEP == 0 {
            return false;
        }
        // Without a notifier the thread naps, and looks. If the write fails, the next ring tries again: ASLEEP is still there.
        self.notifier.get().is_none_or(N::end_sleep)
    }

    /// From here on a ring writes to the notifier. False: the bell has rung, and the thread must not sleep.
    pub(super) fn fall_asleep(&self) -> bool {
        let mut word = self.word.load(Relaxed);
        while word & RUNG == 0 {
            // Release: whoever rings finds the notifier.
            match self.word.compare_exchange_weak(word, ASLEEP, Release, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    pub(super) fn wake_up(&self) {
        self.word.fetch_and(!ASLEEP, Relaxed);
    }

    /// Whether it has rung since the last answer. If so, the caller looks at the stops of all runtimes of this thread.
    pub(crate) fn answer(&self) -> bool {
        // Acquire: the caller sees the stop that was set before the ring.
        self.word.load(Relaxed) & RUNG != 0 && self.word.fetch_and(!RUNG, Acquire) & RUNG != 0
    }

    /// Whether it has rung since the last answer: for a thread that has looked at the notifier and goes on sleeping if not, or that
    /// doesn't listen any longer, and passes the ring on.
    pub(super) fn has_rung(&self) -> bool {
        // Acquire: whoever passes it on sees the bells that the stop had to ring.
        self.word.load(Acquire) & RUNG != 0
    }

    /// Its thread has no use for it any more, is awake, and will not listen to it again.
    pub(super) fn go(&self) {
        self.word.fetch_or(GONE, Relaxed);
    }

    fn is_gone(&self) -> bool {
        self.word.load(Relaxed) & GONE != 0
    }

    /// What to listen to while asleep; `make` may fail. The thread of the bell only, before it falls asleep.
    pub(super) fn notifier_or<E>(&self, make: impl FnOnce() -> Result<N, E>) -> Result<&N, E> {
        match self.notifier.get() {
            Some(notifier) => Ok(notifier),
            None => {
                let notifier = make()?;
                Ok(self.notifier.get_or_init(|| notifier))
            }
        }
    }
}

impl Bell {
    /// The descriptor to listen to while asleep; the kernel may have none left.
    pub(super) fn notifier(&self) -> io::Result<&Notifier> {
        self.notifier_or(Notifier::new)
    }

    /// Sleeps until it rings, or for so long, or until a signal handler has run.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let nap = || std::thread::sleep(timeout.map_or(NAP, |timeout| timeout.min(NAP)));
        let Ok(notifier) = self.notifier() else {
            return nap();
        };
        // What was written before belongs to an earlier sleep.
        notifier.clear();
        if self.fall_asleep() {
            let waited = notifier.wait(timeout);
            self.wake_up();
            if waited.is_err() {
                nap();
            }
        }
    }
}

/// The bells that a stop of a runtime rings: that of its home; before it has one, those of threads that wait for its end. No link
/// leaves the list, so that signal handlers can walk it; but one whose bell has gone gets another. So there are hardly more links,
/// and descriptors of their bells, than there were threads that waited at the same time.
#[derive(Debug)]
pub(super) struct Bells<N = Notifier> {
    home: OnceLock<Arc<Bell<N>>>,
    first: OnceLock<Box<Link<N>>>,
    /// How many [`Embedded`](crate::Embedded) there are: while there is one, who answers the bell leaves a stop to the host.
    embedded: AtomicUsize,
}

/// A place for a bell.
///
/// ```text
///   state = how many look at the bell | TAKEN
///
///   any thread, signal handlers   look          RMW   one more, which doesn't look if there is TAKEN; RMW one less
///   who has a bell to add         put_for_gone  looks, and finds it GONE; CAS from 1, itself, to TAKEN; RMW clears TAKEN
/// ```
///
/// Nothing here waits for anybody: who finds others looking, or a bell that lives, goes on to the next link. A ring that passes over a
/// new bell is no loss: the thread which puts it there looks for stops afterwards.
#[derive(Debug)]
struct Link<N> {
    state: AtomicUsize,
    bell: UnsafeCell<Arc<Bell<N>>>,
    next: OnceLock<Box<Link<N>>>,
}

/// The bell is being replaced.
const TAKEN: usize = 1 << (usize::BITS - 1);

// SAFETY: any thread may look at the bell, which is `Sync`, while it is counted in `state`. It is replaced, and the old one dropped, by
// one thread at a time, that which has set TAKEN; bells are `Send`, and have no thread that must drop them. The other fields are
// `Sync` by themselves.
unsafe impl<N: Send + Sync> Sync for Link<N> {}

impl<N: EndSleep> Link<N> {
    fn new(bell: &Arc<Bell<N>>) -> Self {
        Self {
            state: AtomicUsize::new(0),
            bell: UnsafeCell::new(bell.clone()),
            next: OnceLock::new(),
        }
    }

    /// Calls `f` with the bell; or not, if it is just being replaced.
    fn look<R>(&self, f: impl FnOnce(&Arc<Bell<N>>) -> R) -> Option<R> {
        let _looking = Looking::begin(&self.state)?;
        // SAFETY: this thread is counted, and there was no TAKEN: nobody replaces the bell, nor drops it, until it is counted no more.
        Some(self.bell.with(|bell| f(unsafe { &*bell })))
    }

    /// Puts the bell here, if that which is here has gone, and nobody looks at it.
    fn put_for_gone(&self, bell: &Arc<Bell<N>>) -> bool {
        let Some(looking) = Looking::begin(&self.state) else {
            return false;
        };
        // SAFETY: as in `look`.
        let is_gone = self.bell.with(|bell| unsafe { &*bell }.is_gone());
        // From there on it is the same bell, since this thread is counted. Acquire: those who have looked are through with it.
        if !is_gone || self.state.compare_exchange(1, TAKEN, Acquire, Relaxed).is_err() {
            return false;
        }
        std::mem::forget(looking);
        let bell = bell.clone();
        // SAFETY: this thread has set TAKEN when it was the only one to look: no other touches the bell until it is cleared.
        let gone = self
            .bell
            .with_mut(|place| unsafe { std::mem::replace(&mut *place, bell) });
        // Release: who looks from here on sees the new bell. Others may have come and gone, or been counted, meanwhile.
        self.state.fetch_and(!TAKEN, Release);
        drop(gone);
        true
    }
}

/// Counts a thread that looks at the bell of a link, while it lives.
struct Looking<'a>(&'a AtomicUsize);

impl<'a> Looking<'a> {
    /// `None` if the bell is being replaced.
    fn begin(state: &'a AtomicUsize) -> Option<Self> {
        // Acquire: the bell is there, as it was put.
        let is_taken = state.fetch_add(1, Acquire) & TAKEN != 0;
        let looking = Self(state);
        (!is_taken).then_some(looking)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        // Release: who takes the place comes after what this thread did with the bell.
        self.0.fetch_sub(1, Release);
    }
}

impl<N: EndSleep> Bells<N> {
    pub(super) fn new() -> Self {
        Self {
            home: OnceLock::new(),
            first: OnceLock::new(),
            embedded: AtomicUsize::new(0),
        }
    }

    /// From here on each stop that comes to the inbox, whose bells these are, rings the bell of its home. One that came before may
    /// not have: it rings now.
    pub(super) fn ring_home_on_stop(&self, bell: &Arc<Bell<N>>, inbox: &Inbox) {
        let _ = self.home.set(bell.clone());
        Self::ring_if_stopped(bell, inbox);
    }

    /// As `ring_home_on_stop`, for a thread that waits for the end of a runtime without a home. When that gets one, its thread
    /// hears of stops, and this one of the end.
    pub(super) fn ring_on_stop(&self, bell: &Arc<Bell<N>>, inbox: &Inbox) {
        self.add(bell);
        Self::ring_if_stopped(bell, inbox);
    }

    pub(super) fn is_embedded(&self) -> bool {
        self.embedded.load(Relaxed) > 0
    }

    /// One [`Embedded`](crate::Embedded) more.
    pub(super) fn embed(&self) {
        self.embedded.fetch_add(1, Relaxed);
    }

    /// One [`Embedded`](crate::Embedded) less, on any thread. If it was the last, no host will close a runtime that was asked to
    /// stop: who answered that stop's ring, and left it to the host, is rung for again. A stop that comes later rings by itself, and
    /// who answers it sees that there is no host.
    pub(super) fn unembed(&self, inbox: &Inbox) {
        // Relaxed: the look at the gate, and the ring, publish it.
        if self.embedded.fetch_sub(1, Relaxed) == 1 && inbox.stops_so_far().requested() {
            self.ring();
        }
    }

    fn ring_if_stopped(bell: &Bell<N>, inbox: &Inbox) {
        if inbox.stops_so_far().requested() {
            bell.ring();
        }
    }

    /// Adds the bell of this thread, unless it is among them.
    fn add(&self, bell: &Arc<Bell<N>>) {
        let is_there = |link: &Link<N>| link.look(|other| Arc::ptr_eq(other, bell)) == Some(true);
        if self.links().any(is_there) || self.links().any(|link| link.put_for_gone(bell)) {
            return;
        }
        let mut cursor = &self.first;
        loop {
            match cursor.get() {
                Some(link) => cursor = &link.next,
                None => {
                    let link = Box::new(Link::new(bell));
                    if cursor.set(link).is_ok() {
                        return;
                    }
                }
            }
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link<N>> {
        let first = self.first.get().map(|link| &**link);
        std::iter::successors(first, |link| link.next.get().map(|link| &**link))
    }

    /// Rings the bell of home; or else one bell after the other, until one wakes a sleeping thread, which then closes the runtime:
    /// true. Threads that were awake answer before they sleep. From any thread, and from a signal handler.
    pub(super) fn ring(&self) -> bool {
        if let Some(home) = self.home.get() {
            return home.ring();
        }
        self.links().any(|link| link.look(|bell| bell.ring()) == Some(true))
    }
}
