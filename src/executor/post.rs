//! A message with a content that changes, sent again after each change: however often, it is in the inbox once at most.
//!
//! ```text
//!   posted   false -> true    a sender, on any thread, after it has changed the content; it pushes the message
//!            true             a sender finds the message in the inbox: home will see its change, too
//!            true -> false    home delivers the message; then it looks at the content
//! ```
//!
//! Both steps are read-modify-writes of `posted`. A sender that finds `true` comes before home's step, by which home sees the
//! sender's change. One that finds `false` comes after it, when home no longer uses the node.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::AcqRel;

use super::gate::{Admission, Message, Node, NodeVtable};
use super::{Executor, Inbox, catch_panic};
use crate::sync::{Arc, AtomicBool};

/// The content of a [`Coalescing`] message.
pub(crate) trait RunAtHome: Send + Sync + 'static {
    /// Called at home when the message is delivered.
    fn run_at_home(&self);
}

/// See the module.
#[repr(C, align(16))]
pub(crate) struct Coalescing<M> {
    node: Node,
    posted: AtomicBool,
    content: M,
}

// SAFETY: the node belongs to the sender that has set `posted`, until that pushes it, and then to home, until home clears
// `posted`: no two threads touch it at once. The rest is Send and Sync if the content is.
unsafe impl<M: Send + Sync> Send for Coalescing<M> {}
// SAFETY: as above.
unsafe impl<M: Send + Sync> Sync for Coalescing<M> {}

// Only in the content can a panic leave anything half done.
impl<M: RefUnwindSafe> RefUnwindSafe for Coalescing<M> {}

impl<M: RunAtHome> Coalescing<M> {
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

    /// Sends the message home, unless it is in the inbox. When home has sealed the gate, this does nothing: there is nothing
    /// left at home that the message could touch.
    pub(crate) fn post(this: &Arc<Self>, inbox: &Inbox) {
        if this.posted.swap(true, AcqRel) {
            return;
        }
        let reference = Arc::into_raw(this.clone());
        // SAFETY: the node is the first field, so a pointer to the whole is one to the node, and aligned to 16; the reference
        // that was just made keeps it until it is delivered. It is in no list: `posted` was false.
        let message = unsafe { Message::new(NonNull::new_unchecked(reference.cast_mut().cast())) };
        // The caller's own reference keeps `inbox` alive until home has been woken, as `push` asks for.
        if let Err(refused) = inbox.push(message, Admission::Leaving) {
            let node = refused.into_node();
            // SAFETY: refused, so the reference is still ours. `posted` stays set: what is sent later needs no push.
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
        catch_panic::run(|| message.content.run_at_home());
    }
}

impl<M: fmt::Debug> fmt::Debug for Coalescing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescing")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}
