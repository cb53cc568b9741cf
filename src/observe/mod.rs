//! Watching a runtime: what is measured, who is told of tasks, what is remembered of these, and the watch for stalls.
//!
//! Nobody pays for it who did not ask: a runtime has a [`Watched`] only if it was built with `measure`, `observe` or `on_stall`. This
//! module knows the executor, which tells a `Watched` what happens, and no home; home makes one, and says when it sleeps.

mod dump;
mod measured;
mod observer;
mod stall;
mod task_info;
mod watched;

pub use dump::{Dump, TaskDump, WaitsFor};
pub(crate) use measured::Measured;
pub use observer::Observer;
pub use stall::Stall;
pub(crate) use stall::{Stalls, Watchpoint};
pub use task_info::TaskInfo;
pub(crate) use task_info::plain;
pub(crate) use watched::{WatchSettings, Watched};
