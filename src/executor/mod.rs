//! The executor: tasks that any thread may wake, abort and await, and that only home polls and drops.
//!
//! `Inbox` is the half that all threads share, `Executor` the half that stays at home. `home` makes both, drives the
//! executor, and says through `Unpark` how to wake it. Nothing here knows a base, a descriptor or a clock.
//!
//! Invariants:
//! - A future, and an output without a join handle, is touched and dropped at home only, and never under a borrow of the
//!   executor's own state.
//! - While a future lives, `Owned` holds a reference to its task; the ready queue counts none.
//! - A wake-up at home takes no lock and no atomic read-modify-write: it changes `Local` and the ready queue.

mod abort_on_drop;
mod cache_padded;
pub(crate) mod catch_panic;
pub(crate) mod coop;
pub(crate) mod current;
mod free_list;
mod gate;
mod id;
mod inbox;
mod join;
mod join_error;
mod large;
mod levels;
mod local_task;
mod messages;
mod owned;
mod post;
#[cfg(all(test, evbase_loom))]
mod post_models;
mod priority;
mod ready;
mod state;
mod task;
mod task_ref;
mod watch;

#[cfg(all(test, evbase_loom))]
mod models;
#[cfg(all(test, not(evbase_loom)))]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::{Context, Waker};

pub use abort_on_drop::AbortOnDrop;
pub(crate) use gate::{StopLevel, Stops};
pub use id::TaskId;
pub(crate) use id::running;
pub(crate) use inbox::{Inbox, Unpark};
pub use join::{AbortHandle, JoinHandle};
pub use join_error::JoinError;
pub(crate) use large::{Large, is_large};
pub use local_task::TaskState;
pub(crate) use post::{Coalescing, RunAtHome};
pub use priority::Priority;
pub(crate) use task_ref::{is_task_waker, prefetch_task};
pub use watch::End;
pub(crate) use watch::{Origin, Watch};

use crate::random::Random;
use crate::sync::Arc;
use free_list::FreeList;
use gate::Node;
use levels::Levels;
use local_task::{Lent, LocalTask, Polled};
use messages::Messages;
use owned::Owned;
use ready::Ready;
use task::Header;
use task_ref::TaskRef;

/// The counters of an executor: written at home, read on any thread.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: Count,
    pub(crate) completed: Count,
    pub(crate) cancelled: Count,
    pub(crate) panicked: Count,
    pub(crate) polls: Count,
    pub(crate) messages: Count,
    pub(crate) forced_yields: Count,
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

/// Home's half. It is not `Send`: it stays on the thread where it was made.
pub(crate) struct Executor {
    inbox: Arc<Inbox>,
    messages: Messages,
    /// Home has taken the gate's messages after a stop, which lets no new task in: all tasks that are to come are in `messages`.
    all_work_taken: Cell<bool>,
    /// The tasks to poll, oldest first. `owned` has a reference to each; or it is `root`.
    ready: RefCell<Ready>,
    /// Those of other than normal priority, once there were any.
    levels: RefCell<Option<Box<Levels>>>,
    owned: RefCell<Owned>,
    /// Stands for the future of `block_on`; its own future is never polled.
    root: LocalTask,
    mood: Cell<Mood>,
    watch: Option<Rc<dyn Watch>>,
    free_list: FreeList,
}

/// What an executor knows of a task.
pub(crate) struct TaskFacts {
    pub(crate) id: TaskId,
    /// Its number among the tasks that there are now.
    pub(crate) slot: u32,
    pub(crate) type_name: &'static str,
    pub(crate) state: TaskState,
    pub(crate) priority: Priority,
}

/// What becomes of a task that is scheduled at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It is queued. Home is in its loop; or not, and nobody else is to poll the loop's descriptor, or was told to.
    Awake,
    /// As `Awake`, and there are, or were, tasks of other than normal priority.
    AwakeWithPriorities,
    /// Home is outside of its loop, embedded in another one, and parked: that loop is told first.
    Asleep,
    /// It isn't queued: home polls no more.
    Closing,
}

