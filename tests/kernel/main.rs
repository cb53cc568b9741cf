//! What a runtime asks of the kernel, and what becomes of it when the kernel refuses: counted system calls, exhausted
//! limits, sandboxes, signals. Each test that changes or counts something of the whole process is in one of its own.

#[path = "../support/mod.rs"]
mod support;

#[cfg(all(feature = "net", not(evbase_libkqueue)))]
mod calls_per_request;
#[cfg(feature = "net")]
mod exhaustion;
#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
mod full_notify_descriptor;
mod idle_makes_no_syscalls;
mod one_write_a_park;
#[cfg(feature = "net")]
#[cfg(all(target_os = "linux", target_env = "gnu", not(evbase_libkqueue)))]
mod sandbox;
#[cfg(all(unix, feature = "net", feature = "unblock"))]
mod signal_storm;
#[cfg(target_os = "linux")]
mod signals;
mod slow_fork;
