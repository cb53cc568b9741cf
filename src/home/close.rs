//! The end of a runtime: who closes it, and how.
//!
//! ```text
//!   home's loop                      sees the stop, and closes after the grace period
//!   a drop, at home, outside it      runs the loop until then
//!   a drop, without a home           the thread becomes home, and closes at once; so does a blocking wait for something else, if a
//!                                    loop of its thread has awaited the end
//!   a drop, on another thread        is a stop, which wakes home or rings its bell; and wakes those who await the end at home
//!   another call at home             closes "in passing": with the grace period, or at once inside another runtime's loop
//!   the thread's exit                closes at once
//!
//!   close:  Closing: home accepts no task and no registration any more -> drop the root, then all tasks -> drop the hooks
//!             -> deregister everything -> seal the gate, and deliver what was sent before -> free the base -> publish
//!             the report
//! ```
//!
//! Each step is done once, so that closing takes time in proportion to what was accepted before it began, however much is sent
//! meanwhile.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context;
use super::error::RunError;
use super::home::{Driving, Goal, Home, Life, RootFuture};
use super::readiness::Readiness;
use super::report::{Cause, Report};
use super::shared::Shared;
use super::standing::Standing;
use crate::base::EventBase;
use crate::executor::{StopLevel, Stops, catch_panic};

/// What the drop of a `Runtime` does, on any thread.
pub(crate) fn dropped(shared: &Arc<Shared>) {
    if shared.is_forked() {
        // The tasks are the parent's, and so is the kernel queue: only this process's copies of descriptors are closed.
        return context::home_of(shared).iter().for_each(Home::abandon);
    }
    shared.stop(StopLevel::Drop);
    match Standing::of(shared) {
        Standing::Unbound => match Home::bind_to_close(shared) {
            Some(home) => home.close_at_once(),
            // Another thread has become home meanwhile.
            None => shared.closed.nudge(),
        },
        Standing::Here(home) if !home.is_driven() => home.close_here(),
        // If a foreign executor on the home thread polls a `Terminated`, that poll closes.
        Standing::Elsewhere(_) => shared.closed.nudge(),
        // Here: inside its own loop, which closes after the running poll.
        Standing::Here(_) | Standing::Closed(_) | Standing::Exiting | Standing::Forked => {}
    }
    context::sweep(None);
}

impl Home {
    /// Home has seen these stops: with the first one, the grace period begins, and those who wait for `requested` are woken.
    pub(super) fn see(&self, stops: Stops) {
        self.set_seen(stops);
        if stops.requested() && matches!(self.life(), Life::Bound) {
            let grace_ends = self.deadline_in(self.shared().settings.grace);
            self.set_life(Life::Stopping { grace_ends });
            self.shared().stopping.set(());
        }
    }

    /// When the grace period ends, while it lasts.
    pub(super) fn grace_end(&self) -> Option<Instant> {
        match self.life() {
            Life::Stopping { grace_ends } => Some(grace_ends),
            _ => None,
        }
    }

    /// What is left of the grace period; `None` if nobody has asked for a stop.
    #[inline]
    pub(super) fn grace_left(&self) -> Option<Duration> {
        match self.life() {
            Life::Bound => None,
            Life::Stopping { grace_ends } => Some(self.time_until(grace_ends)),
            Life::Closing | Life::Closed => Some(Duration::ZERO),
        }
    }

    /// How long home may wait in the kernel for the end of the grace period, of which so much is left. In virtual time no wait comes
    /// to an end: it jumps there.
    #[inline]
    pub(super) fn grace_timeout(&self, left: Option<Duration>) -> Option<Duration> {
        left.filter(|_| !self.shared().settings.paused)
    }

    /// Cuts the grace period short.
    pub(super) fn end_grace(&self) {
        if let Life::Stopping { .. } = self.life() {
            self.set_life(Life::Stopping { grace_ends: self.now() });
        }
    }

    /// Whether to close now: the grace period is over, by time, by `request_now`, or because no task is left.
    #[inline]
    pub(super) fn end_is_due(&self, stops: Stops, grace_left: Option<Duration>, root_alive: bool) -> bool {
        grace_left.is_some_and(|left| stops.now() || left.is_zero() || !(self.executor().has_tasks() || root_alive))
    }

