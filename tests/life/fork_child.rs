//! The child of a fork: its parent's runtimes answer `Forked`, the parent goes on undisturbed, and a runtime made in the
//! child works.

use std::cell::Cell;
use std::future::pending;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Builder, RunError, Runtime, SpawnErrorKind, WaitError, yield_now};

use crate::support::{Drops, OnDrop, alone, alone_until_exit, fork, parked, poll_once};

/// All that drives, spawns or waits says that it is the wrong process.
fn answers_forked(runtime: &Runtime) {
    assert!(matches!(runtime.block_on(async {}), Err(RunError::Forked)));
    assert!(matches!(runtime.run(), Err(RunError::Forked)));
    assert!(matches!(runtime.turn(Some(Duration::ZERO)), Err(RunError::Forked)));
    assert!(matches!(runtime.enter(), Err(RunError::Forked)));
    assert!(matches!(runtime.local_spawner(), Err(RunError::Forked)));
    assert_eq!(
        runtime.spawn_local(async {}).unwrap_err().kind(),
        SpawnErrorKind::Forked
    );
    let spawner = runtime.spawner();
    assert_eq!(spawner.try_spawn(async {}).unwrap_err().kind(), SpawnErrorKind::Forked);
    assert_eq!(
        spawner.try_spawn_with(|| async {}).unwrap_err().kind(),
        SpawnErrorKind::Forked
    );
    let refused: Result<(), _> = spawner.spawn(async {}).wait().unwrap();
    assert!(refused.unwrap_err().is_cancelled());
    let shutdown = runtime.shutdown_handle();
    assert_eq!(shutdown.terminated().wait(), Err(WaitError::Forked));
    assert_eq!(
        shutdown.terminated().wait_timeout(Duration::from_secs(1)),
        Err(WaitError::Forked)
    );
}

#[test]
fn a_runtime_of_the_parent_answers_forked_in_the_child() {
    alone(|| {
        for _ in 0..20 {
            let unbound = Runtime::new().unwrap();
            let at_home = Runtime::new().unwrap();
            at_home.block_on(async {}).unwrap();
            let foreign = parked(Builder::new());
            let task = foreign.spawner().spawn(pending::<()>());
            let code = fork(|| {
                answers_forked(&unbound);
                answers_forked(&at_home);
                answers_forked(&foreign);
                assert!(matches!(task.wait(), Err(WaitError::Forked)));
            });
            assert_eq!(code, 0);
            assert_eq!(unbound.block_on(async { 1 }).unwrap(), 1);
            assert_eq!(at_home.block_on(async { 2 }).unwrap(), 2);
            assert_eq!(foreign.spawner().spawn(async { 3 }).wait().unwrap().unwrap(), 3);
        }
    });
}

#[test]
fn a_stop_or_a_drop_in_the_child_does_not_stop_the_parent() {
    alone(|| {
        for _ in 0..20 {
            let mut runtimes = vec![Runtime::new().unwrap(), Runtime::new().unwrap(), parked(Builder::new())];
            runtimes[1].block_on(async {}).unwrap();
            let code = fork(|| {
                for runtime in std::mem::take(&mut runtimes) {
                    runtime.shutdown_handle().request();
                    runtime.shutdown_handle().request_now();
                    assert_eq!(runtime.shutdown().wait(), Err(WaitError::Forked));
                }
            });
            assert_eq!(code, 0);
            for runtime in &runtimes {
                assert!(!runtime.shutdown_handle().is_requested());
            }
            assert_eq!(runtimes[0].block_on(async { 1 }).unwrap(), 1);
            assert_eq!(runtimes[1].block_on(async { 2 }).unwrap(), 2);
            assert_eq!(runtimes[2].spawner().spawn(async { 3 }).wait().unwrap().unwrap(), 3);
        }
    });
}

