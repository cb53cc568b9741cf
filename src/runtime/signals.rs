//! Ends a runtime when a signal comes.

use std::os::raw::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{fmt, io};

use signal_hook_registry::{FORBIDDEN, SigId};

use super::shutdown::Shutdown;

/// Lets signals end a runtime while it lives; made by [`Shutdown::on_signals`].
#[must_use = "dropping the guard at once makes the signals end nothing"]
pub struct SignalGuard {
    ids: Vec<SigId>,
}

impl Shutdown {
    /// Ends the runtime when one of the signals comes: the first one as [`request`](Shutdown::request), a second one, of
    /// whichever of them, as [`request_now`](Shutdown::request_now).
    ///
    /// Handlers of others for the same signals are called as well. When the guard is dropped, the signals no longer end
    /// the runtime. They don't get their default disposition back, though: a handler that does nothing stays in its place
    /// (the registry behind it, signal-hook's, can't take it out safely), so that Ctrl-C has no effect from then on.
    ///
    /// From any thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for `SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE` and `SIGSEGV`, which can't be handled like this, and
    /// for numbers that are no signal. No signal is handled then.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Runtime::new()?;
    /// let _guard = runtime.shutdown_handle().on_signals(&[libc::SIGINT, libc::SIGTERM])?;
    /// // Somebody presses Ctrl-C.
    /// # // SAFETY: it takes no pointer.
    /// # unsafe { libc::raise(libc::SIGINT) };
    /// assert_eq!(runtime.run()?.cause, evbase::Cause::Requested);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_signals(&self, signals: &[c_int]) -> io::Result<SignalGuard> {
        SignalGuard::new(self.clone(), signals)
    }
}

impl SignalGuard {
    fn new(shutdown: Shutdown, signals: &[c_int]) -> io::Result<Self> {
        if let Some(signal) = signals.iter().find(|signal| FORBIDDEN.contains(signal)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("signal {signal} can't be handled by a program that goes on; use SIGINT or SIGTERM"),
            ));
        }
        let came_before = Arc::new(AtomicBool::new(false));
        let mut guard = Self { ids: Vec::new() };
        for (at, &signal) in signals.iter().enumerate() {
            if signals[..at].contains(&signal) {
                continue;
            }
            let (shutdown, came_before) = (shutdown.clone(), came_before.clone());
            let on_signal = move || {
                if came_before.swap(true, Relaxed) {
                    shutdown.request_now();
                } else {
                    shutdown.request();
                }
            };
            // SAFETY: the action is async-signal-safe: an atomic swap, and `request`, which says it is. It borrows its
            // handles; the registry drops them outside of any handler.
            let id = unsafe { signal_hook_registry::register(signal, on_signal) }
                .map_err(|error| io::Error::new(error.kind(), format!("signal {signal} can't be handled: {error}")))?;
            guard.ids.push(id);
        }
        Ok(guard)
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook_registry::unregister(id);
        }
    }
}

impl fmt::Debug for SignalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalGuard").finish_non_exhaustive()
    }
}