impl Executor {
    /// It tells `watch` of its tasks, if the inbox was made for that.
    pub(crate) fn new(inbox: Arc<Inbox>, watch: Option<Rc<dyn Watch>>) -> Self {
        let free_list = FreeList::new();
        let (root, handle) = new_at_home(std::future::pending::<()>(), Priority::Normal, &inbox, &free_list);
        drop(handle);
        Self {
            inbox,
            messages: Messages::new(),
            all_work_taken: Cell::new(false),
            ready: RefCell::default(),
            levels: RefCell::default(),
            owned: RefCell::default(),
            root,
            mood: Cell::new(Mood::Awake),
            watch,
            free_list,
        }
    }

    /// How many tasks have not ended; the future of `block_on` doesn't count.
    pub(crate) fn tasks(&self) -> usize {
        self.owned.borrow().len()
    }

    /// Calls `each` with each task that has arrived and not ended, in the order of their slots. It may not call this executor.
    pub(crate) fn each_task(&self, mut each: impl FnMut(TaskFacts)) {
        for task in self.owned.borrow().iter() {
            each(TaskFacts {
                id: task.id(),
                slot: task.slot(),
                type_name: (task.vtable().type_name)(),
                state: task.what_it_does(),
                priority: task.priority(),
            });
        }
    }

    /// The slot of the task that a waker wakes, if it is one of those that `each_task` has.
    pub(crate) fn slot_of(&self, waker: &Waker) -> Option<u32> {
        let slot = task_ref::with_task_of(waker, |task| {
            if !Arc::ptr_eq(task.inbox(), &self.inbox) {
                return None;
            }
            // SAFETY: this is the task's home, which has its inbox; `task` has a reference meanwhile.
            let task = unsafe { LocalTask::borrowed(task.as_raw()) };
            self.owned.borrow().has(&task).then(|| task.slot())
        });
        slot.flatten()
    }

    /// How many tasks are ready.
    #[inline]
    pub(crate) fn ready(&self) -> usize {
        let normal = self.ready.borrow().len();
        match self.mood.get() {
            // Priorities are in use from `use_priorities` on.
            Mood::Awake => normal,
            _ => normal + self.of_other_priorities(),
        }
    }

    #[cold]
    fn of_other_priorities(&self) -> usize {
        self.levels.borrow().as_ref().map_or(0, |levels| levels.len())
    }

    /// Whether there is a task that has not ended, or may be one that was accepted and is still in the inbox.
    pub(crate) fn has_tasks(&self) -> bool {
        self.tasks() > 0 || !self.all_work_taken.get() || !self.messages.is_empty()
    }

