//! The thread-locals: what a thread knows of runtimes.
//!
//! - The homes on this thread. The destructor of their list is the thread-exit guard, which closes them.
//! - The runtimes without a home for whose end a loop on this thread waits.
//! - The thread's bell, by which stops of both are heard.
//! - The stack of *contexts* (running loops and `EnterGuard`s), of which the innermost serves the free functions. It has no
//!   destructor, so that destructors of other thread-locals can use it, and the thread-exit guard, too.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
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
    static LOOPS: Cell<Loops> = const { Cell::new(NO_LOOP) };
    static CONTEXTS: RefCell<ManuallyDrop<Contexts>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
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
    // On some platforms this thread-local is gone while the thread exits: a new number is that of no home.
    number.unwrap_or_else(|_| new())
}

/// Its destructor is the thread-exit guard.
struct Thread {
    /// The runtimes that are at home here and not closed.
    homes: RefCell<Vec<Rc<Home>>>,
    /// The runtimes without a home for whose end a loop of this thread waits.
    awaited: RefCell<Vec<Weak<Shared>>>,
    /// How many blocking waits there are on the stack.
    waits: Cell<usize>,
    /// Made when it is needed; dropped when there is none of the above.
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

    /// After a change of the other fields: sets LISTENS, and drops a bell that is no longer needed.
    fn changed(&self) {
        let heard = self.homes.borrow().len() + self.awaited.borrow().len() + self.waits.get();
        let _ = LISTENS.try_with(|listens| listens.set(heard > 1));
        if heard == 0 {
            self.drop_bell();
        }
    }

    fn drop_bell(&self) {
        let bell = self.bell.take();
        if let Some(bell) = &bell {
            bell.go();
        }
        drop(bell);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if inside_loop() {
            // `process::exit` in a task: a future under poll must not be dropped. All is leaked, and the process ends.
            return std::mem::forget(self.homes.take());
        }
        loop {
            // Closing runs user code, so the borrow ends first.
            let Some(home) = self.homes.borrow_mut().pop() else {
                break;
            };
            home.thread_exits();
        }
        self.drop_bell();
    }
}

/// Whether this thread can become a home: not while its thread-locals are being destroyed.
pub(super) fn can_bind() -> bool {
    THREAD.try_with(|_| ()).is_ok()
}

/// Adds a new home to this thread's list. (On a thread that is exiting there is no list; see `can_bind`.)
pub(super) fn bind(home: &Rc<Home>) {
    let _ = THREAD.try_with(|thread| {
        thread.homes.borrow_mut().push(home.clone());
        thread.changed();
        home.shared().ring_home_on_stop(&thread.bell());
    });
}

/// Removes a home that has closed from the list.
pub(super) fn unbind(home: &Rc<Home>) {
    let _ = THREAD.try_with(|thread| {
        let mut homes = thread.homes.borrow_mut();
        let at = homes.iter().position(|other| Rc::ptr_eq(other, home));
        let left = at.map(|at| homes.swap_remove(at));
        drop(homes);
        thread.changed();
        drop(left);
    });
    // The stack's memory isn't kept any longer, if it is empty.
    with_contexts(|_| ());
}

/// Whether a runtime is at home on this thread.
fn is_home() -> bool {
    THREAD
        .try_with(|thread| !thread.homes.borrow().is_empty())
        .unwrap_or(false)
}

/// Home's half of a runtime, if this thread is its home and it is not closed.
pub(crate) fn home_of(shared: &Arc<Shared>) -> Option<Rc<Home>> {
    let is_its = |home: &&Rc<Home>| Arc::ptr_eq(home.shared(), shared);
    // While the thread-exit guard runs, the list can't be reached any more, but the home that it closes is a context.
    if let Some(home) = find(is_its) {
        return Some(home);
    }
    let homes = THREAD.try_with(|thread| thread.homes.borrow().iter().find(is_its).cloned());
    homes.ok().flatten()
}

