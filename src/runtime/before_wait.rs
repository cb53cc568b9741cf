//! `before_wait` and `after_wait`, of a runtime and of its local spawner.

use super::runtime::Runtime;
use super::spawner::LocalSpawner;
use crate::home::{Home, Hooks, RunError, Wait, WaitHook};

impl Home {
    fn before_wait(&self, hook: impl FnMut(&mut Wait) + 'static) -> Result<WaitHook, RunError> {
        self.add_hook(|hooks| hooks.add_before(hook))
    }

    fn after_wait(&self, hook: impl FnMut() + 'static) -> Result<WaitHook, RunError> {
        self.add_hook(|hooks| hooks.add_after(hook))
    }

    fn add_hook(&self, add: impl FnOnce(&Hooks) -> WaitHook) -> Result<WaitHook, RunError> {
        if self.shared().is_forked() {
            return Err(RunError::Forked);
        }
        if !self.is_open() {
            return Err(RunError::Stopped);
        }
        let hook = add(self.hooks());
        // Embedded, and settled without it: the host calls for a turn, at whose end it runs.
        self.executor().rouse();
        Ok(hook)
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
    /// A hook that panics is removed. Its panic leaves the call that drives the runtime (`block_on`, `run`, `turn`,
    /// [`Embedded::turn`](crate::Embedded::turn), [`Terminated::wait`](crate::Terminated::wait), a `wait` for a task of it),
    /// after the [`after_wait`](Runtime::after_wait) hooks. The runtime remains usable. A drop of the runtime, and calls about
    /// something else that close it in passing, go on without that hook, and the panic ends there.
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
