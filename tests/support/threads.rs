//! Threads: what keeps them in a place, what they are called, and whether they sleep.

use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::until;

/// Keeps threads in one place until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// A thread that runs closures, one at a time, until this is dropped; then it exits.
pub(crate) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    pub(crate) fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            for job in todo {
                job();
            }
        });
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub(crate) fn id(&self) -> ThreadId {
        self.thread.as_ref().unwrap().thread().id()
    }

    /// Starts a job there.
    pub(crate) fn start<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> mpsc::Receiver<R> {
        let (result, is_there) = mpsc::channel();
        let job = Box::new(move || drop(result.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        is_there
    }

    /// Runs a job there, and waits for it.
    #[track_caller]
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        self.start(job).recv().expect("the job panicked")
    }

    /// Lets the thread exit, and waits until its thread-locals are gone.
    pub(crate) fn exit(mut self) {
        drop(self.jobs.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Names a thread to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tid(i64);

impl Tid {
    pub(crate) fn here() -> Self {
        #[cfg(target_os = "linux")]
        // SAFETY: takes nothing, and can't fail.
        return Self(unsafe { libc::syscall(libc::SYS_gettid) });
        #[cfg(not(target_os = "linux"))]
        Self(0)
    }

    pub(crate) fn number(self) -> i64 {
        self.0
    }
}

/// Returns when the thread sleeps in the kernel's queue, or as a home that waits for something outside of its loop (where
/// that can be seen: elsewhere, after a while).
pub(crate) fn until_parked(thread: Tid) {
    until_parked_or(thread, || false);
}

/// As `until_parked`, for a sleep that ends by itself: on a busy machine it may be over before this looks, which `over` tells.
pub(crate) fn until_parked_or(thread: Tid, mut over: impl FnMut() -> bool) {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let path = format!("/proc/self/task/{}/syscall", thread.0);
        // epoll_wait, epoll_pwait, epoll_pwait2; ppoll
        let parked = ["232 ", "281 ", "441 ", "271 "];
        let is_parked = |line: String| parked.iter().any(|number| line.starts_with(number));
        if std::fs::read_to_string(&path).is_ok() {
            return until(|| std::fs::read_to_string(&path).is_ok_and(is_parked) || over());
        }
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        thread::yield_now();
    }
}
