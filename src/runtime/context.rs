//! What a thread knows of the runtimes that are at home on it.
//!
//! The runtimes *bound* here, whose guard closes them when the thread exits; those without a home whose end somebody here
//! waits for; the bell by which both are heard; and the stack of *contexts* (running loops and `EnterGuard`s), of which the
//! innermost serves the free functions. The stack has no destructor, so that it is there for the destructors of other
//! thread-locals, and while the guard closes what is left.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::bell::Bell;
use super::binding::ThreadNumber;
use super::home::Home;
use super::shared::Shared;
use crate::base::fork;
use crate::executor::current;
use crate::sync;

thread_local! {
    static THREAD: Thread = const {
        Thread {
            homes: RefCell::new(Vec::new()),
            awaited: RefCell::new(Vec::new()),
            waits: Cell::new(0),
            bell: RefCell::new(None),
        }
    };
    static LISTENS: Cell<bool> = const { Cell::new(false) };
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

/// Its destructor is the thread-exit guard.
struct Thread {
    /// The runtimes bound here.
    homes: RefCell<Vec<Rc<Home>>>,
    /// Runtimes without a home, the end of which a loop of this thread waits for.
    awaited: RefCell<Vec<Weak<Shared>>>,
    /// How many blocking waits there are on the stack.
    waits: Cell<usize>,
    /// There as long as any of these is.
    bell: RefCell<Option<sync::Arc<Bell>>>,
}

impl Thread {
    fn bell(&self) -> sync::Arc<Bell> {
        let mut bell = self.bell.borrow_mut();
        match &*bell {
            Some(bell) if !bell.is_forked() => bell.clone(),
            _ => bell.insert(sync::Arc::new(Bell::new())).clone(),
        }
    }

    /// After a change: whether a loop of this thread has to listen to its bell, and whether there is a bell.
    fn changed(&self) {
        let heard = self.homes.borrow().len() + self.awaited.borrow().len() + self.waits.get();
        let _ = LISTENS.try_with(|listens| listens.set(heard > 1));
        let bell = if heard == 0 { self.bell.take() } else { None };
        drop(bell);
    }
}

impl Drop for Thread {
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
            home.thread_exits();
        }
    }
}

/// Whether this thread can become a home: not while its thread-locals are being destroyed.
pub(super) fn can_bind() -> bool {
    THREAD.try_with(|_| ()).is_ok()
}

/// Puts a new home on this thread's list. On a thread that is exiting there is no list: nobody would close it.
pub(super) fn bind(home: &Rc<Home>) {
    let _ = THREAD.try_with(|thread| {
        thread.homes.borrow_mut().push(home.clone());
        thread.changed();
        home.shared().ring_on_stop(&thread.bell());
    });
}

/// Takes a home that has closed off the list.
pub(super) fn unbind(home: &Rc<Home>) {
    let _ = THREAD.try_with(|thread| {
        let mut homes = thread.homes.borrow_mut();
        let at = homes.iter().position(|other| Rc::ptr_eq(other, home));
        let left = at.map(|at| homes.swap_remove(at));
        drop(homes);
        thread.changed();
        drop(left);
    });
}

/// Home's half of a runtime, if this thread is its home and it is not closed.
pub(crate) fn home_of(shared: &Arc<Shared>) -> Option<Rc<Home>> {
    let is_its = |home: &&Rc<Home>| Arc::ptr_eq(home.shared(), shared);
    // In the guard's destructor the list can't be reached any more; the home that it closes is a context then.
    if let Some(home) = find(is_its) {
        return Some(home);
    }
    let homes = THREAD.try_with(|thread| thread.homes.borrow().iter().find(is_its).cloned());
    homes.ok().flatten()
}

impl Shared {
    /// Does something to home's half: at once if this is home, else by a message. Where there is nothing to do it to any
    /// more (home has closed, or is in the parent process), the action is dropped here.
    pub(crate) fn at_home(self: &Arc<Self>, action: impl FnOnce(&Rc<Home>) + Send + 'static) {
        if self.is_forked() {
            return;
        }
        if let Some(home) = home_of(self) {
            return action(&home);
        }
        self.send_home(action);
    }

