//! Home's half of a runtime: the loop.
//!
//! ```text
//!   drive:  receive a portion of the inbox -> stopped, and grace over? -> close (close.rs)
//!             -> answer the bell -> look at the kernel and the clock: sleep if there is nothing to do -> run some ready tasks -> again
//! ```
//!
//! The call that binds makes a `Home`, on the home thread. It is in that thread's list (context.rs), and never leaves the
//! thread. No user code runs under a borrow of the base.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::bell::{Bell, NAP};
use super::context::{self, Context, InLoop};
use super::error::RunError;
use super::guest::Guest;
use super::hooks::Hooks;
use super::readiness::{Base, Readiness};
use super::report::Report;
use super::shared::Shared;
use crate::base::{Bound, Descriptor, ExactThread, Fired};
use crate::executor::{Executor, Root, Stops, Watch, catch_panic, is_task_waker};
use crate::observe::Watched;
use crate::random::Random;

pub(crate) struct Home {
    shared: Arc<Shared>,
    executor: Executor,
    /// `None` once it is closed.
    base: RefCell<Option<Base>>,
    life: Cell<Life>,
    /// The stops that home knows of.
    seen: Cell<Stops>,
    hooks: Hooks,
    /// Of a runtime that is watched.
    watched: Option<Rc<Watched>>,
    /// A loop of this home, or its closing, is on this thread's stack.
    driven: Cell<bool>,
    /// Empty between looks at the base; kept for its memory.
    woken: RefCell<Vec<Waker>>,
    /// Takes the thread's timer slack away: made by a loop that waits for a timer, and gone when that loop ends.
    exact: Cell<Option<ExactThread>>,
    /// How late a timer may be, if it is long.
    pub(super) timer_bound: Bound,
    /// A reference to the shared half, for the next timer to hold: it takes one when it is armed at home, and gives it back when it is
    /// disarmed there. Cheaper than two atomic operations on the reference count.
    pub(super) owner: Cell<Option<Arc<Shared>>>,
    /// The base watches the notifier of this thread's bell.
    hears_bell: Cell<bool>,
    pub(super) guest: Guest,
}

// A panic of user code leaves a home whole: none runs under a borrow, or in the middle of a change.
impl UnwindSafe for Home {}
impl RefUnwindSafe for Home {}

/// The life of a runtime that has a home. It only goes down this list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// Home has seen no stop.
    Bound,
    /// Home has seen a stop: this is the grace period.
    Stopping { grace_ends: Instant },
    /// Home takes no task and no registration any more, and drops what is left.
    Closing,
    /// The base is freed.
    Closed,
}

/// The future of `block_on`.
pub(crate) trait RootFuture: Root {
    /// Drops the future; it must not panic.
    fn discard(&mut self);

    /// What the executor polls. (Rust upcasts by itself from 1.86 on.)
    fn as_root(&mut self) -> &mut dyn Root;
}

/// What ends a loop, besides the end of the runtime.
#[derive(Default)]
pub(crate) struct Goal<'a> {
    /// The future of `block_on`: its end.
    pub(crate) root: Option<&'a mut dyn RootFuture>,
    /// A condition, looked at once a pass.
    pub(crate) until: Option<&'a dyn Fn() -> bool>,
    pub(crate) deadline: Option<Instant>,
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The condition holds; or the root is done, and no stop was asked for.
    Done,
    /// The deadline has passed.
    TimedOut,
    /// The runtime is closed.
    Closed(Report),
}

/// What one pass of the loop did.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.spawn_local(async {}).unwrap();
/// let turn = runtime.turn(Some(Duration::ZERO))?;
/// assert_eq!((turn.polls, turn.closed), (1, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events of descriptors.
    pub events: usize,
    /// Timers that fired.
    pub timers: usize,
    /// Ready tasks that were run: polled, or dropped if aborted.
    pub polls: usize,
    /// Work is left: call again.
    pub more: bool,
    /// This pass has closed the runtime: it was the last one.
    pub closed: bool,
}

/// A loop, or the closing, of a home while it lives: there is one at a time.
pub(super) struct Driving<'a> {
    home: &'a Rc<Home>,
    _context: Context,
    _in_loop: InLoop,
}

