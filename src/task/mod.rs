//! Tasks: who they are, sets of them, and values of their own.

mod join_set;
mod task_local;

pub use crate::executor::Id;
pub use join_set::JoinSet;
#[doc(hidden)]
pub use task_local::Slot as __Slot;
pub use task_local::{AccessError, LocalKey, TaskLocalFuture};

use crate::executor;

/// The id of the task that is running: see [`try_id`].
///
/// # Panics
///
/// Where no task is running.
///
/// # Examples
///
/// ```
/// use evbase::task;
///
/// let runtime = evbase::Runtime::new()?;
/// let one = runtime.spawn_local(async { task::id() })?;
/// let other = runtime.spawn_local(async { task::id() })?;
/// let id = one.id();
/// assert_ne!(id, other.id());
/// assert_eq!(runtime.block_on(one)??, id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn id() -> Id {
    try_id().expect("evbase: task::id was called outside of a task")
}

/// The id of the task whose future this thread is polling or dropping; `None` where there is none: in the future of
/// [`block_on`](crate::Runtime::block_on), and outside of a loop. From any thread.
pub fn try_id() -> Option<Id> {
    executor::running()
}
