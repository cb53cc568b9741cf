//! The executor: tasks that any thread may wake, abort and await, and that only home touches.
//!
//! `Inbox` is the half that all threads share, `Executor` the half that stays at home; the runtime makes both, drives
//! the executor, and says through `Unpark` how to wake it. Nothing here knows a base, a descriptor or a clock.
//!
//! Invariants:
//! - A future, and an output without a join handle, is touched and dropped at home only, and never under a borrow of the
//!   executor's own state.
//! - While a future lives, home's list holds a reference to its task; entries of the ready queue need none.
//! - Home's own wake-ups change home's words only: no lock, no read-modify-write.

mod cells;
pub(crate) mod coop;
pub(crate) mod current;
mod gate;
pub(crate) mod guard;
mod inbox;
mod join;
mod large;
mod messages;
mod owned;
mod post;
#[cfg(all(test, evbase_loom))]
mod post_models;
mod state;
mod task;

#[cfg(all(test, evbase_loom))]
mod models;
#[cfg(all(test, not(evbase_loom)))]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::Context;

pub(crate) use gate::{StopLevel, Stops};
pub(crate) use inbox::{Inbox, Unpark};
pub use join::{AbortHandle, JoinError, JoinHandle};
pub(crate) use large::{Large, is_large};
pub(crate) use post::{Coalescing, Deliver};
pub(crate) use task::is_task_waker;

use crate::sync::Arc;
use cells::Cells;
use messages::Messages;
use owned::Owned;
use task::{End, HomeWord, RawTask, Run};

/// The books of an executor: written at home, read anywhere.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: Count,
    pub(crate) completed: Count,
    pub(crate) cancelled: Count,
    pub(crate) panicked: Count,
    pub(crate) polls: Count,
}

/// A counter with one writer, home, and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Home only: a load and a store, no read-modify-write. Release: who sees it sees what was counted before.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// The future that `block_on` waits for: polled among the tasks, but owned by the caller.
pub(crate) trait Root {
    /// Polls the future; true when it has come to its end. It must not panic.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool;
}

/// A ready queue of that size keeps its memory; that of a larger one goes back by halves while it is nearly empty.
const READY_KEPT: usize = 1024;

/// Home's half. It is not `Send`: it stays on the thread where it was made.
pub(crate) struct Executor {
    inbox: Arc<Inbox>,
    messages: Messages,
    /// Home has looked at the gate after a stop: no task comes through it any more but with the messages it has.
    all_work_taken: Cell<bool>,
    /// The tasks to poll, `root` among them.
    ready: RefCell<VecDeque<RawTask>>,
    owned: RefCell<Owned>,
    /// Stands for the future of `block_on`; its own future is never polled.
    root: RawTask,
    closing: Cell<bool>,
    cells: Cells,
}

