//! Home's half of a runtime: the loop, and the end of it.
//!
//! ```text
//!   drive:  drain the inbox -> stopped, and grace over? -> close
//!             -> look at the kernel and the clock: sleep if no task is ready -> run some ready tasks -> again
//!   close:  drop the root, all tasks, all registrations; deliver what still comes; seal the gate; close the queue;
//!           publish the report
//! ```
//!
//! A `Home` is made on the home thread by the call that binds, lives in that thread's list, and never leaves it. No user
//! code runs under a borrow of the base.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::binding::Claim;
use super::context::{self, Context, InLoop};
use super::error::RunError;
use super::readiness::Readiness;
use super::registry;
use super::shared::Shared;
use super::shutdown::{Cause, Report};
use super::slack::Slack;
use crate::base::{EventBase, Fired, Notifier};
use crate::executor::{Executor, Root, StopLevel, Stops, guard, is_task_waker};

/// The event base of a runtime: readiness for each source, a waker for each timer.
pub(crate) type Base = EventBase<Readiness, Waker>;

pub(crate) struct Home {
    shared: Arc<Shared>,
    executor: Executor,
    /// `None` once it is closed.
    base: RefCell<Option<Base>>,
    phase: Cell<Phase>,
    /// Wakers that the last look at the base has found, kept for their memory.
    woken: RefCell<Vec<Waker>>,
    slack: Cell<Option<Slack>>,
    /// Set when home sees a stop.
    grace_ends: Cell<Option<Instant>>,
    /// The end has begun: nothing is registered any more.
    closing: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No loop runs.
    Outside,
    /// A loop runs on this thread, further out in the stack; or the end of it.
    InTurn,
    Closed,
}

/// The future that a loop is run for.
pub(super) trait RootFuture: Root {
    /// Drops the future; it must not panic.
    fn discard(&mut self);
}

/// What a loop is run for, and until when.
#[derive(Default)]
pub(super) struct Goal<'a> {
    pub(super) root: Option<&'a mut dyn RootFuture>,
    pub(super) until: Option<&'a dyn Fn() -> bool>,
    pub(super) deadline: Option<Instant>,
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The condition holds; or the root is done, and no stop was asked for.
    Done,
    /// The deadline has passed.
    TimedOut,
    /// The runtime is closed.
    Closed(Report),
}

/// What one pass of the loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events of descriptors.
    pub events: usize,
    /// Timers that fired.
    pub timers: usize,
    /// Ready tasks that were run: polled, or dropped if aborted.
    pub polls: usize,
    /// This pass has closed the runtime: it was the last one.
    pub closed: bool,
}

/// A running loop's claim to its home.
struct Running<'a> {
    home: &'a Rc<Home>,
    _context: Context,
    _in_loop: InLoop,
}

impl<'a> Running<'a> {
    fn begin(home: &'a Rc<Home>) -> Result<Self, RunError> {
        match home.phase.get() {
            Phase::Outside => home.phase.set(Phase::InTurn),
            Phase::InTurn => return Err(RunError::Nested),
            Phase::Closed => return Err(RunError::Stopped),
        }
        Ok(Self {
            home,
            _context: Context::enter(home),
            _in_loop: InLoop::begin(),
        })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.home.phase.get() == Phase::InTurn {
            self.home.phase.set(Phase::Outside);
        }
    }
}

impl Home {
    /// This thread's half of the runtime; makes this thread home if there is none.
    pub(super) fn bind(shared: &Arc<Shared>) -> Result<Rc<Self>, RunError> {
        if shared.is_forked() {
            return Err(RunError::Forked);
        }
        let me = context::thread_number();
        if shared.binding.is_home(me) {
            return Self::on_this_thread(shared);
        }
        if !context::can_bind() && !shared.binding.is_bound() {
            return Err(RunError::ThreadExiting);
        }
        match shared.binding.claim(me) {
            Claim::Won(base) => {
                let home = Self::new(shared, base);
                context::bind(&home);
                Ok(home)
            }
            Claim::Home => Self::on_this_thread(shared),
            Claim::NotHome(_) if shared.report().is_some() => Err(RunError::Stopped),
            Claim::NotHome(home) => Err(RunError::NotHome { home }),
        }
    }

