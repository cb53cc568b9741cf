//! Bugs that were found once, each with the test that found it. None of them comes back.

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Builder, RunError, Runtime};

use common::{in_seconds, watched};

/// Home read a completed task after it had given the inbox's reference back, when the last waker could already be gone.
/// Address sanitizer and the loom model see it best; without them, this is a hammer.
#[test]
fn a_task_that_completes_in_the_inbox_is_not_touched_after_its_last_waker() {
    watched(|| {
        let slot = Arc::new(AtomicPtr::<Waker>::new(std::ptr::null_mut()));
        let posted = Arc::new(AtomicUsize::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let abroad = {
            let (slot, posted, over) = (slot.clone(), posted.clone(), over.clone());
            thread::spawn(move || {
                for round in 1.. {
                    let waker = loop {
                        let taken = slot.swap(std::ptr::null_mut(), AcqRel);
                        if !taken.is_null() {
                            // SAFETY: made by `Box::into_raw` below, and taken once.
                            break unsafe { Box::from_raw(taken) };
                        }
                        if over.load(Acquire) {
                            return;
                        }
                        thread::yield_now();
                    };
                    waker.wake_by_ref();
                    posted.store(round, Release);
                    for _ in 0..(round * 7) % 400 {
                        std::hint::spin_loop();
                    }
                    drop(waker);
                }
            })
        };
        let runtime = Runtime::new().unwrap();
        for round in in_seconds(1..20_001, 5) {
            let (slot, posted) = (slot.clone(), posted.clone());
            let task = poll_fn(move |cx| {
                slot.store(Box::into_raw(Box::new(cx.waker().clone())), Release);
                while posted.load(Acquire) != round {
                    thread::yield_now();
                }
                Poll::Ready(())
            });
            drop(runtime.spawn_local(task).unwrap());
            while runtime.metrics().completed < round as u64 {
                runtime.turn(Some(Duration::ZERO)).unwrap();
            }
            runtime.turn(Some(Duration::ZERO)).unwrap();
        }
        over.store(true, Release);
        abroad.join().unwrap();
    });
}

type Hook = Box<dyn FnMut() + Send>;

/// A descriptor whose `as_fd` runs something, once.
struct Hooked {
    fd: std::io::PipeReader,
    hook: Mutex<Option<Hook>>,
}

impl Hooked {
    fn new() -> (AsyncFd<Self>, std::io::PipeWriter) {
        let (fd, writer) = std::io::pipe().unwrap();
        let hook = Mutex::new(None);
        (AsyncFd::new(Self { fd, hook }).unwrap(), writer)
    }
}

impl AsFd for Hooked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut hook) = hook {
            hook();
        }
        self.fd.as_fd()
    }
}

fn would_block<T>(_: &T) -> std::io::Result<()> {
    Err(std::io::ErrorKind::WouldBlock.into())
}

/// It ran under the borrow of the base.
#[test]
fn as_fd_may_use_the_runtime() {
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(poll_fn(|cx| {
            let mut sleep = Box::pin(evbase::time::sleep(Duration::from_secs(9)));
            assert!(sleep.as_mut().poll(cx).is_pending());
            let mut sleep = Some(sleep);
            let (fd, _writer) = Hooked::new();
            *fd.get_ref().hook.lock().unwrap() = Some(Box::new(move || drop(sleep.take())));
            assert!(pin!(fd.read_with(would_block)).poll(cx).is_pending());
            Poll::Ready(())
        }))
        .unwrap();
}

/// It left a registration with a made-up key, that of the first source of the base.
#[test]
fn a_panic_in_as_fd_hits_no_other_source() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let victim = async {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let victim = AsyncFd::new(reader).unwrap();
            poll_fn(|cx| {
                assert!(victim.poll_read_ready(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let (fd, _writer) = Hooked::new();
            *fd.get_ref().hook.lock().unwrap() = Some(Box::new(|| panic!("as_fd, on purpose")));
            let failed = evbase::spawn_local(async move { fd.read_with(would_block).await }).await;
            assert!(failed.unwrap_err().is_panic());
            writer.write_all(b"x").unwrap();
            assert!(victim.readable().await.is_ok());
        };
        runtime.block_on(victim).unwrap();
    });
}

/// Each new guard kept the dead one below it, without end.
#[test]
fn enter_guards_that_overlap_leave_nothing_behind() {
    let runtime = Runtime::new().unwrap();
    let mut guard = runtime.enter().unwrap();
    for _ in 0..100_000 {
        let next = runtime.enter().unwrap();
        guard = next;
    }
    drop(guard);
    assert!(evbase::Spawner::try_current().is_none());
}

/// The counters are read one after the other, and their difference was below zero at times.
#[test]
fn the_number_of_living_tasks_is_never_below_zero() {
    let runtime = Builder::new().start("home").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let stop = stop.clone();
        runtime.spawner().spawn_with(move || async move {
            while !stop.load(Relaxed) {
                let tasks: Vec<_> = (0..50).map(|_| evbase::spawn_local(async {})).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
        })
    };
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        // Panics if it overflows.
        runtime.metrics().alive();
    }
    stop.store(true, Relaxed);
    busy.wait().unwrap().unwrap();
}

