//! The shared half of a runtime: what every handle holds, on every thread.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use super::bell::{Bell, Bells};
use super::binding::Binding;
use super::once::Once;
use super::readiness::Base;
use super::report::Report;
use crate::base::{EventBase, Notifier, fork};
use crate::executor::{Count, Inbox, StopLevel, Stops, Unpark, prefetch_task};
use crate::observe::{Measured, WatchSettings, Watchpoint};
use crate::random::Random;
use crate::sync;

/// The builder's settings.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) grace: Duration,
    pub(crate) event_interval: u32,
    pub(crate) timer_slack: Option<Duration>,
    pub(crate) event_time: Option<Duration>,
    /// Whether time is virtual.
    pub(crate) paused: bool,
    /// The seed of a run in random order.
    pub(crate) shuffle: Option<u64>,
    pub(crate) watch: WatchSettings,
}

/// What home counts; the executor has counters of its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Count,
    pub(crate) parks: Count,
    pub(crate) events: Count,
    pub(crate) timers: Count,
    pub(crate) notified: Count,
    /// Of the last pass.
    pub(crate) ready: Gauge,
    pub(crate) sources: Gauge,
    pub(crate) armed: Gauge,
}

/// A figure of the last pass: written at home, read on any thread.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(super) fn set(&self, figure: usize) {
        self.0.store(figure, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed) as u64
    }
}

pub(crate) struct Shared {
    inbox: sync::Arc<Inbox>,
    /// The inbox has it, too; here for its list of bells.
    waker: Arc<HomeWaker>,
    birth: fork::Birth,
    /// Holds the base until there is a home.
    pub(super) binding: Binding<Base>,
    pub(super) settings: Settings,
    /// Set when home has seen a stop.
    pub(crate) stopping: Once<()>,
    /// Set when everything is freed.
    pub(crate) closed: Once<Report>,
    pub(crate) counters: Counters,
    /// With `measure` only.
    pub(crate) measured: Option<Arc<Measured>>,
    /// With `on_stall` only.
    pub(super) watchpoint: Option<Arc<Watchpoint>>,
    /// While there is a [`Hold`](crate::time::Hold), virtual time stands still.
    pub(super) holds: AtomicUsize,
    /// The OS error with which the kernel refused to wait, if that has ended the thread of `Builder::start`.
    pub(crate) wait_error: OnceLock<i32>,
}

// A panic leaves it whole: no user code runs in the middle of a change.
impl UnwindSafe for Shared {}
impl RefUnwindSafe for Shared {}

/// Wakes home, wherever it sleeps.
struct HomeWaker {
    /// Ends a sleep in the loop of this runtime.
    notifier: Notifier,
    /// End a sleep anywhere else, and one there if it listens to the bell.
    bells: Bells,
    shared: Weak<Shared>,
}

impl Unpark for Arc<HomeWaker> {
    fn unpark(&self) -> bool {
        self.notifier.notify().is_ok()
    }

    fn stopped(&self) -> bool {
        self.bells.ring()
    }

    fn owner(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.shared.upgrade().map(|shared| shared as _)
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let mut base: Base = EventBase::new()?;
        base.announce_timers(prefetch_task);
        if settings.paused {
            base.pause_clock();
        }
        if let Some(seed) = settings.shuffle {
            // Another order than that of the tasks.
            base.shuffle(Random::new(!seed));
        }
        let measured: Option<Arc<Measured>> = settings.watch.measure.then(Arc::default);
        if let Some(measured) = &measured {
            base.measure_lag(measured.timer_lag.clone());
        }
        let watchpoint = settings.watch.stalls.clone().map(Watchpoint::new).transpose()?;
        Ok(Arc::new_cyclic(|shared| {
            let waker = Arc::new(HomeWaker {
                notifier: base.notifier(),
                bells: Bells::new(),
                shared: shared.clone(),
            });
            Self {
                inbox: sync::Arc::new(Inbox::new(Box::new(waker.clone()), settings.watch.is_any())),
                waker,
                birth: fork::Birth::here(),
                binding: Binding::new(base),
                settings,
                stopping: Once::new(),
                closed: Once::new(),
                counters: Counters::default(),
                measured,
                watchpoint,
                holds: AtomicUsize::new(0),
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

    /// Any thread, and a signal handler: lock-free atomic operations, and at most one write to a descriptor.
    pub(crate) fn stop(&self, level: StopLevel) -> Stops {
        self.inbox.stop(level)
    }

    /// From here on, a stop rings this bell, that of the home thread. If one came before, it rings now.
    pub(super) fn ring_home_on_stop(&self, bell: &sync::Arc<Bell>) {
        self.waker.bells.ring_home_on_stop(bell, &self.inbox);
    }

    /// As `ring_home_on_stop`, for a thread that waits for the end of a runtime without a home.
    pub(super) fn ring_on_stop(&self, bell: &sync::Arc<Bell>) {
        self.waker.bells.ring_on_stop(bell, &self.inbox);
    }

    /// A stop has rung the bell of a thread that waits for the end of this runtime, which has no home, and that thread goes: rings
    /// on, until another one is found asleep.
    pub(super) fn ring_another(&self) {
        self.waker.bells.ring();
    }

    pub(super) fn is_embedded(&self) -> bool {
        self.waker.bells.is_embedded()
    }

    /// One [`Embedded`](crate::Embedded) more.
    pub(super) fn embed(&self) {
        self.waker.bells.embed();
    }

    /// One [`Embedded`](crate::Embedded) less; on any thread.
    pub(crate) fn unembed(&self) {
        self.waker.bells.unembed(&self.inbox);
    }

    pub(crate) fn home(&self) -> Option<ThreadId> {
        self.binding.home()
    }

    /// The report, once everything is freed. In the child of a fork always `None`: a thread of the parent may have held the
    /// lock at the fork.
    pub(crate) fn report(&self) -> Option<Report> {
        if self.is_forked() {
            return None;
        }
        self.closed.get()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watchpoint) = &self.watchpoint {
            watchpoint.leave();
        }
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
