//! The runtime as its users hold it: handles, most of them for any thread, on [`home`](crate::home).
//!
//! ```text
//!   Runtime  Spawner  LocalSpawner  Shutdown  Terminated  Requested  Embedded        JoinHandle (executor)
//!       \       |          |           |          |           |         |                /
//!                    Shared, and on the thread of a runtime its Home
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `runtime.rs`, `block_on.rs`, `builder.rs` | to make one, and to drive it |
//! | `spawner.rs` | work for it |
//! | `shutdown.rs`, `signals.rs`, `wait.rs` | to stop it, from any thread and by signals; to wait for its end, or a task's |
//! | `embedded.rs`, `before_wait.rs` | in another loop; before and after the sleep |
//! | `metrics.rs`, `dump.rs` | to look at it |

mod before_wait;
mod block_on;
mod builder;
mod dump;
mod embedded;
mod metrics;
#[allow(clippy::module_inception, reason = "the file of the type that the module is about")]
mod runtime;
mod shutdown;
mod signals;
mod spawner;
mod wait;

pub use block_on::block_on;
pub use builder::Builder;
pub(crate) use dump::set_task_name;
pub use embedded::Embedded;
pub use metrics::Metrics;
pub use runtime::{EnterGuard, Runtime};
pub use shutdown::{Requested, Shutdown, Terminated};
pub(crate) use signals::Handlers;
pub use signals::SignalGuard;
pub use spawner::{LocalSpawner, Spawner, spawn_local, yield_now};
