//! Wakers are user code: they may panic, lock what the waking code holds, and come back in.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Release, Ordering::SeqCst,
};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::{Builder, JoinHandle, Requested, Runtime, Shutdown, Terminated, spawn_local, yield_now};

use crate::support::{
    Latch, in_seconds, parked, poll_once, poll_with, rounds, soon, until, waker_fn, watchdog, watched,
};

/// Things of a runtime that wait, each with a waker of ours.
struct Waiters {
    handle: JoinHandle<()>,
    requested: Requested,
    terminated: Terminated,
}

impl Waiters {
    fn of(runtime: &Runtime, waker: impl Fn() -> Waker) -> Self {
        let mut this = Self {
            handle: runtime.spawner().spawn(pending::<()>()),
            requested: runtime.shutdown_handle().requested(),
            terminated: runtime.shutdown_handle().terminated(),
        };
        assert!(poll_with(&mut this.handle, &waker()).is_pending());
        assert!(poll_with(&mut this.requested, &waker()).is_pending());
        assert!(poll_with(&mut this.terminated, &waker()).is_pending());
        this
    }

    fn have_ended(mut self) {
        assert!(
            poll_once(&mut self.handle)
                .map(|end| end.unwrap_err().is_cancelled())
                .is_ready()
        );
        assert!(poll_once(&mut self.requested).is_ready());
        assert!(poll_once(&mut self.terminated).is_ready());
    }
}

#[test]
fn panicking_wakers_do_not_take_the_runtime_along() {
    crate::support::quiet_panics();
    rounds(200, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let panics = Arc::new(AtomicUsize::new(0));
        let count = panics.clone();
        let waker = || {
            let count = count.clone();
            waker_fn(move || {
                count.fetch_add(1, SeqCst);
                panic!("a waker, on purpose");
            })
        };
        let waiters = Waiters::of(&runtime, waker);
        // One of a task that ends by itself.
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        let mut ends = runtime.spawner().spawn(receive);
        assert!(poll_with(&mut ends, &waker()).is_pending());
        send.send(()).unwrap();
        until(|| ends.is_finished());
        // Home goes on.
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        waiters.handle.abort();
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        shutdown.terminated().wait().unwrap();
        until(|| panics.load(SeqCst) == 4);
        waiters.have_ended();
    });
}

#[test]
fn panicking_wakers_of_timers_and_descriptors_do_not_take_the_loop_along() {
    crate::support::quiet_panics();
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let fd = &fd;
        let panics = Arc::new(AtomicUsize::new(0));
        let (count, counted) = (panics.clone(), panics.clone());
        runtime
            .block_on(async move {
                let waker = || {
                    let count = count.clone();
                    waker_fn(move || {
                        count.fetch_add(1, SeqCst);
                        panic!("a waker, on purpose");
                    })
                };
                let mut sleep = evbase::time::sleep(Duration::from_millis(1));
                let mut other = evbase::time::sleep(Duration::from_millis(1));
                // This thread may have slept for longer.
                if poll_with(&mut sleep, &waker()).is_ready() {
                    counted.fetch_add(1, SeqCst);
                }
                // Three that wait for one event: each is woken.
                for _ in 0..3 {
                    let pending = fd.poll_read_ready(&mut Context::from_waker(&waker())).is_pending();
                    assert!(pending);
                }
                theirs.write_all(b"x").unwrap();
                fd.readable().await.unwrap().retain_ready();
                // Not by awaiting the sleep, which would take its waker away, or find by the clock that it is over.
                while counted.load(SeqCst) < 4 {
                    yield_now().await;
                }
                poll_fn(|cx| Pin::new(&mut other).poll(cx)).await;
                poll_fn(|cx| Pin::new(&mut sleep).poll(cx)).await;
            })
            .unwrap();
        assert_eq!(panics.load(SeqCst), 4);
    });
}