    /// As `at_home`, by a message in any case: it arrives after those that were sent before.
    pub(crate) fn send_home(self: &Arc<Self>, action: impl FnOnce(&Rc<Home>) + Send + 'static) {
        if self.is_forked() {
            return;
        }
        let shared = self.clone();
        let refused = self.inbox().send(move || {
            if let Some(home) = home_of(&shared) {
                action(&home);
            }
        });
        drop(refused);
    }
}

/// The bell of this thread, if a loop that runs here has to listen to it: for another runtime, or for a wait that it is run
/// in.
#[inline]
pub(super) fn bell() -> Option<sync::Arc<Bell>> {
    if !LISTENS.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    THREAD.try_with(Thread::bell).ok()
}

/// Listens for the end of a runtime that has no home, since a loop of this thread waits for it. Returns the stops that came
/// before.
pub(super) fn listen_for(shared: &Arc<Shared>) {
    let _ = THREAD.try_with(|thread| {
        let mut awaited = thread.awaited.borrow_mut();
        // Those that have gone or found a home since are of no interest here.
        awaited.retain(|other| other.upgrade().is_some_and(|other| !other.binding.is_bound()));
        if !awaited
            .iter()
            .any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(shared)))
        {
            awaited.push(Arc::downgrade(shared));
        }
        drop(awaited);
        thread.changed();
        shared.ring_on_stop(&thread.bell());
    });
}

/// A blocking wait on this thread, while it lives; loops that are run meanwhile listen to the bell.
pub(super) struct Waiting {
    /// `None` if the thread is nobody's home, or is exiting.
    pub(super) bell: Option<sync::Arc<Bell>>,
}

impl Waiting {
    pub(super) fn begin() -> Self {
        let bell = THREAD.try_with(|thread| {
            if thread.homes.borrow().is_empty() {
                return None;
            }
            thread.waits.set(thread.waits.get() + 1);
            thread.changed();
            Some(thread.bell())
        });
        Self {
            bell: bell.ok().flatten(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.bell.is_some() {
            let _ = THREAD.try_with(|thread| {
                thread.waits.set(thread.waits.get() - 1);
                thread.changed();
            });
        }
    }
}

/// A runtime that was asked to stop while this thread, its home, was outside of its loop; but for that of `except`.
pub(super) fn due(except: Option<&Arc<Shared>>) -> Option<Rc<Home>> {
    let is_due = |home: &&Rc<Home>| !except.is_some_and(|shared| Arc::ptr_eq(home.shared(), shared)) && home.is_due();
    let home = THREAD.try_with(|thread| thread.homes.borrow().iter().find(is_due).cloned());
    if let Ok(Some(home)) = home {
        return Some(home);
    }
    let awaited = THREAD.try_with(|thread| {
        let mut awaited = thread.awaited.borrow_mut();
        let stopped = |shared: &Weak<Shared>| shared.upgrade().filter(|shared| shared.stops().requested());
        let (at, shared) = (awaited.iter().enumerate()).find_map(|(at, shared)| Some((at, stopped(shared)?)))?;
        awaited.swap_remove(at);
        drop(awaited);
        thread.changed();
        Some(shared)
    });
    match awaited {
        // It has no home, or found one since, which hears its stops itself.
        Ok(Some(shared)) => Home::bind(&shared)
            .ok()
            .filter(|home| home.is_due())
            .or_else(|| due(except)),
        _ => None,
    }
}

/// Closes the runtimes that are `due`.
pub(super) fn sweep(except: Option<&Arc<Shared>>) {
    while let Some(home) = due(except) {
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

/// As `current`, or a panic that names the caller's line.
#[track_caller]
pub(super) fn expect_current() -> Rc<Home> {
    match current() {
        Some(home) => home,
        None => panic!(
            "evbase: no runtime here: this has to be called inside block_on, run or turn, in a task, or while an \
             EnterGuard is alive; from elsewhere, use a handle of the runtime"
        ),
    }
}
