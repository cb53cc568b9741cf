//! The event base by itself, without futures.

#[path = "../support/mod.rs"]
mod support;

// The number that libkqueue gives out for a queue is that of a pipe, which nobody can poll in its place.
#[cfg(not(evbase_libkqueue))]
mod alarm;
mod fork;
#[cfg(not(evbase_libkqueue))]
mod limits;
mod modes;
mod notify;
mod sources;
mod timers;
mod turn;
