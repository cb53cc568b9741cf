//! evbase
pub mod base;
mod executor;
pub mod io;
#[cfg(feature = "net")]
pub mod net;
mod runtime;
mod sync;
pub mod time;
#[cfg(feature = "unblock")]
mod unblock;

pub use executor::{AbortHandle, JoinError, JoinHandle};
pub use runtime::{
    Builder, Cause, EnterGuard, LocalSpawner, Metrics, Report, Requested, RunError, Runtime,
    Shutdown, SignalGuard, SpawnError, SpawnErrorKind, Spawner, Terminated, Turn, WaitError,
    spawn_local, yield_now,
};
#[cfg(feature = "unblock")]
pub use unblock::unblock;
