//! Watching a runtime: metrics, measurements, dumps, observers, stalls.

#[path = "../support/mod.rs"]
mod support;

mod dumps;
mod measured;
mod observers;
mod stalls;
