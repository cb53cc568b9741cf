//! Who is home: decided once, by the first thread that drives a runtime, or closes it.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::{self, ThreadId};

use crate::sync::{AtomicUsize, Mutex};

/// Names a thread, and is never used again in this process; not zero.
pub(crate) type ThreadNumber = usize;

/// Keeps what goes to the home thread until there is one.
#[derive(Debug)]
pub(crate) struct Binding<B> {
    /// Zero until bound. Set before `place` is unlocked: a fast answer to "am I home?".
    home: AtomicUsize,
    place: Mutex<Place<B>>,
}

#[derive(Debug)]
enum Place<B> {
    Unbound(B),
    Bound(ThreadId),
}

/// What a thread that wants to be home finds.
#[derive(Debug)]
pub(crate) enum Claim<B> {
    /// It is home from now on, and has got what was kept for it.
    Won(B),
    /// It is home since earlier.
    Home,
    /// Another thread is.
    NotHome(ThreadId),
}

impl<B> Binding<B> {
    pub(crate) fn new(kept: B) -> Self {
        Self {
            home: AtomicUsize::new(0),
            place: Mutex::new(Place::Unbound(kept)),
        }
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.home.load(Acquire) != 0
    }

    pub(crate) fn is_home(&self, me: ThreadNumber) -> bool {
        // A thread sees its own store; and another's number is never its own.
        self.home.load(Acquire) == me
    }

    pub(crate) fn home(&self) -> Option<ThreadId> {
        match *self.place.lock() {
            Place::Unbound(_) => None,
            Place::Bound(home) => Some(home),
        }
    }

    /// Becomes home, if nobody is yet.
    pub(crate) fn claim(&self, me: ThreadNumber) -> Claim<B> {
        let mut place = self.place.lock();
        match *place {
            Place::Bound(_) if self.is_home(me) => Claim::Home,
            Place::Bound(home) => Claim::NotHome(home),
            Place::Unbound(_) => {
                let Place::Unbound(kept) = std::mem::replace(&mut *place, Place::Bound(thread::current().id())) else {
                    unreachable!("evbase: bound under a lock")
                };
                self.home.store(me, Release);
                Claim::Won(kept)
            }
        }
    }
}
