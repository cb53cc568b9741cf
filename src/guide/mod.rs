//! How to move to evbase from another runtime or event library, and what to use beside it.
//!
//! | coming from | read |
//! |---|---|
//! | tokio, `current_thread` and `LocalSet` | [`from_tokio`] |
//! | smol, async-executor, async-io | [`from_smol`] |
//! | libevent, in C or through bindings | [`from_libevent`] |
//! | anywhere, in search of channels, locks, streams, TLS, HTTP, databases | [`ecosystem`] |
//!
//! These modules are text: they hold no items.

#[doc = include_str!("from_tokio.md")]
pub mod from_tokio {}

#[doc = include_str!("from_smol.md")]
pub mod from_smol {}

#[doc = include_str!("from_libevent.md")]
pub mod from_libevent {}

#[doc = include_str!("ecosystem.md")]
pub mod ecosystem {}
