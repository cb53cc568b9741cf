//! Home: the thread that a runtime belongs to, and its half of it; and the half that all threads share.
//!
//! ```text
//!   any thread                   Shared { inbox, binding, bells, stopping, closed, .. }
//!                                    |  the gate, and the notify fd
//!   home's half, one thread      Home { executor, base, life }    context: which homes this thread has, and is inside of
//! ```
//!
//! Home does the work; everything else is a message to it. The handles that users hold are in [`runtime`](crate::runtime).
//!
//! | file | subject |
//! |---|---|
//! | `home.rs`, `close.rs` | the loop; the end |
//! | `shared.rs`, `binding.rs`, `once.rs`, `bell.rs` | what all threads share; who is home; how home is told of a stop |
//! | `standing.rs` | one look at who may do what to a runtime from here, for every call that has to know |
//! | `context.rs` | what a thread knows of its runtimes |
//! | `readiness.rs`, `sources.rs`, `timers.rs`, `remote_timer.rs` | descriptors and timers at home; timers reset from abroad |
//! | `guest.rs`; `hooks.rs` | embedded in another loop; before and after the sleep |
//! | `clock.rs` | real and virtual time |
//! | `report.rs`, `error.rs` | what is told |

pub(crate) mod bell;
mod binding;
pub(crate) mod clock;
pub(crate) mod close;
pub(crate) mod context;
mod error;
mod guest;
#[allow(clippy::module_inception, reason = "the file of the type that the module is about")]
mod home;
mod hooks;
pub(crate) mod once;
mod readiness;
mod remote_timer;
mod report;
mod shared;
mod sources;
mod standing;
mod timers;

#[cfg(all(test, evbase_loom))]
mod models;

pub(crate) use crate::executor::coop;
#[cfg(feature = "net")]
pub(crate) use clock::is_virtual;
pub use clock::{Hold, hold, now};
pub use error::{RunError, SpawnError, SpawnErrorKind, WaitError};
pub use home::Turn;
pub(crate) use home::{Exit, Goal, Home, RootFuture, time_until};
pub(crate) use hooks::Hooks;
pub use hooks::{Wait, WaitHook};
pub(crate) use readiness::{Direction, Ready, Seen, Waiter, WaiterKey};
pub(crate) use remote_timer::RemoteTimer;
pub use report::{Cause, Report};
pub(crate) use shared::{Settings, Shared};
pub(crate) use standing::Standing;
pub(crate) use timers::{NotArmed, disarm};
