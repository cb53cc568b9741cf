//! Counted references to a task, on any thread; wakers are such references.

use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::gate::{Admission, Message};
use super::id::TaskId;
use super::local_task::LocalTask;
use super::task::Header;
use super::{Executor, current};
use crate::sync::Arc;

/// A counted reference to a task.
pub(super) struct TaskRef(NonNull<Header>);

// SAFETY: the state, the inbox and the join cell are made for all threads; `local` is asked for by home and the join handle
// only. Dropping the last reference frees plain memory.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Send`.
unsafe impl Sync for TaskRef {}

// A panic can't leave a task's state half changed: each change is one atomic step.
impl UnwindSafe for TaskRef {}
impl RefUnwindSafe for TaskRef {}

impl TaskRef {
    /// # Safety
    ///
    /// The caller gives a reference away, or forgets the result before the reference that it counts on goes.
    pub(super) unsafe fn from_raw(task: NonNull<Header>) -> Self {
        Self(task)
    }

    pub(super) fn as_raw(&self) -> NonNull<Header> {
        self.0
    }

    pub(super) fn id(&self) -> TaskId {
        TaskId::of(self.0.addr())
    }

    /// Calls `f` if this thread is in the loop of the task's executor.
    fn at_home<R>(&self, f: impl FnOnce(&Executor, &LocalTask) -> R) -> Option<R> {
        current::with(Arc::as_ptr(self.inbox()), |home| {
            // SAFETY: this is the task's home: its executor has the task's inbox. `self` holds a reference meanwhile.
            let task = unsafe { LocalTask::borrowed(self.0) };
            f(home, &task)
        })
    }

    /// Schedules the task.
    pub(super) fn wake(&self) {
        if self.at_home(|home, task| home.wake(task)).is_none() && self.state().wake_by_ref() {
            self.push();
        }
    }

    /// Makes home drop the future.
    pub(super) fn abort(&self) {
        let at_home = self.at_home(|home, task| {
            task.state().abort_at_home();
            home.wake(task);
        });
        if at_home.is_none() && self.state().abort_abroad() {
            self.push();
        }
    }

    /// Pushes the task, with the reference that the inbox has just got from the state. If home has sealed the gate, it has
    /// dropped the future, or is about to, and needs no message; the reference goes.
    fn push(&self) {
        // SAFETY: the node is the header's first field, in an allocation aligned to 16; POSTED makes this the only push of it,
        // and the inbox's reference keeps it. `self` keeps the inbox until home has been woken.
        let message = unsafe { Message::new(self.0.cast()) };
        if self.inbox().push(message, Admission::Leaving).is_err() {
            // SAFETY: the inbox's reference is ours again.
            drop(unsafe { TaskRef::from_raw(self.0) });
        }
    }
}

impl Deref for TaskRef {
    type Target = Header;

    fn deref(&self) -> &Header {
        // SAFETY: a reference keeps the task.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        self.state().acquire();
        Self(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if self.state().release() {
            // SAFETY: that was the last reference.
            unsafe { free(self.0) };
        }
    }
}

/// # Safety
///
/// The last reference is gone.
pub(super) unsafe fn free(task: NonNull<Header>) {
    // SAFETY: the caller's promise; by rule 4 the stage is empty.
    unsafe { (task.as_ref().vtable().free)(task) }
}

/// A waker of the task that counts no reference: for the length of a poll, during which home's reference stays. Its clones count
/// one.
pub(super) fn borrowed_waker(task: &LocalTask) -> ManuallyDrop<Waker> {
    // SAFETY: the table's functions take a task's header, and may be called on any thread. What is not dropped needs no
    // reference; the caller has one that stays meanwhile.
    ManuallyDrop::new(unsafe { Waker::new(task.as_raw().as_ptr().cast(), &WAKER) })
}

/// Whether the waker is one of a task of this crate: waking it runs no user code.
pub(crate) fn is_task_waker(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &raw const WAKER)
}

/// Asks for the memory where a waker's task and its future begin, if it is one of a task of this crate; else for some other.
#[inline]
pub(crate) fn prefetch_task(waker: &Waker) {
    #[cfg(target_arch = "x86_64")]
    for line in [0, 64] {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = waker.data().cast::<i8>().wrapping_add(line);
        // SAFETY: a hint, which reads nothing that a program could see, and ignores an address without memory. Every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = waker;
}

/// Calls `f` with the task that a waker wakes, if it is one of a task of this crate.
pub(super) fn with_task_of<R>(waker: &Waker, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
    // SAFETY: the waker has our table, so it holds a reference to a task, or lends one of home's. It is borrowed meanwhile.
    is_task_waker(waker).then(|| f(&*unsafe { lent(waker.data()) }))
}

static WAKER: RawWakerVTable = RawWakerVTable::new(clone_waker, wake, wake_by_ref, drop_waker);

/// The waker's reference, which stays the waker's.
///
/// # Safety
///
/// `data` is the header of a task that a waker holds a reference to, or lends one of home's.
unsafe fn lent(data: *const ()) -> ManuallyDrop<TaskRef> {
    // SAFETY: the caller's promise: not null.
    ManuallyDrop::new(unsafe { TaskRef::from_raw(NonNull::new_unchecked(data.cast_mut().cast())) })
}

unsafe fn clone_waker(data: *const ()) -> RawWaker {
    // SAFETY: called by a `Waker`, on any thread: its pointer is a counted reference, which it keeps meanwhile.
    let task = unsafe { lent(data) };
    mem::forget(TaskRef::clone(&task));
    RawWaker::new(data, &WAKER)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: called by a `Waker`, which gives its reference away. It is released last: it keeps the inbox.
    ManuallyDrop::into_inner(unsafe { lent(data) }).wake();
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as in `clone_waker`.
    unsafe { lent(data) }.wake();
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: called by a `Waker`, which gives its reference back.
    drop(ManuallyDrop::into_inner(unsafe { lent(data) }));
}