    /// Whether there are ready tasks, or messages that were taken from the gate and not delivered.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !self.messages.is_empty() || self.ready() > 0
    }

    fn is_closing(&self) -> bool {
        self.mood.get() == Mood::Closing
    }

    /// Makes a task and queues it. After `begin_close`, the future comes back.
    pub(crate) fn spawn_local<F>(&self, future: F, origin: Origin) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future + 'static,
    {
        if self.is_closing() {
            return Err(future);
        }
        let (task, handle) = new_at_home(future, origin.priority, &self.inbox, &self.free_list);
        if self.watch.is_some() {
            self.tell_of_new(&task, Some(origin));
        }
        // Mostly known when this is compiled.
        if origin.priority != Priority::Normal {
            self.use_priorities();
        }
        self.accept(task);
        Ok(handle)
    }

    /// Delivers a portion of what was sent: `limit` messages at most, oldest first. Returns the stop bits.
    #[inline]
    pub(crate) fn receive(&self, limit: u32) -> Stops {
        let stops = match self.messages.is_empty() {
            true => self.take(),
            false => self.inbox.stops(),
        };
        if !self.messages.is_empty() {
            self.deliver_some(limit);
        }
        // The stop came after the last look at the gate: messages behind it may be tasks that were accepted before it.
        if stops.requested() && !self.all_work_taken.get() && self.messages.is_empty() {
            self.take();
        }
        stops
    }

    /// Delivers `limit` of the messages that were taken, at most.
    #[inline(never)]
    fn deliver_some(&self, limit: u32) {
        if self.messages.reverse_some() {
            let mut delivered = 0;
            for message in (0..limit).map_while(|_| self.messages.pop()) {
                message.deliver(self);
                delivered += 1;
            }
            self.inbox.counts().messages.add(delivered);
        }
    }

    /// Delivers all that was sent before this call. At home, also within a poll, or while a message is delivered.
    pub(crate) fn receive_all(&self) {
        // Taking messages unparks.
        self.rouse();
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
        while go_on() {
            let Some(message) = self.messages.pop() else { break };
            message.deliver(self);
            self.inbox.counts().messages.add(1);
        }
    }

    /// Whether home may sleep: there is no message, and no stop that is not among the `seen` ones. If so, whoever sends
    /// something before the next `receive` wakes home.
    pub(crate) fn park(&self, seen: Stops) -> bool {
        self.messages.is_empty() && self.inbox.park(seen)
    }

    /// Whether home has settled, and nothing has come since, from abroad or from home.
    pub(crate) fn is_asleep(&self) -> bool {
        self.mood.get() == Mood::Asleep && self.inbox.is_parked()
    }

    /// Whether nothing has come, from abroad or from home, since `park`.
    pub(crate) fn is_still_parked(&self) -> bool {
        self.inbox.is_parked() && !self.has_work()
    }

    /// Home leaves its loop, embedded in another one: it parks, so that whatever comes from here on tells that loop. If there is
    /// something to do already, for the caller or the executor, that loop is told now.
    pub(crate) fn settle(&self, seen: Stops, is_busy: bool) {
        debug_assert!(!self.is_closing());
        if is_busy || self.has_work() || !self.park(seen) {
            self.inbox.ring();
        } else {
            self.mood.set(Mood::Asleep);
        }
    }

    /// Home outside of its loop has something to do: if it has settled, the loop that it is embedded in is told, once.
    #[inline]
    pub(crate) fn rouse(&self) {
        if self.mood.get() == Mood::Asleep {
            self.wake_up();
            self.inbox.unpark();
        }
    }

    /// As `rouse`, also if whoever has sent something since home has settled may have woken another loop of this thread instead.
    pub(crate) fn tell_host(&self) {
        self.wake_up();
        self.inbox.ring();
    }

    /// Home returns to its loop.
    pub(crate) fn wake_up(&self) {
        if self.mood.get() == Mood::Asleep {
            self.mood.set(match *self.levels.borrow() {
                Some(_) => Mood::AwakeWithPriorities,
                None => Mood::Awake,
            });
        }
    }

    /// Polls ready tasks, oldest first, while `go_on` says so: `limit` polls at most. It returns early when the root has ended,
    /// and after a poll that has spent its budget, which may have taken as long as very many others.
    /// Returns the number of polls, and whether the root has ended.
    #[inline]
    pub(crate) fn run(&self, limit: u32, root: Option<&mut dyn Root>, go_on: impl Fn() -> bool) -> (u32, bool) {
        self.run_with(limit, root, go_on, None)
    }

    /// As `run`, and tells the executor's watch of it.
    #[cold]
    pub(crate) fn run_watched(&self, limit: u32, root: Option<&mut dyn Root>, go_on: &dyn Fn() -> bool) -> (u32, bool) {
        self.run_with(limit, root, go_on, self.watch.as_deref())
    }

    /// Inlined twice, so that `run` knows that there is no `watch`.
    #[inline(always)]
    fn run_with(
        &self,
        limit: u32,
        mut root: Option<&mut dyn Root>,
        go_on: impl Fn() -> bool,
        watch: Option<&dyn Watch>,
    ) -> (u32, bool) {
        let (mut polls, mut root_done, mut forced_yields) = (0, false, 0);
        let has_levels = self.mood.get() == Mood::AwakeWithPriorities;
        let polling = coop::Polling::begin();
        while polls < limit && go_on() {
            let next = match has_levels {
                false => self.ready.borrow_mut().pop(),
                true => self.next_by_priority(),
            };
            let Some(task) = next else {
                break;
            };
            polls += 1;
            coop::refill();
            if task == self.root.as_raw() {
                watch.inspect(|watch| watch.before_poll(None));
                root_done = self.poll_root(root.as_deref_mut());
                watch.inspect(|watch| watch.after_poll(None));
            } else {
                // SAFETY: `owned` has a reference, until the task has ended and this is not used again.
                let task = unsafe { LocalTask::borrowed(task) };
                self.poll_task(task, watch);
            }
            if root_done {
                break;
            }
            if coop::is_spent() {
                forced_yields += 1;
                break;
            }
        }
        drop(polling);
        self.inbox.counts().polls.add(polls.into());
        if forced_yields > 0 {
            self.inbox.counts().forced_yields.add(forced_yields);
        }
        self.ready.borrow_mut().shrink();
        if has_levels {
            self.shrink_levels();
        }
        (polls, root_done)
    }

    #[inline(always)]
    fn poll_task(&self, task: Lent, watch: Option<&dyn Watch>) {
        if task.state().is_aborted() {
            return self.cancel(task);
        }
        watch.inspect(|watch| watch.before_poll(Some(task.id())));
        let polled = id::while_running(Some(task.id()), || task.poll());
        watch.inspect(|watch| watch.after_poll(Some(task.id())));
        match polled {
            // An observer has aborted it before the poll, when it was not to be queued again.
            Polled::Pending if watch.is_some() && task.state().is_aborted() => self.wake(&task),
            Polled::Pending => {}
            Polled::Woken => self.queue(&task),
            Polled::Ended(end) => self.finish(task, end, watch),
        }
    }

    /// True when the root has ended. If there is none, somebody has woken the last one after its end.
    fn poll_root(&self, root: Option<&mut (dyn Root + '_)>) -> bool {
        let mut done = false;
        let polled = self.root.poll_with(|cx| {
            done = id::while_running(None, || root.is_some_and(|root| root.poll(cx)));
            None
        });
        if polled == Polled::Woken {
            self.queue(&self.root);
        }
        done
    }

    /// Schedules the root, so that the next `run` polls it.
    pub(crate) fn wake_root(&self) {
        self.wake(&self.root);
    }

    /// Schedules a task.
    #[inline]
    fn wake(&self, task: &LocalTask) {
        if task.wake() {
            self.queue(task);
        }
    }

    /// Puts a task that is `Queued` into the ready queue, unless home is closing and polls no more.
    #[inline]
    fn queue(&self, task: &LocalTask) {
        if self.mood.get() == Mood::Awake {
            self.ready.borrow_mut().push(task.as_raw());
        } else {
            self.queue_by_mood(task);
        }
    }

    #[cold]
    fn queue_by_mood(&self, task: &LocalTask) {
        if self.is_closing() {
            return;
        }
        self.rouse();
        let mut ready = self.ready.borrow_mut();
        match &mut *self.levels.borrow_mut() {
            Some(levels) => levels.push(task.as_raw(), task.priority(), &mut ready),
            None => ready.push(task.as_raw()),
        }
    }

    #[cold]
    fn shrink_levels(&self) {
        if let Some(levels) = &mut *self.levels.borrow_mut() {
            levels.shrink();
        }
    }

    #[cold]
    fn next_by_priority(&self) -> Option<NonNull<Header>> {
        let mut ready = self.ready.borrow_mut();
        match &mut *self.levels.borrow_mut() {
            Some(levels) => levels.pop(&mut ready),
            None => ready.pop(),
        }
    }

    /// Tells the watch of a task that is about to be accepted. Of one from abroad, it knows already where it comes from.
    #[cold]
    fn tell_of_new(&self, task: &LocalTask, origin: Option<Origin>) {
        if let Some(watch) = &self.watch {
            if let Some(origin) = origin {
                watch.comes_from(task.id(), origin.location);
            }
            watch.spawned(task.id(), (task.vtable().type_name)(), task.priority());
        }
    }

    /// From here on, ready tasks are polled in a random order within each batch of them.
    pub(crate) fn shuffle(&self, random: Random) {
        self.levels.replace(Some(Box::new(Levels::shuffled(random))));
        self.use_priorities();
    }

    /// From here on, the priorities of tasks are looked at.
    #[cold]
    fn use_priorities(&self) {
        self.levels.borrow_mut().get_or_insert_default();
        if self.mood.get() == Mood::Awake {
            self.mood.set(Mood::AwakeWithPriorities);
        }
    }

    /// Delivers a task from the inbox: it is new, or was woken or aborted abroad.
    ///
    /// # Safety
    ///
    /// `node` is a task's, taken from the gate by home, whose executor is `home`.
    unsafe fn receive_task(node: NonNull<Node>, home: &Executor) {
        // SAFETY: the caller's promise. The inbox's reference comes with the node, which is the task's first field.
        let task = unsafe { LocalTask::new(TaskRef::from_raw(node.cast())) };
        if task.is_away() {
            // An observer may abort the task, which queues what has arrived; it is accepted, and queued, below.
            if home.watch.is_some() {
                home.tell_of_new(&task, None);
            }
            task.arrive();
            if task.priority() != Priority::Normal {
                home.use_priorities();
            }
            home.accept(task);
        } else {
            home.wake(&task);
            task.give_back();
        }
    }

    /// Takes a new task, with home's reference: queues it or, if home is closing, cancels it.
    #[inline]
    fn accept(&self, task: LocalTask) {
        self.inbox.counts().accepted.add(1);
        // From here on, `owned` has the reference, until the task has ended.
        let (slot, task) = self.owned.borrow_mut().insert(task);
        task.queue_first(slot);
        if self.is_closing() {
            self.cancel(task);
        } else {
            self.queue(&task);
        }
    }

    /// Drops the future of a task that waits, and completes the task.
    fn cancel(&self, task: Lent) {
        id::while_running(Some(task.id()), || task.cancel());
        self.finish(task, End::Cancelled, self.watch.as_deref());
    }

    /// Counts the end of a task, and completes it: its reference, which `owned` held until here, goes.
    #[inline(always)]
    fn finish(&self, task: Lent, end: End, watch: Option<&dyn Watch>) {
        let counts = self.inbox.counts();
        let count = match end {
            End::Completed => &counts.completed,
            End::Cancelled => &counts.cancelled,
            End::Panicked => &counts.panicked,
        };
        count.add(1);
        let task = self.owned.borrow_mut().remove(task);
        watch.inspect(|watch| watch.ended(task.id(), end));
        task.complete();
    }

    /// The first step of the end: from here on, home accepts and queues no task. Not within a poll.
    pub(crate) fn begin_close(&self) {
        self.mood.set(Mood::Closing);
        drop((self.ready.take(), self.levels.take()));
    }

    /// The second step: drops the futures of all tasks but those that are still in the inbox. Once `go_on` is false, it leaks
    /// the rest.
    pub(crate) fn cancel_all(&self, go_on: impl Fn() -> bool) {
        debug_assert!(self.is_closing());
        while go_on() {
            let Some(task) = self.owned.borrow_mut().any() else {
                break;
            };
            self.cancel(task);
        }
    }

    /// The third step, when home has given up everything else: seals the inbox, delivers what was sent before, and frees spare
    /// memory. New tasks among what was sent are cancelled at once. Once `go_on` is false, it leaks the rest.
    pub(crate) fn seal(&self, go_on: impl Fn() -> bool) {
        debug_assert!(self.is_closing());
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
        // A destructor may just have forked. In the child, the lock may be held for ever by a thread that is not there.
        if go_on() {
            self.inbox.shared_free_list().close();
        }
    }
}

