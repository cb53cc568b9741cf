//! Hooks around the sleep of a home: `before_wait` and `after_wait`.
//!
//! ```text
//!   in its own loop:        before_wait ──> the wait in the kernel ──> after_wait ──> wakers, messages, tasks
//!   embedded, outside it:   before_wait ──> the end of a turn ...  the next call that drives ──> after_wait ──> ...
//! ```
//!
//! Invariants: each pass of `before` is followed by one of `after`, whatever the hooks do; no hook runs under a borrow; a hook that
//! has panicked doesn't run again, and its panic leaves the driving call.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::error::RunError;
use super::home::{FOREVER, Home};
use super::runtime::Runtime;
use super::spawner::LocalSpawner;
use crate::executor::catch_panic;

type Payload = Box<dyn Any + Send>;

/// What a hook knows of the sleep that is about to begin; see [`Runtime::before_wait`].
#[derive(Debug)]
pub struct Wait {
    timeout: Option<Duration>,
}

impl Wait {
    /// How long home will sleep, if nothing happens meanwhile; `None` is without end.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Makes the sleep no longer than that. Zero calls it off: home only looks what has happened.
    pub fn at_most(&mut self, longest: Duration) {
        self.timeout = Some(self.timeout.map_or(longest, |timeout| timeout.min(longest)));
    }
}

/// A hook in its runtime: made by [`Runtime::before_wait`] and [`Runtime::after_wait`]. Dropping it removes the hook, also from
/// inside the hook itself.
///
/// Not `Send`: it belongs to home.
///
/// ```compile_fail
/// let runtime = evbase::Runtime::new().unwrap();
/// let hook = runtime.after_wait(|| {}).unwrap();
/// std::thread::spawn(move || drop(hook));
/// ```
#[must_use = "the hook is removed when this is dropped"]
pub struct WaitHook {
    hook: Rc<Hook>,
    home: Weak<Home>,
}

// A hook that panics never runs again.
impl UnwindSafe for WaitHook {}
impl RefUnwindSafe for WaitHook {}

impl Drop for WaitHook {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.hooks().remove(&self.hook);
        }
    }
}

impl fmt::Debug for WaitHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitHook").finish_non_exhaustive()
    }
}

enum Call {
    Before(Box<dyn FnMut(&mut Wait)>),
    After(Box<dyn FnMut()>),
    /// It is running, was removed, or has panicked.
    None,
}

struct Hook {
    is_before: bool,
    removed: Cell<bool>,
    call: RefCell<Call>,
}

impl Hook {
    /// Runs it, unless it was removed; the payload, if it panics.
    fn run(&self, wait: &mut Wait) -> Option<Payload> {
        let mut call = self.call.replace(Call::None);
        let result = catch_unwind(AssertUnwindSafe(|| match &mut call {
            Call::Before(hook) => hook(wait),
            Call::After(hook) => hook(),
            Call::None => {}
        }));
        match result {
            Ok(()) if !self.removed.get() => {
                self.call.replace(call);
                None
            }
            result => {
                catch_panic::run(|| drop(call));
                result.err()
            }
        }
    }
}

/// The hooks of a home.
#[derive(Default)]
pub(super) struct Hooks {
    hooks: RefCell<Vec<Rc<Hook>>>,
    /// `before` has run, and `after` hasn't since.
    entered: Cell<bool>,
    /// When the sleep that `before` has allowed ends. For an embedded home, which doesn't sleep itself.
    ends: Cell<Option<Instant>>,
    /// The first panic that has not been passed on.
    panic: RefCell<Option<Payload>>,
}

impl Hooks {
    pub(super) fn is_empty(&self) -> bool {
        self.hooks.borrow().is_empty()
    }

    /// Whether home may be outside of its loop now: there are no hooks, or `before` has run.
    pub(super) fn are_settled(&self) -> bool {
        self.entered.get() || self.is_empty()
    }

