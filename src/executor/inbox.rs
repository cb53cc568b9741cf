//! The shared half of an executor: the gate, and the way to wake a home that sleeps behind it.

use std::any::Any;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cells::Spare;
use super::gate::{Admission, Gate, List, Message, MustRing, Node, NodeVtable, StopLevel, Stops};
use super::guard;
use super::{Counts, Executor};
use crate::sync::AtomicUsize;

/// Reaches a home that sleeps. The runtime's shared half, as the executor sees it.
pub(crate) trait Unpark: Send + Sync {
    /// Wakes a home that is parked in its own loop. Returns false if the wake-up could not be delivered; the next message
    /// will try again.
    ///
    /// Called from any thread and from signal handlers: an implementation doesn't lock, allocate or panic.
    fn unpark(&self) -> bool;

    /// There is a new stop, and home is not parked in its own loop: if it sleeps, then elsewhere. Called as `unpark` is.
    fn stopped(&self);

    /// Who made the inbox, if that is still there.
    fn owner(&self) -> Option<Owner>;
}

/// Whatever made an inbox; the executor knows no more of it.
pub(crate) type Owner = std::sync::Arc<dyn Any + Send + Sync>;

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

// What a panic may leave half done (a user's destructor at home) is no part of an inbox.
impl UnwindSafe for Inbox {}
impl RefUnwindSafe for Inbox {}

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

    /// Who made this, if that is still there.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.unpark.owner()
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

    /// The stop bits, from any thread. Each stop that is not among them sees what the caller did before this call, when it
    /// calls [`Unpark`].
    pub(crate) fn stops_so_far(&self) -> Stops {
        self.gate.0.stops_so_far()
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
        if must_ring.0 {
            self.ring(must_ring);
        } else if before.lack(level.bits()) {
            self.unpark.stopped();
        }
        before
    }

    /// Sends a closure home, where it runs and is dropped; from any thread. When home has sealed the gate, the closure
    /// comes back: there is nothing left at home that it could touch.
    pub(crate) fn send<C: FnOnce() + Send + 'static>(&self, closure: C) -> Result<(), C> {
        let errand = Box::into_raw(Box::new(Errand {
            node: Node::new(&Errand::<C>::VTABLE),
            closure,
        }));
        // SAFETY: the node is the errand's first field, so a pointer to the errand is one to the node. The errand was just
        // made, is aligned to 16, and given away here. `C: Send`, so home may run and drop it.
        let message = unsafe { Message::new(NonNull::new_unchecked(errand.cast())) };
        match self.push(message, Admission::Leaving) {
            Ok(()) => Ok(()),
            Err(refused) => {
                // SAFETY: the message is ours alone again, as `Box::into_raw` gave it.
                let errand = unsafe { Box::from_raw(refused.into_node().as_ptr().cast::<Errand<C>>()) };
                Err(errand.closure)
            }
        }
    }

    /// Publishes a message and wakes home if it is parked. Refused, the message comes back.
    ///
    /// The message may be gone before the ring: it is not what keeps `self` alive.
    pub(super) fn push(&self, message: Message, admission: Admission) -> Result<(), Message> {
        let must_ring = self.gate.0.push(message, admission)?;
        self.ring(must_ring);
        Ok(())
    }

    /// Home only.
    pub(super) fn take(&self) -> (Stops, List) {
        self.gate.0.take()
    }

    /// Home only: see [`Gate::park`].
    pub(super) fn park(&self, seen: Stops) -> bool {
        self.gate.0.park(seen)
    }

    /// Home only: see [`Gate::seal`].
    pub(super) fn seal(&self) -> List {
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
        f.debug_struct("Inbox")
            .field("stops", &self.stops())
            .finish_non_exhaustive()
    }
}

/// A closure on its way home.
#[repr(C, align(16))]
struct Errand<C> {
    node: Node,
    closure: C,
}

impl<C: FnOnce() + Send + 'static> Errand<C> {
    const VTABLE: NodeVtable = NodeVtable { deliver: Self::deliver };

    /// # Safety
    ///
    /// `node` is that of an `Errand<C>` made by [`Inbox::send`], taken from the gate by home.
    unsafe fn deliver(node: NonNull<Node>, _: &Executor) {
        // SAFETY: the caller's promise; the errand was leaked by `send` and is delivered once.
        let errand = unsafe { Box::from_raw(node.as_ptr().cast::<Self>()) };
        guard::run(errand.closure);
    }
}