#[test]
fn wakes_and_aborts_in_the_child_do_not_reach_the_parent() {
    alone(|| {
        for _ in 0..20 {
            let runtime = parked(Builder::new());
            let task = runtime.spawner().spawn(pending::<()>());
            crate::support::until_parked(crate::support::tid_of(&runtime));
            let parks = runtime.metrics().parks;
            let code = fork(|| {
                task.abort();
                runtime.shutdown_handle().request();
            });
            assert_eq!(code, 0);
            assert_eq!(
                runtime.metrics().parks,
                parks,
                "the child's write has woken the parent's home"
            );
            assert!(!task.is_finished());
        }
    });
}

#[test]
fn an_async_fd_dropped_in_the_child_stays_registered_in_the_parent() {
    alone(|| {
        for at_home in [true, false] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut fd = Some(AsyncFd::new(ours).unwrap());
            let mut read = async |fd: &mut Option<AsyncFd<UnixStream>>| {
                let mut byte = [0];
                let fd = fd.as_ref().unwrap();
                let mut reading = Box::pin(fd.read_with(|mut io| io.read(&mut byte)));
                // Finds nothing, so that only an event of the kernel's can wake it.
                assert!(futures::poll!(&mut reading).is_pending());
                theirs.write_all(&[9]).unwrap();
                assert_eq!(reading.await.unwrap(), 1);
                assert_eq!(byte, [9]);
            };
            let runtime = Runtime::new().unwrap();
            runtime.block_on(read(&mut fd)).unwrap();
            let code = if at_home {
                fork(|| drop(fd.take()))
            } else {
                // In the child there is no home thread for it to travel to.
                thread::scope(|scope| scope.spawn(|| fork(|| drop(fd.take()))).join().unwrap())
            };
            assert_eq!(code, 0);
            runtime.block_on(read(&mut fd)).unwrap();
            runtime.block_on(read(&mut fd)).unwrap();
        }
    });
}

#[test]
fn in_a_loop_of_the_childs_a_timer_goes_on_and_a_descriptor_says_whose_it_is() {
    alone(|| {
        for at_home in [true, false].repeat(10) {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut fd = Some(AsyncFd::new(ours).unwrap());
            let mut sleep = evbase::time::sleep(Duration::from_secs(3600));
            let runtime = Runtime::new().unwrap();
            runtime
                .block_on(async {
                    let fd = fd.as_ref().unwrap();
                    assert!(futures::poll!(Box::pin(fd.readable())).is_pending());
                    assert!(futures::poll!(&mut sleep).is_pending());
                })
                .unwrap();
            sleep.reset(Instant::now() + Duration::from_millis(2));
            let in_the_child = || {
                let fd = fd.take().unwrap();
                let here = Runtime::new().unwrap();
                here.block_on(async {
                    let told = fd.readable().await.map(drop).unwrap_err().to_string();
                    assert!(told.contains("fork") && told.contains("into_inner"), "{told}");
                    (&mut sleep).await;
                    // What it says to do works. (The file is the parent's as well: the child only looks.)
                    let fd = AsyncFd::new(fd.into_inner().unwrap()).unwrap();
                    drop(fd.writable().await.unwrap());
                })
                .unwrap();
            };
            let code = match at_home {
                true => fork(in_the_child),
                false => thread::scope(|scope| scope.spawn(|| fork(in_the_child)).join().unwrap()),
            };
            assert_eq!(code, 0);
            theirs.write_all(&[9]).unwrap();
            let fd = fd.as_ref().unwrap();
            let mut byte = [0];
            let read = async {
                (&mut sleep).await;
                fd.read_with(|mut io| io.read(&mut byte)).await
            };
            assert_eq!(runtime.block_on(read).unwrap().unwrap(), 1);
        }
    });
}

