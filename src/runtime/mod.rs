//! The runtime: joins the event base and the executor, and gives them a life.
//!
//! ```text
//!   handles, any thread          Runtime  Spawner  Shutdown  Terminated  JoinHandle
//!                                    \       |        |         /
//!   the shared half              Shared { inbox, binding, bells, stopping, closed, .. }
//!                                    |  the gate, and the notify fd
//!   home's half, one thread      Home { executor, base, life }    context: which homes this thread has, and is inside of
//! ```
//!
//! Home does the work; everything else is a message to it.
//!
//! | file | subject |
//! |---|---|
//! | `runtime.rs`, `block_on.rs`, `builder.rs`, `spawner.rs`, `shutdown.rs`, `signals.rs` | the handles |
//! | `shared.rs`, `binding.rs`, `once.rs`, `bell.rs` | what all threads share; who is home; how home is told of a stop |
//! | `standing.rs` | one look at who may do what to a runtime from here, for every call that has to know |
//! | `context.rs` | what a thread knows of its runtimes |
//! | `home.rs`, `close.rs`, `wait.rs` | the loop; the end; blocking waits |
//! | `readiness.rs`, `sources.rs`, `timers.rs`, `owners.rs`, `remote_timer.rs` | descriptors and timers at home; timers reset from abroad |
//! | `embedded.rs`, `guest.rs`; `hooks.rs`, `before_wait.rs` | in another loop; before and after the sleep |
//! | `clock.rs` | real and virtual time |
//! | `report.rs`, `error.rs`, `metrics.rs`, `dump.rs` | what is told |

mod before_wait;
mod bell;
mod binding;
mod block_on;
mod builder;
mod clock;
mod close;
pub(crate) mod context;
mod dump;
mod embedded;
mod error;
mod guest;
mod home;
mod hooks;
mod metrics;
mod once;
mod owners;
mod readiness;
mod remote_timer;
mod report;
#[allow(clippy::module_inception, reason = "the file of the type that the module is about")]
mod runtime;
mod shared;
mod shutdown;
mod signals;
mod sources;
mod spawner;
mod standing;
mod timers;
mod wait;

#[cfg(all(test, evbase_loom))]
mod models;

pub(crate) use crate::executor::coop;
pub use block_on::block_on;
pub use builder::Builder;
pub use clock::{Hold, hold, now};
pub(crate) use dump::set_task_name;
pub use embedded::Embedded;
pub use error::{RunError, SpawnError, SpawnErrorKind, WaitError};
pub(crate) use home::Home;
pub use home::Turn;
pub use hooks::{Wait, WaitHook};
pub use metrics::Metrics;
pub(crate) use readiness::{Direction, Ready, Seen, Waiter, WaiterKey};
pub(crate) use remote_timer::RemoteTimer;
pub use report::{Cause, Report};
pub use runtime::{EnterGuard, Runtime};
pub(crate) use shared::Shared;
pub use shutdown::{Requested, Shutdown, Terminated};
pub(crate) use signals::Handlers;
pub use signals::SignalGuard;
pub use spawner::{LocalSpawner, Spawner, spawn_local, yield_now};
pub(crate) use timers::disarm;