    /// Binds a runtime that nobody has driven, to close it at once: also on a thread that is exiting.
    pub(super) fn bind_to_close(shared: &Arc<Shared>) -> Option<Rc<Self>> {
        match shared.binding.claim(context::thread_number()) {
            Claim::Won(base) => Some(Self::new(shared, base)),
            Claim::Home | Claim::NotHome(_) => None,
        }
    }

    fn on_this_thread(shared: &Arc<Shared>) -> Result<Rc<Self>, RunError> {
        match context::home(shared.id()) {
            Some(home) => Ok(home),
            None if shared.report().is_some() => Err(RunError::Stopped),
            None => Err(RunError::ThreadExiting),
        }
    }

    fn new(shared: &Arc<Shared>, base: Base) -> Rc<Self> {
        Rc::new(Self {
            shared: shared.clone(),
            executor: Executor::new(shared.inbox().clone()),
            base: RefCell::new(Some(base)),
            phase: Cell::new(Phase::Outside),
            woken: RefCell::default(),
            slack: Cell::new(shared.settings.timer_slack.and_then(Slack::set)),
            grace_ends: Cell::new(None),
            closing: Cell::new(false),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.shared.id()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The base, for a moment in which no user code runs; `None` when it is closed.
    pub(super) fn base(&self) -> RefMut<'_, Option<Base>> {
        self.base.borrow_mut()
    }

    /// Whether new registrations are welcome: not in the end.
    pub(super) fn is_open(&self) -> bool {
        !self.closing.get()
    }

    pub(super) fn in_turn(&self) -> bool {
        self.phase.get() == Phase::InTurn
    }

    /// A stop was asked for while this home is outside the loop.
    pub(super) fn is_due(&self) -> bool {
        self.phase.get() == Phase::Outside && !self.shared.is_forked() && self.shared.stops().requested()
    }

    pub(super) fn notifier(&self) -> Option<Notifier> {
        self.base().as_ref().map(EventBase::notifier)
    }

    /// Runs the loop. The caller has made sure that none runs on this thread, or has to nest.
    pub(super) fn drive(self: &Rc<Self>, mut goal: Goal<'_>) -> Result<Exit, RunError> {
        let _running = Running::begin(self)?;
        if goal.root.is_some() {
            self.executor.wake_root();
        }
        let mut root_done = false;
        loop {
            if self.shared.is_forked() {
                return Err(RunError::Forked);
            }
            let seen = self.executor.drain();
            let root_alive = goal.root.is_some() && !root_done;
            let grace = self.grace(seen);
            if grace.is_some_and(|ends| self.grace_is_over(seen, ends, root_alive)) {
                let root = goal.root.take().filter(|_| root_alive);
                return self.close(seen, root).map(Exit::Closed);
            }
            // A wait for something ends with it, also in the grace period: the end is for the next call.
            if (grace.is_none() && root_done) || goal.until.is_some_and(|done| done()) {
                return Ok(Exit::Done);
            }
            let mut timeout = grace.map(until);
            if let Some(rest) = goal.deadline.map(until) {
                if rest.is_zero() {
                    return Ok(Exit::TimedOut);
                }
                timeout = Some(timeout.map_or(rest, |timeout| timeout.min(rest)));
            }
            let root = match &mut goal.root {
                Some(root) if root_alive => Some(&mut **root as &mut dyn Root),
                _ => None,
            };
            match self.pass(seen, timeout, root) {
                Ok((_, done)) => root_done |= done,
                // The kernel won't wait: there is no grace without waiting.
                Err(_) if grace.is_some() => self.grace_ends.set(Some(Instant::now())),
                Err(error) if !self.shared.stops().requested() => return Err(RunError::Io(error)),
                // A stop that came meanwhile goes first.
                Err(_) => {}
            }
        }
    }

    /// One pass of the loop, which closes the runtime if that is due.
    pub(super) fn turn(self: &Rc<Self>, timeout: Option<Duration>) -> Result<Turn, RunError> {
        let _running = Running::begin(self)?;
        let close_if_due = |mut turn: Turn| {
            let seen = self.executor.drain();
            let grace = self.grace(seen);
            turn.closed = grace.is_some_and(|ends| self.grace_is_over(seen, ends, false));
            if turn.closed {
                self.close(seen, None)?;
            }
            Ok((turn, seen, grace))
        };
        let (turn, seen, grace) = close_if_due(Turn::default())?;
        if turn.closed {
            return Ok(turn);
        }
        let timeout = match (timeout, grace.map(until)) {
            (Some(timeout), Some(grace)) => Some(timeout.min(grace)),
            (timeout, grace) => timeout.or(grace),
        };
        let (turn, _) = self.pass(seen, timeout, None).map_err(RunError::Io)?;
        if self.shared.is_forked() {
            return Err(RunError::Forked);
        }
        if !self.shared.stops().requested() {
            return Ok(turn);
        }
        Ok(close_if_due(turn)?.0)
    }

    /// Looks at the kernel and the clock, and sleeps there if no task is ready; then runs ready tasks. Returns what was
    /// done, and whether the root came to its end.
    fn pass(&self, seen: Stops, timeout: Option<Duration>, root: Option<&mut dyn Root>) -> io::Result<(Turn, bool)> {
        self.shared.counters.turns.add(1);
        let mut turn = Turn::default();
        let sleep = !self.executor.has_ready() && timeout != Some(Duration::ZERO) && self.executor.park(seen);
        if sleep {
            self.shared.counters.parks.add(1);
        }
        let looked = self.look(if sleep { timeout } else { Some(Duration::ZERO) }, sleep);
        // What the sleep was ended by: also clears the mark of a parked home, whatever the kernel said.
        let seen_now = if sleep { self.executor.drain() } else { seen };
        (turn.events, turn.timers) = looked?;
        self.shared.counters.events.add(turn.events as u64);
        self.shared.counters.timers.add(turn.timers as u64);
        if seen_now != seen {
            // A stop ended the sleep: it comes before any task.
            return Ok((turn, false));
        }
        let go_on = || !self.shared.inbox().is_asked_to_stop(seen) && !self.shared.is_forked();
        let limit = self.shared.settings.event_interval;
        let (polls, root_done) = self.executor.run(limit, root, go_on);
        turn.polls = polls as usize;
        Ok((turn, root_done))
    }

    /// Takes events from the kernel and expired timers from the clock, and wakes who waits for them.
    fn look(&self, timeout: Option<Duration>, sleep: bool) -> io::Result<(usize, usize)> {
        let mut woken = self.woken.take();
        let mut wake = |waker: Waker| {
            // A task of ours is scheduled right here; anybody else's waker is user code, which has to wait until the base
            // is free.
            if is_task_waker(&waker) {
                waker.wake();
            } else {
                woken.push(waker);
            }
        };
        let handler = |fired: Fired<'_, Readiness, Waker>| match fired {
            Fired::Source { event, payload, .. } => payload.event(event, &mut wake),
            Fired::Timer { payload, .. } => wake(payload),
        };
        let looked = match self.base.borrow_mut().as_mut() {
            // Tasks are ready, and the notify fd has nothing to say that the inbox hasn't: leave the kernel alone.
            Some(base) if !sleep && base.sources() == 0 => Ok((0, base.fire_timers(handler))),
            Some(base) => base.turn(timeout, handler).map(|turned| (turned.events, turned.timers)),
            None => Ok((0, 0)),
        };
        for waker in woken.drain(..) {
            guard::wake(waker);
        }
        self.woken.replace(woken);
        looked
    }

    /// When the grace period ends, if home has seen a stop. Seeing it for the first time, tells who waits for it.
    fn grace(&self, seen: Stops) -> Option<Instant> {
        if !seen.requested() {
            return None;
        }
        if self.grace_ends.get().is_none() {
            let now = Instant::now();
            let ends = now.checked_add(self.shared.settings.grace);
            self.grace_ends.set(Some(ends.unwrap_or(now + FOREVER)));
            self.shared.stopping.happen(());
        }
        self.grace_ends.get()
    }

    fn grace_is_over(&self, seen: Stops, ends: Instant, root_alive: bool) -> bool {
        seen.now() || until(ends).is_zero() || (self.executor.tasks() == 0 && !root_alive)
    }

    /// Closes a runtime that was asked to stop, from outside of its loop: runs its grace period, then ends it.
    pub(super) fn close_here(self: &Rc<Self>) {
        debug_assert!(self.shared.stops().requested());
        // It was closed or is in its loop already, or it closes here: there is no other error.
        let _ = self.drive(Goal::default());
    }

    /// As `close_here`, by a call that is not about this runtime, or a poll. Inside the loop of another runtime there is no
    /// grace then: that loop would have to wait for it.
    pub(super) fn close_in_passing(self: &Rc<Self>) {
        if context::inside_loop() {
            self.close_at_once();
        } else {
            self.close_here();
        }
    }

    /// Closes a runtime that was asked to stop, without a grace period.
    pub(super) fn close_at_once(self: &Rc<Self>) {
        if let Ok(_running) = Running::begin(self) {
            let _ = self.close(self.shared.stops(), None);
        }
    }

    /// The thread is exiting: called by its guard, with the thread's hold on the home.
    pub(super) fn thread_exits(home: Rc<Self>) {
        if home.in_turn() {
            // `process::exit` in a task: a future under poll is never dropped. The process ends, and takes it along.
            std::mem::forget(home);
            return;
        }
        if home.shared.is_forked() {
            return home.abandon();
        }
        let before = home.shared.stop(StopLevel::Now);
        if let Ok(_running) = Running::begin(&home) {
            let cause = if before.requested() {
                Cause::of(before)
            } else {
                Cause::HomeExited
            };
            let _ = home.close_with(cause, None);
        }
    }

    /// In the child of a fork: closes the child's copies of the base's descriptors, and leaks the tasks, which are the
    /// parent's.
    pub(super) fn abandon(self: &Rc<Self>) {
        if !self.in_turn() {
            self.let_go();
        }
    }

    fn let_go(self: &Rc<Self>) {
        drop(self.base.take());
        context::unbind(self);
    }

    fn close(self: &Rc<Self>, seen: Stops, root: Option<&mut dyn RootFuture>) -> Result<Report, RunError> {
        self.close_with(Cause::of(seen), root)
    }

    /// The end: drops all there is, frees the base, publishes the report. The caller is in a turn, but polls nothing.
    ///
    /// The one error is `Forked`: a destructor has forked, and this is the child, where the end is not this runtime's.
    fn close_with(self: &Rc<Self>, cause: Cause, root: Option<&mut dyn RootFuture>) -> Result<Report, RunError> {
        self.shared.stopping.happen(());
        self.closing.set(true);
        if let Some(root) = root {
            root.discard();
        }
        loop {
            self.executor.cancel_all(|| !self.shared.is_forked());
            // What registrations are left belong to objects that outlive the base.
            let payloads = self.base.borrow_mut().as_mut().map(EventBase::clear);
            if let Some((sources, timers)) = payloads {
                sources
                    .into_iter()
                    .flat_map(Readiness::into_wakers)
                    .for_each(guard::drop_value);
                timers.into_iter().for_each(guard::drop_value);
            }
            if self.shared.is_forked() {
                self.let_go();
                return Err(RunError::Forked);
            }
            if self.executor.seal() {
                break;
            }
        }
        // Nobody waits in the kernel any more: closing the queue can't block.
        self.let_go();
        drop(self.slack.take());
        self.phase.set(Phase::Closed);
        registry::remove(self.id());
        let report = Report::of(&self.shared, cause);
        self.shared.closed.happen(report);
        Ok(report)
    }
}

/// Further away than any wait: some thirty years.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
