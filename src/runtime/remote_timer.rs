//! A timer that is reset from abroad: however often, one message is on its way home at most.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::context;
use super::home::FOREVER;
use super::shared::Shared;
use crate::base::TimerKey;
use crate::executor::{Coalescing, RunAtHome};
use crate::sync;

/// Made by the first reset abroad.
pub(crate) struct RemoteTimer(sync::Arc<Coalescing<Reset>>);

struct Reset {
    owner: Arc<Shared>,
    key: TimerKey,
    epoch: Instant,
    /// The latest deadline, in nanoseconds after the epoch. It is written before the message is sent and read when it is
    /// delivered, which orders the two.
    deadline: AtomicU64,
}

impl Reset {
    fn set(&self, deadline: Instant) {
        // What is before the epoch has passed as well as any; what is centuries after it never comes.
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
        // At home as well: an earlier message may be on its way, and is not to bring another deadline.
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