#[test]
fn a_waker_may_lock_what_code_abroad_holds_while_it_wakes_home() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let lock = Arc::new(Mutex::new(()));
        let locked = lock.clone();
        let waiters = Waiters::of(&runtime, || {
            let lock = locked.clone();
            waker_fn(move || drop(lock.lock().unwrap()))
        });
        let place = Arc::new(Mutex::new(None));
        let keep = place.clone();
        drop(runtime.spawner().spawn(poll_fn(move |cx| {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            Poll::<()>::Pending
        })));
        until(|| place.lock().unwrap().is_some());
        let waker: Waker = place.lock().unwrap().take().unwrap();
        {
            // None of these calls a waker of ours, nor waits for home.
            let _held = lock.lock().unwrap();
            waker.wake_by_ref();
            waker.wake();
            drop(runtime.spawner().spawn(async {}));
            waiters.handle.abort();
            runtime.shutdown_handle().request();
            runtime.shutdown_handle().request_now();
            drop(runtime.spawner().spawn(async {}));
            drop(runtime);
        }
        assert!(
            waiters
                .terminated
                .wait_timeout(crate::support::DEADLINE)
                .unwrap()
                .is_some()
        );
        waiters.have_ended();
    });
}

#[test]
fn a_waker_may_lock_what_code_at_home_holds_while_it_wakes() {
    rounds(200, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let lock = Arc::new(Mutex::new(0));
        let locked = lock.clone();
        let waiters = Waiters::of(&runtime, || {
            let lock = locked.clone();
            // A second lock on this thread would never be had.
            waker_fn(move || *lock.try_lock().expect("woken by code that holds the lock") += 1)
        });
        let abort = waiters.handle.abort_handle();
        let held_in_task = lock.clone();
        let result = runtime.block_on(async move {
            let task = spawn_local(async { 1 });
            let aborted = spawn_local(pending::<()>());
            {
                let _held = held_in_task.lock().unwrap();
                abort.abort();
                aborted.abort();
                Shutdown::current().request();
                drop(aborted);
                drop(spawn_local(async {}));
            }
            task.await.unwrap()
        });
        assert_eq!(result.unwrap(), 1);
        assert_eq!(*lock.lock().unwrap(), 3, "three waiters, each woken once");
        waiters.have_ended();
    });
}

#[test]
fn a_waker_may_come_back_into_the_runtime() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        let spawner = runtime.spawner();
        let home = runtime.home().unwrap();
        let woken = Latch::new();
        let tell = woken.clone();
        let again = Mutex::new(Some((shutdown.requested(), shutdown.terminated())));
        let waker = waker_fn(move || {
            assert_eq!(std::thread::current().id(), home);
            drop(spawner.spawn(async {}));
            shutdown.request();
            let (mut requested, mut terminated) = again.lock().unwrap().take().unwrap();
            assert!(poll_once(&mut requested).is_ready());
            let _ = poll_once(&mut terminated);
            let more = shutdown.terminated();
            let _ = more.wait_timeout(Duration::ZERO);
            tell.open();
        });
        let mut requested = runtime.shutdown_handle().requested();
        assert!(poll_with(&mut requested, &waker).is_pending());
        drop(waker);
        runtime.shutdown().wait().unwrap();
        assert!(woken.is_open());
    });
}

/// A waker whose clone and drop run user code, too.
fn busy_waker(runtime: Shutdown, calls: Rc<RefCell<Vec<&'static str>>>) -> Waker {
    struct Data(Shutdown, Rc<RefCell<Vec<&'static str>>>);
    fn note(data: &Data, what: &'static str) {
        data.1.borrow_mut().push(what);
        // Comes back in: each of these would find a borrowed base, or a locked list.
        let _ = poll_once(&mut data.0.requested());
        let _ = poll_once(&mut data.0.terminated());
        if Shutdown::try_current().is_some() {
            drop(spawn_local(async {}));
            let mut sleep = evbase::time::sleep(Duration::from_secs(1));
            let _ = poll_once(&mut sleep);
        }
    }
    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: made by `into_raw` below, of a waker that lives.
        let data = unsafe { &*data.cast::<Data>() };
        note(data, "clone");
        let copy = Data(data.0.clone(), data.1.clone());
        RawWaker::new(Box::into_raw(Box::new(copy)).cast(), &VTABLE)
    }
    unsafe fn wake(data: *const ()) {
        // SAFETY: gives the waker's data away.
        let data = unsafe { Box::from_raw(data.cast_mut().cast::<Data>()) };
        note(&data, "wake");
    }
    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: of a waker that lives.
        note(unsafe { &*data.cast::<Data>() }, "wake");
    }
    unsafe fn drop_data(data: *const ()) {
        // SAFETY: gives the waker's data away.
        let data = unsafe { Box::from_raw(data.cast_mut().cast::<Data>()) };
        note(&data, "drop");
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_data);
    let data = Box::into_raw(Box::new(Data(runtime, calls)));
    // SAFETY: the functions above keep the contract of wakers on the one thread of these tests.
    unsafe { Waker::from_raw(RawWaker::new(data.cast(), &VTABLE)) }
}

