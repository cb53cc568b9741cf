//! A message that is sent again and again, and is on its way once at most: what is sent meanwhile is the same message.
//!
//! ```text
//!   posted   false -> true    whoever sends it, on any thread, after changing the content; and pushes it
//!            true             sent again: it is on its way, and will find the content changed
//!            true -> false    home, when it is delivered, before it looks at the content
//! ```
//!
//! Both steps are read-modify-writes of one word. So a sender that finds `true` comes before the delivery's step, which sees what
//! the sender did before; and one that finds `false` comes after it, when home has let go of the node.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::AcqRel;

use super::gate::{Admission, Message, Node, NodeVtable};
use super::{Executor, Inbox, guard as catch_panic};
use crate::sync::{Arc, AtomicBool};

/// What a message does at home.
pub(crate) trait Deliver: Send + Sync + 'static {
    fn deliver(&self);
}

/// See the module.
#[repr(C, align(16))]
pub(crate) struct Coalescing<M> {
    node: Node,
    posted: AtomicBool,
    content: M,
}

// SAFETY: the node belongs to the sender that has set `posted`, until it is pushed, and to home from then on, until that clears
// `posted`: no two threads touch it at once. The rest is Send and Sync if the content is.
unsafe impl<M: Send + Sync> Send for Coalescing<M> {}
// SAFETY: as above.
unsafe impl<M: Send + Sync> Sync for Coalescing<M> {}

// Each of its steps is a single one: a panic leaves nothing half done, unless in the content.
impl<M: RefUnwindSafe> RefUnwindSafe for Coalescing<M> {}

impl<M: Deliver> Coalescing<M> {
    const VTABLE: NodeVtable = NodeVtable { deliver: Self::deliver };

    pub(crate) fn new(content: M) -> Arc<Self> {
        Arc::new(Self {
            node: Node::new(&Self::VTABLE),
            posted: AtomicBool::new(false),
            content,
        })
    }

    pub(crate) fn content(&self) -> &M {
        &self.content
    }

    /// Sends it home, unless it is on its way. When home has sealed the gate, nothing happens: there is nothing left at home
    /// that it could touch.
    pub(crate) fn post(this: &Arc<Self>, inbox: &Inbox) {
        if this.posted.swap(true, AcqRel) {
            return;
        }
        let reference = Arc::into_raw(this.clone());
        // SAFETY: the node is the first field, so a pointer to the whole is one to the node, and as aligned; the reference that
        // was just made keeps it until it is delivered. It is in no list: `posted` was false.
        let message = unsafe { Message::new(NonNull::new_unchecked(reference.cast_mut().cast())) };
        // The caller's own reference keeps what the inbox hangs on until the ring is done.
        if let Err(refused) = inbox.push(message, Admission::Leaving) {
            let node = refused.into_node();
            // SAFETY: refused, so the reference is still ours. `posted` stays set, for nobody will deliver it.
            drop(unsafe { Arc::from_raw(node.as_ptr().cast::<Self>().cast_const()) });
        }
    }

    /// # Safety
    ///
    /// `node` is that of a `Coalescing<M>`, pushed by [`post`](Coalescing::post) with a reference, and taken from the gate by
    /// home, which has read its link.
    unsafe fn deliver(node: NonNull<Node>, _: &Executor) {
        // SAFETY: the caller's promise; the pointer is the one that `post` took from the `Arc`.
        let message = unsafe { Arc::from_raw(node.as_ptr().cast::<Self>().cast_const()) };
        message.posted.swap(false, AcqRel);
        catch_panic::run(|| message.content.deliver());
    }
}

impl<M: fmt::Debug> fmt::Debug for Coalescing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescing")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}
