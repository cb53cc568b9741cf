//! Things of a runtime in thread-locals and statics: dropped, and used, while the thread's own things are being destroyed.

use std::any::Any;
use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, Runtime, Spawner, spawn_local};

use crate::support::{Latch, OnDrop, alone, alone_until_exit, poll_once, rounds};

thread_local! {
    static EARLY: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    static LATE: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// All that a runtime gives out.
fn handles(runtime: &Runtime) -> Vec<Box<dyn Any>> {
    let shutdown = runtime.shutdown_handle();
    let mut terminated = shutdown.terminated();
    let mut requested = shutdown.requested();
    assert!(poll_once(&mut terminated).is_pending());
    assert!(poll_once(&mut requested).is_pending());
    let place = Arc::new(Mutex::new(None::<Waker>));
    let keep = place.clone();
    let woken = runtime.spawn_local(poll_fn(move |cx| {
        *keep.lock().unwrap() = Some(cx.waker().clone());
        Poll::<()>::Pending
    }));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = AsyncFd::new(ours).unwrap();
    let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
    let mut interval = evbase::time::interval(Duration::from_secs(1000));
    let mut other = runtime.spawn_local(pending::<()>()).unwrap();
    runtime
        .block_on(async {
            assert!(poll_fn(|cx| Poll::Ready(fd.poll_read_ready(cx).is_pending())).await);
            assert!(poll_once(&mut sleep).is_pending());
            interval.tick().await;
            assert!(poll_once(&mut Box::pin(interval.tick())).is_pending());
            evbase::yield_now().await;
            assert!(poll_once(&mut other).is_pending());
        })
        .unwrap();
    let waker = place.lock().unwrap().take().unwrap();
    let finished = runtime.spawner().spawn(async { OnDrop(|| ()) });
    vec![
        Box::new(runtime.spawner()),
        Box::new(runtime.local_spawner().unwrap()),
        Box::new((shutdown, terminated, requested)),
        Box::new((woken.unwrap(), other.abort_handle(), other, finished)),
        Box::new(waker),
        Box::new((fd, theirs)),
        Box::new((sleep, interval)),
    ]
}

/// Uses what can be used.
fn use_handle(handle: &dyn Any) {
    if let Some(spawner) = handle.downcast_ref::<Spawner>() {
        drop(spawner.spawn(async {}));
        drop(spawner.spawn_with(|| async {}));
    }
    if let Some(spawner) = handle.downcast_ref::<evbase::LocalSpawner>() {
        drop(spawner.spawn_local(pending::<()>()));
    }
    if let Some(waker) = handle.downcast_ref::<Waker>() {
        waker.wake_by_ref();
        waker.wake_by_ref();
    }
    type Ends = (evbase::Shutdown, evbase::Terminated, evbase::Requested);
    if let Some((shutdown, terminated, _)) = handle.downcast_ref::<Ends>() {
        shutdown.request();
        let _ = terminated.wait_timeout(Duration::ZERO);
        let _ = poll_once(&mut shutdown.terminated());
        assert!(shutdown.is_requested());
    }
    // What is current, in a destructor.
    let _ = Spawner::try_current();
}

/// The handles in a destructor that uses them, last to first or first to last, before and after the runtime's guard.
fn in_thread_locals(of_home: bool, used: bool) {
    rounds(60, |round| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let finished = Latch::new();
        let finish = finished.clone();
        let (made, make) = (runtime.clone(), of_home);
        let home = (!of_home).then(|| {
            // Home is elsewhere, parked; the handles are dropped on a thread that is abroad.
            let (send, receive) = std::sync::mpsc::channel();
            let driven = runtime.clone();
            let thread = thread::spawn(move || {
                driven.block_on(async {}).unwrap();
                send.send(driven.spawner()).unwrap();
                driven.run().unwrap();
            });
            (thread, receive.recv().unwrap())
        });
        let spawner = home.as_ref().map(|(_, spawner)| spawner.clone());
        thread::spawn(move || {
            let keep = |handles: Vec<Box<dyn Any>>, place: &'static thread::LocalKey<RefCell<Vec<Box<dyn Any>>>>| {
                for handle in handles {
                    let mut handle = Some(handle);
                    let guard = OnDrop(move || {
                        let handle = handle.take().unwrap();
                        if used {
                            use_handle(&*handle);
                        }
                        drop(handle);
                    });
                    place.with(|place| place.borrow_mut().push(Box::new(guard)));
                }
            };
            // Touched before the runtime binds: destroyed after its guard. And the other way round.
            EARLY.with(|_| ());
            if make {
                let mut early = handles(&made);
                let mut late = handles(&made);
                if round % 2 == 0 {
                    early.reverse();
                    late.reverse();
                }
                keep(late, &LATE);
                keep(early, &EARLY);
            } else {
                let spawner = spawner.unwrap();
                let foreign = || -> Vec<Box<dyn Any>> {
                    let task = spawner.spawn(pending::<()>());
                    vec![Box::new(spawner.clone()), Box::new(task.abort_handle()), Box::new(task)]
                };
                keep(foreign(), &LATE);
                Runtime::new().unwrap().block_on(async {}).unwrap();
                keep(foreign(), &EARLY);
            }
            drop(made);
            finish.open();
        })
        .join()
        .unwrap();
        assert!(finished.is_open());
        if let Some((thread, _)) = home {
            runtime.shutdown_handle().request();
            thread.join().unwrap();
        }
        let report = runtime.run().unwrap();
        if of_home && !used {
            assert_eq!(report.cause, Cause::HomeExited);
        }
    });
}

