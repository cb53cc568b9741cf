//! One look at who may do what to a runtime from here, for every call that has to know.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::ThreadId;

use super::binding::Claim;
use super::context;
use super::error::{RunError, SpawnErrorKind};
use super::home::Home;
use super::report::Report;
use super::shared::Shared;

/// A runtime as seen from this thread.
pub(crate) enum Standing {
    /// This is the child of a fork, and the runtime the parent's.
    Forked,
    /// Everything is freed.
    Closed(Report),
    /// No thread has driven it yet.
    Unbound,
    /// This thread is home.
    Here(Rc<Home>),
    /// Another thread is.
    Elsewhere(ThreadId),
    /// This thread is home, and exits: the thread-exit guard has dealt with the runtime, perhaps by leaking it.
    Exiting,
}

impl Standing {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        if shared.is_forked() {
            return Self::Forked;
        }
        if shared.binding.is_home(context::thread_number()) {
            return match context::home_of(shared) {
                Some(home) => Self::Here(home),
                None => shared.report().map_or(Self::Exiting, Self::Closed),
            };
        }
        match shared.home() {
            Some(thread) => shared.report().map_or(Self::Elsewhere(thread), Self::Closed),
            None => Self::Unbound,
        }
    }
}

impl Home {
    /// This thread's half of the runtime; makes this thread home if there is none.
    pub(crate) fn bind(shared: &Arc<Shared>) -> Result<Rc<Self>, RunError> {
        match Standing::of(shared) {
            Standing::Here(home) => Ok(home),
            Standing::Unbound if !context::can_bind() => Err(RunError::ThreadExiting),
            Standing::Unbound => match shared.binding.claim(context::thread_number()) {
                Claim::Won(base) => {
                    let home = Self::new(shared, base);
                    context::bind(&home);
                    Ok(home)
                }
                // Another thread was faster.
                Claim::Lost => Self::bind(shared),
            },
            Standing::Forked => Err(RunError::Forked),
            Standing::Closed(_) => Err(RunError::Stopped),
            Standing::Elsewhere(home) => Err(RunError::NotHome { home }),
            Standing::Exiting => Err(RunError::ThreadExiting),
        }
    }

    /// This thread's half of a runtime that has got a home before.
    pub(crate) fn of_bound(shared: &Arc<Shared>) -> Result<Rc<Self>, RunError> {
        match Standing::of(shared) {
            Standing::Here(home) => Ok(home),
            Standing::Elsewhere(home) => Err(RunError::NotHome { home }),
            Standing::Forked => Err(RunError::Forked),
            Standing::Exiting => Err(RunError::ThreadExiting),
            Standing::Closed(_) => Err(RunError::Stopped),
            Standing::Unbound => unreachable!("evbase: a runtime that had a home has none"),
        }
    }

    /// As `bind`, to close it at once: also on a thread that is exiting. `None` if another thread was faster.
    pub(super) fn bind_to_close(shared: &Arc<Shared>) -> Option<Rc<Self>> {
        match shared.binding.claim(context::thread_number()) {
            Claim::Won(base) => Some(Self::new(shared, base)),
            Claim::Lost => None,
        }
    }
}

impl From<RunError> for SpawnErrorKind {
    /// Of an attempt to become home.
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotHome { home } => Self::NotHome { home },
            RunError::Forked => Self::Forked,
            RunError::ThreadExiting => Self::ThreadExiting,
            RunError::Stopped | RunError::Nested | RunError::Io(_) => Self::Stopped,
        }
    }
}
