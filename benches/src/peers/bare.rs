//! A limit for what needs tasks: async-task, a queue and an eventfd. It has no stop, no drop of pending tasks, no timers,
//! no sockets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use async_task::{Runnable, Task};

use super::{Foreign, Peer};

#[derive(Clone)]
pub struct Bare(Arc<Inbox>);

/// What other threads know of the loop.
pub struct Inbox {
    tasks: Mutex<Vec<Runnable>>,
    root_woken: AtomicBool,
    asleep: AtomicBool,
    eventfd: OwnedFd,
}

thread_local! {
    static HOME: Cell<*const Inbox> = const { Cell::new(ptr::null()) };
    static READY: RefCell<VecDeque<Runnable>> = const { RefCell::new(VecDeque::new()) };
}

impl Inbox {
    fn new() -> Arc<Self> {
        // SAFETY: a new descriptor, which nobody else owns.
        let eventfd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        Arc::new(Self {
            tasks: Mutex::new(Vec::new()),
            root_woken: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            eventfd,
        })
    }

    fn schedule(self: &Arc<Self>) -> impl Fn(Runnable) + Send + Sync + 'static {
        let inbox = self.clone();
        move |task| {
            if ptr::eq(HOME.get(), Arc::as_ptr(&inbox)) {
                return READY.with_borrow_mut(|ready| ready.push_back(task));
            }
            inbox.tasks.lock().expect("nobody panics").push(task);
            inbox.ring();
        }
    }

    fn ring(&self) {
        if self.asleep.swap(false, SeqCst) {
            // SAFETY: eight bytes of ours, on a descriptor that we own.
            unsafe { libc::write(self.eventfd.as_raw_fd(), ptr::from_ref(&1_u64).cast(), 8) };
        }
    }

    /// Takes what came from abroad. With nothing to do at all, sleeps.
    fn collect(&self) {
        let take = || {
            let mut tasks = self.tasks.lock().expect("nobody panics");
            READY.with_borrow_mut(|ready| {
                ready.extend(tasks.drain(..));
                !ready.is_empty()
            }) || self.root_woken.load(SeqCst)
        };
        if take() {
            return;
        }
        self.asleep.store(true, SeqCst);
        if !take() {
            let mut count = 0_u64;
            // SAFETY: as in `ring`; it blocks until somebody rings.
            unsafe { libc::read(self.eventfd.as_raw_fd(), ptr::from_mut(&mut count).cast(), 8) };
        } else if !self.asleep.swap(false, SeqCst) {
            // Somebody has rung, or is about to: the count has to go.
            let mut count = 0_u64;
            // SAFETY: as above.
            unsafe { libc::read(self.eventfd.as_raw_fd(), ptr::from_mut(&mut count).cast(), 8) };
        }
    }

    fn block_on<F: Future>(self: &Arc<Self>, main: F) -> F::Output {
        HOME.set(Arc::as_ptr(self));
        let waker = Waker::from(self.clone());
        let mut main = pin!(main);
        loop {
            if self.root_woken.swap(false, SeqCst)
                && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
            {
                HOME.set(ptr::null());
                return output;
            }
            for _ in 0..64 {
                match READY.with_borrow_mut(VecDeque::pop_front) {
                    Some(task) => task.run(),
                    None => break,
                };
            }
            self.collect();
        }
    }
}

/// Wakes the root.
impl Wake for Inbox {
    fn wake(self: Arc<Self>) {
        self.root_woken.store(true, SeqCst);
        self.ring();
    }
}

impl Peer for Bare {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let inbox = Inbox::new();
        inbox.block_on(main(Bare(inbox.clone())))
    }

    type Join<T: 'static> = Task<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        // SAFETY: the future is polled by the loop only, which runs on this thread, and dropped there or never.
        let (runnable, task) = unsafe { async_task::spawn_unchecked(task, self.0.schedule()) };
        runnable.schedule();
        task
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn(task).detach();
    }
}

impl Foreign for Bare {
    type Spawner = Arc<Inbox>;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let inbox = Inbox::new();
        inbox.block_on(main(inbox.clone()));
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        let (runnable, task) = async_task::spawn(task, spawner.schedule());
        runnable.schedule();
        task.detach();
    }
}