#[test]
fn a_fork_inside_a_task_ends_the_childs_loop_only() {
    alone(|| {
        for _ in 0..20 {
            let runtime = Runtime::new().unwrap();
            let other = crate::support::Latch::new();
            let in_other = other.clone();
            let mut is_child = false;
            let result = runtime.block_on(async {
                // SAFETY: the child goes on with the code below, and leaves by `_exit`.
                let pid = unsafe { libc::fork() };
                assert!(pid >= 0);
                is_child = pid == 0;
                drop(evbase::spawn_local(async move { in_other.open() }));
                yield_now().await;
                yield_now().await;
                pid
            });
            if is_child {
                let code = if matches!(result, Err(RunError::Forked)) && !other.is_open() {
                    0
                } else {
                    1
                };
                // The drop closes the child's copies only.
                drop(runtime);
                // SAFETY: ends the child.
                unsafe { libc::_exit(code) };
            }
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            assert!(unsafe { libc::waitpid(result.unwrap(), &mut status, 0) } > 0);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");
            assert!(other.is_open());
            assert_eq!(runtime.block_on(async { 4 }).unwrap(), 4);
        }
    });
}

#[test]
fn a_runtime_made_in_the_child_works() {
    if crate::support::is_under_sanitizer("thread") {
        // It allows no new threads in the child of a process that had some.
        return;
    }
    alone(|| {
        for _ in 0..20 {
            let before = Runtime::new().unwrap();
            before.block_on(async {}).unwrap();
            let code = fork(|| {
                let runtime = Runtime::new().unwrap();
                let spawner = runtime.spawner();
                let thread = thread::spawn(move || spawner.spawn(async { 5 }));
                let five = runtime.block_on(async { thread.join().unwrap().await }).unwrap();
                assert_eq!(five.unwrap(), 5);
                runtime.block_on(evbase::time::sleep(Duration::from_millis(1))).unwrap();
                let started = Builder::new().start("home").unwrap();
                assert_eq!(started.spawner().spawn(async { 6 }).wait().unwrap().unwrap(), 6);
                started.shutdown().wait().unwrap();
                // And its own child has to make one, too.
                drop(before);
                drop(runtime);
            });
            assert_eq!(code, 0);
        }
    });
}

#[test]
fn the_child_closes_its_copies_of_the_descriptors() {
    alone(|| {
        let unbound = Runtime::new().unwrap();
        let at_home = Runtime::new().unwrap();
        at_home.block_on(async {}).unwrap();
        let code = fork(|| {
            let Some(before) = crate::support::held() else { return };
            drop((unbound, at_home));
            let after = crate::support::held().unwrap();
            // A queue and an eventfd (or two sockets) each.
            let each = if cfg!(evbase_pipe_notify) { 3 } else { 2 };
            assert_eq!(before.descriptors - after.descriptors, 2 * each);
        });
        assert_eq!(code, 0);
    });
}

#[test]
fn the_end_of_a_forked_thread_drops_no_task_of_the_parents() {
    // Leaks are not looked for, neither in the child, which leaves its parent's memory where it is.
    if let Some(output) = alone_until_exit(|| assert_eq!(fork_that_exits_its_thread(), 0)) {
        crate::support::assert_success(&output);
    }
}

/// The child went on with a closing that is not its own: it dropped its parent's tasks, and published an end.
#[test]
fn a_fork_in_a_destructor_at_the_end_leaves_the_rest_to_the_parent() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        let drops = Drops::new();
        let child = Rc::new(Cell::new(-1));
        for _ in 0..3 {
            let probe = drops.local_probe();
            drop(runtime.spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            }));
        }
        let forked = child.clone();
        let guard = OnDrop(move || {
            // SAFETY: the child goes on with the code below, and leaves by `_exit`.
            forked.set(unsafe { libc::fork() });
        });
        // The last one is the first to be dropped.
        drop(runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        runtime.block_on(yield_now()).unwrap();
        drop(runtime);
        assert!(child.get() >= 0);
        if child.get() == 0 {
            let is_left_alone = drops.count() == 0
                && poll_once(&mut shutdown.terminated()).is_pending()
                && shutdown.terminated().wait() == Err(WaitError::Forked);
            // SAFETY: ends the child.
            unsafe { libc::_exit(if is_left_alone { 0 } else { 1 + drops.count() as i32 }) };
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert!(unsafe { libc::waitpid(child.get(), &mut status, 0) } > 0);
        drops.assert_on(thread::current().id(), 3);
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 4);
        assert!(libc::WIFEXITED(status), "{status}");
        assert_eq!(libc::WEXITSTATUS(status), 0);
    });
}

