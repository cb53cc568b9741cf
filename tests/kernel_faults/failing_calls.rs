//! What one failing system call does, and to whom: threads and fork handlers that can't be made, waits that fail while the
//! runtime stops, a ring that fails, a kernel without exact waits, a listener without descriptors.

// The sanitizers put themselves in the place of the same functions.

use std::fs::File;
use std::future::pending;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired, Interest, Mode};
use evbase::io::AsyncFd;
use evbase::net::{TcpListener, TcpStream};
use evbase::time::{sleep, timeout};
use evbase::{Builder, Cause, RunError, Runtime, WaitError, spawn_local};

use futures::channel::oneshot;

use crate::faulty_calls::{Call, Counted, FOR_EVER, Plan, count, failed, heal, in_the_next_fault, with_faults};

use crate::support::{Drops, alone, limit_descriptors, open_descriptors};

/// Longer than any test runs: whoever waits it out hangs.
const LONG: Duration = Duration::from_secs(3600);

/// All of these calls fail while `body` runs.
fn without(call: Call, errno: libc::c_int, body: impl FnOnce()) -> Counted {
    failing(call, errno, FOR_EVER, body)
}

/// The first `times` of these calls fail.
fn failing(call: Call, errno: libc::c_int, times: usize, body: impl FnOnce()) -> Counted {
    let plan = Plan {
        call,
        errno,
        first: 1,
        times,
    };
    with_faults(Some(plan), body)
}

// ---- Construction ----

#[test]
fn without_a_fork_handler_nothing_is_made_and_the_next_try_works() {
    alone(|| {
        let before = open_descriptors();
        without(Call::ForkHandler, libc::ENOMEM, || {
            assert_eq!(Runtime::new().unwrap_err().raw_os_error(), Some(libc::ENOMEM));
            let base = EventBase::<()>::new();
            assert_eq!(base.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        });
        assert_eq!(open_descriptors(), before);
        Runtime::new().unwrap().block_on(async {}).unwrap();
    });
}

#[test]
fn without_a_thread_start_is_an_error_and_leaves_nothing() {
    alone(|| {
        drop(Runtime::new().unwrap());
        let before = open_descriptors();
        let counted = without(Call::Thread, libc::EAGAIN, || {
            for _ in 0..10 {
                let error = Builder::new().start("home").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
            }
        });
        assert_eq!((counted.failed, counted.bad_closes), (10, 0));
        assert_eq!(open_descriptors(), before);
        let runtime = Builder::new().start("home").unwrap();
        assert_eq!(runtime.shutdown().wait().unwrap().cause, Cause::Dropped);
    });
}

#[test]
fn a_socket_pair_takes_the_place_of_a_missing_eventfd_if_there_are_descriptors() {
    alone(|| {
        drop(Runtime::new().unwrap());
        without(Call::Eventfd, libc::ENOSYS, || {
            limit_descriptors(64);
            let mut files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            // Both sockets, and the queue.
            for free in 0..=3 {
                let before = open_descriptors();
                let made = Builder::new().build();
                assert_eq!(made.is_ok(), free == 3);
                if let Err(error) = &made {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                }
                drop(made);
                assert_eq!(open_descriptors(), before);
                drop(files.pop());
            }
            drop(files);
            let runtime = Builder::new().start("home").unwrap();
            for n in 0..100 {
                assert_eq!(runtime.spawner().spawn(async move { n }).wait().unwrap().unwrap(), n);
            }
            runtime.shutdown().wait().unwrap();
        });
    });
}

#[test]
fn a_thread_whose_slack_cannot_be_set_is_left_as_it_is() {
    alone(|| {
        // SAFETY: takes no pointer.
        let slack = || unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        let before = slack();
        let runtime = Runtime::new().unwrap();
        let counted = without(Call::Slack, libc::EINVAL, || {
            // So long that home waits, and more than once: it asks once a loop.
            for _ in 0..3 {
                runtime.block_on(sleep(Duration::from_millis(5))).unwrap();
            }
        });
        assert_eq!((counted.failed, slack()), (3, before));
        runtime.shutdown().wait().unwrap();
        assert_eq!(slack(), before);
    });
}

// ---- Waits ----

fn is_bad(error: RunError) -> bool {
    matches!(error, RunError::Io(error) if error.raw_os_error() == Some(libc::EBADF))
}

#[test]
fn a_wait_that_fails_is_told_and_the_tasks_go_on_in_the_next_run() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        let (tell, told) = oneshot::channel();
        let task = runtime.spawn_local(async move {
            let _probe = probe;
            // A time to wait for, which doesn't come.
            timeout(LONG, told).await.unwrap().unwrap()
        });
        let mut task = task.unwrap();
        let counted = failing(Call::Sleep, libc::EBADF, 3, || {
            assert!(runtime.block_on(async { (&mut task).await }).is_err_and(is_bad));
            assert!(runtime.run().is_err_and(is_bad));
            assert!(runtime.turn(None).is_err_and(is_bad));
            assert_eq!(drops.count(), 0);
            // Nobody is asleep, and nobody has to be woken.
            let rings = count(Call::NotifyWrite);
            let spawner = runtime.spawner();
            thread::spawn(move || drop(spawner.spawn(async {}))).join().unwrap();
            assert_eq!(count(Call::NotifyWrite), rings);
            tell.send(7).unwrap();
            assert_eq!(runtime.block_on(&mut task).unwrap().unwrap(), 7);
        });
        assert_eq!((counted.failed, drops.count()), (3, 1));
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.completed + report.cancelled, 2);
    });
}

