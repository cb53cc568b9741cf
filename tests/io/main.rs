//! Descriptors on the loop.

#[path = "../support/mod.rs"]
mod support;

mod async_fd;
mod forgotten_waiters;
mod user_code_comes_back;
mod waiters;
