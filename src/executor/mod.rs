//! The executor: tasks that any thread may wake, abort and await, and that only home polls and drops.
//!
//! `Inbox` is the half that all threads share, `Executor` the half that stays at home. The runtime makes both, drives the
//! executor, and says through `Unpark` how to wake it. Nothing here knows a base, a descriptor or a clock.
//!
//! Invariants:
//! - A future, and an output without a join handle, is touched and dropped at home only, and never under a borrow of the
//!   executor's own state.
//! - While a future lives, `Owned` holds a reference to its task; the ready queue counts none.
//! - A wake-up at home takes no lock and no atomic read-modify-write: it changes `Local` and the ready queue.

pub(crate) mod catch_panic;
pub(crate) mod coop;
pub(crate) mod current;
mod free_list;
mod gate;
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
pub(crate) use post::{Coalescing, RunAtHome};
pub(crate) use task::is_task_waker;

use crate::sync::Arc;
use free_list::FreeList;
use messages::Messages;
use owned::Owned;
use task::{End, Local, RawTask, Run};

/// The counters of an executor: written at home, read on any thread.
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
    /// Home only: a load and a store, no read-modify-write. Release: a thread that reads the new value sees what home did
    /// before.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// The future that `block_on` was given: polled among the tasks, but owned by the caller.
pub(crate) trait Root {
    /// Polls the future; true when it has ended. It must not panic.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool;
}

/// Up to this capacity the ready queue keeps its memory. A larger one is halved after a pass that leaves it nearly empty.
const READY_KEPT: usize = 1024;

/// Home's half. It is not `Send`: it stays on the thread where it was made.
pub(crate) struct Executor {
    inbox: Arc<Inbox>,
    messages: Messages,
    /// Home has taken the gate's messages after a stop, which lets no new task in: all tasks that are to come are in `messages`.
    all_work_taken: Cell<bool>,
    /// The tasks to poll, oldest first; `root` may be among them.
    ready: RefCell<VecDeque<RawTask>>,
    owned: RefCell<Owned>,
    /// Stands for the future of `block_on`; its own future is never polled.
    root: RawTask,
    closing: Cell<bool>,
    free_list: FreeList,
}

