//! A raw signal handler that ends the loop: `Shutdown::request` is async-signal-safe.
//!
//! Most programs use `Shutdown::on_signals` instead; this is for those with handlers of their own.
//!
//! Run it with `cargo run --example signal_handler`.

use std::sync::OnceLock;
use std::time::Duration;
use std::{io, mem, ptr};

use evbase::{Runtime, Shutdown};

/// The handler borrows this handle, which outlives it.
static SHUTDOWN: OnceLock<Shutdown> = OnceLock::new();

extern "C" fn on_signal(_: libc::c_int) {
    // A few atomic operations and at most one write; errno is kept, nothing is locked, allocated or dropped.
    if let Some(shutdown) = SHUTDOWN.get() {
        shutdown.request();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new()?;
    SHUTDOWN.set(runtime.shutdown_handle()).expect("set once");

    // SAFETY: the struct is plain memory, for which zeroes are valid; the handler is async-signal-safe, and stays.
    let installed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &action, ptr::null_mut())
    };
    if installed == -1 {
        return Err(io::Error::last_os_error().into());
    }

    runtime.spawn_local(async {
        evbase::time::sleep(Duration::from_millis(100)).await;
        println!("raising SIGALRM; the handler interrupts this very thread");
        // SAFETY: raises a signal that has a handler.
        unsafe { libc::raise(libc::SIGALRM) };
        std::future::pending::<()>().await
    })?;
    println!("{}", runtime.run()?);
    Ok(())
}
