//! The shared half of an executor: the gate, and the way to wake a home that sleeps behind it.

use std::fmt;
use std::ptr::NonNull;

use super::gate::{Admission, Gate, Messages, MustRing, Node, NodeVtable, Refused, StopLevel, Stops};
use super::guard;
use super::{Counts, Executor};

/// Wakes a home that is parked in its event base.
///
/// Called from any thread and from signal handlers: an implementation doesn't lock, allocate or panic.
pub(crate) trait Unpark: Send + Sync {
    /// Returns false if the wake-up could not be delivered; the next message will try again.
    fn unpark(&self) -> bool;
}

/// What every handle, task and waker of one executor shares.
pub(crate) struct Inbox {
    gate: Gate,
    unpark: Box<dyn Unpark>,
    /// Names the runtime that this is the inbox of; never used again in this process.
    id: u64,
    /// Written by home only.
    pub(super) counts: Counts,
}

impl Inbox {
    pub(crate) fn new(id: u64, unpark: Box<dyn Unpark>) -> Self {
        Self {
            gate: Gate::new(),
            unpark,
            id,
            counts: Counts::default(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The stop bits, from any thread.
    pub(crate) fn stops(&self) -> Stops {
        self.gate.stops()
    }

    /// Asks for a stop, from any thread or a signal handler; returns the stop bits from before.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        let (before, must_ring) = self.gate.stop(level);
        self.ring(must_ring);
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
        let must_ring = unsafe { self.gate.push(node, admission) }?;
        self.ring(must_ring);
        Ok(())
    }

    /// Home only.
    pub(super) fn take(&self) -> (Stops, Messages) {
        self.gate.take()
    }

    /// Home only: see [`Gate::park`].
    pub(super) fn park(&self, seen: Stops) -> bool {
        self.gate.park(seen)
    }

    /// Home only: see [`Gate::seal`].
    pub(super) fn seal(&self) -> bool {
        self.gate.seal()
    }

    fn ring(&self, must_ring: MustRing) {
        if must_ring.0 && !self.unpark.unpark() {
            self.gate.ring_failed();
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("id", &self.id).finish_non_exhaustive()
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
