//! Handlers of signals; and the end of a runtime when a signal comes.

use std::os::raw::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{fmt, io};

use signal_hook_registry::{FORBIDDEN, SigId};

use super::shutdown::Shutdown;
use crate::base::fork::{self, Birth};

/// Handlers that run when signals come, until this is dropped. In the child of a fork the drop does nothing: what the handlers
/// hold knows that it is the parent's, and the registry's lock may be held by a thread that the child hasn't got.
#[derive(Debug)]
pub(crate) struct Handlers {
    ids: Vec<SigId>,
    birth: Birth,
}

impl Handlers {
    /// Has an action run whenever its signal comes; `action` makes the one of each signal, and is told its place in the list.
    /// A signal that is in the list twice is handled once.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what can't be handled. No signal is handled then.
    ///
    /// # Safety
    ///
    /// What `action` makes is async-signal-safe. (Dropping it need not be: that happens outside of any handler.)
    pub(crate) unsafe fn new<A>(signals: &[c_int], action: impl Fn(usize) -> A) -> io::Result<Self>
    where
        A: Fn() + Send + Sync + 'static,
    {
        if let Some(signal) = signals.iter().find(|signal| FORBIDDEN.contains(signal)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "signal {signal} can't be handled by a program that goes on; use others, such as SIGINT or SIGTERM"
                ),
            ));
        }
        fork::watch()?;
        let mut handlers = Self {
            ids: Vec::new(),
            birth: Birth::here(),
        };
        for (at, &signal) in signals.iter().enumerate() {
            if signals[..at].contains(&signal) {
                continue;
            }
            // SAFETY: the caller's promise.
            let id = unsafe { signal_hook_registry::register(signal, action(at)) }
                .map_err(|error| io::Error::new(error.kind(), format!("signal {signal} can't be handled: {error}")))?;
            handlers.ids.push(id);
        }
        Ok(handlers)
    }

    /// Whether this is the child of a fork, and the handlers are its parent's.
    pub(crate) fn is_forked(&self) -> bool {
        self.birth.is_child()
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        for id in self.ids.drain(..) {
            signal_hook_registry::unregister(id);
        }
    }
}

/// Lets signals end a runtime while it lives; made by [`Shutdown::on_signals`].
#[must_use = "dropping the guard at once makes the signals end nothing"]
pub struct SignalGuard {
    _handlers: Handlers,
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
        let came_before = Arc::new(AtomicBool::new(false));
        let action = |_| {
            let (shutdown, came_before) = (shutdown.clone(), came_before.clone());
            move || {
                if came_before.swap(true, Relaxed) {
                    shutdown.request_now();
                } else {
                    shutdown.request();
                }
            }
        };
        // SAFETY: the action is an atomic swap, and `request`, which is async-signal-safe. It borrows its handles.
        let handlers = unsafe { Handlers::new(signals, action) }?;
        Ok(Self { _handlers: handlers })
    }
}

impl fmt::Debug for SignalGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalGuard").finish_non_exhaustive()
    }
}
