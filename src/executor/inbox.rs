//! The shared half of an executor: the gate, and the way to wake a home that sleeps behind it.

use std::any::Any;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cache_padded::CachePadded;
use super::catch_panic;
use super::free_list::SharedFreeList;
use super::gate::{Admission, Gate, List, Message, MustUnpark, Node, NodeVtable, StopLevel, Stops};
use super::{Counts, Executor};
use crate::sync::AtomicUsize;

/// How the executor wakes a home that sleeps; implemented by the runtime.
pub(crate) trait Unpark: Send + Sync {
    /// Wakes a home that is parked in its own loop. Returns false if the wake-up could not be delivered; the next message
    /// will try again.
    ///
    /// Called from any thread and from signal handlers: an implementation doesn't lock, allocate or panic.
    fn unpark(&self) -> bool;

    /// A stop was asked for. Home may sleep elsewhere, also if it is parked: it was, or is, embedded in another loop. True if it
    /// was found asleep, wherever that is, and is being woken. Called from where `unpark` is.
    fn stopped(&self) -> bool;

    /// What made the inbox, if that still exists.
    fn owner(&self) -> Option<Owner>;
}

/// Whatever made an inbox, as [`Any`]: the executor doesn't know its type.
pub(crate) type Owner = std::sync::Arc<dyn Any + Send + Sync>;

/// What every handle, task and waker of one executor shares.
pub(crate) struct Inbox {
    /// Written by all threads.
    gate: CachePadded<Gate>,
    /// Written by home only, at every poll.
    counts: CachePadded<Counts>,
    shared_free_list: SharedFreeList,
    // What follows is hardly ever written.
    unpark: Box<dyn Unpark>,
    /// The stop bits without the cause. A copy for home, which reads it before each poll: reading the gate's word that often
    /// would slow down the threads that write to it.
    asked: AtomicUsize,
    /// The executor has a [`Watch`](super::Watch).
    is_watched: bool,
}

// A panic leaves an inbox whole: each change is a single atomic step.
impl UnwindSafe for Inbox {}
impl RefUnwindSafe for Inbox {}

impl Inbox {
    /// `is_watched` if the executor will have a [`Watch`](super::Watch).
    pub(crate) fn new(unpark: Box<dyn Unpark>, is_watched: bool) -> Self {
        Self {
            gate: CachePadded(Gate::new()),
            counts: CachePadded(Counts::default()),
            shared_free_list: SharedFreeList::new(),
            unpark,
            asked: AtomicUsize::new(0),
            is_watched,
        }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// What made this, if that still exists.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.unpark.owner()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Memory for tasks that are made abroad; see `free_list.rs`.
    pub(super) fn shared_free_list(&self) -> &SharedFreeList {
        &self.shared_free_list
    }

    /// The stop bits, from any thread.
    pub(crate) fn stops(&self) -> Stops {
        self.gate.stops()
    }

    /// The stop bits, from any thread. A later stop sees what the caller did before this call, when it calls [`Unpark`].
    pub(crate) fn stops_so_far(&self) -> Stops {
        self.gate.stops_so_far()
    }

    /// Whether a stop was asked for that home has not `seen`; true as soon as `stop` has returned.
    pub(crate) fn is_asked_to_stop(&self, seen: Stops) -> bool {
        seen.lack(self.asked.load(Relaxed))
    }

    /// Asks for a stop, from any thread or a signal handler; returns the stop bits from before.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        let (before, must_unpark) = self.gate.stop(level);
        // After the gate: home that sees this finds the stop there.
        self.asked.fetch_or(level.bits(), Release);
        if must_unpark.0 {
            // One write at most, unless the first fails.
            if !(self.unpark.stopped() || self.unpark.unpark()) {
                self.gate.unpark_failed();
            }
        } else if before.lack(level.bits()) {
            self.unpark.stopped();
        }
        before
    }

    /// Sends a closure home, where it runs and is dropped; from any thread. When home has sealed the gate, the closure
    /// comes back, and there is nothing left at home that it could touch.
    pub(crate) fn send<C: FnOnce() + Send + 'static>(&self, closure: C) -> Result<(), C> {
        self.send_with(closure, |closure, _| closure())
    }

    /// Sends `content` home, where `deliver` is called with it; otherwise as `send`.
    pub(super) fn send_with<C, D>(&self, content: C, deliver: D) -> Result<(), C>
    where
        C: Send + 'static,
        D: FnOnce(C, &Executor) + Send + 'static,
    {
        let boxed = Box::leak(Box::new(ClosureMessage {
            node: Node::new(&ClosureMessage::<C, D>::VTABLE),
            content,
            deliver,
        }));
        // SAFETY: the node is the first field, so a pointer to the whole is one to the node. It was just made, is aligned to
        // 16, and given away here. `C` and `D` are `Send`, so home may use and drop them.
        let message = unsafe { Message::new(NonNull::from(boxed).cast()) };
        match self.push(message, Admission::Leaving) {
            Ok(()) => Ok(()),
            Err(refused) => {
                // SAFETY: the message is ours alone again, as `Box::leak` gave it.
                let message = unsafe { Box::from_raw(refused.into_node().cast::<ClosureMessage<C, D>>().as_ptr()) };
                Err(message.content)
            }
        }
    }

    /// Publishes a message and wakes home if it is parked. Refused, the message comes back.
    ///
    /// Home may deliver and free the message before this returns, so the caller keeps `self` alive by something else.
    pub(super) fn push(&self, message: Message, admission: Admission) -> Result<(), Message> {
        let must_unpark = self.gate.push(message, admission)?;
        self.unpark_home(must_unpark);
        Ok(())
    }

    /// Home only.
    pub(super) fn take(&self) -> (Stops, List) {
        self.gate.take()
    }

    /// Home only: see [`Gate::park`].
    pub(super) fn park(&self, seen: Stops) -> bool {
        self.gate.park(seen)
    }

    /// Home only: see [`Gate::is_parked`].
    pub(super) fn is_parked(&self) -> bool {
        self.gate.is_parked()
    }

    /// Home outside its loop has something to do that didn't come from abroad: whatever loop it is embedded in is woken, unless
    /// somebody has done so since it parked. Home only.
    pub(super) fn unpark(&self) {
        self.unpark_home(self.gate.unpark());
    }

    /// As `unpark`, for a home that has not parked. Home only.
    pub(super) fn ring(&self) {
        self.unpark_home(MustUnpark(true));
    }

    /// Home only: see [`Gate::seal`].
    pub(super) fn seal(&self) -> List {
        self.gate.seal()
    }

    fn unpark_home(&self, must_unpark: MustUnpark) {
        if must_unpark.0 && !self.unpark.unpark() {
            self.gate.unpark_failed();
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

/// A closure on its way home, and what it is called with there.
#[repr(C, align(16))]
struct ClosureMessage<C, D> {
    node: Node,
    content: C,
    deliver: D,
}

impl<C, D: FnOnce(C, &Executor)> ClosureMessage<C, D> {
    const VTABLE: NodeVtable = NodeVtable { deliver: Self::deliver };

    /// # Safety
    ///
    /// `node` is that of a `ClosureMessage<C, D>` made by [`Inbox::send_with`], taken from the gate by home.
    unsafe fn deliver(node: NonNull<Node>, home: &Executor) {
        // SAFETY: the caller's promise; `send_with` made it from a box, and it is delivered once.
        let message = unsafe { Box::from_raw(node.cast::<Self>().as_ptr()) };
        catch_panic::run(|| (message.deliver)(message.content, home));
    }
}