impl Shared {
    /// Runs `action` with home's half: at once if this is home, else by a message. If home has closed, or this is the child of
    /// a fork, the action is dropped here.
    pub(crate) fn at_home(self: &Arc<Self>, action: impl FnOnce(&Rc<Home>) + Send + 'static) {
        if self.is_forked() {
            return;
        }
        if let Some(home) = home_of(self) {
            return action(&home);
        }
        self.send_home(action);
    }

    /// As `at_home`, but always by a message, which keeps the order of what this thread sends.
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

/// The bell of this thread, if a loop that runs here has to listen to it, since there is another runtime, or a blocking wait
/// further out in the stack.
#[inline]
pub(super) fn bell() -> Option<sync::Arc<Bell>> {
    if !LISTENS.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    THREAD.try_with(Thread::bell).ok()
}

/// Has stops of a runtime without a home ring this thread's bell: a loop here waits for the end of that runtime.
pub(crate) fn listen_for(shared: &Arc<Shared>) {
    let _ = THREAD.try_with(|thread| {
        let mut awaited = thread.awaited.borrow_mut();
        // Runtimes that have been dropped, or have got a home, need not be listened to any more.
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

/// A blocking wait on this thread, while it lives. Loops that run during the wait listen to the bell.
pub(crate) struct Waiting {
    /// `None` if the thread is nobody's home, and awaits nobody's stop; or is exiting.
    pub(crate) bell: Option<sync::Arc<Bell>>,
}

impl Waiting {
    pub(crate) fn begin() -> Self {
        let bell = THREAD.try_with(|thread| {
            if thread.homes.borrow().is_empty() && thread.awaited.borrow().is_empty() {
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

/// A runtime, among the `wanted`, that was asked to stop and that this thread has to close: it is at home here, outside of its
/// loop.
pub(crate) fn due(wanted: impl Fn(&Home) -> bool) -> Option<Rc<Home>> {
    let is_due = |home: &&Rc<Home>| wanted(home) && home.is_due();
    let home = THREAD.try_with(|thread| thread.homes.borrow().iter().find(is_due).cloned());
    home.ok().flatten()
}

/// As `due`, of those without a home for whose end a loop here waits: this thread becomes its home.
pub(crate) fn adopt() -> Option<Rc<Home>> {
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
        // If it has got another home since, that one closes it.
        Ok(Some(shared)) => Home::bind(&shared).ok().filter(|home| home.is_due()).or_else(adopt),
        _ => None,
    }
}

/// Closes the runtimes that are `due`, but for `except`, and for those that are embedded: their hosts run the grace period, and
/// close them.
pub(crate) fn sweep(except: Option<&Arc<Shared>>) {
    let wanted = |home: &Home| {
        let shared = home.shared();
        !shared.is_embedded() && !except.is_some_and(|except| Arc::ptr_eq(shared, except))
    };
    while let Some(home) = due(wanted).or_else(adopt) {
        home.close_in_passing();
    }
}

/// A loop or a wait on this thread ends, and the bell may have rung since it last looked at what is due. Whoever rang relies on
/// this thread if it slept then, and it may not come back for long: so the hosts of its guests are told now, and the other threads
/// that wait for the end of a runtime without a home.
pub(crate) fn pass_rings_on() {
    homes(Home::has_to_tell_host)
        .iter()
        .for_each(|home| _ = home.tell_host());
    let awaited = THREAD.try_with(|thread| {
        let awaited = thread.awaited.borrow();
        awaited.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
    });
    let stopped = |shared: &&Arc<Shared>| !shared.is_forked() && shared.stops().requested();
    let stopped = awaited.iter().flatten().filter(stopped);
    stopped.for_each(|shared| shared.ring_another());
}

/// Whether there is a blocking wait further out in the stack.
pub(super) fn waits() -> bool {
    THREAD.try_with(|thread| thread.waits.get() > 0).unwrap_or(false)
}

/// Has the next loop or wait of this thread look at what is due before it sleeps.
pub(super) fn ring() {
    let _ = THREAD.try_with(|thread| thread.bell().ring());
}

/// Whether this thread's bell has rung since it was last answered.
pub(super) fn has_rung() -> bool {
    let has_rung = |bell: &sync::Arc<Bell>| bell.has_rung() && !bell.is_forked();
    let has_rung = THREAD.try_with(|thread| thread.bell.borrow().as_ref().is_some_and(has_rung));
    has_rung.unwrap_or(false)
}

/// The homes on this thread for which the condition holds.
pub(super) fn homes(condition: impl Fn(&Home) -> bool) -> Vec<Rc<Home>> {
    let homes = THREAD.try_with(|thread| {
        let homes = thread.homes.borrow();
        homes.iter().filter(|home| condition(home)).cloned().collect()
    });
    homes.unwrap_or_default()
}

/// Names the loops of a home, with all that run further in: its address.
pub(super) type LoopOf = usize;

/// The loops that run on this thread.
#[derive(Clone, Copy)]
struct Loops {
    running: usize,
    /// Whose the outermost one is.
    outermost: LoopOf,
    /// That of the process: in the child of a fork, loops of the parent are on the stack, but don't run.
    generation: usize,
}

const NO_LOOP: Loops = Loops {
    running: 0,
    outermost: 0,
    generation: 0,
};

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
pub(crate) fn inside_loop() -> bool {
    LOOPS.try_with(Cell::get).is_ok_and(|loops| loops.now() > 0)
}

/// Whose loop is the outermost one of evbase on this thread, if one runs.
pub(super) fn this_loop() -> Option<LoopOf> {
    let loops = LOOPS.try_with(Cell::get).ok()?;
    (loops.now() > 0).then_some(loops.outermost)
}

/// Counts a running loop while it lives.
pub(super) struct InLoop {
    outside: Loops,
}

impl InLoop {
    pub(super) fn begin(home: &Rc<Home>) -> Self {
        let outside = LOOPS.try_with(Cell::get).unwrap_or(NO_LOOP);
        let inside = Loops {
            running: outside.now() + 1,
            outermost: match outside.now() {
                0 => Rc::as_ptr(home).addr(),
                _ => outside.outermost,
            },
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
pub(crate) struct Context {
    number: u64,
    not_send: PhantomData<*const ()>,
}

impl Context {
    pub(crate) fn enter(home: &Rc<Home>) -> Self {
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

/// Changes the stack, and then tells the executor which home is innermost.
fn with_contexts<R>(change: impl FnOnce(&mut Contexts) -> R) -> Option<R> {
    let stack = CONTEXTS.try_with(|stack| {
        let mut contexts = stack.borrow_mut();
        let result = change(&mut contexts);
        // SAFETY: the executor is that of a home on this thread (`Home` is not `Send`), and the stack keeps the home until
        // this function is called again; what that takes out is dropped after the call.
        unsafe { current::set(contexts.last().map(|(_, home)| home.executor())) };
        if contexts.is_empty() && !is_home() {
            // The stack has no destructor that would free the memory.
            drop(mem::take(&mut **contexts));
        }
        result
    });
    stack.ok()
}

/// The innermost of the contexts' homes for which the condition holds.
pub(crate) fn find(condition: impl FnMut(&&Rc<Home>) -> bool) -> Option<Rc<Home>> {
    let found = CONTEXTS.try_with(|stack| {
        let contexts = stack.borrow();
        contexts.iter().rev().map(|(_, home)| home).find(condition).cloned()
    });
    found.ok().flatten()
}

/// The innermost context's home.
#[inline]
pub(crate) fn current() -> Option<Rc<Home>> {
    let found = CONTEXTS.try_with(|stack| stack.borrow().last().map(|(_, home)| home.clone()));
    found.ok().flatten()
}

/// As `current`, or a panic that names the caller's line.
#[track_caller]
pub(crate) fn expect_current() -> Rc<Home> {
    match current() {
        Some(home) => home,
        None => panic!(
            "evbase: no runtime here: this has to be called inside block_on, run or turn, in a task, or while an \
             EnterGuard is alive; from elsewhere, use a handle of the runtime"
        ),
    }
}
