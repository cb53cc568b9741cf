//! A runtime in somebody else's loop, and hooks around the sleep of one in its own.

// The number that libkqueue gives out for a queue is that of a pipe, which no host can poll.
#![cfg(not(evbase_libkqueue))]

#[path = "../support/mod.rs"]
mod support;

mod between_turns;
mod hooks;
mod hosts;
mod scenarios;
mod storm;
mod two_of_a_thread;
use support::watched;
