//! Tasks: who they are, sets of them, and values of their own.

mod join_set;
mod task_local;

pub use crate::executor::TaskId;
pub use join_set::JoinSet;
#[doc(hidden)]
pub use task_local::Slot as __Slot;
pub use task_local::{AccessError, LocalKey, TaskLocalFuture};

use crate::{executor, runtime};

/// The id of the task whose future this thread is polling or dropping; `None` where there is none: in the future of
/// [`block_on`](crate::Runtime::block_on), and outside of a loop. From any thread.
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
/// assert_eq!(runtime.block_on(one)??, Some(id));
/// assert_eq!(task::id(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn id() -> Option<TaskId> {
    executor::running()
}

/// Gives the running task a name, for [`Observer`](crate::Observer)s, [`Stall`](crate::Stall)s and [`Dump`](crate::Dump)s. Names are
/// kept only in a runtime that was built to be watched: with [`measure`](crate::Builder::measure),
/// [`observe`](crate::Builder::observe) or [`on_stall`](crate::Builder::on_stall). Elsewhere, and outside of a task, this does
/// nothing. On any thread: the task is the one whose future this thread is polling or dropping.
///
/// # Examples
///
/// ```
/// use evbase::task;
///
/// let runtime = evbase::Builder::new().measure().build()?;
/// runtime.spawn_local(async {
///     task::set_name("the patient one");
///     std::future::pending::<()>().await;
/// })?;
/// runtime.turn(None)?;
/// assert_eq!(runtime.dump()?.tasks[0].name.as_deref(), Some("the patient one"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_name(name: impl Into<String>) {
    if let Some(id) = id() {
        runtime::set_task_name(id, || name.into());
    }
}
