//! Timers of a runtime.

#[path = "../support/mod.rs"]
mod support;

mod interval;
mod precision;
mod timers;
