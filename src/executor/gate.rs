//! The gate: the one word between home and abroad.
//!
//! Everything another thread does to a runtime passes here: a message is pushed, a stop is asked for. Home takes the
//! messages, says when it parks, and seals the gate at the end. All of these are atomic steps on a single word, so that
//! publishing a message and seeing whether home is parked are one step, as are finding no message and parking:
//!
//! ```text
//!   word = head of the inbox (a LIFO list of nodes, or SEALED) | STOP | NOW | DROPPED | PARKED
//!
//!   abroad  push   CAS   head := node, PARKED := 0      refused when sealed, or (work only) stopped
//!           stop   CAS   STOP | NOW | DROPPED := 1, PARKED := 0
//!                        whoever cleared PARKED writes to the notify fd: one write a park, none while home runs
//!   home    take   RMW   head := null, PARKED := 0      the whole list, which home delivers in portions (messages.rs)
//!           park   CAS   PARKED := 1                    only on an empty inbox and with no stop bit home hasn't seen
//!           unpark RMW   PARKED := 0                    home itself has found something to do
//!           seal   CAS   head := SEALED, PARKED := 0    takes what is left, as `take` does
//! ```
//!
//! Invariants: the stop bits are sticky; home sleeps only after a successful `park`, and whoever publishes something after
//! that wakes it; SEALED is for ever; each message is taken by home once, or comes back to its sender. No method blocks,
//! allocates or frees, so `stop` may run in a signal handler, even one that interrupts home inside any other method here:
//! each is a single atomic step, or a retry of it.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::Executor;
use crate::sync::{AtomicUsize, UnsafeCell};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

const STOP: usize = 1;
const NOW: usize = 1 << 1;
const DROPPED: usize = 1 << 2;
const PARKED: usize = 1 << 3;

const STOP_BITS: usize = STOP | NOW | DROPPED;
const HEAD: usize = !(STOP_BITS | PARKED);

/// A head that is no node's address: the gate is shut for ever.
const SEALED: usize = 1 << 4;

/// The first field of every message. Messages are aligned to 16, so the four low bits of a node's address are free for the
/// gate's word.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Node {
    /// How to deliver the message. A raw pointer, since it is also one to the larger vtable of a task, whose first field
    /// this is.
    pub(super) vtable: *const NodeVtable,
    /// Belongs to whoever has the [`Message`]; in a free block, to the list that has it.
    next: UnsafeCell<*mut Node>,
}

/// How a message is delivered.
#[derive(Debug)]
#[repr(C)]
pub(super) struct NodeVtable {
    /// Delivers the message at home; the node belongs to the callee.
    pub(super) deliver: unsafe fn(NonNull<Node>, &Executor),
}

impl Node {
    pub(super) fn new(vtable: *const NodeVtable) -> Self {
        Self {
            vtable,
            next: UnsafeCell::new(ptr::null_mut()),
        }
    }

    /// # Safety
    ///
    /// The caller owns the node.
    pub(super) unsafe fn next(&self) -> *mut Node {
        // SAFETY: the link belongs to whoever owns the node.
        self.next.with(|link| unsafe { *link })
    }

    /// # Safety
    ///
    /// The caller owns the node.
    pub(super) unsafe fn set_next(&self, next: *mut Node) {
        // SAFETY: the link belongs to whoever owns the node.
        self.next.with_mut(|link| unsafe { *link = next });
    }
}

/// A message on its way home, which owns its node like a box: the sender has it until it is pushed, the gate until home takes
/// it, home until it is delivered. Dropping it leaks the node.
#[derive(Debug)]
#[must_use]
pub(super) struct Message(NonNull<Node>);

impl Message {
    /// # Safety
    ///
    /// The node is valid and aligned to 16, and nobody else uses it until the message is delivered or taken apart. Home may
    /// call its vtable's function with it, once.
    pub(super) unsafe fn new(node: NonNull<Node>) -> Self {
        debug_assert_eq!(node.addr().get() & !HEAD, 0);
        Self(node)
    }

    /// The node of a message that was refused.
    pub(super) fn into_node(self) -> NonNull<Node> {
        self.0
    }

    /// Home only.
    pub(super) fn deliver(self, home: &Executor) {
        // SAFETY: `self` owns the node, and gives it away: by the promise of `new`, this is the one call. `Executor` is not
        // `Send`, so this thread is home.
        unsafe { ((*self.0.as_ref().vtable).deliver)(self.0, home) }
    }

    fn set_next(&mut self, next: *mut Node) {
        // SAFETY: `self` owns the node, which is valid.
        unsafe { self.0.as_ref().set_next(next) }
    }

    fn next(&self) -> *mut Node {
        // SAFETY: `self` owns the node, which is valid.
        unsafe { self.0.as_ref().next() }
    }
}

/// Messages, linked by their nodes: owned like them. Home only.
#[derive(Debug)]
#[must_use]
pub(super) struct List(Cell<*mut Node>);

impl List {
    pub(super) fn empty() -> Self {
        Self::new(ptr::null_mut())
    }

    fn new(first: *mut Node) -> Self {
        Self(Cell::new(first))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    pub(super) fn push(&self, mut message: Message) {
        message.set_next(self.0.get());
        self.0.set(message.0.as_ptr());
    }

    pub(super) fn pop(&self) -> Option<Message> {
        let message = Message(NonNull::new(self.0.get())?);
        self.0.set(message.next());
        Some(message)
    }

    /// Takes over the other's messages, in place of its own: the caller knows that there are none.
    pub(super) fn fill(&self, other: List) {
        self.0.set(other.0.get());
    }
}

/// The stop bits, as home saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stops(usize);

impl Stops {
    /// A stop was asked for.
    pub(crate) fn requested(self) -> bool {
        self.0 & STOP != 0
    }

