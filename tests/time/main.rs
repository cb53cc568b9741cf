//! Timers of a runtime.

#[path = "../support/mod.rs"]
mod support;

mod precision;
mod timers;