#[test]
fn a_wait_for_a_task_or_for_the_end_tells_what_the_kernel_said() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let task = runtime.spawn_local(pending::<()>()).unwrap();
        let terminated = runtime.shutdown_handle().terminated();
        let invalid = WaitError::Io(ErrorKind::InvalidInput);
        let counted = without(Call::Sleep, libc::EINVAL, || {
            assert_eq!(task.wait().unwrap_err(), invalid);
            assert_eq!(terminated.wait_timeout(LONG).unwrap_err(), invalid);
            assert_eq!(terminated.wait().unwrap_err(), invalid);
            assert!(invalid.to_string().contains("invalid"), "{invalid}");
        });
        assert_eq!(counted.failed, 3);
        // The task was detached by its wait.
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 1);
    });
}

#[test]
fn a_stop_that_comes_while_a_wait_fails_is_seen_before_the_failure() {
    alone(|| {
        for lasts in [false, true] {
            let runtime = Builder::new().grace(LONG).build().unwrap();
            let shutdown = runtime.shutdown_handle();
            let stubborn = runtime.spawn_local(pending::<()>()).unwrap();
            let in_grace = runtime.spawn_local({
                let shutdown = shutdown.clone();
                async move {
                    shutdown.requested().await;
                    shutdown.request_now();
                }
            });
            drop((stubborn, in_grace.unwrap()));
            in_the_next_fault({
                let shutdown = shutdown.clone();
                move || shutdown.request()
            });
            failing(Call::Sleep, libc::EBADF, if lasts { FOR_EVER } else { 1 }, || {
                let result = runtime.block_on(pending::<()>());
                assert!(matches!(result, Err(RunError::Stopped)), "{result:?}");
            });
            // That it has stopped means that it is closed.
            let report = shutdown.terminated().wait_timeout(Duration::ZERO).unwrap().unwrap();
            assert_eq!(
                (report.cause, report.completed + report.cancelled),
                (Cause::Requested, 2)
            );
        }
    });
}

#[test]
fn waits_that_fail_in_the_grace_period_end_it() {
    alone(|| {
        drop(Runtime::new().unwrap());
        let before = open_descriptors();
        for way in 0..4 {
            fail_in_grace(way);
            assert_eq!(open_descriptors(), before);
        }
    });
}

fn fail_in_grace(way: usize) {
    let drops = Drops::new();
    let runtime = Builder::new().grace(LONG).build().unwrap();
    for _ in 0..3 {
        let probe = drops.probe();
        let task = async move {
            let _probe = probe;
            pending::<()>().await;
        };
        drop(runtime.spawn_local(task).unwrap());
    }
    let shutdown = runtime.shutdown_handle();
    let terminated = shutdown.terminated();
    runtime.block_on(async {}).unwrap();
    let counted = without(Call::Sleep, libc::EBADF, || match way {
        0 => {
            shutdown.request();
            assert!(matches!(runtime.block_on(pending::<()>()), Err(RunError::Stopped)));
        }
        1 => {
            shutdown.request();
            assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
        }
        2 => drop(runtime),
        _ => assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 3),
    });
    assert!((1..=3).contains(&counted.failed) && counted.all() < 100, "{counted:?}");
    assert_eq!(terminated.wait().unwrap().cancelled, 3);
    assert_eq!(drops.threads(), [thread::current().id(); 3]);
}

#[test]
fn a_turn_that_fails_in_the_grace_period_can_be_repeated() {
    alone(|| {
        let runtime = Builder::new().grace(LONG).build().unwrap();
        let (tell, told) = oneshot::channel();
        drop(runtime.spawn_local(timeout(LONG, told)).unwrap());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        runtime.shutdown_handle().request();
        without(Call::Sleep, libc::EBADF, || {
            for _ in 0..3 {
                assert!(runtime.turn(None).is_err_and(is_bad));
            }
            heal();
            tell.send(()).unwrap();
            while !runtime.turn(None).unwrap().closed {}
        });
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 1);
    });
}