impl<'a> Driving<'a> {
    pub(super) fn begin(home: &'a Rc<Home>) -> Result<Self, RunError> {
        if let Life::Closed = home.life() {
            return Err(RunError::Stopped);
        }
        if home.driven.replace(true) {
            return Err(RunError::Nested);
        }
        let driving = Self {
            home,
            _context: Context::enter(home),
            _in_loop: InLoop::begin(home),
        };
        home.executor.wake_up();
        if let Some(watched) = home.watched() {
            watched.set_idle(false);
        }
        home.hooks.after();
        Ok(driving)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.home.driven.set(false);
        self.home.exact.set(None);
        if let Some(watched) = self.home.watched() {
            watched.loop_ended();
        }
        self.home.settle();
        // Whoever waits for a host goes on in the next loop of the thread, whose ever it is. And what this loop has answered may have
        // been for a wait further out, whose loop has looked already.
        if self.home.has_patience() || context::waits() {
            context::ring();
        }
        if context::has_rung() {
            context::pass_rings_on();
        }
    }
}

impl Home {
    pub(super) fn new(shared: &Arc<Shared>, base: Base) -> Rc<Self> {
        let watched = shared.settings.watch.is_any().then(|| {
            let observer = shared.settings.watch.observer.clone();
            Watched::new(observer, shared.measured.clone(), shared.watchpoint.clone())
        });
        let watch = watched.clone().map(|watched| watched as Rc<dyn Watch>);
        let executor = Executor::new(shared.inbox().clone(), watch);
        if let Some(seed) = shared.settings.shuffle {
            executor.shuffle(Random::new(seed));
        }
        Rc::new(Self {
            shared: shared.clone(),
            executor,
            watched,
            base: RefCell::new(Some(base)),
            life: Cell::new(Life::Bound),
            seen: Cell::default(),
            hooks: Hooks::default(),
            driven: Cell::new(false),
            woken: RefCell::default(),
            exact: Cell::new(None),
            timer_bound: match (shared.settings.paused, shared.settings.timer_slack) {
                // Virtual time is exact.
                (true, _) => Bound::new(Duration::ZERO),
                (false, Some(slack)) => Bound::new(slack),
                (false, None) => Bound::USUAL,
            },
            owner: Cell::default(),
            hears_bell: Cell::new(false),
            guest: Guest::default(),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The base; `None` when it is closed. No user code runs under this borrow.
    pub(crate) fn base(&self) -> RefMut<'_, Option<Base>> {
        self.base.borrow_mut()
    }

    pub(crate) fn watched(&self) -> Option<&Watched> {
        self.watched.as_deref()
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(super) fn life(&self) -> Life {
        self.life.get()
    }

    /// For `close.rs` only.
    pub(super) fn set_life(&self, life: Life) {
        self.life.set(life);
    }

    /// The stops that home has looked at.
    pub(super) fn stops_seen(&self) -> Stops {
        self.seen.get()
    }

    /// For `close.rs` only.
    pub(super) fn set_seen(&self, stops: Stops) {
        self.seen.set(stops);
    }

    /// Whether new tasks and registrations are accepted.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.life(), Life::Bound | Life::Stopping { .. })
    }

    /// Whether home has seen a stop, and takes tasks still.
    pub(crate) fn is_in_grace(&self) -> bool {
        matches!(self.life(), Life::Stopping { .. })
    }

    pub(crate) fn is_driven(&self) -> bool {
        self.driven.get()
    }

    /// Whether a stop was asked for, and this home's loop doesn't run: some other call has to close it.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_driven() && !self.shared.is_forked() && self.shared.stops().requested()
    }

    /// Takes the base, for the caller to free.
    pub(super) fn free(&self) -> Option<Base> {
        self.base.take()
    }

    /// Makes what a host polls: see [`Embedded`](crate::Embedded).
    pub(crate) fn embed(&self) -> Result<Arc<Descriptor>, RunError> {
        if !self.is_open() {
            return Err(RunError::Stopped);
        }
        let descriptor = match &mut *self.base() {
            Some(base) => base.set_alarm().map(|()| base.descriptor()).map_err(RunError::Io)?,
            None => return Err(RunError::Stopped),
        };
        self.shared.embed();
        self.settle();
        Ok(descriptor)
    }

    /// Leaves everything so that the host of an embedded home is told when there is something to do. Called whenever home leaves
    /// its loop.
    fn settle(&self) {
        if !self.shared.is_embedded() || self.is_driven() || !self.is_open() || self.shared.is_forked() {
            return;
        }
        let end = self.grace_end().filter(|_| !self.shared.settings.paused);
        let end = end.into_iter().chain(self.hooks.ends()).min();
        let (alarmed, has_more) = match &mut *self.base() {
            Some(base) => (base.set_alarm_until(end).is_ok(), base.may_have_more()),
            None => return,
        };
        // Without an alarm the host has to look: that is slow, but nothing is missed.
        let is_busy = !alarmed || has_more || !self.hooks.are_settled();
        let seen = self.seen.get();
        let is_busy = is_busy || self.end_is_due(seen, self.grace_left(), false);
        let may_jump = self.may_jump();
        self.executor.settle(seen, is_busy);
        if may_jump && self.executor.is_asleep() {
            // As in `look_and_jump`: only if neither the kernel nor the inbox has anything. The look takes the edge of the notify fd,
            // and all events, which nobody would see any more: the host is told of whatever there is.
            let has_nothing = self.kernel_has_nothing() && self.executor.is_asleep();
            if !has_nothing || self.jump() {
                self.executor.tell_host();
            }
        }
    }

    /// Whether the kernel has no event. An error is for the turn to report.
    pub(super) fn kernel_has_nothing(&self) -> bool {
        let has_events = self.base().as_mut().map(Base::has_events);
        matches!(has_events, Some(Ok(false)))
    }

    /// Runs the loop. Other loops may be on this thread's stack, but none of this home.
    pub(crate) fn drive(self: &Rc<Self>, mut goal: Goal<'_>) -> Result<Exit, RunError> {
        let _driving = Driving::begin(self)?;
        self.leave_by_panic();
        if goal.root.is_some() {
            self.executor.wake_root();
        }
        let mut root_done = false;
        let mut is_first = true;
        loop {
            let seen = self.receive()?;
            let grace = self.grace_left();
            let root_alive = goal.root.is_some() && !root_done;
            if self.end_is_due(seen, grace, root_alive) {
                let root = goal.root.take().filter(|_| root_alive);
                return self.close(seen, root).map(Exit::Closed);
            }
            // A condition ends the loop also in the grace period; a later call closes the runtime. The root's end doesn't.
            if (grace.is_none() && root_done) || goal.until.is_some_and(|done| done()) {
                return Ok(Exit::Done);
            }
            let rest = goal.deadline.map(time_until);
            // Whoever has no time and asks again and again gets on, too: there is one pass.
            if rest == Some(Duration::ZERO) && !is_first {
                return Ok(Exit::TimedOut);
            }
            is_first = false;
            let root = match &mut goal.root {
                Some(root) if root_alive => Some(root.as_root()),
                _ => None,
            };
            match self.pass(seen, earlier(self.grace_timeout(grace), rest), root) {
                Ok((_, done)) => root_done |= done,
                // A hook has forked, and this is the child.
                Err(_) if self.shared.is_forked() => return Err(RunError::Forked),
                // The kernel refuses to wait, and a grace period without waiting would spin.
                Err(_) if grace.is_some() => self.end_grace(),
                Err(error) if !self.shared.stops().requested() => return Err(RunError::Io(error)),
                // A stop has come meanwhile: the next pass sees it.
                Err(_) => {}
            }
        }
    }

    /// One pass of the loop, which closes the runtime if that is due.
    pub(crate) fn turn(self: &Rc<Self>, timeout: Option<Duration>) -> Result<Turn, RunError> {
        let _driving = Driving::begin(self)?;
        self.leave_by_panic();
        let seen = self.receive()?;
        let mut turn = Turn::default();
        let grace = self.grace_left();
        if !self.end_is_due(seen, grace, false) {
            let timeout = earlier(self.grace_timeout(grace), timeout);
            let passed = self.pass(seen, timeout, None);
            if self.shared.is_forked() {
                return Err(RunError::Forked);
            }
            (turn, _) = passed.map_err(RunError::Io)?;
        }
        if self.shared.stops().requested() {
            let seen = self.receive()?;
            if self.end_is_due(seen, self.grace_left(), false) {
                self.close(seen, None)?;
                turn.closed = true;
                return Ok(turn);
            }
        }
        let has_more = || self.executor.has_work() || self.base().as_ref().is_some_and(Base::may_have_more);
        if !has_more() && self.shared.is_embedded() && !self.hooks.is_empty() {
            // The host's wait comes now. This is undone by the next call that drives.
            let grace = self.grace_timeout(self.grace_left());
            self.hooks.before(self.now(), self.time_to_sleep(grace));
            self.leave_by_panic();
            if self.shared.is_forked() {
                return Err(RunError::Forked);
            }
        }
        turn.more = has_more();
        Ok(turn)
    }

    /// How long home may sleep if nothing happens.
    fn time_to_sleep(&self, timeout: Option<Duration>) -> Option<Duration> {
        // Virtual time that is held comes to no deadline.
        if self.shared.settings.paused && !self.may_jump() {
            return timeout;
        }
        earlier(timeout, self.next_deadline().map(|deadline| self.time_until(deadline)))
    }

    /// Passes the panic of a hook on, if there is one, after the `after_wait` hooks.
    #[inline]
    fn leave_by_panic(&self) {
        if self.hooks.have_panicked() {
            self.pass_panic_on();
        }
    }

    #[cold]
    fn pass_panic_on(&self) {
        self.hooks.after();
        if let Some(payload) = self.hooks.take_panic() {
            resume_unwind(payload);
        }
    }

    /// Delivers a portion of the inbox, and returns the stops.
    fn receive(&self) -> Result<Stops, RunError> {
        if self.shared.is_forked() {
            return Err(RunError::Forked);
        }
        let seen = self.executor.receive(self.shared.settings.event_interval);
        self.see(seen);
        Ok(seen)
    }

    /// Closes the runtimes of this thread for which the bell has rung; looks at the kernel and the clock, and sleeps there if
    /// there is nothing to do; then runs ready tasks. Returns what was done, and whether the root has ended.
    fn pass(&self, seen: Stops, timeout: Option<Duration>, root: Option<&mut dyn Root>) -> io::Result<(Turn, bool)> {
        let mut timeout = timeout;
        if let Some(bell) = context::bell() {
            timeout = self.answer(&bell, timeout);
        }
        self.shared.counters.turns.add(1);
        let mut turn = Turn::default();
        let mut sleeps = self.may_sleep(timeout);
        if sleeps && !self.hooks.is_empty() {
            timeout = self.hooks.before(self.now(), self.time_to_sleep(timeout));
            sleeps = self.may_sleep(timeout);
        }
        let (looked, seen_now) = if sleeps {
            self.sleep(seen, timeout)
        } else {
            (self.look(Some(Duration::ZERO), false), seen)
        };
        self.hooks.after();
        self.wake_others();
        self.leave_by_panic();
        (turn.events, turn.timers) = looked?;
        self.shared.counters.events.add(turn.events as u64);
        self.shared.counters.timers.add(turn.timers as u64);
        if seen_now != seen {
            // A stop has come during the sleep: the loop looks at it before any task runs.
            return Ok((turn, false));
        }
        let go_on = || !self.shared.inbox().is_asked_to_stop(seen) && !self.shared.is_forked();
        let limit = self.shared.settings.event_interval;
        let (polls, root_done) = match (self.shared.settings.event_time, &self.watched) {
            (None, None) => self.executor.run(limit, root, go_on),
            (None, Some(_)) => self.executor.run_watched(limit, root, &go_on),
            (Some(longest), _) => {
                let start = Instant::now();
                // One poll at least, however little time there is.
                let is_first = Cell::new(true);
                let in_time = || is_first.take() || start.elapsed() < longest;
                self.executor.run_watched(limit, root, &|| go_on() && in_time())
            }
        };
        turn.polls = polls as usize;
        let counters = &self.shared.counters;
        counters.ready.set(self.executor.ready());
        if let Some(base) = &*self.base() {
            counters.sources.set(base.sources());
            counters.armed.set(base.timers());
        }
        Ok((turn, root_done))
    }

    /// Whether nothing keeps the loop, which has so much time, from sleeping.
    #[inline]
    fn may_sleep(&self, timeout: Option<Duration>) -> bool {
        timeout != Some(Duration::ZERO) && !self.executor.has_work()
    }

    /// Closes the other runtimes of this thread that were asked to stop, or tells their hosts, if the bell has rung. Gives the time
    /// that the pass has: none then, since the ring, or what was dropped now, may be what the caller of the loop waits for, and there
    /// is no other ring.
    #[inline(never)]
    fn answer(&self, bell: &Bell, timeout: Option<Duration>) -> Option<Duration> {
        let has_rung = bell.answer();
        if has_rung || self.patience_left() == Some(Duration::ZERO) {
            context::sweep(Some(&self.shared));
            self.tell_hosts(self.may_sleep(timeout));
        }
        if has_rung { Some(Duration::ZERO) } else { timeout }
    }

    /// Waits in the kernel until there is something to do, unless a message or a stop has come: whoever sends one from here on
    /// wakes this thread. Then delivers a portion of the inbox, and returns the stops.
    fn sleep(&self, seen: Stops, timeout: Option<Duration>) -> (io::Result<(usize, usize)>, Stops) {
        let bell = context::bell();
        let mut timeout = timeout;
        if let Some(bell) = &bell {
            if !self.hears_bell.get() {
                let heard = match (bell.notifier(), &mut *self.base()) {
                    (Ok(notifier), Some(base)) => base.end_waits_by(notifier),
                    (Err(error), _) => Err(error),
                    (_, None) => Ok(()),
                };
                self.hears_bell.set(heard.is_ok());
            }
            if !self.hears_bell.get() {
                // There is no descriptor left for the bell: home looks at it every few milliseconds.
                timeout = Some(timeout.map_or(NAP, |timeout| timeout.min(NAP)));
            }
            timeout = earlier(timeout, self.patience_left());
            if !bell.fall_asleep() {
                return (self.look(Some(Duration::ZERO), false), seen);
            }
        }
        let may_jump = self.may_jump();
        let sleep = self.executor.park(seen);
        if sleep {
            self.shared.counters.parks.add(1);
        }
        let looked = match may_jump && sleep {
            false => self.look(if sleep { timeout } else { Some(Duration::ZERO) }, sleep),
            true => self.look_and_jump(timeout, bell.as_deref()),
        };
        if let Some(bell) = &bell {
            bell.wake_up();
        }
        self.hooks.after();
        // Also if the wait has failed: this clears PARKED.
        (looked, self.executor.receive(self.shared.settings.event_interval))
    }

    /// With virtual time, in place of a wait: if neither the kernel nor the inbox has anything, time jumps; if there is no deadline
    /// either, home waits.
    fn look_and_jump(&self, timeout: Option<Duration>, bell: Option<&Bell>) -> io::Result<(usize, usize)> {
        match self.look(Some(Duration::ZERO), true)? {
            // That has taken the edges of the notify fd and of the bell, if something has come meanwhile.
            (0, 0) if !self.executor.is_still_parked() || bell.is_some_and(Bell::has_rung) => Ok((0, 0)),
            (0, 0) if self.jump() => self.look(Some(Duration::ZERO), false),
            (0, 0) => self.look(timeout, true),
            found => Ok(found),
        }
    }

    /// Takes events from the kernel, looks which timers have expired, and wakes the tasks that wait for them; `wake_others` has
    /// to follow.
    fn look(&self, timeout: Option<Duration>, sleep: bool) -> io::Result<(usize, usize)> {
        let mut wake = |waker: Waker| {
            // Waking a task of this crate runs no user code. Any other waker is user code: it is woken after the borrow.
            if is_task_waker(&waker) {
                waker.wake();
            } else {
                self.woken.borrow_mut().push(waker);
            }
        };
        let handler = |fired: Fired<'_, Readiness, Waker>| match fired {
            Fired::Source { event, payload, .. } => payload.event(event, &mut wake),
            Fired::Timer { payload, .. } => wake(payload),
        };
        let be_exact = || self.exact.set(self.exact.take().or_else(|| Some(ExactThread::begin())));
        let began = self.watched().and_then(Watched::look_begins);
        if let (Some(watched), true) = (self.watched(), sleep) {
            watched.set_idle(true);
        }
        let looked = match self.base.borrow_mut().as_mut() {
            // Only the notify fd is registered, and home is awake: it need not ask the kernel. (Nor is there a host that polls.)
            Some(base) if !sleep && base.sources() == 0 && !self.shared.is_embedded() => {
                Ok((0, base.fire_timers(handler)))
            }
            Some(base) => base.turn_in_time(timeout, be_exact, handler).map(|turned| {
                if turned.notified {
                    self.shared.counters.notified.add(1);
                }
                (turned.events, turned.timers)
            }),
            None => Ok((0, 0)),
        };
        if let Some(watched) = self.watched() {
            watched.look_ended(began, sleep);
            watched.set_idle(false);
        }
        looked
    }

    /// Wakes those for whom `look` has found something, and who are no tasks of this crate.
    fn wake_others(&self) {
        if self.woken.borrow().is_empty() {
            return;
        }
        let mut woken = self.woken.take();
        for waker in woken.drain(..) {
            catch_panic::wake(waker);
        }
        self.woken.replace(woken);
    }
}

pub(crate) fn time_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The shorter of two timeouts; `None` is without end.
fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}