    /// When the sleep that `before` has allowed ends.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends.get()
    }

    /// Home is about to sleep, `now`: runs the `before_wait` hooks, in the order in which they were made. Returns for how long it may.
    pub(super) fn before(&self, now: Instant, timeout: Option<Duration>) -> Option<Duration> {
        self.entered.set(true);
        let mut wait = Wait { timeout };
        let hooks = self.some(|hook| hook.is_before);
        hooks.iter().for_each(|hook| self.run(hook, &mut wait));
        if self.have_panicked() {
            wait.at_most(Duration::ZERO);
        }
        self.ends.set(
            wait.timeout
                .map(|timeout| now.checked_add(timeout).unwrap_or(now + FOREVER)),
        );
        wait.timeout
    }

    /// Home has slept, or was going to: runs the `after_wait` hooks, in reverse order, if `before` has run.
    pub(super) fn after(&self) {
        if !self.entered.replace(false) {
            return;
        }
        self.ends.set(None);
        let hooks = self.some(|hook| !hook.is_before);
        let mut wait = Wait { timeout: None };
        hooks.iter().rev().for_each(|hook| self.run(hook, &mut wait));
    }

    /// Whether there is a panic to pass on.
    pub(super) fn have_panicked(&self) -> bool {
        self.panic.borrow().is_some()
    }

    /// The first panic of a hook since the last call. The caller leaves by it.
    pub(super) fn take_panic(&self) -> Option<Payload> {
        self.panic.take()
    }

    fn some(&self, which: impl Fn(&Hook) -> bool) -> Vec<Rc<Hook>> {
        let hooks = self.hooks.borrow();
        hooks.iter().filter(|hook| which(hook)).cloned().collect()
    }

    fn run(&self, hook: &Rc<Hook>, wait: &mut Wait) {
        let Some(payload) = hook.run(wait) else {
            return;
        };
        self.remove(hook);
        let later = match &mut *self.panic.borrow_mut() {
            Some(_) => payload,
            none => return *none = Some(payload),
        };
        catch_panic::drop_payload(later);
    }

    fn add(&self, hook: Hook) -> Rc<Hook> {
        let hook = Rc::new(hook);
        self.hooks.borrow_mut().push(hook.clone());
        hook
    }

    /// Removes a hook, which may be running, and drops it if it isn't.
    fn remove(&self, hook: &Rc<Hook>) {
        hook.removed.set(true);
        let mut hooks = self.hooks.borrow_mut();
        let at = hooks.iter().position(|other| Rc::ptr_eq(other, hook));
        let removed = at.map(|at| hooks.remove(at));
        drop(hooks);
        let call = hook.call.replace(Call::None);
        drop((call, removed));
    }

    /// Home closes: drops all hooks; their destructors may not panic out of here.
    pub(super) fn clear(&self) {
        for hook in self.hooks.take() {
            hook.removed.set(true);
            let call = hook.call.replace(Call::None);
            catch_panic::run(|| drop(call));
        }
        if let Some(payload) = self.take_panic() {
            catch_panic::drop_payload(payload);
        }
    }
}

impl Home {
    fn before_wait(self: &Rc<Self>, hook: impl FnMut(&mut Wait) + 'static) -> Result<WaitHook, RunError> {
        self.add_hook(Call::Before(Box::new(hook)))
    }

    fn after_wait(self: &Rc<Self>, hook: impl FnMut() + 'static) -> Result<WaitHook, RunError> {
        self.add_hook(Call::After(Box::new(hook)))
    }

    fn add_hook(self: &Rc<Self>, call: Call) -> Result<WaitHook, RunError> {
        if self.shared().is_forked() {
            return Err(RunError::Forked);
        }
        if !self.is_open() {
            return Err(RunError::Stopped);
        }
        let hook = self.hooks().add(Hook {
            is_before: matches!(call, Call::Before(_)),
            removed: Cell::new(false),
            call: RefCell::new(call),
        });
        // Embedded, and settled without it: the host calls for a turn, at whose end it runs.
        self.executor().rouse();
        Ok(WaitHook {
            hook,
            home: Rc::downgrade(self),
        })
    }
}

