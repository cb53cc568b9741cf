//! What can be said of the public names, and of the source, without running much: who may cross threads, what errors say,
//! which layer imports which.

#[path = "../support/mod.rs"]
mod support;

mod layers;
mod panics;
#[cfg(feature = "net")]
mod public_types;
