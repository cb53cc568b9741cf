//! A task: one allocation that holds the future, its output, and what its owners on all threads share.
//!
//! ```text
//!   Task<F> { Header { node, inbox, state, join cell | home's words }, stage }
//! ```
//!
//! The stage (future or output) and home's words are touched by home alone, with one exception: after COMPLETE, while
//! a join handle exists, the stage belongs to that handle. Whoever drops the last reference frees memory and nothing
//! else. `RawTask` is a task without its type, and counts no reference by itself.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::cells::{Cells, STEP};
use super::gate::{Admission, Node, NodeVtable};
use super::guard;
use super::inbox::Inbox;
use super::join::JoinError;
use super::state::State;
use super::{Executor, current};
use crate::sync::{Arc, Cell, UnsafeCell};

/// Where a task stands at home. Home only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Made abroad, not arrived yet.
    Away,
    /// Waits for a wake-up.
    Idle,
    /// Stands in the ready queue.
    Queued,
    /// Is being polled.
    Running,
    /// Is being polled, and was woken since.
    RunningWoken,
    /// The future is gone.
    Done,
}

/// How a task ended, for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Cancelled,
    Panicked,
}

#[repr(C)]
struct Header {
    node: Node,
    inbox: Arc<Inbox>,
    state: State,
    /// Who holds it is said by JOIN_WAKER in the state.
    join_cell: UnsafeCell<Option<Waker>>,
    /// The task's place in home's list. Home only.
    slot: Cell<u32>,
    /// Home only.
    run: Cell<Run>,
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Gone,
}

#[repr(C, align(16))]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

#[repr(C)]
struct Vtable {
    /// First, so that a pointer to it is one to this.
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
        node: NodeVtable { deliver },
        poll: Self::poll,
        cancel: Self::cancel,
        take_output: Self::take_output,
        drop_output: Self::drop_output,
        free: Self::free,
    };

    fn allocate(future: F, inbox: Arc<Inbox>, state: State, run: Run, cells: Option<&Cells>) -> RawTask {
        const { assert!(align_of::<Self>() >= STEP) };
        let layout = Layout::new::<Self>();
        let memory = match cells.and_then(|cells| cells.take(layout)) {
            Some(memory) => memory,
            // SAFETY: the layout's size is not zero: there is a header in it.
            None => NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout)),
        };
        let task = memory.cast::<Self>();
        let header = Header {
            node: Node::new((&raw const *Self::VTABLE_REF).cast()),
            inbox,
            state,
            join_cell: UnsafeCell::new(None),
            slot: Cell::new(u32::MAX),
            run: Cell::new(run),
        };
        let stage = UnsafeCell::new(Stage::Future(future));
        // SAFETY: the memory is ours, of the task's layout, and not yet initialised.
        unsafe { task.write(Self { header, stage }) };
        RawTask(task.cast())
    }

    const VTABLE_REF: &'static Vtable = &Self::VTABLE;

    /// # Safety
    ///
    /// `task` is a `Task<F>`; the caller holds a reference, or keeps somebody from giving the last one back.
    unsafe fn stage<R>(task: RawTask, f: impl FnOnce(*mut Stage<F>) -> R) -> R {
        // SAFETY: the caller's promise; `Header` is the first field of the `repr(C)` task.
        unsafe { task.0.cast::<Self>().as_ref() }.stage.with_mut(f)
    }

    /// # Safety
    ///
    /// Home, with its reference, on a task whose future is alive and not under poll.
    unsafe fn poll(task: RawTask, cx: &mut Context<'_>) -> Option<End> {
        // SAFETY: the stage is home's until completion, home holds a reference, and nobody else is in the future.
        unsafe {
            Self::stage(task, |stage| {
                let polled = catch_unwind(AssertUnwindSafe(|| match &mut *stage {
                    // The future lies in the task's allocation and is dropped in place: it is pinned.
                    Stage::Future(future) => Pin::new_unchecked(future).poll(cx),
                    _ => unreachable!("evbase: polled a task without a future"),
                }));
                let (output, end) = match polled {
                    Ok(Poll::Pending) => return None,
                    Ok(Poll::Ready(output)) => (Ok(output), End::Completed),
                    Err(payload) => (Err(JoinError::panicked(payload)), End::Panicked),
                };
                Self::replace_future(stage, output);
                Some(end)
            })
        }
    }

    /// # Safety
    ///
    /// As for `poll`.
    unsafe fn cancel(task: RawTask) {
        // SAFETY: as in `poll`.
        unsafe { Self::stage(task, |stage| Self::replace_future(stage, Err(JoinError::cancelled()))) }
    }

    /// Drops the future in place, behind a guard, and puts the output there.
    ///
    /// # Safety
    ///
    /// `stage` is valid, holds the future, and is the caller's alone.
    unsafe fn replace_future(stage: *mut Stage<F>, output: Result<F::Output, JoinError>) {
        // SAFETY: the caller's promise. A destructor that panics has dropped what it could; the place is overwritten
        // without being dropped again.
        unsafe {
            guard::run(|| stage.drop_in_place());
            stage.write(Stage::Output(output));
        }
    }

    /// Moves the output to `to`, an `Option<Result<F::Output, JoinError>>`; leaves it as it is if there is none left.
    ///
    /// # Safety
    ///
    /// The caller owns the output: it is the join handle, after COMPLETE. `to` is valid and of that type.
    unsafe fn take_output(task: RawTask, to: *mut ()) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::stage(task, |stage| {
                if let Stage::Output(output) = stage.replace(Stage::Gone) {
                    *to.cast::<Option<Result<F::Output, JoinError>>>() = Some(output);
                }
            });
        }
    }

    /// # Safety
    ///
    /// The caller owns the output: it is the join handle, after COMPLETE, or home if there is none.
    unsafe fn drop_output(task: RawTask) {
        // SAFETY: the caller's promise. The stage says `Gone` before the user's destructor runs.
        drop(unsafe { Self::stage(task, |stage| stage.replace(Stage::Gone)) });
    }

    /// # Safety
    ///
    /// The last reference is gone; the stage is `Gone`, or was never shared.
    unsafe fn free(task: RawTask) {
        let (task, layout) = (task.0.cast::<Self>(), Layout::new::<Self>());
        // SAFETY: allocated with this layout, and nobody else can reach it. What is left in it to be dropped is no user's.
        unsafe {
            let inbox = Arc::as_ptr(&task.as_ref().header.inbox);
            let kept = current::with(inbox, |home| {
                // Not the last handle to the inbox: the executor has one.
                task.drop_in_place();
                home.cells.keep(task.cast(), layout);
            });
            if kept.is_none() {
                task.drop_in_place();
                dealloc(task.as_ptr().cast(), layout);
            }
        }
    }
}