    /// The grace period is to be cut short.
    pub(crate) fn now(self) -> bool {
        self.0 & NOW != 0
    }

    /// Whether one of these bits, of [`StopLevel::bits`], is not set.
    pub(super) fn lack(self, bits: usize) -> bool {
        bits & !self.0 != 0
    }

    /// The first to ask for the stop was a drop of the runtime.
    pub(crate) fn by_drop(self) -> bool {
        self.0 & DROPPED != 0
    }
}

/// How a stop is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StopLevel {
    /// With the grace period.
    Request,
    /// Without it, or without the rest of it.
    Now,
    /// Like `Request`, by a drop of the runtime.
    Drop,
}

impl StopLevel {
    /// The bits that it sets, whatever the cause.
    pub(super) fn bits(self) -> usize {
        match self {
            StopLevel::Now => STOP | NOW,
            StopLevel::Request | StopLevel::Drop => STOP,
        }
    }
}

/// Which messages a stop refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// New work: refused as soon as a stop was asked for.
    Work,
    /// A wake, an abort, a drop: refused only when home has sealed the gate.
    Leaving,
}

/// Whether home was parked, and the caller has cleared PARKED: then it has to wake home.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct MustUnpark(pub(super) bool);

#[derive(Debug)]
pub(super) struct Gate {
    word: AtomicUsize,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
        }
    }

    /// Publishes a message. Any thread. It comes back if the gate is shut for it.
    pub(super) fn push(&self, mut message: Message, admission: Admission) -> Result<MustUnpark, Message> {
        let mut word = self.word.load(Acquire);
        loop {
            let head = word & HEAD;
            if head == SEALED || (admission == Admission::Work && word & STOP != 0) {
                return Err(message);
            }
            message.set_next(ptr::with_exposed_provenance_mut(head));
            let published = message.0.as_ptr().expose_provenance() | (word & STOP_BITS);
            // Release: home, which takes the list with Acquire, sees the node and all before it (each push is a
            // read-modify-write, so it carries on the release sequence of those below it). Acquire on failure: a refusal
            // means that what home did before it sealed is visible.
            match self.word.compare_exchange_weak(word, published, Release, Acquire) {
                Ok(_) => return Ok(MustUnpark(word & PARKED != 0)),
                Err(now) => word = now,
            }
        }
    }

    /// Asks for a stop: any thread, and a signal handler. Returns the stop bits from before.
    pub(super) fn stop(&self, level: StopLevel) -> (Stops, MustUnpark) {
        let mut word = self.word.load(Relaxed);
        loop {
            let bits = match level {
                // The first cause wins.
                StopLevel::Drop if word & STOP == 0 => STOP | DROPPED,
                level => level.bits(),
            };
            let stopped = (word | bits) & !PARKED;
            if stopped == word {
                return (Stops(word & STOP_BITS), MustUnpark(false));
            }
            match self.word.compare_exchange_weak(word, stopped, AcqRel, Relaxed) {
                Ok(_) => return (Stops(word & STOP_BITS), MustUnpark(word & PARKED != 0)),
                Err(now) => word = now,
            }
        }
    }

    /// Sets PARKED again: home could not be woken, and whoever publishes something next shall try again.
    pub(super) fn unpark_failed(&self) {
        self.word.fetch_or(PARKED, Relaxed);
    }

    /// The stop bits. Any thread.
    pub(super) fn stops(&self) -> Stops {
        Stops(self.word.load(Acquire) & STOP_BITS)
    }

    /// As `stops`, by a read-modify-write: a stop that comes after it sees what the caller did before.
    pub(super) fn stops_so_far(&self) -> Stops {
        Stops(self.word.fetch_or(0, AcqRel) & STOP_BITS)
    }

    /// Takes all messages, newest first, and clears PARKED. Home only.
    pub(super) fn take(&self) -> (Stops, List) {
        let mut word = self.word.load(Acquire);
        if word & HEAD == SEALED {
            return (Stops(word & STOP_BITS), List::empty());
        }
        if word & !STOP_BITS != 0 {
            word = self.word.fetch_and(STOP_BITS, Acquire);
        }
        (
            Stops(word & STOP_BITS),
            List::new(ptr::with_exposed_provenance_mut(word & HEAD)),
        )
    }

    /// Sets PARKED, so that the sender of the next message or stop wakes home. Returns false, and home must not sleep, if
    /// there is a message, or a stop bit that is not among the `seen` ones. Home only.
    pub(super) fn park(&self, seen: Stops) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & HEAD != 0 || word & STOP_BITS != seen.0 {
                return false;
            }
            // Relaxed: whoever clears PARKED needs of home only its bell, which `stops_so_far` has published.
            match self.word.compare_exchange_weak(word, word | PARKED, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Whether nothing has come since home has parked. Home only.
    pub(super) fn is_parked(&self) -> bool {
        self.word.load(Relaxed) & PARKED != 0
    }

    /// Clears PARKED, since home itself has found something to do. Home only.
    pub(super) fn unpark(&self) -> MustUnpark {
        MustUnpark(self.word.fetch_and(!PARKED, Relaxed) & PARKED != 0)
    }

    /// Shuts the gate for ever, and takes the messages that came before, newest first. Home only.
    pub(super) fn seal(&self) -> List {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & HEAD == SEALED {
                return List::empty();
            }
            let sealed = (word & STOP_BITS) | SEALED;
            // Acquire: as in `take`. Release: whoever is refused from now on sees all that home did before.
            match self.word.compare_exchange_weak(word, sealed, AcqRel, Relaxed) {
                Ok(_) => return List::new(ptr::with_exposed_provenance_mut(word & HEAD)),
                Err(now) => word = now,
            }
        }
    }
}
