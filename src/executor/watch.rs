//! What an executor tells of its tasks, if it was asked to.

use std::panic::Location;

use super::Inbox;
use super::id::TaskId;
use super::priority::Priority;

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

/// Sends home where a task comes from, before the task.
#[cold]
pub(super) fn send_location(inbox: &Inbox, id: TaskId, location: &'static Location<'static>) {
    // If home takes no message any more, it won't take the task.
    let _ = inbox.send_with(location, move |location, home| {
        if let Some(watch) = &home.watch {
            watch.comes_from(id, location);
        }
    });
}