impl Executor {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        let free_list = FreeList::new();
        let root = task::new_at_home(std::future::pending::<()>(), &inbox, &free_list);
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
            free_list,
        }
    }

    /// How many tasks have not ended; the future of `block_on` doesn't count.
    pub(crate) fn tasks(&self) -> usize {
        self.owned.borrow().len()
    }

    /// Whether there is a task that has not ended, or may be one that was accepted and is still in the inbox.
    pub(crate) fn has_tasks(&self) -> bool {
        self.tasks() > 0 || !self.all_work_taken.get() || !self.messages.is_empty()
    }

    /// Whether there are ready tasks, or messages that were taken from the gate and not delivered.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.messages.is_empty()
    }

    /// Makes a task and queues it. After `begin_close`, the future comes back.
    pub(crate) fn spawn_local<F>(&self, future: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future + 'static,
    {
        if self.closing.get() {
            return Err(future);
        }
        let task = task::new_at_home(future, &self.inbox, &self.free_list);
        // SAFETY: just made, with home's reference and the handle's; this is home, since `self` is not `Send`.
        unsafe {
            self.accept(task);
            self.queue(task, task.local());
            Ok(JoinHandle::new(task))
        }
    }

    /// Delivers a portion of what was sent: `limit` messages at most, oldest first. Returns the stop bits.
    pub(crate) fn receive(&self, limit: u32) -> Stops {
        let stops = match self.messages.is_empty() {
            true => self.take(),
            false => self.inbox.stops(),
        };
        if self.messages.reverse_some() {
            for message in (0..limit).map_while(|_| self.messages.pop()) {
                message.deliver(self);
            }
        }
        // The stop came after the last look at the gate: messages behind it may be tasks that were accepted before it.
        if stops.requested() && !self.all_work_taken.get() && self.messages.is_empty() {
            self.take();
        }
        stops
    }

    /// Delivers all that was sent before this call. At home, also within a poll, or while a message is delivered.
    pub(crate) fn receive_all(&self) {
        self.deliver_taken(|| true);
        self.take();
        self.deliver_taken(|| true);
    }

    /// Takes the gate's messages, when all that were taken before have been delivered.
    fn take(&self) -> Stops {
        let (stops, messages) = self.inbox.take();
        self.messages.fill(messages);
        if stops.requested() {
            self.all_work_taken.set(true);
        }
        stops
    }

    /// Delivers the messages that were taken, while `go_on` says so. (A delivery may call this; each message is delivered once.)
    fn deliver_taken(&self, go_on: impl Fn() -> bool) {
        while !self.messages.reverse_some() {}
        while go_on()
            && let Some(message) = self.messages.pop()
        {
            message.deliver(self);
        }
    }

    /// Whether home may sleep: there is no message, and no stop that is not among the `seen` ones. If so, whoever sends
    /// something before the next `receive` wakes home.
    pub(crate) fn park(&self, seen: Stops) -> bool {
        self.messages.is_empty() && self.inbox.park(seen)
    }

    /// Polls ready tasks, oldest first, while `go_on` says so: `limit` polls at most. It returns early when the root has ended,
    /// and after a poll that has spent its budget, which may have taken as long as very many others.
    /// Returns the number of polls, and whether the root has ended.
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
                        // There is no root now: somebody woke the last one after its end.
                        // SAFETY: home, which holds a reference to its root task.
                        None => unsafe { self.root.local().set_run(Run::Idle) },
                    }
                } else {
                    // SAFETY: home; a task in the queue has its future, and `owned` has a reference to it.
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
            task.local().set_run(Run::Running);
            match task.poll() {
                None => self.suspend(task),
                Some(end) => self.finish(task, end),
            }
        }
    }

    /// True when the root has ended.
    fn poll_root(&self, root: &mut dyn Root) -> bool {
        // SAFETY: `self` holds a reference to its root task, and this is home. The waker is not dropped, and lives for
        // the poll only.
        unsafe {
            self.root.local().set_run(Run::Running);
            let waker = ManuallyDrop::new(self.root.borrowed_waker());
            let done = root.poll(&mut Context::from_waker(&waker));
            if done {
                self.root.local().set_run(Run::Idle);
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

    /// After a poll that answered Pending: queues the task again if it was woken during the poll.
    ///
    /// # Safety
    ///
    /// Home; the task's future lives.
    unsafe fn suspend(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        let local = unsafe { task.local() };
        if local.run() == Run::RunningWoken && !self.closing.get() {
            self.queue(task, local);
        } else {
            local.set_run(Run::Idle);
        }
    }

    fn queue(&self, task: RawTask, local: &Local) {
        local.set_run(Run::Queued);
        self.ready.borrow_mut().push_back(task);
    }

    /// Schedules a task.
    ///
    /// # Safety
    ///
    /// Home; somebody holds a reference to the task during the call.
    unsafe fn wake(&self, task: RawTask) {
        // SAFETY: the caller's promise.
        let local = unsafe { task.local() };
        match local.run() {
            Run::Idle if !self.closing.get() => self.queue(task, local),
            Run::Running => local.set_run(Run::RunningWoken),
            // It is queued; or it has ended, or will be cancelled; or it is in the inbox, and will be queued from there.
            _ => {}
        }
    }

    /// Home has taken a task from the inbox: it is new, or was woken or aborted abroad.
    ///
    /// # Safety
    ///
    /// Home; the caller has the inbox's reference, and gives it away.
    unsafe fn receive_task(&self, task: RawTask) {
        // SAFETY: the inbox's reference keeps the task until `State::unpost_and_release` gives it back. After that the task may be
        // used only if home has another one, which it has while the future lives: so `run` is read first.
        unsafe {
            match task.local().run() {
                Run::Away => {
                    // The inbox's reference becomes home's.
                    task.state().unpost();
                    self.accept(task);
                    if self.closing.get() {
                        self.cancel(task);
                    } else {
                        self.queue(task, task.local());
                    }
                }
                Run::Done | Run::Failed => {
                    if task.state().unpost_and_release() {
                        task.free();
                    }
                }
                _ => {
                    // Never the last one: home has its own.
                    task.state().unpost_and_release();
                    self.wake(task);
                }
            }
        }
    }

    /// Adds a new task to `owned`.
    ///
    /// # Safety
    ///
    /// Home; the caller has home's reference, and gives it away.
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
        // SAFETY: the caller's promise. The destructor may wake the task: `Running` keeps that from queueing it.
        unsafe {
            task.local().set_run(Run::Running);
            task.cancel();
            self.finish(task, End::Cancelled);
        }
    }

    /// Counts the end of a task, and completes it.
    ///
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
        // SAFETY: the caller's promise; home's reference, which `owned` held until here, is given back by `complete`.
        unsafe {
            task.local().set_run(run);
            self.owned.borrow_mut().remove(task);
            task.complete();
        }
    }

    /// The first step of the end: from here on, home accepts and queues no task. Not within a poll.
    pub(crate) fn begin_close(&self) {
        self.closing.set(true);
        drop(self.ready.take());
    }

    /// The second step: drops the futures of all tasks but those that are still in the inbox. Once `go_on` is false, it leaks
    /// the rest.
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

    /// The third step, when home has given up everything else: seals the inbox, and delivers what was sent before. New tasks
    /// among that are cancelled at once. Once `go_on` is false, it leaks the rest.
    pub(crate) fn seal(&self, go_on: impl Fn() -> bool) {
        debug_assert!(self.closing.get());
        if !go_on() {
            return;
        }
        let last = self.inbox.seal();
        self.deliver_taken(&go_on);
        if !go_on() {
            return;
        }
        self.messages.fill(last);
        self.deliver_taken(&go_on);
        self.inbox.shared_free_list().close();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // SAFETY: home has a reference to the root task, whose future has nothing to drop, and gives it back here. Wakers of
        // the root may live on: they find it complete.
        unsafe {
            self.root.local().set_run(Run::Failed);
            self.root.cancel();
            self.root.complete();
        }
    }
}

/// Makes a task, on any thread: at home it is queued, else sent home. The future comes back if the runtime accepts no work any
/// more.
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
