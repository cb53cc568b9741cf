//! What a home knows of embedded runtimes, its own and those on its thread: for [`Embedded`](crate::Embedded).

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::context::{self, LoopOf};
use super::error::RunError;
use super::home::{Home, Turn, time_until};
use crate::executor::Stops;

/// What a home knows of being a guest on its thread, and of the guests there.
///
/// The host may be a task in the loop of another runtime. A stop that finds that loop asleep rings the bell only; and whoever
/// closed the guest there and then would leave its host waiting for a descriptor that is never readable again.
#[derive(Default)]
pub(super) struct Guest {
    /// The stops of which this home's host was told.
    told: Cell<Stops>,
    /// The stops that a turn of its host has looked at.
    host_saw: Cell<Stops>,
    /// In whose loop the last turn was made, if it was in one.
    turned_in: Cell<Option<LoopOf>>,
    /// In the loop of this home: how many polls there had been when it would have slept, but for guests that nobody had turned.
    idle_at: Cell<Option<u64>>,
    /// In the loop of this home: until when it waits for the hosts of guests.
    patience: Cell<Option<Instant>>,
}

/// How long a loop waits for a turn of a guest that was asked to stop: while it has other tasks to run, any of which may turn the
/// guest; and if it was turned in a loop of this home before, by a task that a clock will tell, or another thread, which polls the
/// guest's descriptor.
const PATIENCE: Duration = Duration::from_secs(1);

impl Home {
    /// The bell has rung in the loop of this home: tells the hosts of the guests on this thread that these were asked to stop. If
    /// such a host is a task of this loop, it turns its guest now. A loop that `would_sleep`, and has looked in vain since, closes
    /// those that nobody turns: this thread does nothing else meanwhile. Others, and those that were turned in a loop of this home,
    /// have a while.
    pub(super) fn tell_hosts(&self, would_sleep: bool) {
        // Not this home: it is driven, and so never due.
        let guests = context::homes(Home::has_to_tell_host);
        if guests.is_empty() {
            return self.guest.patience.set(None);
        }
        let told = guests.iter().filter(|home| home.tell_host()).count();
        let patience = self.guest.patience.get().filter(|_| told == 0);
        let end = patience.unwrap_or_else(|| Instant::now() + PATIENCE);
        self.guest.patience.set(Some(end));
        let is_over = time_until(end).is_zero();
        let polls = self.shared().inbox().counts().polls.get();
        let is_idle = told == 0 && would_sleep;
        let was_idle = self.guest.idle_at.replace(is_idle.then_some(polls)) == Some(polls);
        if is_over || (is_idle && was_idle) {
            let (awaited, others): (Vec<_>, Vec<_>) =
                (guests.iter()).partition(|home| !is_over && home.is_turned_here());
            if awaited.is_empty() {
                self.guest.patience.set(None);
            }
            others.into_iter().for_each(Home::close_at_once);
        } else {
            // The loop looks, without sleeping, and comes back here.
            context::ring();
        }
    }

    /// A turn, called by the host: one that never waits.
    pub(crate) fn turn_as_guest(self: &Rc<Self>) -> Result<Turn, RunError> {
        self.guest.turned_in.set(context::this_loop());
        if self.has_nothing_to_do() {
            return Ok(Turn::default());
        }
        // No `context::sweep`: other runtimes of this thread may have a grace period.
        let turned = self.turn(Some(Duration::ZERO));
        self.guest.host_saw.set(self.stops_seen());
        turned
    }

    /// Whether a turn would find nothing: home has settled, nothing has come since, and the kernel has no event. Everything stays as it
    /// is, the alarm included; what comes after the look makes the descriptor readable.
    fn has_nothing_to_do(&self) -> bool {
        self.executor().is_asleep() && self.hooks().is_empty() && self.kernel_has_nothing()
    }

    /// Whether a stop was asked for that is for a host to see to.
    pub(super) fn has_to_tell_host(&self) -> bool {
        self.shared().is_embedded() && self.is_due() && self.guest.host_saw.get() != self.shared().stops()
    }

    /// Tells the host of a stop. False: it was told before.
    pub(super) fn tell_host(&self) -> bool {
        let stops = self.shared().stops();
        let is_new = self.guest.told.replace(stops) != stops;
        if is_new {
            self.executor().tell_host();
        }
        is_new
    }

    /// Whether the host sees to a stop, by turns in the loop that runs on this thread.
    pub(crate) fn is_left_to_host(&self) -> bool {
        self.shared().is_embedded()
            && context::inside_loop()
            && (self.is_turned_here() || self.stops_seen() != self.shared().stops())
    }

    /// Whether the last turn was made in the loop that runs on this thread, or in one of the same home before.
    fn is_turned_here(&self) -> bool {
        self.guest
            .turned_in
            .get()
            .is_some_and(|turned| context::this_loop() == Some(turned))
    }

    /// Whether this home's loop waits for hosts.
    pub(super) fn has_patience(&self) -> bool {
        self.guest.patience.get().is_some()
    }

    /// What is left of the time for which this home's loop waits for hosts, if it does.
    pub(super) fn patience_left(&self) -> Option<Duration> {
        self.guest.patience.get().map(time_until)
    }
}
