//! A task: one allocation that holds the future, its output, and what its owners on all threads share.
//!
//! ```text
//!   Task<F> { Header { node, inbox, state, local, join cell }, stage: future | output | error }
//! ```
//!
//! The stage, and `local`, which says what the stage holds, are touched by home alone, with one exception: after COMPLETE
//! (see `state.rs`), while a join handle exists, they belong to that handle. Dropping the last reference frees memory and
//! runs no destructor. `RawTask` is a task without its type; it counts no reference by itself.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::future::Future;
use std::mem::{ManuallyDrop, needs_drop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::catch_panic;
use super::free_list::{ALIGN, FreeList};
use super::gate::{Admission, Message, Node, NodeVtable, Stops};
use super::inbox::Inbox;
use super::join::JoinError;
use super::state::State;
use super::{Executor, current};
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
    /// Is being polled.
    Running,
    /// Is being polled, and was woken since.
    RunningWoken,
    /// The future is gone: the stage holds the output, until that is taken.
    Done,
    /// The future is gone: the stage holds an error, until that is taken.
    Failed,
}

impl Run {
    const ALL: [Run; 1 << RUN_BITS] = [
        Run::Away,
        Run::Idle,
        Run::Queued,
        Run::Running,
        Run::RunningWoken,
        Run::Done,
        Run::Failed,
        Run::Failed,
    ];
}

const RUN_BITS: u32 = 3;

/// The part of a task that only home touches: what it does with the task, and the task's slot in [`Owned`](super::owned::Owned).
/// Both in one word.
pub(super) struct Local(Cell<u32>);

impl Local {
    fn new(run: Run) -> Self {
        Self(Cell::new(run as u32))
    }

    pub(super) fn run(&self) -> Run {
        Run::ALL[self.0.get() as usize % Run::ALL.len()]
    }

    pub(super) fn set_run(&self, run: Run) {
        self.0.set(self.0.get() >> RUN_BITS << RUN_BITS | run as u32);
    }

    pub(super) fn slot(&self) -> u32 {
        self.0.get() >> RUN_BITS
    }

    pub(super) fn set_slot(&self, slot: u32) {
        self.0.set(slot << RUN_BITS | self.run() as u32);
    }
}

/// How many slots [`Owned`](super::owned::Owned) can have.
pub(super) const MOST_SLOTS: u32 = u32::MAX >> RUN_BITS;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Cancelled,
    Panicked,
}

#[repr(C)]
pub(super) struct Header {
    node: Node,
    inbox: Arc<Inbox>,
    state: State,
    local: Local,
    /// The waker of the join handle. JOIN_WAKER in the state says whether the cell is home's or the handle's.
    join_cell: UnsafeCell<Option<Waker>>,
}

/// Untagged: `Header::local.run()` says which field is live. A tag of its own would cost most tasks eight bytes.
union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<F::Output>,
    error: ManuallyDrop<JoinError>,
}

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

#[repr(C)]
struct Vtable {
    /// First: the node's pointer to it is one to the whole table.
    node: NodeVtable,
    poll: unsafe fn(RawTask, &mut Context<'_>) -> Option<End>,
    cancel: unsafe fn(RawTask),
    take_output: unsafe fn(RawTask, *mut ()),
    drop_output: unsafe fn(RawTask),
    free: unsafe fn(RawTask),
}

/// A task without its type. Copying it counts no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawTask(NonNull<Header>);

impl<F: Future> Task<F> {
    const VTABLE: Vtable = Vtable {
        node: NodeVtable { deliver: deliver_task },
        poll: Self::poll,
        cancel: Self::cancel,
        take_output: Self::take_output,
        drop_output: Self::drop_output,
        free: Self::free,
    };

    /// Aligned more than the future asks for: the gate uses the low bits of a task's address.
    const LAYOUT: Layout = match Layout::new::<Self>().align_to(ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    };

    /// Makes a task with that future; `free_list` is home's, at home.
    fn allocate(future: F, inbox: &Arc<Inbox>, state: State, run: Run, free_list: Option<&FreeList>) -> RawTask {
        // SAFETY: `free`, below, puts blocks into the free lists, with that layout and a valid handle to the inbox.
        unsafe {
            let block = match free_list {
                Some(free_list) => free_list.take(Self::LAYOUT),
                None => inbox.shared_free_list().take(Self::LAYOUT),
            };
            let header = match block {
                Some(header) => header,
                None => {
                    // The layout's size is not zero: there is a header in it.
                    let memory = NonNull::new(alloc(Self::LAYOUT)).unwrap_or_else(|| handle_alloc_error(Self::LAYOUT));
                    let header = memory.cast::<Header>();
                    (&raw mut (*header.as_ptr()).inbox).write(inbox.clone());
                    header
                }
            };
            let task = header.cast::<Self>().as_ptr();
            (&raw mut (*task).header.node).write(Node::new((&raw const *Self::VTABLE_REF).cast()));
            (&raw mut (*task).header.state).write(state);
            (&raw mut (*task).header.local).write(Local::new(run));
            (&raw mut (*task).header.join_cell).write(UnsafeCell::new(None));
            (&raw mut (*task).stage).write(UnsafeCell::new(Stage {
                future: ManuallyDrop::new(future),
            }));
            RawTask(header)
        }
    }

