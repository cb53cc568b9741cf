//! evbase
pub mod base;
mod executor;
mod runtime;
mod sync;

pub use executor::{AbortHandle, JoinError, JoinHandle};
pub use runtime::{
    Builder, Cause, EnterGuard, LocalSpawner, Metrics, Report, Requested, RunError, Runtime,
    Shutdown, SignalGuard, SpawnError, SpawnErrorKind, Spawner, Terminated, Turn, WaitError,
    spawn_local, yield_now,
};