impl Executor {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        let cells = Cells::new();
        let root = task::new_at_home(std::future::pending::<()>(), &inbox, &cells);
        // SAFETY: the task was just made; its join handle's reference goes with the handle, home's is kept in `root`.
        unsafe {
            drop(JoinHandle::<()>::new(root));
        }
        Self {
            inbox,
            messages: Messages::new(),
            all_work_taken: Cell::new(false),
            ready: RefCell::default(),
            owned: RefCell::default(),
            root,
            closing: Cell::new(false),
            cells,
        }
    }

    /// How many futures live here; the one of `block_on` doesn't count.
    pub(crate) fn tasks(&self) -> usize {
        self.owned.borrow().len()
    }

    /// Whether a task lives here, or one that was accepted may be on its way.
    pub(crate) fn has_tasks(&self) -> bool {
        self.tasks() > 0 || !self.all_work_taken.get() || !self.messages.is_empty()
    }

    /// Whether there is something to do without waiting: ready tasks, or messages that were taken and not delivered.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.messages.is_empty()
    }

    /// Makes a task; in closing, the future comes back.
    pub(crate) fn spawn_local<F>(&self, future: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future + 'static,
    {
        if self.closing.get() {
            return Err(future);
        }
        let task = task::new_at_home(future, &self.inbox, &self.cells);
        // SAFETY: just made, with home's reference and the handle's; this is home, since `self` is not `Send`.
        unsafe {
            self.accept(task);
            self.queue(task, task.home());
            Ok(JoinHandle::new(task))
        }
    }

    /// Delivers a portion of what others have sent: `limit` messages at most, oldest first. Returns the stop bits there are.
    pub(crate) fn receive(&self, limit: u32) -> Stops {
        let stops = match self.messages.is_empty() {
            true => self.take(),
            false => self.inbox.stops(),
        };
        if self.messages.turn() {
            for message in (0..limit).map_while(|_| self.messages.pop()) {
                message.deliver(self);
            }
        }
        // The gate was not looked at since the stop: what work is behind it was accepted before.
        if stops.requested() && !self.all_work_taken.get() && self.messages.is_empty() {
            self.take();
        }
        stops
    }

    /// Delivers all that was sent before this call. From anywhere at home, also from within a poll or a message.
    pub(crate) fn receive_all(&self) {
        self.deliver_all(|| true);
        self.take();
        self.deliver_all(|| true);
    }

    /// Takes what there is behind the gate; home has nothing else to deliver.
    fn take(&self) -> Stops {
        let (stops, messages) = self.inbox.take();
        self.messages.fill(messages);
        if stops.requested() {
            self.all_work_taken.set(true);
        }
        stops
    }

    /// Delivers what home has taken, while `go_on` says so. What a message delivers in turn is not delivered again.
    fn deliver_all(&self, go_on: impl Fn() -> bool) {
        while !self.messages.turn() {}
        while go_on()
            && let Some(message) = self.messages.pop()
        {
            message.deliver(self);
        }
    }

    /// Whether home may sleep: nothing came, and no stop that is not among the `seen` ones. From here until the next
    /// `receive`, whoever has something for home wakes it.
    pub(crate) fn park(&self, seen: Stops) -> bool {
        self.messages.is_empty() && self.inbox.park(seen)
    }

    /// Polls ready tasks, oldest first, at most `limit` times, while `go_on` says so, and not after the root's end; nor after a
    /// poll that has spent its budget, which may have taken as long as very many others.
    /// Returns the number of polls, and whether the root ended.
    pub(crate) fn run(&self, limit: u32, mut root: Option<&mut dyn Root>, go_on: impl Fn() -> bool) -> (u32, bool) {
        let (mut polls, mut root_done) = (0, false);
        coop::while_polling(|| {
            while polls < limit && go_on() {
                let Some(task) = self.ready.borrow_mut().pop_front() else {
                    break;
                };
                polls += 1;
                coop::refill();
                if task == self.root {
                    match root.as_deref_mut() {
                        Some(root) => root_done = self.poll_root(root),
                        // A late wake-up of a root that has ended.
                        // SAFETY: home, which holds a reference to its root task.
                        None => unsafe { self.root.home().set_run(Run::Idle) },
                    }
                } else {
                    // SAFETY: home; the queue names tasks whose futures live, and home's reference with them.
                    unsafe { self.poll_task(task) };
                }
                if root_done || coop::is_spent() {
                    break;
                }
            }
        });
        self.inbox.counts().polls.add(polls.into());
        let mut ready = self.ready.borrow_mut();
        if ready.capacity() > READY_KEPT && ready.len() < ready.capacity() / 8 {
            let half = ready.capacity() / 2;
            ready.shrink_to(half);
        }
        (polls, root_done)
    }

    /// # Safety
    ///
    /// Home; the task's future lives and is not under poll.
    unsafe fn poll_task(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        unsafe {
            if task.state().is_aborted() {
                return self.cancel(task);
            }
            task.home().set_run(Run::Running);
            match task.poll() {
                None => self.suspend(task),
                Some(end) => self.finish(task, end),
            }
        }
    }

    /// True when the root has come to its end.
    fn poll_root(&self, root: &mut dyn Root) -> bool {
        // SAFETY: `self` holds a reference to its root task, and this is home. The waker is not dropped, and lives for
        // the poll only.
        unsafe {
            self.root.home().set_run(Run::Running);
            let waker = ManuallyDrop::new(self.root.borrowed_waker());
            let done = root.poll(&mut Context::from_waker(&waker));
            if done {
                self.root.home().set_run(Run::Idle);
            } else {
                self.suspend(self.root);
            }
            done
        }
    }

    /// Schedules the root, so that the next `run` polls it.
    pub(crate) fn wake_root(&self) {
        // SAFETY: home, which holds a reference to its root task.
        unsafe { self.wake(self.root) };
    }

    /// After a poll that is pending: queues the task again if it was woken meanwhile.
    ///
    /// # Safety
    ///
    /// Home; the task's future lives.
    unsafe fn suspend(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        let home = unsafe { task.home() };
        if home.run() == Run::RunningWoken && !self.closing.get() {
            self.queue(task, home);
        } else {
            home.set_run(Run::Idle);
        }
    }

    fn queue(&self, task: RawTask, home: &HomeWord) {
        home.set_run(Run::Queued);
        self.ready.borrow_mut().push_back(task);
    }

    /// Schedules a task.
    ///
    /// # Safety
    ///
    /// Home; somebody holds a reference to the task during the call.
    unsafe fn wake(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        let home = unsafe { task.home() };
        match home.run() {
            Run::Idle if !self.closing.get() => self.queue(task, home),
            Run::Running => home.set_run(Run::RunningWoken),
            // Queued already; or done, or about to be cancelled; or its own arrival will queue it.
            _ => {}
        }
    }

    /// A task came through the inbox, for the first time or woken or aborted.
    ///
    /// # Safety
    ///
    /// Home, which has just taken the task from the inbox, with the inbox's reference.
    unsafe fn deliver(&self, task: RawTask) {
        // SAFETY: the inbox's reference keeps the task until `State::deliver` gives it back. From then on only home's own
        // keeps it, which there is while the future lives: so that is asked first.
        unsafe {
            match task.home().run() {
                Run::Away => {
                    // The inbox's reference becomes home's.
                    task.state().arrive();
                    self.accept(task);
                    if self.closing.get() {
                        self.cancel(task);
                    } else {
                        self.queue(task, task.home());
                    }
                }
                Run::Done | Run::Failed => {
                    if task.state().deliver() {
                        task.free();
                    }
                }
                _ => {
                    // Not the last: home has one.
                    task.state().deliver();
                    self.wake(task);
                }
            }
        }
    }

    /// Takes home's reference over.
    ///
    /// # Safety
    ///
    /// Home; the caller has home's reference and gives it away.
    #[inline]
    unsafe fn accept(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        unsafe { self.owned.borrow_mut().insert(task) };
        self.inbox.counts().accepted.add(1);
    }

    /// Drops the task's future and completes it.
    ///
    /// # Safety
    ///
    /// Home; the task's future lives and is not under poll; the task is not in the ready queue.
    unsafe fn cancel(&self, task: RawTask) {
        // SAFETY: the caller's promise. Nobody polls or queues the task while its destructor runs: it counts as running.
        unsafe {
            task.home().set_run(Run::Running);
            task.cancel();
            self.finish(task, End::Cancelled);
        }
    }

    /// # Safety
    ///
    /// Home; the future was just replaced by the output; the task is not in the ready queue.
    unsafe fn finish(&self, task: RawTask, end: End) {
        let counts = self.inbox.counts();
        let (count, run) = match end {
            End::Completed => (&counts.completed, Run::Done),
            End::Cancelled => (&counts.cancelled, Run::Failed),
            End::Panicked => (&counts.panicked, Run::Failed),
        };
        count.add(1);
        // SAFETY: the caller's promise; home's reference, held by the list until here, is given back by `complete`.
        unsafe {
            task.home().set_run(run);
            self.owned.borrow_mut().remove(task);
            task.complete();
        }
    }

    /// The first step of the end: from here on, no task is accepted, and none is scheduled. Outside of any poll.
    pub(crate) fn begin_close(&self) {
        self.closing.set(true);
        drop(self.ready.take());
    }

    /// The second step: drops all futures there are. It ends early when `go_on` says so: what is left is leaked.
    ///
    /// No new ones come meanwhile but through the inbox.
    pub(crate) fn cancel_all(&self, go_on: impl Fn() -> bool) {
        debug_assert!(self.closing.get());
        while go_on() {
            let Some(task) = self.owned.borrow_mut().any() else {
                break;
            };
            // SAFETY: home, outside of any poll, and the ready queue is empty for good.
            unsafe { self.cancel(task) };
        }
    }

    /// The third step, when home has given up everything else: seals the inbox for ever, and delivers what was sent before.
    /// The tasks among that are cancelled at once. It ends early when `go_on` says so: what is left is leaked.
    pub(crate) fn seal(&self, go_on: impl Fn() -> bool) {
        debug_assert!(self.closing.get());
        if !go_on() {
            return;
        }
        let last = self.inbox.seal();
        self.deliver_all(&go_on);
        if !go_on() {
            return;
        }
        self.messages.fill(last);
        self.deliver_all(&go_on);
        self.inbox.spare().close();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // SAFETY: home's reference to the root task, whose future is `Pending` and has nothing to drop. Nobody waits for
        // its output. Wakers of it may live on: they find it complete.
        unsafe {
            self.root.home().set_run(Run::Failed);
            self.root.cancel();
            self.root.complete();
        }
    }
}

/// Sends a future home, from any thread, or queues it if this is home; it comes back if home accepts no work any more.
pub(crate) fn spawn<F>(inbox: &Arc<Inbox>, future: F) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + Send + 'static,
{
    // SAFETY: `F: Send`.
    unsafe { spawn_unchecked(inbox, future) }
}

/// As `spawn`, for a future that need not be `Send` itself.
///
/// # Safety
///
/// What the future holds before its first poll is `Send`.
pub(crate) unsafe fn spawn_unchecked<F>(inbox: &Arc<Inbox>, future: F) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + 'static,
{
    let mut future = Some(future);
    let mut take = || future.take().expect("evbase: a future is spawned once");
    if let Some(spawned) = current::with(Arc::as_ptr(inbox), |home| home.spawn_local(take())) {
        return spawned;
    }
    // SAFETY: the caller's promise. The task comes back with the join handle's reference.
    unsafe { Ok(JoinHandle::new(task::post(take(), inbox)?)) }
}