/// The child ends by `exit`, which destroys the thread-locals of the forking thread, which was home.
fn fork_that_exits_its_thread() -> i32 {
    let runtime = Runtime::new().unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let probe = dropped.clone();
    let parent = std::process::id();
    drop(runtime.spawn_local(async move {
        let _guard = OnDrop(move || {
            probe.store(true, SeqCst);
            if std::process::id() != parent {
                // SAFETY: ends the child.
                unsafe { libc::_exit(3) };
            }
        });
        pending::<()>().await;
    }));
    runtime.block_on(yield_now()).unwrap();
    let code = fork(|| std::process::exit(0));
    assert!(!dropped.load(SeqCst));
    assert_eq!(poll_once(&mut runtime.shutdown_handle().terminated()), Poll::Pending);
    code
}

/// A lock that another thread held when the process forked is held for ever in the child.
#[test]
fn the_child_answers_forked_whatever_other_threads_held_when_it_was_forked() {
    alone(|| {
        let runtime = Arc::new(parked(Builder::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shutdown, stopped, driven) = (runtime.shutdown_handle(), stop.clone(), runtime.clone());
        let (mut requested, mut terminated) = (Some(shutdown.requested()), Some(shutdown.terminated()));
        assert!(poll_once(requested.as_mut().unwrap()).is_pending());
        assert!(poll_once(terminated.as_mut().unwrap()).is_pending());
        let poller = thread::spawn(move || {
            while !stopped.load(SeqCst) {
                // Locks what the report is kept behind.
                for _ in 0..100 {
                    let _ = shutdown.terminated().wait_timeout(Duration::ZERO);
                    let _ = poll_once(&mut shutdown.terminated());
                    let _ = poll_once(&mut shutdown.requested());
                    let _ = driven.home();
                }
            }
        });
        let mut codes = Vec::new();
        for _ in crate::support::in_seconds(0..500, 5) {
            codes.push(fork(|| {
                answers_forked(&runtime);
                let shutdown = runtime.shutdown_handle();
                assert!(!poll_once(&mut shutdown.terminated()).is_ready());
                assert!(!poll_once(&mut shutdown.requested()).is_ready());
                assert!(runtime.home().is_some());
                assert!(!format!("{runtime:?}").is_empty());
                drop((requested.take(), terminated.take()));
            }));
            if codes.last() != Some(&0) {
                break;
            }
        }
        stop.store(true, SeqCst);
        poller.join().unwrap();
        let failed = codes.iter().position(|code| *code != 0);
        assert_eq!(failed.map(|at| codes[at]), None, "child {failed:?} (-9: it hung)");
    });
}

#[test]
fn the_child_makes_runtimes_whatever_other_threads_did_when_it_was_forked() {
    alone(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let makers: Vec<_> = (0..3)
            .map(|_| {
                let stopped = stop.clone();
                thread::spawn(move || {
                    while !stopped.load(SeqCst) {
                        drop(Runtime::new().unwrap());
                    }
                })
            })
            .collect();
        let mut codes = Vec::new();
        for _ in crate::support::in_seconds(0..300, 5) {
            codes.push(fork(|| {
                let runtime = Runtime::new().unwrap();
                runtime.block_on(async {}).unwrap();
            }));
            if codes.last() != Some(&0) {
                break;
            }
        }
        stop.store(true, SeqCst);
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        let failed = codes.iter().position(|code| *code != 0);
        assert_eq!(failed.map(|at| codes[at]), None, "child {failed:?} (-9: it hung)");
    });
}

/// The loop of the parent counted as one of the child's, so that a new runtime was `Nested` in it.
#[test]
fn a_child_that_was_forked_inside_a_task_drives_a_runtime_of_its_own() {
    crate::support::alone(|| {
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
    });
}
