//! A task as its home sees it.
//!
//! ```text
//!   Away --arrive--> Idle --wake--> Queued --poll--> Running --> Idle | Queued, if it was woken | Done | Failed
//!                    Idle, Queued --cancel--> Failed
//! ```

use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr::NonNull;
use std::task::Context;

use super::catch_panic;
use super::priority::Priority;
use super::state::Completed;
use super::task::{Header, Local, Run};
use super::task_ref::{self, TaskRef};
use super::watch::End;

/// A reference to a task that doesn't leave the task's home.
pub(super) struct LocalTask {
    task: TaskRef,
    /// Not `Send`, nor `Sync`.
    at_home: PhantomData<*const ()>,
}

/// A task whose reference somebody else has, who keeps it for as long as this is used.
pub(super) struct Lent(ManuallyDrop<LocalTask>);

/// What a task is doing, in a [`Dump`](crate::Dump).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// It is to be polled.
    Ready,
    /// It waits to be woken.
    Waiting,
    /// It is being polled, or its future is being dropped.
    Running,
}

/// What a poll has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    Pending,
    /// Pending, and woken meanwhile: `Queued`, for the caller to put into the ready queue.
    Woken,
    Ended(End),
}

impl LocalTask {
    /// # Safety
    ///
    /// This thread is the task's home.
    pub(super) unsafe fn new(task: TaskRef) -> Self {
        Self {
            task,
            at_home: PhantomData,
        }
    }

    /// A task that somebody else holds a reference to.
    ///
    /// # Safety
    ///
    /// This thread is the task's home; the reference stays for as long as the result is used.
    pub(super) unsafe fn borrowed(task: NonNull<Header>) -> Lent {
        // SAFETY: the caller's promise; what is not dropped gives no reference back.
        unsafe { Self::new(TaskRef::from_raw(task)) }.lend()
    }

    /// Gives the reference away, as the task's address, and lends it meanwhile.
    pub(super) fn lend(self) -> Lent {
        Lent(ManuallyDrop::new(self))
    }

    fn local(&self) -> &Local {
        // SAFETY: this is home: `self` is not `Send`. COMPLETE is set by `complete`, which gives the `LocalTask` away; what
        // others do with a task that is `Done` or `Failed`, and home that has found one by its waker, changes nothing: all read.
        unsafe { self.task.local() }
    }

    /// For a task in the table, which has arrived and not ended.
    pub(super) fn what_it_does(&self) -> TaskState {
        let local = self.local();
        if local.is(Run::Queued) {
            TaskState::Ready
        } else if local.is(Run::Running) || local.is(Run::RunningWoken) {
            TaskState::Running
        } else {
            TaskState::Waiting
        }
    }

    /// Whether it was made abroad, and has not arrived.
    pub(super) fn is_away(&self) -> bool {
        self.local().is(Run::Away)
    }

    pub(super) fn priority(&self) -> Priority {
        self.local().priority()
    }

    pub(super) fn slot(&self) -> u32 {
        self.local().slot()
    }

    /// A new task has got its slot in the table; the caller puts it into the ready queue, or cancels it.
    pub(super) fn queue_first(&self, slot: u32) {
        debug_assert!(self.local().is(Run::Idle));
        self.local().set_queued(slot);
    }

    /// For the table of tasks, which has no ended ones.
    pub(super) fn set_slot(&self, slot: u32) {
        self.local().set_slot(slot);
    }

    /// A new task has come from the inbox, whose reference becomes home's.
    pub(super) fn arrive(&self) {
        debug_assert!(self.is_away());
        self.state().unpost();
        self.local().set_run(Run::Idle);
    }

    /// The task has come from the inbox again, whose reference goes.
    pub(super) fn give_back(self) {
        if self.state().unpost_and_release() {
            // SAFETY: that was the last one.
            unsafe { task_ref::free(self.as_raw()) };
        }
        mem::forget(self);
    }

    /// True: the task is `Queued` now, for the caller to put into the ready queue. Otherwise it is there, is being polled and will
    /// be queued afterwards, is on its way home and will be queued then, or has ended.
    #[inline]
    pub(super) fn wake(&self) -> bool {
        let local = self.local();
        let idle = local.is(Run::Idle);
        if idle {
            local.set_run(Run::Queued);
        } else if local.is(Run::Running) {
            local.set_run(Run::RunningWoken);
        }
        idle
    }

    /// Polls the future of a queued task.
    #[inline]
    pub(super) fn poll(&self) -> Polled {
        // SAFETY: home has a reference. The task was `Queued`: its future lives, and is not under poll.
        self.poll_with(|cx| unsafe { (self.vtable().poll)(self.as_raw(), cx) })
    }

    /// Calls `poll` in place of the future's, with the task's waker, and says whether that was woken meanwhile.
    #[inline]
    pub(super) fn poll_with(&self, poll: impl FnOnce(&mut Context<'_>) -> Option<End>) -> Polled {
        let local = self.local();
        assert!(local.is(Run::Queued), "evbase: only what is queued is polled");
        local.set_run(Run::Running);
        let waker = task_ref::borrowed_waker(self);
        match poll(&mut Context::from_waker(&waker)) {
            None if local.is(Run::RunningWoken) => {
                local.set_run(Run::Queued);
                Polled::Woken
            }
            None => {
                local.set_run(Run::Idle);
                Polled::Pending
            }
            Some(end) => {
                local.set_run(if end == End::Completed { Run::Done } else { Run::Failed });
                Polled::Ended(end)
            }
        }
    }

    /// Drops the future, and leaves a failure as the output.
    pub(super) fn cancel(&self) {
        let local = self.local();
        assert!(
            local.is(Run::Idle) || local.is(Run::Queued),
            "evbase: only what waits is cancelled"
        );
        // The destructor may wake the task.
        local.set_run(Run::Running);
        // SAFETY: home has a reference. The task waited: its future lives, and is not under poll.
        unsafe { (self.vtable().cancel)(self.as_raw()) };
        local.set_run(Run::Failed);
    }

    /// Publishes the output of a task that has ended, wakes who awaits the join handle, and gives home's reference back.
    #[inline(always)]
    pub(super) fn complete(self) {
        debug_assert!(self.local().is(Run::Done) || self.local().is(Run::Failed));
        let Some(completed) = self.state().complete() else {
            // The reference has been given back in the same step.
            return mem::forget(self);
        };
        self.after_completion(&completed);
    }

    fn after_completion(self, completed: &Completed) {
        if completed.join_waker {
            // SAFETY: COMPLETE makes the cell home's: the handle doesn't touch it any more.
            if let Some(waker) = self.join_cell().with_mut(|cell| unsafe { (*cell).take() }) {
                catch_panic::wake(waker);
            }
        }
        if !completed.joined {
            // SAFETY: without a join handle, the output is home's; this is the one time that it is taken.
            catch_panic::run(|| unsafe { (self.vtable().drop_output)(self.as_raw()) });
        }
    }
}

impl Lent {
    /// # Safety
    ///
    /// The caller has the reference that was lent, and gives it away.
    pub(super) unsafe fn into_owned(self) -> LocalTask {
        ManuallyDrop::into_inner(self.0)
    }
}

impl Deref for Lent {
    type Target = LocalTask;

    fn deref(&self) -> &LocalTask {
        &self.0
    }
}

impl Deref for LocalTask {
    type Target = TaskRef;

    fn deref(&self) -> &TaskRef {
        &self.task
    }
}
