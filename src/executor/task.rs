//! A task in memory: one allocation that holds the future, its output, and what its owners on all threads share.
//!
//! ```text
//!   Task<F> { Header { BlockHeader { node, inbox }, state, local, join cell }, stage: future | output | failure }
//! ```
//!
//! The rules, which SAFETY comments name by their numbers:
//!
//! 1. Whoever uses a task holds a reference ([`TaskRef`](super::task_ref::TaskRef)), or knows of one that stays meanwhile.
//! 2. `local` and the stage are home's ([`LocalTask`](super::local_task::LocalTask)), until COMPLETE (see `state.rs`). From then on
//!    they are the join handle's if there is one: it takes the output, and reads `local`, as home may still do, which doesn't change it
//!    any more.
//! 3. `local` says what the stage holds: the future, unless it is `Done` (then the output) or `Failed` (the failure).
//! 4. Dropping the last reference frees memory and runs no destructor: the stage is empty by then.

use std::alloc::Layout;
use std::future::Future;
use std::mem::{ManuallyDrop, MaybeUninit, needs_drop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::free_list::{self, BlockHeader, FreeList};
use super::gate::{Admission, Message, Node, NodeVtable, Stops};
use super::id::TaskId;
use super::inbox::Inbox;
use super::join_error::Failure;
use super::priority::Priority;
use super::state::State;
use super::watch::{self, End, Origin};
use super::{Executor, catch_panic, current};
use crate::sync::{Arc, Cell, UnsafeCell};

/// What home is doing with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Run {
    /// Made abroad, not arrived yet.
    Away,
    /// Waits for a wake-up.
    Idle,
    /// In the ready queue.
    Queued,
    /// Is being polled, or its future is being dropped.
    Running,
    /// As `Running`, and was woken since.
    RunningWoken,
    /// The future is gone: the stage holds the output, until that is taken.
    Done,
    /// The future is gone: the stage holds the failure, until that is taken.
    Failed,
}

const RUN_BITS: u32 = 3;
const RUN_MASK: u32 = (1 << RUN_BITS) - 1;

const PRIORITY_BITS: u32 = 2;
const PRIORITY_MASK: u32 = (1 << PRIORITY_BITS) - 1;

const SLOT_SHIFT: u32 = RUN_BITS + PRIORITY_BITS;

/// The part of a task that only home touches: what it does with the task, the task's priority, and its slot in
/// [`Owned`](super::owned::Owned). All in one word.
pub(super) struct Local(Cell<u32>);

impl Local {
    fn new(run: Run, priority: Priority) -> Self {
        Self(Cell::new((priority as u32) << RUN_BITS | run as u32))
    }

    pub(super) fn priority(&self) -> Priority {
        match self.0.get() >> RUN_BITS & PRIORITY_MASK {
            HIGH => Priority::High,
            LOW => Priority::Low,
            _ => Priority::Normal,
        }
    }

    pub(super) fn is(&self, run: Run) -> bool {
        self.0.get() & RUN_MASK == run as u32
    }

    pub(super) fn set_run(&self, run: Run) {
        self.0.set(self.0.get() & !RUN_MASK | run as u32);
    }

    pub(super) fn slot(&self) -> u32 {
        self.0.get() >> SLOT_SHIFT
    }

    pub(super) fn set_slot(&self, slot: u32) {
        self.0
            .set(slot << SLOT_SHIFT | self.0.get() & (PRIORITY_MASK << RUN_BITS | RUN_MASK));
    }

    /// Both in one.
    pub(super) fn set_queued(&self, slot: u32) {
        self.0
            .set(slot << SLOT_SHIFT | self.0.get() & (PRIORITY_MASK << RUN_BITS) | Run::Queued as u32);
    }
}

/// How many slots [`Owned`](super::owned::Owned) can have.
pub(super) const MOST_SLOTS: u32 = u32::MAX >> SLOT_SHIFT;

const HIGH: u32 = Priority::High as u32;
const LOW: u32 = Priority::Low as u32;

#[repr(C)]
pub(super) struct Header {
    block: BlockHeader,
    state: State,
    local: Local,
    /// The waker of the join handle. JOIN_WAKER in the state says whether the cell is home's or the handle's.
    join_cell: UnsafeCell<Option<Waker>>,
}

