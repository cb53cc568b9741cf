//! Hooks around the sleep of a home: `before_wait` and `after_wait`.
//!
//! ```text
//!   in its own loop:        before_wait ──> the wait in the kernel ──> after_wait ──> wakers, messages, tasks
//!   embedded, outside it:   before_wait ──> the end of a turn ...  the next call that drives ──> after_wait ──> ...
//! ```
//!
//! Invariants: each pass of `before` is followed by one of `after`, whatever the hooks do; no hook runs under a borrow; a hook that
//! has panicked doesn't run again, and its panic leaves the call that drives this runtime, but no drop and no call about another one.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::FOREVER;
use crate::executor::catch_panic;

type Payload = Box<dyn Any + Send>;

/// What a hook knows of the sleep that is about to begin; see [`Runtime::before_wait`](crate::Runtime::before_wait).
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

/// A hook in its runtime: made by [`Runtime::before_wait`](crate::Runtime::before_wait) and
/// [`Runtime::after_wait`](crate::Runtime::after_wait). Dropping it removes the hook, also from inside the hook itself.
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
}

// A hook that panics never runs again.
impl UnwindSafe for WaitHook {}
impl RefUnwindSafe for WaitHook {}

impl Drop for WaitHook {
    fn drop(&mut self) {
        self.hook.remove();
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
    /// It doesn't run any more. Drops what it would run, unless that is running: then that is dropped afterwards.
    fn remove(&self) {
        self.removed.set(true);
        let call = self.call.replace(Call::None);
        drop(call);
    }

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
pub(crate) struct Hooks {
    /// Some may have been removed.
    hooks: RefCell<Vec<Rc<Hook>>>,
    /// `before` has run, and `after` hasn't since.
    entered: Cell<bool>,
    /// When the sleep that `before` has allowed ends. For an embedded home, which doesn't sleep itself.
    ends: Cell<Option<Instant>>,
    /// The first panic that has not been passed on.
    panic: RefCell<Option<Payload>>,
}

impl Hooks {
    pub(crate) fn is_empty(&self) -> bool {
        self.hooks.borrow().iter().all(|hook| hook.removed.get())
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
        let hooks = self.some(true);
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
        if !self.entered.get() {
            return;
        }
        self.entered.set(false);
        self.ends.set(None);
        let hooks = self.some(false);
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

    /// Those that run before the sleep, or after it; forgets those that were removed.
    fn some(&self, before: bool) -> Vec<Rc<Hook>> {
        let mut hooks = self.hooks.borrow_mut();
        hooks.retain(|hook| !hook.removed.get());
        hooks.iter().filter(|hook| hook.is_before == before).cloned().collect()
    }

    fn run(&self, hook: &Rc<Hook>, wait: &mut Wait) {
        let Some(payload) = hook.run(wait) else {
            return;
        };
        hook.remove();
        let later = match &mut *self.panic.borrow_mut() {
            Some(_) => payload,
            none => return *none = Some(payload),
        };
        catch_panic::drop_payload(later);
    }

    pub(crate) fn add_before(&self, hook: impl FnMut(&mut Wait) + 'static) -> WaitHook {
        self.add(true, Call::Before(Box::new(hook)))
    }

    pub(crate) fn add_after(&self, hook: impl FnMut() + 'static) -> WaitHook {
        self.add(false, Call::After(Box::new(hook)))
    }

    fn add(&self, is_before: bool, call: Call) -> WaitHook {
        let hook = Rc::new(Hook {
            is_before,
            removed: Cell::new(false),
            call: RefCell::new(call),
        });
        let mut hooks = self.hooks.borrow_mut();
        hooks.retain(|hook| !hook.removed.get());
        hooks.push(hook.clone());
        WaitHook { hook }
    }

    /// Home closes: drops all hooks; their destructors may not panic out of here.
    pub(super) fn clear(&self) {
        for hook in self.hooks.take() {
            catch_panic::run(|| hook.remove());
        }
        if let Some(payload) = self.take_panic() {
            catch_panic::drop_payload(payload);
        }
    }
}
