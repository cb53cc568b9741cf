//! System calls that fail as planned. This executable defines the C library's functions itself, see `faulty_calls`: it
//! can't be run under a sanitizer, which does so, too.

#![cfg(all(feature = "net", target_os = "linux", target_env = "gnu", not(evbase_libkqueue)))]

#[path = "../support/mod.rs"]
mod support;

mod failing_calls;
mod fault_injection;
mod faulty_calls;