impl Header {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.block.inbox
    }

    pub(super) fn vtable(&self) -> &'static Vtable {
        // SAFETY: `allocate` alone makes headers, and points their nodes to the first field of a whole `Vtable`.
        unsafe { &*self.block.node.vtable.cast::<Vtable>() }
    }

    /// # Safety
    ///
    /// Home or the join handle, as rule 2 says.
    pub(super) unsafe fn local(&self) -> &Local {
        &self.local
    }

    /// For home or the join handle, as `State` says: other threads don't look into it.
    pub(super) fn join_cell(&self) -> &UnsafeCell<Option<Waker>> {
        &self.join_cell
    }
}

/// Untagged: `Header::local` says which field is live. A tag of its own would cost most tasks eight bytes.
union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<F::Output>,
    failure: ManuallyDrop<Failure>,
}

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

/// What depends on the type of the future.
#[repr(C)]
pub(super) struct Vtable {
    /// First: the node's pointer to it is one to the whole table.
    node: NodeVtable,
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Option<End>,
    pub(super) cancel: unsafe fn(NonNull<Header>),
    pub(super) take_output: unsafe fn(NonNull<Header>, *mut ()),
    pub(super) drop_output: unsafe fn(NonNull<Header>),
    pub(super) free: unsafe fn(NonNull<Header>),
    /// That of the future.
    pub(super) type_name: fn() -> &'static str,
}

impl<F: Future> Task<F> {
    const VTABLE: Vtable = Vtable {
        node: NodeVtable {
            deliver: Executor::receive_task,
        },
        poll: Self::poll,
        cancel: Self::cancel,
        take_output: Self::take_output,
        drop_output: Self::drop_output,
        free: Self::free,
        type_name: std::any::type_name::<F>,
    };

    const VTABLE_REF: &'static Vtable = &Self::VTABLE;

    const LAYOUT: Layout = free_list::layout_of::<Self>();

    /// Makes a task with that future; `free_list` is home's, at home.
    fn allocate(
        future: F,
        inbox: &Arc<Inbox>,
        state: State,
        (run, priority): (Run, Priority),
        free_list: Option<&FreeList>,
    ) -> NonNull<Header> {
        let block = match free_list {
            Some(free_list) => free_list.take(Self::LAYOUT),
            None => inbox.shared_free_list().take(Self::LAYOUT),
        };
        let block = block.unwrap_or_else(|| free_list::allocate(Self::LAYOUT, inbox));
        let task = block.cast::<Self>().as_ptr();
        // SAFETY: the block is of that layout, and ours; the handle to the inbox in it is valid, and stays.
        unsafe {
            (&raw mut (*task).header.block.node).write(Node::new((&raw const *Self::VTABLE_REF).cast()));
            (&raw mut (*task).header.state).write(state);
            (&raw mut (*task).header.local).write(Local::new(run, priority));
            (&raw mut (*task).header.join_cell).write(UnsafeCell::new(None));
            (&raw mut (*task).stage).write(UnsafeCell::new(Stage {
                future: ManuallyDrop::new(future),
            }));
        }
        block.cast()
    }

    /// # Safety
    ///
    /// `task` is a `Task<F>`; rule 1.
    unsafe fn get<'a>(task: NonNull<Header>) -> &'a Self {
        // SAFETY: the caller's promise; `Header` is the first field of the `repr(C)` task.
        unsafe { task.cast().as_ref() }
    }