    const VTABLE_REF: &'static Vtable = &Self::VTABLE;

    /// # Safety
    ///
    /// `task` is a `Task<F>`, and is not freed during the call: the caller holds a reference, or knows of one that stays.
    unsafe fn stage<R>(task: RawTask, f: impl FnOnce(*mut Stage<F>) -> R) -> R {
        // SAFETY: the caller's promise; `Header` is the first field of the `repr(C)` task.
        unsafe { task.0.cast::<Self>().as_ref() }.stage.with_mut(f)
    }

    /// # Safety
    ///
    /// Home, with its reference, on a task whose future is alive and not under poll.
    unsafe fn poll(task: RawTask, cx: &mut Context<'_>) -> Option<End> {
        // SAFETY: the stage is home's until completion, home holds a reference, and the future is not under poll. It never
        // leaves the task's allocation, where `drop_future` drops it: it is pinned.
        unsafe {
            Self::stage(task, |stage| {
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
                        (*stage).error = ManuallyDrop::new(JoinError::panicked(payload));
                        Some(End::Panicked)
                    }
                }
            })
        }
    }

    /// # Safety
    ///
    /// As for `poll`.
    unsafe fn cancel(task: RawTask) {
        // SAFETY: as in `poll`.
        unsafe {
            Self::stage(task, |stage| {
                Self::drop_future(stage);
                (*stage).error = ManuallyDrop::new(JoinError::cancelled());
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

    /// Moves the output to `to`, an `Option<Result<F::Output, JoinError>>`.
    ///
    /// # Safety
    ///
    /// The caller owns the output and takes it once: it is the join handle, after COMPLETE, or home if there is none.
    /// `to` is valid and of that type.
    unsafe fn take_output(task: RawTask, to: *mut ()) {
        // SAFETY: the caller's promise: it owns `local`, too, which says which field is live.
        unsafe {
            let failed = task.local().run() == Run::Failed;
            Self::stage(task, |stage| {
                *to.cast::<Option<Result<F::Output, JoinError>>>() = Some(match failed {
                    false => Ok(ManuallyDrop::take(&mut (*stage).output)),
                    true => Err(ManuallyDrop::take(&mut (*stage).error)),
                });
            });
        }
    }

    /// # Safety
    ///
    /// As for `take_output`.
    unsafe fn drop_output(task: RawTask) {
        let mut output = None::<Result<F::Output, JoinError>>;
        // SAFETY: the caller's promise. The output leaves the task first, and is dropped at the end of this function.
        unsafe { Self::take_output(task, (&raw mut output).cast()) };
    }

    /// # Safety
    ///
    /// The last reference is gone, and the stage is empty: what it held was dropped or taken.
    unsafe fn free(task: RawTask) {
        // SAFETY: allocated with this layout, and nobody else can reach it. Of what is in it only the handle to the inbox
        // has a destructor, since a join handle leaves its cell empty.
        unsafe {
            let inbox = Arc::as_ptr(&task.header().inbox);
            if current::with(inbox, |home| {
                home.free_list.keep(task.0, Self::LAYOUT, home.inbox.shared_free_list())
            })
            .is_none()
            {
                dealloc_block(task.0, Self::LAYOUT);
            }
        }
    }
}

/// Frees the memory of a task that has gone, and its handle to the inbox.
///
/// # Safety
///
/// The caller owns the block, which was allocated with that layout; nothing but the handle to the inbox is left in it.
pub(super) unsafe fn dealloc_block(block: NonNull<Header>, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*block.as_ptr()).inbox).drop_in_place();
        dealloc(block.as_ptr().cast(), layout);
    }
}

/// Makes a task at home, to be queued, with home's reference and one for a join handle.
pub(super) fn new_at_home<F: Future>(future: F, inbox: &Arc<Inbox>, free_list: &FreeList) -> RawTask {
    Task::allocate(future, inbox, State::new_at_home(), Run::Idle, Some(free_list))
}