#[test]
fn a_home_thread_whose_waits_fail_ends_and_closes_its_runtime() {
    alone(|| {
        drop(Runtime::new().unwrap());
        let before = open_descriptors();
        let runtime = Builder::new().grace(LONG).start("home").unwrap();
        let drops = Drops::new();
        let (home, spawner) = (runtime.home().unwrap(), runtime.spawner());
        let terminated = runtime.shutdown_handle().terminated();
        let stubborn = spawner.spawn({
            let probe = drops.probe();
            async move {
                let _probe = probe;
                pending::<()>().await;
            }
        });
        let counted = without(Call::Sleep, libc::EBADF, || {
            // Ends the wait that had begun before.
            drop(spawner.spawn(async {}));
            assert_eq!(terminated.wait().unwrap().cause, Cause::HomeExited);
        });
        assert_eq!(counted.failed, 1);
        assert!(stubborn.wait().unwrap().unwrap_err().is_cancelled());
        assert_eq!(drops.threads(), [home]);
        assert!(spawner.try_spawn(async {}).is_err());
        assert_eq!(runtime.run().unwrap().cause, Cause::HomeExited);
        drop((runtime, spawner));
        crate::support::until(|| open_descriptors() == before);
    });
}

#[test]
fn a_turn_of_a_base_that_fails_keeps_events_timers_and_the_notification() {
    alone(|| {
        let mut base = EventBase::<u8, u8>::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        base.register(&near, Interest::READABLE, Mode::Edge, 1).unwrap();
        far.write_all(b"x").unwrap();
        base.arm(Instant::now(), 2);
        base.notifier().notify().unwrap();
        for call in [Call::Look, Call::Sleep] {
            // A timer that is due is not waited for.
            let timeout = (call == Call::Look).then_some(Duration::ZERO);
            if call == Call::Sleep {
                assert_eq!(base.clear().1.len(), 1);
                base.register(&near, Interest::READABLE, Mode::Edge, 1).unwrap();
                base.arm(Instant::now() + LONG, 2);
            }
            failing(call, libc::EBADF, 3, || {
                for _ in 0..3 {
                    let error = base.turn(timeout, |_| panic!("fired")).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
                }
            });
        }
        base.arm(Instant::now(), 3);
        let mut fired = Vec::new();
        let turned = base.turn(None, |event| match event {
            Fired::Source { payload, .. } => fired.push(*payload),
            Fired::Timer { payload, .. } => fired.push(payload),
            _ => {}
        });
        assert!(turned.unwrap().notified);
        assert_eq!(fired, [1, 3]);
    });
}

#[test]
fn registrations_that_fail_leave_nothing_in_a_base() {
    alone(|| {
        for errno in [libc::ENOMEM, libc::ENOSPC, libc::EBADF, libc::ELOOP, libc::EINVAL] {
            let drops = Drops::new();
            let mut base = EventBase::<_, ()>::new().unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            failing(Call::EpollAdd, errno, 1, || {
                let error = base.register(&near, Interest::READABLE, Mode::Level, drops.probe());
                assert_eq!(error.unwrap_err().raw_os_error(), Some(errno));
            });
            assert_eq!((drops.count(), base.sources()), (1, 0));
            let key = base
                .register(&near, Interest::READABLE, Mode::Level, drops.probe())
                .unwrap();
            failing(Call::EpollModify, errno, 1, || {
                let error = base.reregister(key, Interest::WRITABLE, Mode::Level).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno));
            });
            // It is still watched for what it was.
            assert_eq!(base.turn(Some(Duration::ZERO), |_| {}).unwrap().events, 0);
            far.write_all(b"x").unwrap();
            assert_eq!(base.turn(None, |_| {}).unwrap().events, 1);
            failing(Call::EpollRemove, errno, 1, || assert!(base.deregister(key).is_some()));
            // The kernel knows it still, and says so; nobody hears of it.
            assert_eq!(base.turn(Some(Duration::ZERO), |_| {}).unwrap().events, 0);
            let again = base
                .register(&near, Interest::READABLE, Mode::Level, drops.probe())
                .unwrap();
            assert_eq!(base.turn(None, |_| {}).unwrap().events, 1);
            assert!(base.deregister(again).is_some());
            assert_eq!(drops.count(), 3);
        }
    });
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn a_second_direction_that_fails_leaves_the_first_one_waiting() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                let (near, mut far) = UnixStream::pair().unwrap();
                let near = Arc::new(AsyncFd::new(near).unwrap());
                let reader = spawn_local({
                    let near = near.clone();
                    async move { near.readable().await.map(|ready| ready.ready().is_readable()) }
                });
                evbase::yield_now().await;
                failing(Call::EpollModify, libc::ENOMEM, 1, || {
                    let waker = futures::task::noop_waker();
                    let polled = near.poll_write_ready(&mut std::task::Context::from_waker(&waker));
                    assert!(matches!(polled, std::task::Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOMEM)));
                });
                far.write_all(b"x").unwrap();
                assert!(reader.await.unwrap().unwrap());
                assert!(near.writable().await.unwrap().ready().is_writable());
            })
            .unwrap();
    });
}

