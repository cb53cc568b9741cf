//! Sockets on the loop.
#![cfg(feature = "net")]

#[path = "../support/mod.rs"]
mod support;

mod tcp;