/// Makes a task abroad and sends it home. Returns it with a reference for a join handle, or the future if home refuses.
///
/// # Safety
///
/// Moving the future home is sound: it is `Send`, or what it holds before its first poll is.
pub(super) unsafe fn post<F: Future>(future: F, inbox: &Arc<Inbox>) -> Result<RawTask, F> {
    if inbox.is_asked_to_stop(Stops::default()) {
        return Err(future);
    }
    let task = Task::allocate(future, inbox, State::new_abroad(), Run::Away, None);
    // SAFETY: the node is the header's first field, in an allocation aligned to 16; the inbox's reference keeps the task
    // until it is delivered.
    let message = unsafe { Message::new(task.0.cast()) };
    match inbox.push(message, Admission::Work) {
        Ok(()) => Ok(task),
        // SAFETY: refused, so no other thread has seen the task: it is ours, and holds the future.
        Err(_) => unsafe {
            let future = Task::<F>::stage(task, |stage| ManuallyDrop::take(&mut (*stage).future));
            Task::<F>::free(task);
            Err(future)
        },
    }
}

/// # Safety
///
/// `node` is a task's, taken from the gate by home, whose executor is `home`.
unsafe fn deliver_task(node: NonNull<Node>, home: &Executor) {
    // SAFETY: the caller's promise: the inbox's reference comes with the node.
    unsafe { home.receive_task(RawTask(node.cast())) }
}