/// It was closed between two looks at the report.
#[test]
fn run_abroad_never_says_stopped() {
    watched(|| {
        for _ in 0..500 {
            let runtime = Arc::new(Builder::new().start("home").unwrap());
            let (began, has_begun) = mpsc::channel();
            let other = runtime.clone();
            let abroad = thread::spawn(move || {
                began.send(()).unwrap();
                loop {
                    match other.run() {
                        Err(RunError::NotHome { .. }) => {}
                        ended => return ended,
                    }
                }
            });
            has_begun.recv().unwrap();
            runtime.shutdown_handle().request();
            abroad.join().unwrap().unwrap();
        }
    });
}

/// A waker that runs something when it is woken.
struct OnWake(Mutex<Option<Hook>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        if let Some(mut hook) = self.0.lock().unwrap().take() {
            hook();
        }
    }
}

/// The first task of a batch was polled without a look at the stop bits.
#[test]
fn no_task_is_polled_after_a_stop_that_home_asked_for_outside_of_a_poll() {
    let runtime = Runtime::new().unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    let late = Rc::new(Cell::new(0));
    {
        let (asked, late) = (asked.clone(), late.clone());
        let task = poll_fn(move |cx| {
            if asked.load(Relaxed) {
                late.set(late.get() + 1);
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        drop(runtime.spawn_local(task).unwrap());
    }
    let shutdown = runtime.shutdown_handle();
    let hook: Hook = Box::new(move || {
        asked.store(true, Relaxed);
        shutdown.request_now();
    });
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(hook)))));
    let mut sleep = evbase::time::sleep(Duration::from_millis(5));
    {
        let _guard = runtime.enter().unwrap();
        assert!(Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    runtime.run().unwrap();
    assert_eq!(late.get(), 0);
}

/// Both of its actions ran: a request, and a second one.
#[test]
fn a_signal_that_is_listed_twice_counts_once() {
    let runtime = Builder::new().grace(Duration::from_secs(30)).build().unwrap();
    let _signals = runtime
        .shutdown_handle()
        .on_signals(&[libc::SIGUSR1, libc::SIGUSR1])
        .unwrap();
    let done = Rc::new(Cell::new(false));
    let finishing = done.clone();
    let task = async move {
        evbase::time::sleep(Duration::from_millis(20)).await;
        finishing.set(true);
    };
    drop(runtime.spawn_local(task).unwrap());
    // SAFETY: the signal has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
    runtime.run().unwrap();
    assert!(done.get(), "one signal cut the grace period short");
}

struct PanicsOnDrop;

impl Wake for PanicsOnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// They shared a guard, and the second panic ended the process.
#[test]
fn wakers_of_one_source_are_dropped_behind_a_guard_each() {
    let runtime = Runtime::new().unwrap();
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = AsyncFd::new(stream).unwrap();
    {
        let _guard = runtime.enter().unwrap();
        for _ in 0..3 {
            let waker = Waker::from(Arc::new(PanicsOnDrop));
            assert!(fd.poll_read_ready(&mut Context::from_waker(&waker)).is_pending());
            // Its clone is in the runtime: this drop is not the last.
            drop(waker);
        }
    }
    let terminated = runtime.shutdown();
    assert!(terminated.wait().is_ok());
}

/// The grace period ran inside the other loop's task, for ever if it was for something of that loop's.
#[test]
fn a_poll_or_another_call_inside_the_loop_of_another_runtime_does_not_block_it_for_a_grace_period() {
    type Call = fn(&evbase::Shutdown);
    let poll: Call = |shutdown| {
        let polled = pin!(shutdown.terminated()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready());
    };
    let make: Call = |_| drop(Runtime::new().unwrap());
    watched(|| {
        for call in [poll, make] {
            let inner = Builder::new().grace(Duration::MAX).build().unwrap();
            let outer = Runtime::new().unwrap();
            let task = inner.spawn_local(std::future::pending::<()>()).unwrap();
            let shutdown = inner.shutdown_handle();
            let asking = async {
                shutdown.request();
                call(&shutdown);
                assert!(task.is_finished());
            };
            outer.block_on(asking).unwrap();
        }
    });
}

/// The loop of the parent counted as one of the child's, so that a new runtime was `Nested` in it.
#[test]
fn a_child_that_was_forked_inside_a_task_drives_a_runtime_of_its_own() {
    let runtime = Runtime::new().unwrap();
    let status = runtime.block_on(async {
        // SAFETY: the child calls what a child may call, as evbase promises, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let five = Runtime::new().and_then(|own| own.block_on(async { 5 }).map_err(std::io::Error::other));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if five.is_ok_and(|five| five == 5) { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        status
    });
    assert_eq!(status.unwrap(), 0);
    assert_eq!(runtime.block_on(async { 6 }).unwrap(), 6);
}

/// A wake-up of a root that had ended, seen by a `turn`, left the runtime thinking that the next root stood in the queue.
#[test]
fn a_late_wake_up_of_a_root_does_not_keep_the_next_one_from_being_polled() {
    watched(|| {
        for abroad in [false, true] {
            let runtime = Runtime::new().unwrap();
            let waker = runtime.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone()))).unwrap();
            if abroad {
                thread::spawn(move || waker.wake()).join().unwrap();
            } else {
                let _context = runtime.enter().unwrap();
                waker.wake();
            }
            runtime.turn(Some(Duration::ZERO)).unwrap();
            // Was not polled, and hung.
            assert_eq!(runtime.block_on(async { 7 }).unwrap(), 7);
        }
    });
}
