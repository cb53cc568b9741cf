//! Timers of a runtime.

#[path = "../support/mod.rs"]
mod support;

mod interval;
mod paused;
mod precision;
mod timers;
