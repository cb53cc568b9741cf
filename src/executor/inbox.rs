//! The shared half of an executor: the gate, and the way to wake a home that sleeps behind it.

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cells::Spare;
use super::gate::{Admission, Gate, Messages, MustRing, Node, NodeVtable, Refused, StopLevel, Stops};
use super::guard;
use super::{Counts, Executor};
use crate::sync::AtomicUsize;

/// Wakes a home that is parked in its event base.
///
/// Called from any thread and from signal handlers: an implementation doesn't lock, allocate or panic.
pub(crate) trait Unpark: Send + Sync {
    /// Returns false if the wake-up could not be delivered; the next message will try again.
    fn unpark(&self) -> bool;

    /// There is news of a stop, and home is not parked: it may sleep elsewhere.
    fn stopped(&self);

    /// Who made the inbox, if it is still there. Not for signal handlers.
    fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>>;
}

/// What every handle, task and waker of one executor shares.
pub(crate) struct Inbox {
    /// Written by everybody.
    gate: Apart<Gate>,
    /// Written by home only, all the time.
    counts: Apart<Counts>,
    /// Written by whoever spawns from abroad.
    spare: Apart<Spare>,
    // The rest is hardly ever written.
    unpark: Box<dyn Unpark>,
    /// The levels of the stops that were asked for. Home asks before each poll, and would slow the gate down for everybody
    /// if it asked there.
    asked: AtomicUsize,
}

/// In cache lines of its own, so that who writes it takes nothing else away from other cores.
#[repr(align(128))]
struct Apart<T>(T);

impl Inbox {
    pub(crate) fn new(unpark: Box<dyn Unpark>) -> Self {
        Self {
            gate: Apart(Gate::new()),
            counts: Apart(Counts::default()),
            spare: Apart(Spare::new()),
            unpark,
            asked: AtomicUsize::new(0),
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts.0
    }

    /// Memory for tasks that are made abroad.
    pub(super) fn spare(&self) -> &Spare {
        &self.spare.0
    }

    /// The stop bits, from any thread.
    pub(crate) fn stops(&self) -> Stops {
        self.gate.0.stops()
    }

    /// The stop bits, by one who has just said where else a stop is to be heard: a stop that isn't among them is heard there.
    pub(crate) fn stops_so_far(&self) -> Stops {
        self.gate.0.stops_so_far()
    }

    /// Who made it, if it is still there.
    pub(crate) fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.unpark.owner()
    }

    /// Whether a stop was asked for that home has not `seen`; true as soon as `stop` has returned.
    pub(crate) fn is_asked_to_stop(&self, seen: Stops) -> bool {
        seen.lack(self.asked.load(Relaxed))
    }

    /// Asks for a stop, from any thread or a signal handler; returns the stop bits from before.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        let (before, must_ring) = self.gate.0.stop(level);
        // After the gate, where home reads what it is to do.
        self.asked.fetch_or(level.bits(), Release);
        let is_news = before.lack(level.bits());
        if must_ring.0 {
            self.ring(must_ring);
        } else if is_news {
            self.unpark.stopped();
        }
        before
    }

    /// Sends a closure home, where it runs and is dropped; from any thread. When home has sealed the gate, the closure
    /// comes back: there is nothing left at home that it could touch.
    pub(crate) fn send<C: FnOnce() + Send + 'static>(&self, closure: C) -> Result<(), C> {
        let message = Box::into_raw(Box::new(Message {
            node: Node::new(&Message::<C>::VTABLE),
            closure,
        }));
        // SAFETY: the node is the message's first field, so a pointer to the message is one to the node; the message
        // was just made, is aligned to 16 and given away here. `C: Send`, so home may run and drop it.
        match unsafe { self.push(NonNull::new_unchecked(message.cast()), Admission::Leaving) } {
            Ok(()) => Ok(()),
            Err(Refused) => {
                // SAFETY: refused, so the message is still ours alone, as `Box::into_raw` gave it.
                Err(unsafe { Box::from_raw(message) }.closure)
            }
        }
    }

    /// Publishes a message and wakes home if it is parked.
    ///
    /// # Safety
    ///
    /// As for [`Gate::push`]; and `self` must not be kept alive by the message alone, which may be gone by the time of
    /// the ring.
    pub(super) unsafe fn push(&self, node: NonNull<Node>, admission: Admission) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        let must_ring = unsafe { self.gate.0.push(node, admission) }?;
        self.ring(must_ring);
        Ok(())
    }

    /// Home only.
    pub(super) fn take(&self) -> (Stops, Messages) {
        self.gate.0.take()
    }

    /// Home only: see [`Gate::park`].
    pub(super) fn park(&self, seen: Stops) -> bool {
        self.gate.0.park(seen)
    }

    /// Home only: see [`Gate::seal`].
    pub(super) fn seal(&self) -> bool {
        self.gate.0.seal()
    }

    fn ring(&self, must_ring: MustRing) {
        if must_ring.0 && !self.unpark.unpark() {
            self.gate.0.ring_failed();
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// A closure on its way home.
#[repr(C, align(16))]
struct Message<C> {
    node: Node,
    closure: C,
}

impl<C: FnOnce() + Send + 'static> Message<C> {
    const VTABLE: NodeVtable = NodeVtable { deliver: Self::deliver };

    /// # Safety
    ///
    /// `node` is that of a `Message<C>` made by [`Inbox::send`], taken from the gate by home.
    unsafe fn deliver(node: NonNull<Node>, _: &Executor) {
        // SAFETY: the caller's promise; the message was leaked by `send` and is delivered once.
        let message = unsafe { Box::from_raw(node.as_ptr().cast::<Self>()) };
        guard::run(message.closure);
    }
}