    /// Closes a runtime that was asked to stop, from outside of its loop: runs its grace period, then ends it.
    pub(super) fn close_here(self: &Rc<Self>) {
        debug_assert!(self.shared().stops().requested());
        // The errors say that it is closed, closes already, or is the parent's. A panic is a hook's, which has removed that hook: it
        // must not leave a drop, nor a call that is about something else.
        while catch_panic::run(|| self.drive(Goal::default())).is_none() {}
    }

    /// As `close_here`, by a call about another runtime, or by a poll of a `Terminated`. Inside the loop of another runtime it
    /// closes at once: that loop would have to wait for the grace period.
    pub(crate) fn close_in_passing(self: &Rc<Self>) {
        if context::inside_loop() {
            self.close_at_once();
        } else {
            self.close_here();
        }
    }

    /// Closes a runtime that was asked to stop, without a grace period.
    pub(crate) fn close_at_once(self: &Rc<Self>) {
        if let Ok(_driving) = Driving::begin(self) {
            let _ = self.close(self.shared().stops(), None);
        }
    }

    /// The thread is exiting: called by the thread-exit guard, with the list's reference.
    pub(super) fn thread_exits(self: Rc<Self>) {
        if self.is_driven() {
            // `process::exit` in a task: a future under poll must not be dropped. It is leaked, and the process ends.
            return std::mem::forget(self);
        }
        if self.shared().is_forked() {
            return self.abandon();
        }
        let before = self.shared().stop(StopLevel::Now);
        if let Ok(_driving) = Driving::begin(&self) {
            let cause = match before.requested() {
                true => cause_of(before),
                false => Cause::HomeExited,
            };
            let _ = self.close_with(cause, None);
        }
    }

    /// In the child of a fork: closes the child's copies of the base's descriptors, and leaks the tasks, which are the
    /// parent's.
    pub(super) fn abandon(self: &Rc<Self>) {
        if !self.is_driven() {
            drop(self.free());
            context::unbind(self);
        }
    }

    pub(super) fn close(self: &Rc<Self>, seen: Stops, root: Option<&mut dyn RootFuture>) -> Result<Report, RunError> {
        self.close_with(cause_of(seen), root)
    }

    /// Closes. The caller has a `Driving`, and is in no poll.
    ///
    /// The one error is `Forked`: a destructor has forked, and this is the child, which must not close the parent's runtime.
    fn close_with(self: &Rc<Self>, cause: Cause, root: Option<&mut dyn RootFuture>) -> Result<Report, RunError> {
        let shared = self.shared();
        let go_on = || !shared.is_forked();
        shared.stopping.set(());
        self.set_life(Life::Closing);
        self.executor().begin_close();
        if let Some(root) = root {
            root.discard();
        }
        self.executor().cancel_all(go_on);
        self.hooks().clear();
        self.forget_registrations();
        // Nothing is registered any more: a sender that is refused from now on has nothing to do at home.
        self.executor().seal(go_on);
        // No thread waits in the kernel queue: closing it can't block.
        drop(self.free());
        context::unbind(self);
        if shared.is_forked() {
            return Err(RunError::Forked);
        }
        self.set_life(Life::Closed);
        let report = Report::new(cause, shared.inbox().counts(), shared.wait_error.get().copied());
        shared.closed.set(report);
        Ok(report)
    }

    /// Deregisters the descriptors and disarms the timers of objects that outlive the base. Foreign executors may still wait for
    /// these: they are woken, and their next poll answers with an error.
    fn forget_registrations(&self) {
        if self.shared().is_forked() {
            return;
        }
        let payloads = self.base().as_mut().map(EventBase::clear);
        if let Some((sources, timers)) = payloads {
            sources
                .into_iter()
                .flat_map(Readiness::into_wakers)
                .for_each(catch_panic::wake);
            timers.into_iter().for_each(catch_panic::wake);
        }
    }
}

fn cause_of(stops: Stops) -> Cause {
    match stops.by_drop() {
        true => Cause::Dropped,
        false => Cause::Requested,
    }
}
