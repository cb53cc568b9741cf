//! A runtime in somebody else's loop, and hooks around the sleep of one in its own.

#[path = "../support/mod.rs"]
mod support;

mod between_turns;
mod hooks;
mod hosts;
mod scenarios;
use support::watched;
