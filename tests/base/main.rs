//! The event base by itself, without futures.

#[path = "../support/mod.rs"]
mod support;

mod alarm;
mod fork;
#[cfg(not(evbase_libkqueue))]
mod limits;
mod modes;
mod notify;
mod sources;
mod timers;
mod turn;
