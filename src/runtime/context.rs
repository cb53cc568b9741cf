//! What a thread knows of the runtimes that are at home on it.
//!
//! Two lists: the runtimes *bound* here, whose guard closes them when the thread exits; and the stack of *contexts*
//! (running loops and `EnterGuard`s), of which the innermost serves the free functions. The stack has no destructor, so
//! that it is there for the destructors of other thread-locals, and while the guard closes what is left.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::binding::ThreadNumber;
use super::home::Home;
use crate::executor::current;

thread_local! {
    static BOUND: Bound = const { Bound { homes: RefCell::new(Vec::new()) } };
    static NUMBER: Cell<ThreadNumber> = const { Cell::new(0) };
    static LOOPS: Cell<usize> = const { Cell::new(0) };
    static INNERMOST: Cell<Option<ManuallyDrop<Rc<Frame>>>> = const { Cell::new(None) };
}

/// The number of this thread.
pub(super) fn thread_number() -> ThreadNumber {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Relaxed) + 1);
        }
        number.get()
    })
}

/// The runtimes bound to this thread. Its destructor is the thread-exit guard.
struct Bound {
    homes: RefCell<Vec<Rc<Home>>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        loop {
            // Closing runs user code: not under the borrow.
            let Some(home) = self.homes.borrow_mut().pop() else {
                break;
            };
            Home::thread_exits(home);
        }
    }
}

/// Whether this thread can become a home: not while its thread-locals are being destroyed.
pub(super) fn can_bind() -> bool {
    BOUND.try_with(|_| ()).is_ok()
}

/// Puts a new home on this thread's list. False: the thread is exiting, and nobody would close it.
pub(super) fn bind(home: &Rc<Home>) -> bool {
    BOUND
        .try_with(|bound| bound.homes.borrow_mut().push(home.clone()))
        .is_ok()
}

/// Takes a home that has closed off the list.
pub(super) fn unbind(home: &Rc<Home>) {
    let _ = BOUND.try_with(|bound| {
        let mut homes = bound.homes.borrow_mut();
        let at = homes.iter().position(|other| Rc::ptr_eq(other, home));
        let left = at.map(|at| homes.swap_remove(at));
        drop(homes);
        drop(left);
    });
}

/// The home of the runtime with this id, if it is on this thread and not gone.
pub(crate) fn home(id: u64) -> Option<Rc<Home>> {
    // In the guard's destructor the list can't be reached any more; the home that it closes is a context then.
    let mut frame = innermost();
    while let Some(this) = frame {
        if this.home.id() == id {
            return Some(this.home.clone());
        }
        frame = this.below.clone();
    }
    BOUND
        .try_with(|bound| {
            let homes = bound.homes.borrow();
            homes.iter().find(|home| home.id() == id).cloned()
        })
        .ok()
        .flatten()
}

/// Closes those runtimes bound here that were asked to stop while their home was outside the loop.
pub(super) fn sweep() {
    sweep_but(0);
}

/// As `sweep`, but for the runtime with this id, which its caller is about to drive.
pub(super) fn sweep_but(id: u64) {
    let due = |bound: &Bound| {
        let homes = bound.homes.borrow();
        homes.iter().find(|home| home.id() != id && home.is_due()).cloned()
    };
    while let Ok(Some(home)) = BOUND.try_with(due) {
        home.close_here();
    }
}

/// Whether a loop of evbase runs on this thread, further out in the stack.
pub(super) fn inside_loop() -> bool {
    LOOPS.get() > 0
}

/// Counts a running loop while it lives.
pub(super) struct InLoop(());

impl InLoop {
    pub(super) fn begin() -> Self {
        LOOPS.set(LOOPS.get() + 1);
        Self(())
    }
}

impl Drop for InLoop {
    fn drop(&mut self) {
        LOOPS.set(LOOPS.get() - 1);
    }
}

/// One context in the stack.
struct Frame {
    home: Rc<Home>,
    below: Option<Rc<Frame>>,
    /// Contexts that don't end in the order of their making (guards can be dropped at will) are passed over.
    live: Cell<bool>,
}

/// A context, until it is dropped.
pub(super) struct Context(Rc<Frame>);

impl Context {
    pub(super) fn enter(home: &Rc<Home>) -> Self {
        let frame = Rc::new(Frame {
            home: home.clone(),
            below: innermost(),
            live: Cell::new(true),
        });
        set_innermost(Some(frame.clone()));
        Self(frame)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.0.live.set(false);
        let mut top = innermost();
        while let Some(frame) = &top {
            if frame.live.get() {
                break;
            }
            top = frame.below.clone();
        }
        set_innermost(top);
    }
}

fn innermost() -> Option<Rc<Frame>> {
    let top = INNERMOST.take();
    let copy = top.as_deref().cloned();
    INNERMOST.set(top);
    copy
}

fn set_innermost(frame: Option<Rc<Frame>>) {
    // SAFETY: the executor is that of a home on this thread (`Home` is not `Send`), and the frame, kept in `INNERMOST`,
    // keeps the home until this function is called again.
    unsafe { current::set(frame.as_ref().map(|frame| frame.home.executor())) };
    let before = INNERMOST.replace(frame.map(ManuallyDrop::new));
    drop(before.map(ManuallyDrop::into_inner));
}

/// The innermost context's home.
#[inline]
pub(crate) fn current() -> Option<Rc<Home>> {
    let top = INNERMOST.take();
    let home = top.as_ref().map(|frame| frame.home.clone());
    INNERMOST.set(top);
    home
}
