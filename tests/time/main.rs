//! Timers of a runtime.

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod timer_slack;
mod timers;