/// Makes a task, on any thread: at home it is queued, else sent home. The future comes back if the runtime accepts no work any
/// more. If the executor has a watch, the caller keeps the executor of the loop that this thread is in: the watch runs user code.
pub(crate) fn spawn<F>(inbox: &Arc<Inbox>, future: F, origin: Origin) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    // SAFETY: the future may go home, and its output come back, since both are `Send`.
    unsafe { spawn_unchecked(inbox, future, origin) }
}

/// As `spawn`, for a future that need not be `Send` itself.
///
/// # Safety
///
/// What the future holds before its first poll is `Send`, and so is its output.
pub(crate) unsafe fn spawn_unchecked<F>(
    inbox: &Arc<Inbox>,
    future: F,
    origin: Origin,
) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + 'static,
{
    let mut future = Some(future);
    let mut take = || future.take().expect("evbase: a future is spawned once");
    if let Some(spawned) = current::with(Arc::as_ptr(inbox), |home| home.spawn_local(take(), origin)) {
        return spawned;
    }
    // SAFETY: the caller's promise. The task comes back with the join handle's reference.
    unsafe { Ok(JoinHandle::new(TaskRef::from_raw(task::post(take(), origin, inbox)?))) }
}

/// Makes a task at home, idle; returns home's reference to it, and the join handle. The free list is home's.
fn new_at_home<F: Future>(
    future: F,
    priority: Priority,
    inbox: &Arc<Inbox>,
    free_list: &FreeList,
) -> (LocalTask, JoinHandle<F::Output>) {
    let task = task::new_at_home(future, priority, inbox, free_list);
    // SAFETY: it was just made, at home, which has the free list, with two references: home's and the join handle's.
    unsafe {
        (
            LocalTask::new(TaskRef::from_raw(task)),
            JoinHandle::new(TaskRef::from_raw(task)),
        )
    }
}