/// Makes a task at home, ready to be queued, with home's reference and one for a join handle.
pub(super) fn new_at_home<F: Future>(future: F, inbox: Arc<Inbox>, cells: &Cells) -> RawTask {
    Task::allocate(future, inbox, State::new_at_home(), Run::Queued, Some(cells))
}

/// Makes a task abroad and sends it home. Returns it with a reference for a join handle, or the future if home refuses.
///
/// # Safety
///
/// Moving the future home is sound: it is `Send`, or what it holds before its first poll is.
pub(super) unsafe fn post<F: Future>(future: F, inbox: &Arc<Inbox>) -> Result<RawTask, F> {
    if inbox.stops().requested() {
        return Err(future);
    }
    let task = Task::allocate(future, inbox.clone(), State::new_abroad(), Run::Away, None);
    // SAFETY: the node is the header's first field, in an allocation aligned to 16; the inbox's reference keeps the task
    // until it is delivered. The caller's `inbox` outlives the call.
    match unsafe { inbox.push(task.0.cast(), Admission::Work) } {
        Ok(()) => Ok(task),
        // SAFETY: refused, so nobody else has seen the task: it is still ours, as it was allocated.
        Err(_) => unsafe {
            let Stage::Future(future) = Task::<F>::stage(task, |stage| stage.replace(Stage::Gone)) else {
                unreachable!("evbase: a task that nobody polled lost its future")
            };
            Task::<F>::free(task);
            Err(future)
        },
    }
}

/// # Safety
///
/// `node` is a task's, taken from the gate by home, whose executor is `home`.
unsafe fn deliver(node: NonNull<Node>, home: &Executor) {
    // SAFETY: the caller's promise: the inbox's reference comes with the node.
    unsafe { home.deliver(RawTask(node.cast())) }
}

impl RawTask {
    /// # Safety
    ///
    /// The caller holds a reference for as long as it uses the result, or keeps the holder of one from going.
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
    /// Home only; and as for `header`.
    pub(super) unsafe fn run_cell<'a>(self) -> &'a Cell<Run> {
        // SAFETY: the caller's promise.
        unsafe { &self.header().run }
    }

    /// # Safety
    ///
    /// Home only; and as for `header`.
    pub(super) unsafe fn slot_cell<'a>(self) -> &'a Cell<u32> {
        // SAFETY: the caller's promise.
        unsafe { &self.header().slot }
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

    /// Publishes the output, wakes whoever joins, and gives home's reference back.
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
                    guard::wake(waker);
                }
            }
            if !completed.joined {
                guard::run(|| (self.vtable().drop_output)(self));
            }
            self.release();
        }
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
            // In a model, whoever still reads home's words is found out.
            #[cfg(evbase_loom)]
            self.header().run.set(Run::Done);
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

    /// Pushes the task, with the inbox's reference. If home has sealed the gate, the task is complete, and the
    /// reference goes.
    ///
    /// # Safety
    ///
    /// The caller has just got the inbox's reference from the state, and holds another reference.
    unsafe fn push(self) {
        // SAFETY: the node is the header's first field, in an allocation aligned to 16; POSTED makes this the only push
        // of it, and the inbox's reference keeps it. The caller's own one keeps the inbox until after the ring.
        unsafe {
            if self.header().inbox.push(self.0.cast(), Admission::Leaving).is_err() {
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
    // SAFETY: called by `Waker`, which gives its reference away; kept until the ring is over, it keeps the inbox.
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

#[cfg(test)]
pub(super) const fn header_size() -> usize {
    size_of::<Header>()
}