    /// # Safety
    ///
    /// Home, with a reference; the future lives, and is not under poll.
    unsafe fn poll(task: NonNull<Header>, cx: &mut Context<'_>) -> Option<End> {
        // SAFETY: the caller's promise, and rule 2. The future never leaves the task's allocation, where `drop_future` drops
        // it: it is pinned.
        unsafe {
            Self::get(task).stage.with_mut(|stage| {
                let future = Pin::new_unchecked(&mut *(*stage).future);
                match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                    Ok(Poll::Pending) => None,
                    Ok(Poll::Ready(output)) => {
                        Self::drop_future(stage);
                        (*stage).output = ManuallyDrop::new(output);
                        Some(End::Completed)
                    }
                    Err(payload) => {
                        Self::drop_future(stage);
                        (*stage).failure = ManuallyDrop::new(Failure::panicked(payload));
                        Some(End::Panicked)
                    }
                }
            })
        }
    }

    /// # Safety
    ///
    /// As for `poll`.
    unsafe fn cancel(task: NonNull<Header>) {
        // SAFETY: as in `poll`.
        unsafe {
            Self::get(task).stage.with_mut(|stage| {
                Self::drop_future(stage);
                (*stage).failure = ManuallyDrop::new(Failure::Cancelled);
            });
        }
    }

    /// Drops the future where it is; a panic of its destructor ends here.
    ///
    /// # Safety
    ///
    /// `stage` is valid, holds the future, and is the caller's alone, who writes another field next.
    unsafe fn drop_future(stage: *mut Stage<F>) {
        if needs_drop::<F>() {
            // SAFETY: the caller's promise. A destructor that panics has dropped what it could, and is not run again.
            catch_panic::run(|| unsafe { ManuallyDrop::drop(&mut (*stage).future) });
        }
    }

    /// Moves the output to `to`, a `Result<F::Output, Failure>` that isn't there yet.
    ///
    /// # Safety
    ///
    /// After COMPLETE, or at home if there is no join handle; once; rules 1 and 2. `to` can be written, and is of that type.
    unsafe fn take_output(task: NonNull<Header>, to: *mut ()) {
        // SAFETY: the caller's promise. `local` says which field is live: rule 3.
        unsafe {
            let task = Self::get(task);
            let failed = task.header.local.is(Run::Failed);
            task.stage.with_mut(|stage| {
                to.cast::<Result<F::Output, Failure>>().write(match failed {
                    false => Ok(ManuallyDrop::take(&mut (*stage).output)),
                    true => Err(ManuallyDrop::take(&mut (*stage).failure)),
                });
            });
        }
    }

    /// # Safety
    ///
    /// As for `take_output`.
    unsafe fn drop_output(task: NonNull<Header>) {
        let mut output = MaybeUninit::<Result<F::Output, Failure>>::uninit();
        // SAFETY: the caller's promise. The output leaves the task first, and is dropped then.
        unsafe {
            Self::take_output(task, output.as_mut_ptr().cast());
            output.assume_init_drop();
        }
    }

    /// # Safety
    ///
    /// The last reference is gone, and the stage is empty: what it held was dropped or taken.
    unsafe fn free(task: NonNull<Header>) {
        // SAFETY: the caller's promise: nobody else can reach the task. Of what is in it only the handle to the inbox has a
        // destructor, since a join handle leaves its cell empty, and that one stays in the block.
        unsafe {
            let inbox = Arc::as_ptr(task.as_ref().inbox());
            // A write, so that a model finds a thread that still reads `local`.
            #[cfg(evbase_loom)]
            task.as_ref().local.set_run(Run::Failed);
            let keep = |home: &Executor| {
                let shared = home.inbox.shared_free_list();
                home.free_list.keep(task.cast(), Self::LAYOUT, shared)
            };
            if current::with(inbox, keep) != Some(true) {
                free_list::deallocate(task.cast(), Self::LAYOUT);
            }
        }
    }
}

/// Makes a task at home, idle, with two references: home's, and one for a join handle.
pub(super) fn new_at_home<F: Future>(
    future: F,
    priority: Priority,
    inbox: &Arc<Inbox>,
    free_list: &FreeList,
) -> NonNull<Header> {
    let local = (Run::Idle, priority);
    Task::allocate(future, inbox, State::new_at_home(), local, Some(free_list))
}

/// Makes a task abroad and sends it home. Returns it with a reference for a join handle, or the future if home refuses.
///
/// # Safety
///
/// Moving the future home is sound: it is `Send`, or what it holds before its first poll is.
pub(super) unsafe fn post<F: Future>(future: F, origin: Origin, inbox: &Arc<Inbox>) -> Result<NonNull<Header>, F> {
    if inbox.is_asked_to_stop(Stops::default()) {
        return Err(future);
    }
    let local = (Run::Away, origin.priority);
    let task = Task::allocate(future, inbox, State::new_abroad(), local, None);
    if inbox.is_watched() {
        watch::send_location(inbox, TaskId::of(task.addr()), origin.location);
    }
    // SAFETY: the node is the header's first field, in an allocation aligned to 16; the inbox's reference keeps the task
    // until it is delivered.
    let message = unsafe { Message::new(task.cast()) };
    match inbox.push(message, Admission::Work) {
        Ok(()) => Ok(task),
        // SAFETY: refused, so no other thread has seen the task: it is ours, and holds the future.
        Err(_) => unsafe {
            let future = Task::<F>::get(task)
                .stage
                .with_mut(|stage| ManuallyDrop::take(&mut (*stage).future));
            Task::<F>::free(task);
            Err(future)
        },
    }
}
