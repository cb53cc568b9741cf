//! What a thread knows of the runtimes that are at home on it.
//!
//! Two lists: the runtimes *bound* here, whose guard closes them when the thread exits; and the stack of *contexts*
//! (running loops and `EnterGuard`s), of which the innermost serves the free functions. The stack has no destructor, so
//! that it is there for the destructors of other thread-locals, and while the guard closes what is left.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::binding::ThreadNumber;
use super::home::Home;
use super::shared::Shared;
use crate::base::fork;
use crate::executor::current;

thread_local! {
    static BOUND: Bound = const { Bound { homes: RefCell::new(Vec::new()) } };
    static NUMBER: Cell<ThreadNumber> = const { Cell::new(0) };
    static LOOPS: Cell<Loops> = const { Cell::new(Loops { running: 0, generation: 0 }) };
    static CONTEXTS: Cell<ManuallyDrop<Contexts>> = const { Cell::new(ManuallyDrop::new(Vec::new())) };
}

/// The stack of contexts, each with a number by which its guard finds it.
type Contexts = Vec<(u64, Rc<Home>)>;

/// The number of this thread.
pub(super) fn thread_number() -> ThreadNumber {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let new = || LAST.fetch_add(1, Relaxed) + 1;
    let number = NUMBER.try_with(|number| {
        if number.get() == 0 {
            number.set(new());
        }
        number.get()
    });
    // Where thread-locals need a key, this one is gone when the thread exits: then this is nobody's home.
    number.unwrap_or_else(|_| new())
}

/// The runtimes bound to this thread. Its destructor is the thread-exit guard.
struct Bound {
    homes: RefCell<Vec<Rc<Home>>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if inside_loop() {
            // `process::exit` in a task: nothing is dropped under a poll, and the process takes it all along.
            return std::mem::forget(self.homes.take());
        }
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
    if let Some(home) = find(|home| home.id() == id) {
        return Some(home);
    }
    BOUND
        .try_with(|bound| {
            let homes = bound.homes.borrow();
            homes.iter().find(|home| home.id() == id).cloned()
        })
        .ok()
        .flatten()
}

/// Home's half of a runtime, if this thread is its home and it is not closed.
pub(crate) fn home_of(shared: &Arc<Shared>) -> Option<Rc<Home>> {
    // In the guard's destructor the list can't be reached any more; the home that it closes is a context then.
    if let Some(home) = find(|home| Arc::ptr_eq(home.shared(), shared)) {
        return Some(home);
    }
    let homes = BOUND.try_with(|bound| {
        let homes = bound.homes.borrow();
        homes.iter().find(|home| Arc::ptr_eq(home.shared(), shared)).cloned()
    });
    homes.ok().flatten()
}

/// All homes on this thread that are not gone, but for those of the parent in the child of a fork.
pub(super) fn homes() -> Vec<Rc<Home>> {
    let homes = BOUND.try_with(|bound| {
        let homes = bound.homes.borrow();
        homes
            .iter()
            .filter(|home| !home.shared().is_forked())
            .cloned()
            .collect()
    });
    homes.unwrap_or_default()
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
        home.close_in_passing();
    }
}

/// The loops that run on this thread.
#[derive(Clone, Copy)]
struct Loops {
    running: usize,
    /// Those of the parent don't run in the child of a fork, though they are on its stack.
    generation: usize,
}

impl Loops {
    fn now(self) -> usize {
        if self.generation == fork::generation() {
            self.running
        } else {
            0
        }
    }
}

/// Whether a loop of evbase runs on this thread, further out in the stack.
pub(super) fn inside_loop() -> bool {
    LOOPS.try_with(Cell::get).is_ok_and(|loops| loops.now() > 0)
}

/// Counts a running loop while it lives.
pub(super) struct InLoop {
    outside: Loops,
}

impl InLoop {
    pub(super) fn begin() -> Self {
        let outside = LOOPS.try_with(Cell::get).unwrap_or(Loops {
            running: 0,
            generation: 0,
        });
        let inside = Loops {
            running: outside.now() + 1,
            generation: fork::generation(),
        };
        let _ = LOOPS.try_with(|loops| loops.set(inside));
        Self { outside }
    }
}

impl Drop for InLoop {
    fn drop(&mut self) {
        let _ = LOOPS.try_with(|loops| loops.set(self.outside));
    }
}

/// A context, until it is dropped. Guards can be dropped in any order.
pub(super) struct Context {
    number: u64,
    not_send: PhantomData<*const ()>,
}

impl Context {
    pub(super) fn enter(home: &Rc<Home>) -> Self {
        let number = with_contexts(|contexts| {
            let number = contexts.last().map_or(0, |(number, _)| number + 1);
            contexts.push((number, home.clone()));
            number
        });
        Self {
            number: number.unwrap_or(0),
            not_send: PhantomData,
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let left = with_contexts(|contexts| {
            let at = contexts.iter().rposition(|(number, _)| *number == self.number)?;
            Some(contexts.remove(at))
        });
        drop(left);
    }
}

/// Changes the stack, and says who is innermost.
fn with_contexts<R>(change: impl FnOnce(&mut Contexts) -> R) -> Option<R> {
    let stack = CONTEXTS.try_with(|stack| {
        let mut contexts = ManuallyDrop::into_inner(stack.take());
        let result = change(&mut contexts);
        // SAFETY: the executor is that of a home on this thread (`Home` is not `Send`), and the stack keeps the home until
        // this function is called again; what that takes out is dropped after the call.
        unsafe { current::set(contexts.last().map(|(_, home)| home.executor())) };
        if contexts.is_empty() {
            // There is no destructor that would free the memory.
            contexts = Vec::new();
        }
        stack.set(ManuallyDrop::new(contexts));
        result
    });
    stack.ok()
}

/// The innermost context's home for which the condition holds.
fn find(condition: impl FnMut(&&Rc<Home>) -> bool) -> Option<Rc<Home>> {
    let found = CONTEXTS.try_with(|stack| {
        let contexts = stack.take();
        let home = contexts.iter().rev().map(|(_, home)| home).find(condition).cloned();
        stack.set(contexts);
        home
    });
    found.ok().flatten()
}

/// The innermost context's home.
#[inline]
pub(crate) fn current() -> Option<Rc<Home>> {
    find(|_| true)
}