#[test]
fn handles_are_dropped_in_destructors_of_thread_locals_of_home() {
    alone(|| in_thread_locals(true, false));
}

#[test]
fn handles_are_used_in_destructors_of_thread_locals_of_home() {
    alone(|| in_thread_locals(true, true));
}

#[test]
fn handles_are_dropped_in_destructors_of_thread_locals_abroad() {
    alone(|| in_thread_locals(false, false));
}

#[test]
fn handles_are_used_in_destructors_of_thread_locals_abroad() {
    alone(|| in_thread_locals(false, true));
}

#[test]
fn a_runtime_in_a_thread_local_is_closed_when_the_thread_exits() {
    thread_local! {
        static RUNTIME: Runtime = Runtime::new().unwrap();
    }
    rounds(200, |round| {
        let probes = crate::support::Drops::new();
        let drops = probes.clone();
        let (shutdown, home) = thread::spawn(move || {
            RUNTIME.with(|runtime| {
                if round % 3 == 0 {
                    // Bound before it is a thread-local's: nothing special. Unbound: dropped by its destructor.
                    let probe = probes.probe();
                    drop(runtime.spawner().spawn(async move {
                        let _probe = probe;
                    }));
                } else {
                    let probe = probes.local_probe();
                    drop(runtime.spawn_local(async move {
                        let _probe = probe;
                        pending::<()>().await;
                    }));
                    runtime.block_on(evbase::yield_now()).unwrap();
                }
                (runtime.shutdown_handle(), thread::current().id())
            })
        })
        .join()
        .unwrap();
        let Poll::Ready(report) = poll_once(&mut shutdown.terminated()) else {
            panic!("the exit has not closed it");
        };
        // Which of the two destructors came first is the platform's choice.
        assert!(matches!(report.cause, Cause::HomeExited | Cause::Dropped), "{report}");
        assert_eq!(report.cancelled, 1);
        drops.assert_on(home, 1);
    });
}

#[test]
fn a_task_that_touches_a_thread_local_when_it_is_dropped_at_the_exit() {
    thread_local! {
        static OTHER: RefCell<String> = RefCell::new("here".to_owned());
    }
    rounds(200, |_| {
        let seen = Latch::new();
        let see = seen.clone();
        // Dropped after the exit.
        let runtime = thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            // First used after the binding: it dies before the guard, and says so.
            let guard = OnDrop(move || {
                let _ = OTHER.try_with(|other| other.borrow().len());
                see.open();
            });
            drop(runtime.spawn_local(async move {
                let _guard = guard;
                OTHER.with(|other| other.borrow_mut().push('!'));
                pending::<()>().await;
            }));
            runtime.block_on(evbase::yield_now()).unwrap();
            runtime
        })
        .join()
        .unwrap();
        assert!(seen.is_open());
        drop(runtime);
    });
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new().start("static").unwrap());

#[test]
fn a_runtime_in_a_static_serves_all_threads_and_lets_the_process_end() {
    let output = alone_until_exit(|| {
        let threads: Vec<_> = (0..4)
            .map(|n| thread::spawn(move || RUNTIME.spawner().spawn(async move { n }).wait().unwrap().unwrap()))
            .collect();
        let sum: i32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 6);
        drop(RUNTIME.spawner().spawn(pending::<()>()));
        let _ = writeln!(std::io::stderr(), "served");
        std::process::exit(0);
    });
    let output = output.expect("the process has exited");
    crate::support::assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("served"));
}

static DRIVEN: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

#[test]
fn a_runtime_in_a_static_whose_home_is_this_thread_lets_the_process_end() {
    let output = alone_until_exit(|| {
        assert_eq!(DRIVEN.block_on(async { 3 }).unwrap(), 3);
        drop(DRIVEN.spawn_local(async {
            let _guard = OnDrop(|| {
                let _ = writeln!(std::io::stderr(), "dropped");
            });
            pending::<()>().await;
        }));
        DRIVEN.block_on(evbase::yield_now()).unwrap();
        std::process::exit(0);
    });
    let output = output.expect("the process has exited");
    crate::support::assert_success(&output);
    if cfg!(target_os = "linux") {
        // The exit destroys the thread-locals of the thread that asks for it.
        assert!(String::from_utf8_lossy(&output.stderr).contains("dropped"));
    }
}

#[test]
fn a_guard_in_a_thread_local_may_be_dropped_after_the_exit_of_home() {
    thread_local! {
        static GUARD: RefCell<Option<evbase::EnterGuard<'static>>> = const { RefCell::new(None) };
    }
    rounds(50, |round| {
        let runtime: &'static Runtime = Box::leak(Box::new(Runtime::new().unwrap()));
        thread::spawn(move || {
            if round % 2 == 0 {
                // Destroyed after the runtime's own guard of the thread, which is younger.
                GUARD.with(|_| ());
            }
            let guard = runtime.enter().unwrap();
            GUARD.set(Some(guard));
            drop(spawn_local(pending::<()>()));
        })
        .join()
        .unwrap();
        let report = runtime.run().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::HomeExited, 1));
        // SAFETY: leaked above, and the thread that has borrowed it is gone.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(runtime).cast_mut()) });
    });
}
