//! The bell of a thread: how a stop reaches a home that isn't in its own loop.
//!
//! A thread may be home to several runtimes, but sleeps in one place: in the loop of one of them, in its grace period, or in a
//! blocking wait. PARKED in the gate of a runtime doesn't say where: one that is, or was, embedded has parked outside of its loop.
//! So each stop rings the bell of the home thread. Whatever sleeps there, and has to hear of other runtimes, listens to the bell, and
//! then looks which of the thread's runtimes are to be closed. A home that sleeps in its own loop and has nobody else to hear of
//! doesn't listen: a ring says so, and the stop writes to the notifier of that loop.
//!
//! ```text
//!   word = RUNG | ASLEEP
//!
//!   any thread, signal handlers   ring         RMW   RUNG; writes to the notifier if there is ASLEEP
//!   the thread of the bell        fall_asleep  CAS   ASLEEP, unless RUNG
//!                                 wake_up      RMW   clears ASLEEP
//!                                 answer       RMW   clears RUNG; then looks at the stops of all its runtimes
//! ```
//!
//! Invariants: no ring is slept over, since ringing and falling asleep are atomic steps on one word. Only the thread of the bell
//! writes ASLEEP, so that a ring that finds it has met a thread which listens. A ring is a bounded number of atomic operations and at
//! most one write.

use std::io;
use std::time::Duration;

use crate::base::{Notifier, fork};
use crate::executor::Inbox;
use crate::sync::{Arc, AtomicUsize, OnceLock};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

const RUNG: usize = 1;
const ASLEEP: usize = 1 << 1;

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

/// The bells that a stop of a runtime rings: that of its home; before it has one, those of threads that wait for its end. The list
/// only grows, so that signal handlers can walk it.
#[derive(Debug)]
pub(super) struct Bells<N = Notifier> {
    home: OnceLock<Arc<Bell<N>>>,
    first: OnceLock<Box<Link<N>>>,
    /// How many [`Embedded`](crate::Embedded) there are: while there is one, who answers the bell leaves a stop to the host.
    embedded: AtomicUsize,
}

#[derive(Debug)]
struct Link<N> {
    bell: Arc<Bell<N>>,
    next: OnceLock<Box<Link<N>>>,
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

    /// Adds a bell, unless it is among them.
    fn add(&self, bell: &Arc<Bell<N>>) {
        let mut cursor = &self.first;
        loop {
            match cursor.get() {
                Some(link) if Arc::ptr_eq(&link.bell, bell) => return,
                Some(link) => cursor = &link.next,
                None => {
                    let link = Box::new(Link {
                        bell: bell.clone(),
                        next: OnceLock::new(),
                    });
                    if cursor.set(link).is_ok() {
                        return;
                    }
                }
            }
        }
    }

    /// Rings the bell of home; or else one bell after the other, until one wakes a sleeping thread, which then closes the runtime:
    /// true. Threads that were awake answer before they sleep. From any thread, and from a signal handler.
    pub(super) fn ring(&self) -> bool {
        if let Some(home) = self.home.get() {
            return home.ring();
        }
        let mut cursor = &self.first;
        while let Some(link) = cursor.get() {
            if link.bell.ring() {
                return true;
            }
            cursor = &link.next;
        }
        false
    }
}