#[test]
fn cloning_and_dropping_a_waker_may_come_back_into_the_runtime() {
    rounds(200, |_| {
        let runtime = Builder::new().build().unwrap();
        let shutdown = runtime.shutdown_handle();
        let calls = Rc::new(RefCell::new(Vec::new()));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let mut requested = shutdown.requested();
        let mut terminated = shutdown.terminated();
        let noted = calls.clone();
        runtime
            .block_on(async {
                let mut handle = spawn_local(async {
                    yield_now().await;
                    yield_now().await;
                });
                let mut sleep = evbase::time::sleep(Duration::from_secs(1));
                for _ in 0..3 {
                    // A new waker each time: the old one is dropped, the new one cloned.
                    let waker = busy_waker(shutdown.clone(), noted.clone());
                    let _ = poll_with(&mut handle, &waker);
                    let _ = poll_with(&mut requested, &waker);
                    let _ = poll_with(&mut terminated, &waker);
                    let _ = poll_with(&mut sleep, &waker);
                    let _ = fd.poll_read_ready(&mut Context::from_waker(&waker)).is_pending();
                }
                theirs.write_all(b"x").unwrap();
                fd.readable().await.unwrap().retain_ready();
                evbase::time::sleep(Duration::from_micros(100)).await;
                sleep.reset(std::time::Instant::now());
                let _ = handle.await;
            })
            .unwrap();
        runtime.shutdown().wait().unwrap();
        drop((requested, terminated, fd));
        let calls = calls.borrow();
        let count = |what| calls.iter().filter(|call| **call == what).count();
        assert!(
            count("clone") >= 5 && count("wake") >= 4 && count("drop") >= 5,
            "{calls:?}"
        );
    });
}

#[test]
fn a_waker_that_stops_the_runtime_it_was_woken_by() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        let mut task = runtime.spawner().spawn(receive);
        let asker = shutdown.clone();
        assert!(poll_with(&mut task, &waker_fn(move || asker.request())).is_pending());
        send.send(()).unwrap();
        shutdown.terminated().wait().unwrap();
        assert!(soon(|| task.is_finished()));
        drop(runtime);
    });
}

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

#[test]
fn a_join_handle_that_goes_drops_its_waker_and_contains_the_panic_of_that() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let waiting = || runtime.spawn_local(yield_now()).unwrap();

    let mut handle = waiting();
    let flag = Arc::new(AtomicBool::new(false));
    let waker = waker_fn({
        let flag = flag.clone();
        move || flag.store(true, Release)
    });
    assert!(poll_with(&mut handle, &waker).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&flag), 2, "the join cell has a waker");
    drop(handle);
    assert_eq!(Arc::strong_count(&flag), 1);

    let mut handle = waiting();
    let waker = Waker::from(Arc::new(PanicsOnDrop));
    assert!(poll_with(&mut handle, &waker).is_pending());
    // Its clone is in the join cell: this drop is not the last.
    drop(waker);
    drop(handle);

    // The tasks go on.
    while runtime.metrics().alive() > 0 {
        runtime.turn(None).unwrap();
    }
    assert_eq!(runtime.shutdown().wait().unwrap().completed, 2);
    assert!(!flag.load(Acquire));
}