// ---- Rings ----

#[test]
fn a_notifier_tells_whoever_notifies_that_it_could_not_and_keeps_errno() {
    alone(|| {
        let mut base = EventBase::<()>::new().unwrap();
        let notifier = base.notifier();
        for errno in [libc::EIO, libc::EBADF] {
            failing(Call::NotifyWrite, errno, 1, || {
                // SAFETY: this thread's own location.
                unsafe { *libc::__errno_location() = libc::EXDEV };
                assert_eq!(notifier.notify().unwrap_err().raw_os_error(), Some(errno));
                // SAFETY: as above.
                assert_eq!(unsafe { *libc::__errno_location() }, libc::EXDEV);
                assert!(!base.turn(Some(Duration::ZERO), |_| {}).unwrap().notified);
                notifier.notify().unwrap();
                assert!(base.turn(None, |_| {}).unwrap().notified);
            });
        }
    });
}

#[test]
fn a_ring_that_failed_leaves_no_mark_and_the_next_one_wakes() {
    alone(|| {
        let runtime = Builder::new().start("home").unwrap();
        let spawner = runtime.spawner();
        for errno in [libc::EBADF, libc::EIO, libc::EAGAIN] {
            // Of EAGAIN, one more than it is tried again.
            let times = if errno == libc::EAGAIN { 17 } else { 1 };
            if cfg!(evbase_pipe_notify) && errno == libc::EAGAIN {
                // A full socket wakes.
                continue;
            }
            let done = Arc::new(AtomicUsize::new(0));
            let task = || {
                let done = done.clone();
                async move { _ = done.fetch_add(1, SeqCst) }
            };
            failing(Call::NotifyWrite, errno, times, || {
                // Those that find home awake don't ring.
                while failed() < times {
                    drop(spawner.spawn(task()));
                    thread::sleep(Duration::from_micros(100));
                }
                spawner.spawn(task()).wait().unwrap().unwrap();
            });
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::Dropped, 0));
    });
}

// ---- Sandboxes ----

/// From there on, waits are in milliseconds; and no timer is early.
fn is_asked_for_exact_waits_once(errno: libc::c_int) {
    let runtime = Runtime::new().unwrap();
    let counted = without(Call::ExactWait, errno, || {
        // Some are over before anybody waits.
        let mut micros = [1, 300, 999, 1001, 2500].into_iter().cycle();
        while count(Call::Wait) < 20 {
            let (start, duration) = (Instant::now(), Duration::from_micros(micros.next().unwrap()));
            runtime.block_on(sleep(duration)).unwrap();
            assert!(start.elapsed() >= duration);
        }
    });
    let asked = usize::from(cfg!(not(evbase_millisecond_waits)));
    assert_eq!(counted.of(Call::ExactWait), asked);
}

#[test]
fn a_kernel_without_exact_waits_is_asked_once() {
    alone(|| {
        is_asked_for_exact_waits_once(libc::ENOSYS);
    });
}

#[test]
fn a_sandbox_that_forbids_exact_waits_is_asked_once() {
    alone(|| {
        is_asked_for_exact_waits_once(libc::EPERM);
    });
}

// ---- Accepting ----

#[test]
fn a_listener_without_descriptors_stops_nobody_else_and_goes_on_when_there_are_some() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        without(Call::Accept, libc::EMFILE, || {
            let work = async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let errors = Arc::new(AtomicUsize::new(0));
                let accepting = spawn_local({
                    let errors = errors.clone();
                    async move {
                        // Without the pause that the docs ask for.
                        loop {
                            match listener.accept().await {
                                Ok((_, peer)) => break peer,
                                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
                            }
                            errors.fetch_add(1, SeqCst);
                        }
                    }
                });
                while errors.load(SeqCst) < 1000 {
                    sleep(Duration::from_micros(100)).await;
                }
                heal();
                assert_eq!(accepting.await.unwrap(), client.local_addr().unwrap());
            };
            runtime.block_on(work).unwrap();
        });
    });
}

// ---- Signals ----

#[test]
fn a_signal_that_cannot_be_handled_is_an_error_that_names_it_and_undoes_the_others() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        for bad in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 0, -1, 65, 10_000] {
            let error = shutdown.on_signals(&[libc::SIGUSR1, bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(&format!("signal {bad} ")), "{error}");
        }
        // SAFETY: a handler that does nothing has stayed.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        assert!(!shutdown.is_requested());
        let _guard = shutdown.on_signals(&[libc::SIGUSR1]).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        assert!(shutdown.is_requested());
    });
}
