//! What an executor tells of its tasks, if it was asked to.

use std::panic::Location;
use std::ptr::NonNull;

use super::gate::{Admission, Message, Node, NodeVtable};
use super::id::TaskId;
use super::priority::Priority;
use super::{Executor, Inbox};

/// Where a task comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) priority: Priority,
    pub(crate) location: &'static Location<'static>,
}

impl Origin {
    /// The caller's line.
    #[track_caller]
    pub(crate) fn here(priority: Priority) -> Self {
        Self {
            priority,
            location: Location::caller(),
        }
    }
}

/// How a task has ended; see [`Observer::ended`](crate::Observer::ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its future gave an output.
    Completed,
    /// It was aborted, or dropped when the runtime closed.
    Cancelled,
    /// Its future panicked.
    Panicked,
}

/// What is told of tasks, at home; implemented by `observe::Watched`. No borrow of the executor lasts through a call.
pub(crate) trait Watch {
    /// Where the task comes from that will be accepted under that id.
    fn comes_from(&self, id: TaskId, location: &'static Location<'static>);

    /// A task was accepted.
    fn spawned(&self, id: TaskId, type_name: &'static str, priority: Priority);

    /// A task is polled now; `None` is the future of `block_on`.
    fn before_poll(&self, id: Option<TaskId>);

    /// As `before_poll`.
    fn after_poll(&self, id: Option<TaskId>);

    /// A task has ended: its future is gone.
    fn ended(&self, id: TaskId, end: End);
}

/// Where a task comes from that is sent home after this.
#[repr(C, align(16))]
struct LocationMessage {
    node: Node,
    id: TaskId,
    location: &'static Location<'static>,
}

impl LocationMessage {
    const VTABLE: NodeVtable = NodeVtable { deliver: Self::deliver };

    /// # Safety
    ///
    /// `node` is that of a `LocationMessage` made by [`send_location`], taken from the gate by home.
    unsafe fn deliver(node: NonNull<Node>, home: &Executor) {
        // SAFETY: the caller's promise; `send_location` made it from a box, and it is delivered once.
        let message = unsafe { Box::from_raw(node.as_ptr().cast::<Self>()) };
        if let Some(watch) = &home.watch {
            watch.comes_from(message.id, message.location);
        }
    }
}

/// Sends home where a task comes from, before the task.
#[cold]
pub(super) fn send_location(inbox: &Inbox, id: TaskId, location: &'static Location<'static>) {
    let boxed = Box::into_raw(Box::new(LocationMessage {
        node: Node::new(&LocationMessage::VTABLE),
        id,
        location,
    }));
    // SAFETY: the node is the first field, so a pointer to the whole is one to the node. It was just made, is aligned to 16, and
    // given away here. What it holds is `Send`.
    let message = unsafe { Message::new(NonNull::new_unchecked(boxed.cast())) };
    if let Err(refused) = inbox.push(message, Admission::Leaving) {
        // SAFETY: the message is ours alone again.
        drop(unsafe { Box::from_raw(refused.into_node().as_ptr().cast::<LocationMessage>()) });
    }
}
