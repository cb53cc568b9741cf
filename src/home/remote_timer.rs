//! A timer that is reset from abroad: however often, there is one message in the inbox at most.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::context;
use super::shared::Shared;
use crate::base::{FOREVER, TimerKey};
use crate::executor::{Coalescing, RunAtHome};
use crate::sync;

/// Made by a timer's first reset abroad.
pub(crate) struct RemoteTimer(sync::Arc<Coalescing<Reset>>);

struct Reset {
    owner: Arc<Shared>,
    key: TimerKey,
    epoch: Instant,
    /// The latest deadline, in nanoseconds after the epoch. Written before the message is sent and read after it is delivered:
    /// the message orders the two, so Relaxed will do.
    deadline: AtomicU64,
}

impl Reset {
    fn set(&self, deadline: Instant) {
        // A deadline before the epoch has passed, as the epoch has; one centuries after it never comes.
        let nanoseconds = deadline.saturating_duration_since(self.epoch).as_nanos();
        self.deadline
            .store(u64::try_from(nanoseconds).unwrap_or(u64::MAX), Relaxed);
    }
}

impl RunAtHome for Reset {
    fn run_at_home(&self) {
        if let Some(home) = context::home_of(&self.owner) {
            let after = Duration::from_nanos(self.deadline.load(Relaxed));
            let deadline = self.epoch.checked_add(after).unwrap_or(self.epoch + FOREVER);
            home.reset(self.key, deadline);
        }
    }
}

impl RemoteTimer {
    pub(crate) fn new(owner: Arc<Shared>, key: TimerKey) -> Self {
        Self(Coalescing::new(Reset {
            owner,
            key,
            epoch: Instant::now(),
            deadline: AtomicU64::new(0),
        }))
    }

    pub(crate) fn owner(&self) -> &Arc<Shared> {
        &self.0.content().owner
    }

    pub(crate) fn key(&self) -> TimerKey {
        self.0.content().key
    }

    /// Moves the timer: at once if this is home, else by a message. False: it has fired, or was disarmed.
    pub(crate) fn reset(&self, deadline: Instant) -> bool {
        let reset = self.0.content();
        // At home as well: a message of an earlier reset may be in the inbox, and must not bring an older deadline.
        reset.set(deadline);
        if let Some(home) = context::home_of(&reset.owner) {
            return home.reset(reset.key, deadline);
        }
        if !reset.owner.is_forked() {
            Coalescing::post(&self.0, reset.owner.inbox());
        }
        true
    }
}

impl fmt::Debug for RemoteTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTimer")
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}
