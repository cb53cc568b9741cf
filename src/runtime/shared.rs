//! The shared half of a runtime: what every handle holds, on every thread.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use super::bell::{Bell, Bells};
use super::binding::Binding;
use super::once::Once;
use super::readiness::Base;
use super::report::Report;
use crate::base::{EventBase, Notifier, fork};
use crate::executor::{Count, Inbox, StopLevel, Stops, Unpark};
use crate::sync;

/// What the builder was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) grace: Duration,
    pub(super) event_interval: u32,
    pub(super) timer_slack: Option<Duration>,
}

/// What home counts; the executor has counters of its own.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) turns: Count,
    pub(super) parks: Count,
    pub(super) events: Count,
    pub(super) timers: Count,
}

pub(crate) struct Shared {
    inbox: sync::Arc<Inbox>,
    /// The inbox's; its list of bells is for home as well.
    waker: Arc<HomeWaker>,
    birth: fork::Birth,
    /// The base waits here for a home.
    pub(super) binding: Binding<Base>,
    pub(super) settings: Settings,
    /// Home has seen the stop.
    pub(super) stopping: Once<()>,
    /// Everything is freed.
    pub(super) closed: Once<Report>,
    pub(super) counters: Counters,
    /// With what code the kernel refused to wait, if that ends the thread of the runtime.
    pub(super) wait_error: OnceLock<i32>,
}

// What home and abroad share is consistent after each step, and no user code runs in the middle of one: a panic elsewhere can't
// leave it broken.
impl UnwindSafe for Shared {}
impl RefUnwindSafe for Shared {}

/// Wakes home, wherever it waits.
struct HomeWaker {
    /// Ends a wait in the loop of the runtime.
    notifier: Notifier,
    /// End a wait elsewhere.
    bells: Bells,
    shared: Weak<Shared>,
}

impl Unpark for Arc<HomeWaker> {
    fn unpark(&self) -> bool {
        self.notifier.notify().is_ok()
    }

    fn stopped(&self) {
        self.bells.ring();
    }

    fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.shared.upgrade().map(|shared| shared as _)
    }
}

impl Shared {
    pub(super) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let base: Base = EventBase::new()?;
        Ok(Arc::new_cyclic(|shared| {
            let waker = Arc::new(HomeWaker {
                notifier: base.notifier(),
                bells: Bells::new(),
                shared: shared.clone(),
            });
            Self {
                inbox: sync::Arc::new(Inbox::new(Box::new(waker.clone()))),
                waker,
                birth: fork::Birth::here(),
                binding: Binding::new(base),
                settings,
                stopping: Once::new(),
                closed: Once::new(),
                counters: Counters::default(),
                wait_error: OnceLock::new(),
            }
        }))
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

    /// Any thread, and a signal handler: a bounded number of atomic operations, and at most one write to a descriptor.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        self.inbox.stop(level)
    }

    /// A stop rings the bell too, unless home waits in the loop of the runtime. If one came before, it rings now.
    pub(super) fn ring_on_stop(&self, bell: &sync::Arc<Bell>) {
        self.waker.bells.ring_on_stop(bell, &self.inbox);
    }

    pub(crate) fn home(&self) -> Option<ThreadId> {
        self.binding.home()
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
            .field("home", &self.binding.home())
            .field("stops", &self.stops())
            .field("report", &self.report())
            .finish_non_exhaustive()
    }
}
