//! The shared half of a runtime: what every handle holds, on every thread.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use super::binding::Binding;
use super::context;
use super::home::{Base, Home};
use super::metrics::Counters;
use super::registry;
use super::shutdown::Report;
use super::waiters::Once;
use crate::base::{Backend, EventBase, Notifier, fork};
use crate::executor::{Inbox, StopLevel, Stops, Unpark};
use crate::sync;

/// What the builder was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) grace: Duration,
    pub(super) event_interval: u32,
    pub(super) timer_slack: Option<Duration>,
}

pub(crate) struct Shared {
    inbox: sync::Arc<Inbox>,
    birth: fork::Birth,
    /// The base waits here for a home.
    pub(super) binding: Binding<Base>,
    pub(super) settings: Settings,
    /// Home has seen the stop.
    pub(super) stopping: Once<()>,
    /// Everything is freed.
    pub(super) closed: Once<Report>,
    pub(super) counters: Counters,
}

impl Unpark for Notifier {
    fn unpark(&self) -> bool {
        self.notify().is_ok()
    }
}

impl Shared {
    pub(super) fn new(settings: Settings, backend: Backend) -> io::Result<Arc<Self>> {
        let base: Base = EventBase::with_backend(backend)?;
        let id = registry::new_id();
        let shared = Arc::new(Self {
            inbox: sync::Arc::new(Inbox::new(id, Box::new(base.notifier()))),
            birth: fork::Birth::here(),
            binding: Binding::new(base),
            settings,
            stopping: Once::new(),
            closed: Once::new(),
            counters: Counters::default(),
        });
        registry::insert(&shared);
        Ok(shared)
    }

    pub(crate) fn id(&self) -> u64 {
        self.inbox.id()
    }

    pub(crate) fn inbox(&self) -> &sync::Arc<Inbox> {
        &self.inbox
    }

    /// Whether this is the child of a fork, and the runtime the parent's. One relaxed load.
    pub(crate) fn is_forked(&self) -> bool {
        self.birth.is_child()
    }

    pub(crate) fn stops(&self) -> Stops {
        self.inbox.stops()
    }

    /// Any thread, and a signal handler: one atomic operation, and at most one write to the notify fd.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        self.inbox.stop(level)
    }

    pub(crate) fn home(&self) -> Option<ThreadId> {
        self.binding.home()
    }

    /// Does something to home's half: at once if this is home, else by a message. Where there is nothing to do it to any
    /// more (home has closed, or is in the parent process), the action is dropped here.
    pub(crate) fn at_home(self: &Arc<Self>, action: impl FnOnce(&Rc<Home>) + Send + 'static) {
        if self.is_forked() {
            return;
        }
        if let Some(home) = context::home_of(self) {
            return action(&home);
        }
        let shared = self.clone();
        let refused = self.inbox.send(move || {
            if let Some(home) = context::home_of(&shared) {
                action(&home);
            }
        });
        drop(refused);
    }

    /// What became of the runtime, once everything is freed. Never, in the child of a fork, where another thread of the
    /// parent may have held the lock.
    pub(crate) fn report(&self) -> Option<Report> {
        if self.is_forked() {
            return None;
        }
        self.closed.get()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("id", &self.id())
            .field("home", &self.binding.home())
            .field("stops", &self.stops())
            .field("report", &self.report())
            .finish_non_exhaustive()
    }
}
