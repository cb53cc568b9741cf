//! Blocking work, away from the loop.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::thread;

use crate::base::{fork, with_own_slack};
use crate::home::{Hold, coop};

/// Runs a closure that blocks (files, name look-ups, long computations) on a pool of threads, and gives its result.
///
/// The pool is that of the `blocking` crate: shared by the whole process, it makes threads on demand, 500 at most unless
/// `BLOCKING_MAX_THREADS` in the environment says otherwise. The work starts at this call, and is done whatever becomes of the
/// future: if that is dropped, the result is dropped, on the pool's thread if the work has not ended before. So it isn't
/// cancel-safe. Works in any executor, and from any thread.
///
/// # With a join handle
///
/// Spawn it: `spawn_local(unblock(work))`, or [`Spawner::spawn`](crate::Spawner::spawn) from anywhere. That is a task as any other,
/// of some 100 bytes and a fraction of a microsecond, beside the several microseconds of two changes of threads that the work
/// costs in any case. Its panic is then a [`JoinError`](crate::JoinError), it can be [awaited without a
/// loop](crate::JoinHandle::wait), and aborting it ends the waiting, not the work.
///
/// # Panics
///
/// At the call: if the process has made no thread for the pool before, and can't make one now; in the child of a `fork` whose parent
/// has used the pool, since the threads are the parent's. (If the pool can't make more threads later, work waits for those that it
/// has.)
///
/// Awaiting it panics if the closure did; in the child of a `fork`, if the work was the parent's.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// let text = runtime.block_on(evbase::unblock(|| std::fs::read_to_string("Cargo.toml")))??;
/// assert!(text.contains("evbase"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn unblock<F, T>(work: F) -> impl Future<Output = T> + Send + Unpin
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match try_unblock(work) {
        Ok(unblock) => unblock,
        Err(error) => panic!("evbase: unblock: {error}"),
    }
}

/// As `unblock`, with an error where that panics at the call.
pub(crate) fn try_unblock<F, T>(work: F) -> io::Result<Unblock<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    ask_for_the_pool()?;
    Ok(Unblock {
        // It may make a thread for the pool, which is not exact if home is.
        task: Some(with_own_slack(|| blocking::unblock(work))),
        hold: Hold::of_context(),
    })
}

/// The process that has used the pool: one more than its `fork::generation`; zero if none has.
///
/// Relaxed: it says nothing of other memory, and what it guards, a child, has one thread to begin with.
static USER: AtomicUsize = AtomicUsize::new(0);

fn is_inherited() -> bool {
    let user = USER.load(Relaxed);
    user != 0 && user != fork::generation() + 1
}

fn ask_for_the_pool() -> io::Result<()> {
    if is_inherited() {
        return Err(io::Error::other(
            "the process was forked from one that had used the thread pool, and has none of its threads; call exec first, \
             or fork before the pool is used",
        ));
    }
    if USER.load(Relaxed) == 0 {
        fork::watch()?;
        // Without a single thread, the pool would try for ever to make one, and keep its lock meanwhile. From the first one on
        // it makes do with what it has.
        let _ = thread::Builder::new().name("evbase-first".into()).spawn(|| {})?.join();
        USER.store(fork::generation() + 1, Relaxed);
    }
    Ok(())
}

/// The future of `unblock`.
pub(crate) struct Unblock<T> {
    /// `None` only while dropping.
    task: Option<blocking::Task<T>>,
    /// In a runtime with virtual time, that stands still until the output is there.
    hold: Option<Hold>,
}

impl<T> Future for Unblock<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.task.as_mut().expect("evbase: the task is there until the drop");
        if task.is_finished() {
            ready!(coop::spend(cx));
        }
        let polled = Pin::new(task).poll(cx);
        assert!(
            polled.is_ready() || !is_inherited(),
            "evbase: unblock: the process was forked, and the work is done by its parent"
        );
        if polled.is_ready() {
            self.hold = None;
        } else if self.hold.is_none() {
            // The work may have begun outside of the context that waits for it.
            self.hold = Hold::of_context();
        }
        polled
    }
}

/// The work goes on.
impl<T> Drop for Unblock<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for Unblock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unblock").finish_non_exhaustive()
    }
}