impl RawTask {
    /// # Safety
    ///
    /// The caller holds a reference for as long as it uses the result, or knows of one that stays.
    unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    ///
    /// As for `header`.
    unsafe fn vtable(self) -> &'static Vtable {
        // SAFETY: the node's vtable is the first field of a task's, from which the pointer was made.
        unsafe { &*self.header().node.vtable.cast::<Vtable>() }
    }

    /// # Safety
    ///
    /// As for `header`.
    pub(super) unsafe fn state<'a>(self) -> &'a State {
        // SAFETY: the caller's promise.
        unsafe { &self.header().state }
    }

    /// # Safety
    ///
    /// As for `header`.
    pub(super) unsafe fn inbox<'a>(self) -> &'a Arc<Inbox> {
        // SAFETY: the caller's promise.
        unsafe { &self.header().inbox }
    }

    /// # Safety
    ///
    /// Home only, or the join handle after COMPLETE; and as for `header`.
    pub(super) unsafe fn local<'a>(self) -> &'a Local {
        // SAFETY: the caller's promise.
        unsafe { &self.header().local }
    }

    /// Polls the future with a waker that borrows home's reference.
    ///
    /// # Safety
    ///
    /// Home, with its reference, on a task whose future is alive and not under poll.
    pub(super) unsafe fn poll(self) -> Option<End> {
        // SAFETY: the caller's promise; the waker lives for the poll only and is not dropped, so that it needs no
        // reference of its own. A clone of it counts one.
        unsafe {
            let waker = ManuallyDrop::new(self.borrowed_waker());
            (self.vtable().poll)(self, &mut Context::from_waker(&waker))
        }
    }

    /// A waker that counts no reference: it must not be dropped, nor outlive the task.
    ///
    /// # Safety
    ///
    /// As for `header`.
    pub(super) unsafe fn borrowed_waker(self) -> Waker {
        // SAFETY: the vtable's functions take a task's header; thread-safe by the state and the gate.
        unsafe { Waker::new(self.0.as_ptr().cast(), &WAKER) }
    }

    /// Drops the future and leaves `Err(cancelled)` as the output.
    ///
    /// # Safety
    ///
    /// As for `poll`.
    pub(super) unsafe fn cancel(self) {
        // SAFETY: the caller's promise.
        unsafe { (self.vtable().cancel)(self) }
    }

    /// Publishes the output, wakes the task that awaits the join handle, and gives home's reference back.
    ///
    /// # Safety
    ///
    /// Home, with its reference, once, after the future was replaced by the output.
    pub(super) unsafe fn complete(self) {
        // SAFETY: the caller's promise: home's reference holds until it is released below, or in `State::complete`.
        unsafe {
            let Some(completed) = self.state().complete() else {
                return;
            };
            if completed.join_waker {
                // COMPLETE makes the cell home's: the handle doesn't touch it any more.
                let waker = self.header().join_cell.with_mut(|cell| (*cell).take());
                if let Some(waker) = waker {
                    catch_panic::wake(waker);
                }
            }
            if !completed.joined {
                catch_panic::run(|| (self.vtable().drop_output)(self));
            }
            self.release();
        }
    }

    pub(super) fn as_raw(self) -> *mut Header {
        self.0.as_ptr()
    }

    pub(super) fn from_raw(header: *mut Header) -> Option<Self> {
        NonNull::new(header).map(Self)
    }

    /// Gives a reference back; frees the task if it was the last.
    ///
    /// # Safety
    ///
    /// The caller owns a reference, and doesn't use the task afterwards.
    pub(super) unsafe fn release(self) {
        // SAFETY: the caller's promise. The last owner frees plain memory, on whichever thread.
        unsafe {
            if self.state().release() {
                self.free();
            }
        }
    }

    /// # Safety
    ///
    /// The last reference is gone.
    pub(super) unsafe fn free(self) {
        // SAFETY: the caller's promise.
        unsafe {
            // A write, so that a model finds a thread that still reads `local`.
            #[cfg(evbase_loom)]
            self.local().set_run(self.local().run());
            (self.vtable().free)(self)
        }
    }

    /// Schedules the task: from any thread, keeping the caller's reference.
    ///
    /// # Safety
    ///
    /// The caller holds a reference.
    unsafe fn wake_by_ref(self) {
        // SAFETY: the caller's reference keeps the task, and with it the inbox, until the push is over. `current` says
        // whether this is home, where the task may be scheduled directly.
        unsafe {
            let header = self.header();
            if current::with(Arc::as_ptr(&header.inbox), |home| home.wake(self)).is_none() && header.state.wake_by_ref()
            {
                self.push();
            }
        }
    }

    /// Makes home drop the future; from any thread.
    ///
    /// # Safety
    ///
    /// The caller holds a reference.
    pub(super) unsafe fn abort(self) {
        // SAFETY: as in `wake_by_ref`.
        unsafe {
            let header = self.header();
            let at_home = current::with(Arc::as_ptr(&header.inbox), |home| {
                header.state.abort_at_home();
                home.wake(self);
            });
            if at_home.is_none() && header.state.abort_abroad() {
                self.push();
            }
        }
    }

    /// Pushes the task, with the inbox's reference. If home has sealed the gate, it has dropped the future, or is about to,
    /// and needs no message; the reference goes.
    ///
    /// # Safety
    ///
    /// The caller has just got the inbox's reference from the state, and holds another reference.
    unsafe fn push(self) {
        // SAFETY: the node is the header's first field, in an allocation aligned to 16; POSTED makes this the only push
        // of it, and the inbox's reference keeps it. The caller's own one keeps the inbox until home has been woken.
        unsafe {
            let message = Message::new(self.0.cast());
            if self.header().inbox.push(message, Admission::Leaving).is_err() {
                self.release();
            }
        }
    }

    /// The join cell: see `State` for who may call this when.
    ///
    /// # Safety
    ///
    /// The join handle, while JOIN_WAKER is not set and the task not complete, or after `State` gave the cell back.
    pub(super) unsafe fn join_cell<'a>(self) -> &'a UnsafeCell<Option<Waker>> {
        // SAFETY: the caller's promise; it uses the cell while it holds its reference.
        unsafe { &self.0.as_ref().join_cell }
    }

    /// # Safety
    ///
    /// The join handle, after COMPLETE; `to` is of the task's output type.
    pub(super) unsafe fn take_output<T>(self, to: &mut Option<Result<T, JoinError>>) {
        // SAFETY: the caller's promise.
        unsafe { (self.vtable().take_output)(self, (&raw mut *to).cast()) }
    }

    /// # Safety
    ///
    /// The join handle, after COMPLETE.
    pub(super) unsafe fn drop_output(self) {
        // SAFETY: the caller's promise.
        unsafe { (self.vtable().drop_output)(self) }
    }
}

/// Whether the waker is one of a task of this crate: waking it runs no user code.
pub(crate) fn is_task_waker(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &raw const WAKER)
}

static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

/// # Safety
///
/// `data` is the header of a task that a waker holds a reference to.
unsafe fn raw(data: *const ()) -> RawTask {
    // SAFETY: the caller's promise: not null.
    RawTask(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) })
}

unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: called by `Waker`, whose reference (or home's, in a poll) keeps the task.
    unsafe { raw(data).state().acquire() };
    RawWaker::new(data, &WAKER)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: called by `Waker`, which gives its reference away. It is released last: it keeps the inbox.
    unsafe {
        raw(data).wake_by_ref();
        raw(data).release();
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: called by `Waker`, which holds a reference.
    unsafe { raw(data).wake_by_ref() }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: called by `Waker`, which gives its reference back.
    unsafe { raw(data).release() }
}

/// What a caught panic of a task threw.
pub(super) type Payload = Box<dyn Any + Send>;