impl Runtime {
    /// Has `hook` run each time home is about to sleep: when nothing is ready, just before it waits in the kernel. On a runtime
    /// that is [embedded](Runtime::embed), at the end of each turn that leaves nothing to do.
    ///
    /// At home, or on a runtime without a home, which gets this thread for one. The hooks run in the order in which they were
    /// made; [`after_wait`](Runtime::after_wait) hooks run in reverse order, first thing after the sleep. Each pass of the former
    /// is followed by one of the latter, also if the sleep is called off.
    ///
    /// A hook sees how long home will sleep, and can make that shorter: [`Wait`]. It may do anything but drive a runtime of this
    /// thread. If it wakes a task, spawns one, or arms a timer, the sleep is called off, or is as much shorter.
    ///
    /// # Panics
    ///
    /// A hook that panics is removed. Its panic leaves the call that drives the runtime (`block_on`, `run`, `turn`, a `wait`), after the
    /// [`after_wait`](Runtime::after_wait) hooks. The runtime remains usable.
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested` and `Io`.
    ///
    /// # Examples
    ///
    /// Another event loop as a guest: it says how long it can wait, and has its turn after each sleep. What its descriptor reports
    /// ends the sleep if that is watched by an [`AsyncFd`](crate::io::AsyncFd).
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use std::time::{Duration, Instant};
    ///
    /// struct Guest {
    ///     timer: Instant,
    ///     fired: bool,
    /// }
    ///
    /// let guest = Rc::new(RefCell::new(Guest { timer: Instant::now() + Duration::from_millis(3), fired: false }));
    /// let runtime = evbase::Runtime::new()?;
    /// let before = {
    ///     let guest = guest.clone();
    ///     runtime.before_wait(move |wait| {
    ///         let guest = guest.borrow();
    ///         if !guest.fired {
    ///             wait.at_most(guest.timer.saturating_duration_since(Instant::now()));
    ///         }
    ///     })?
    /// };
    /// let after = {
    ///     let guest = guest.clone();
    ///     runtime.after_wait(move || {
    ///         let mut guest = guest.borrow_mut();
    ///         guest.fired = guest.timer <= Instant::now();
    ///     })?
    /// };
    /// while !guest.borrow().fired {
    ///     runtime.turn(None)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// For libuv, the first hook gives `at_most` the `uv_backend_timeout`, after `uv_update_time`, and only if `uv_loop_alive`: the timeout
    /// of a loop that has nothing to wait for is zero. The second one calls `uv_run(loop, UV_RUN_NOWAIT)`. A task waits for
    /// [`readable`](crate::io::AsyncFd::readable) of a duplicate of `uv_backend_fd`, and clears that, again and again. And since libuv takes
    /// what has come a part at a time, and the rest is no new edge, the first hook also asks `poll(2)` whether the descriptor is still
    /// readable, and then calls the sleep off.
    ///
    /// Other uses: `wayland-client`'s `prepare_read` before the sleep and `read` after it; Python's global interpreter lock, which
    /// is released before and taken again after it, so that other Python threads run while home sleeps.
    pub fn before_wait(&self, hook: impl FnMut(&mut Wait) + 'static) -> Result<WaitHook, RunError> {
        Home::bind(self.shared())?.before_wait(hook)
    }

    /// Has `hook` run first thing after each sleep of home: see [`before_wait`](Runtime::before_wait). On a runtime that is
    /// [embedded](Runtime::embed), at the beginning of the next call that drives it.
    ///
    /// # Panics
    ///
    /// As for [`before_wait`](Runtime::before_wait).
    ///
    /// # Errors
    ///
    /// All of [`RunError`] but `Nested` and `Io`.
    pub fn after_wait(&self, hook: impl FnMut() + 'static) -> Result<WaitHook, RunError> {
        Home::bind(self.shared())?.after_wait(hook)
    }
}

impl LocalSpawner {
    /// As [`Runtime::before_wait`], for instance from within a task.
    ///
    /// # Errors
    ///
    /// [`RunError::Stopped`] if the runtime is closing or closed; [`RunError::Forked`] in the child of a fork.
    pub fn before_wait(&self, hook: impl FnMut(&mut Wait) + 'static) -> Result<WaitHook, RunError> {
        self.home().before_wait(hook)
    }

    /// As [`Runtime::after_wait`], for instance from within a task.
    ///
    /// # Errors
    ///
    /// [`RunError::Stopped`] if the runtime is closing or closed; [`RunError::Forked`] in the child of a fork.
    pub fn after_wait(&self, hook: impl FnMut() + 'static) -> Result<WaitHook, RunError> {
        self.home().after_wait(hook)
    }
}
