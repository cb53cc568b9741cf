//! A stop that comes after somebody has begun to wait for the end: whoever waits at home, in whatever loop or executor, hears
//! of it, and closes.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::time::timeout;
use evbase::{Builder, Cause, Report, Runtime, Terminated};
use futures::task::LocalSpawnExt;

use crate::support::{
    Held, Tid, Wakes, alone, held, in_seconds, poll_here, poll_with, rounds_alone, tid_of, until, until_parked,
};

#[derive(Clone, Copy)]
enum Stop {
    Drop,
    Request,
}

impl Stop {
    const BOTH: [Self; 2] = [Self::Drop, Self::Request];

    fn cause(self) -> Cause {
        match self {
            Self::Drop => Cause::Dropped,
            Self::Request => Cause::Requested,
        }
    }
}

/// A thread that stops the runtime when it is told that somebody waits. It gives back what it hasn't dropped.
fn stop_later(runtime: Runtime, stop: Stop) -> (mpsc::Sender<()>, thread::JoinHandle<Option<Runtime>>) {
    let (waits, has_begun) = mpsc::channel();
    let abroad = thread::spawn(move || {
        has_begun.recv().unwrap();
        match stop {
            Stop::Drop => {
                drop(runtime);
                None
            }
            Stop::Request => {
                runtime.shutdown_handle().request();
                Some(runtime)
            }
        }
    });
    (waits, abroad)
}

/// Tells after the first poll, which has to be in vain.
async fn tell_when_pending(mut end: Terminated, waits: mpsc::Sender<()>) -> Report {
    let mut is_first = true;
    poll_fn(|cx| {
        let polled = poll_with(&mut end, cx.waker());
        if is_first {
            assert!(polled.is_pending(), "nobody has asked for the end yet");
            is_first = false;
            waits.send(()).unwrap();
        }
        polled
    })
    .await
}

fn unbound() -> Runtime {
    Runtime::new().unwrap()
}

fn at_home_here() -> Runtime {
    let runtime = unbound();
    runtime.block_on(async {}).unwrap();
    runtime
}

/// Awaits the end in an executor on this thread, and has the runtime stopped after the first poll.
fn await_the_end(runtime: Runtime, stop: Stop, executor: impl FnOnce(&mut dyn FnMut() -> WaitsForEnd) -> Report) {
    let end = runtime.shutdown_handle().terminated();
    let (waits, abroad) = stop_later(runtime, stop);
    let mut future = Some(WaitsForEnd(end, waits));
    let report = executor(&mut || future.take().unwrap());
    assert_eq!(report.cause, stop.cause());
    drop(abroad.join().unwrap());
}

struct WaitsForEnd(Terminated, mpsc::Sender<()>);

fn in_the_loop_of_another(take: &mut dyn FnMut() -> WaitsForEnd) -> Report {
    let WaitsForEnd(end, waits) = take();
    Runtime::new().unwrap().block_on(tell_when_pending(end, waits)).unwrap()
}

fn in_another_executor(take: &mut dyn FnMut() -> WaitsForEnd) -> Report {
    let WaitsForEnd(end, waits) = take();
    futures::executor::block_on(tell_when_pending(end, waits))
}

#[test]
fn the_end_is_awaited_at_home_in_the_loop_of_another_runtime() {
    rounds_alone(1000, |round| {
        await_the_end(at_home_here(), Stop::BOTH[round % 2], in_the_loop_of_another);
    });
}

#[test]
fn the_end_is_awaited_at_home_in_another_executor() {
    // A request may come from a signal handler, which can wake no waker of others: only a drop does.
    rounds_alone(1000, |_| await_the_end(at_home_here(), Stop::Drop, in_another_executor));
}

#[test]
fn the_end_of_what_has_no_home_is_awaited_in_the_loop_of_another_runtime() {
    rounds_alone(1000, |round| {
        await_the_end(unbound(), Stop::BOTH[round % 2], in_the_loop_of_another);
    });
}

#[test]
fn the_end_of_what_has_no_home_is_awaited_in_another_executor() {
    rounds_alone(1000, |_| await_the_end(unbound(), Stop::Drop, in_another_executor));
}

#[test]
fn home_awaits_in_another_loop_a_task_abroad_that_awaits_its_shutdown() {
    rounds_alone(1000, |_| {
        let x = at_home_here();
        let there = Builder::new().start("there").unwrap();
        let task = there.spawner().spawn(async move { x.shutdown().await });
        let report = Runtime::new().unwrap().block_on(task).unwrap().unwrap();
        assert_eq!(report.cause, Cause::Dropped);
    });
}

#[test]
fn home_waits_for_a_task_abroad_that_awaits_its_shutdown() {
    rounds_alone(1000, |_| {
        let x = at_home_here();
        let there = Builder::new().start("there").unwrap();
        let task = there.spawner().spawn(async move { x.shutdown().await });
        assert_eq!(task.wait().unwrap().unwrap().cause, Cause::Dropped);
    });
}

/// The grace period of one runtime of a thread is no reason not to hear of the stop of another one.
#[test]
fn a_home_that_waits_hears_a_stop_while_another_of_its_runtimes_is_in_its_grace_period() {
    rounds_alone(300, |_| {
        let there = Builder::new().start("there").unwrap();
        let (release, released) = futures::channel::oneshot::channel::<()>();
        let task = there.spawner().spawn(released);
        let (tell, told) = mpsc::channel();
        let home = thread::spawn(move || {
            let a = Builder::new().grace(Duration::MAX).build().unwrap();
            let (polled, in_grace) = mpsc::channel();
            let requested = a.shutdown_handle().requested();
            let stays = async move {
                requested.await;
                polled.send(()).unwrap();
                pending::<()>().await;
            };
            drop(a.spawn_local(stays).unwrap());
            let b = at_home_here();
            tell.send((a.shutdown_handle(), b.shutdown_handle(), in_grace)).unwrap();
            task.wait().unwrap().unwrap().unwrap();
        });
        let (a_end, b_end, in_grace) = told.recv().unwrap();
        a_end.request();
        // A's grace period runs in the wait, and has no end.
        in_grace.recv().unwrap();
        b_end.request();
        assert_eq!(b_end.terminated().wait().unwrap().cause, Cause::Requested);
        a_end.request_now();
        release.send(()).unwrap();
        home.join().unwrap();
    });
}

#[test]
fn a_close_wakes_who_waits_for_a_descriptor_or_a_timer_in_another_executor() {
    rounds_alone(1000, |round| {
        let runtime = unbound();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let mut sleep = evbase::time::sleep(Duration::from_secs(3600));
        let mut readable = pin!(fd.readable());
        let [(by_fd, fd_waker), (by_poll, poll_waker), (by_timer, timer_waker)] = [(); 3].map(|()| Wakes::new());
        {
            let _context = runtime.enter().unwrap();
            let mut context = std::task::Context::from_waker(&fd_waker);
            assert!(readable.as_mut().poll(&mut context).is_pending());
            let mut context = std::task::Context::from_waker(&poll_waker);
            assert!(fd.poll_read_ready(&mut context).is_pending());
            assert!(poll_with(&mut sleep, &timer_waker).is_pending());
        }
        if round % 2 == 0 {
            runtime.shutdown().wait().unwrap();
        } else {
            drop(runtime);
        }
        until(|| [&by_fd, &by_poll, &by_timer].iter().all(|wakes| wakes.count() > 0));
        let mut context = std::task::Context::from_waker(&fd_waker);
        assert!(matches!(
            readable.as_mut().poll(&mut context),
            std::task::Poll::Ready(Err(_))
        ));
    });
}

/// The bell of a thread that awaits the end of a runtime since before that had a home is rung first.
#[test]
fn a_stop_reaches_a_home_that_waits_although_another_loop_awaits_the_end_for_longer() {
    rounds_alone(300, |_| {
        let x = Arc::new(unbound());
        let other = Builder::new().start("other").unwrap();
        let (waits, is_waiting) = mpsc::channel();
        let end = x.shutdown_handle().terminated();
        let told = other.spawner().spawn(tell_when_pending(end, waits));
        is_waiting.recv().unwrap();
        let shutdown = x.shutdown_handle();
        let (bound, is_bound) = mpsc::channel();
        let home = thread::spawn(move || {
            x.block_on(async {}).unwrap();
            bound.send(Tid::here()).unwrap();
            told.wait().unwrap().unwrap()
        });
        until_parked(is_bound.recv().unwrap());
        until_parked(tid_of(&other));
        shutdown.request();
        assert_eq!(home.join().unwrap().cause, Cause::Requested);
    });
}

/// One place, with its bell and that bell's descriptors, is kept for the next thread.
#[test]
fn threads_that_await_the_end_of_what_has_no_home_one_after_the_other_leave_nothing_behind() {
    alone(|| {
        let runtime = unbound();
        let await_in_vain = |_| {
            let end = runtime.shutdown_handle().terminated();
            let awaits = move || {
                let here = at_home_here();
                let in_time = async move { timeout(Duration::from_millis(1), end).await };
                assert!(here.block_on(in_time).unwrap().is_err());
            };
            thread::spawn(awaits).join().unwrap();
        };
        let before = held();
        in_seconds(0..100, 10).for_each(await_in_vain);
        // A notifier has up to two descriptors. A thread that is joined may still be listed, for a moment.
        if let Some(before) = before {
            let most = Held {
                descriptors: before.descriptors + 2,
                ..before
            };
            until(|| held().unwrap().threads <= most.threads);
            let after = held().unwrap();
            assert!(after.descriptors <= most.descriptors, "{before:?} {after:?}");
        }
        // The last place is taken by a thread that hears the stop.
        let (waits, is_waiting) = mpsc::channel();
        let end = runtime.shutdown_handle().terminated();
        let last = thread::spawn(move || at_home_here().block_on(tell_when_pending(end, waits)).unwrap());
        is_waiting.recv().unwrap();
        runtime.shutdown_handle().request();
        assert_eq!(last.join().unwrap().cause, Cause::Requested);
    });
}

/// Each of the threads comes, waits and goes at any moment of the others: their bells take each other's places.
#[test]
fn a_stop_reaches_who_waits_for_what_has_no_home_while_others_come_and_go() {
    rounds_alone(300, |round| {
        let runtime = unbound();
        let shutdown = runtime.shutdown_handle();
        let come_and_go: Vec<_> = (0..3)
            .map(|me| {
                let end = shutdown.terminated();
                thread::spawn(move || {
                    let patience = Duration::from_micros((round + 17 * me) as u64 % 100);
                    let _ = at_home_here().block_on(timeout(patience, end)).unwrap();
                })
            })
            .collect();
        if round % 2 == 0 {
            thread::yield_now();
        }
        let (waits, is_waiting) = mpsc::channel();
        let end = shutdown.terminated();
        let stays = thread::spawn(move || at_home_here().block_on(tell_when_pending(end, waits)).unwrap());
        is_waiting.recv().unwrap();
        for thread in come_and_go {
            thread.join().unwrap();
        }
        shutdown.request();
        assert_eq!(stays.join().unwrap().cause, Cause::Requested);
    });
}

/// The waker of a poll is kept, and what that poll could not do, the next one can.
#[test]
fn a_drop_wakes_who_awaits_the_end_in_another_executor_since_before_the_thread_was_home() {
    rounds_alone(300, |_| {
        let runtime = unbound();
        let mut end = runtime.shutdown_handle().terminated();
        let mut runtime = Some(runtime);
        let report = futures::executor::block_on(poll_fn(|cx| {
            let polled = poll_with(&mut end, cx.waker());
            if let Some(runtime) = runtime.take() {
                assert!(polled.is_pending());
                drop(runtime.spawn_local(pending::<()>()).unwrap());
                drop(thread::spawn(move || drop(runtime)));
            }
            polled
        }));
        assert_eq!(report.cause, Cause::Dropped);
    });
}

#[test]
fn a_drop_wakes_who_awaits_the_end_in_another_executor_that_was_in_the_loop_before() {
    rounds_alone(300, |_| {
        let runtime = unbound();
        let mut pool = futures::executor::LocalPool::new();
        let end = runtime.shutdown_handle().terminated();
        let told = pool.spawner().spawn_local_with_handle(end).unwrap();
        runtime.block_on(async { pool.run_until_stalled() }).unwrap();
        let abroad = thread::spawn(move || drop(runtime));
        assert_eq!(pool.run_until(told).cause, Cause::Dropped);
        abroad.join().unwrap();
    });
}

#[test]
fn a_wait_hears_of_a_stop_that_comes_with_that_of_a_runtime_whose_grace_period_it_runs() {
    rounds_alone(300, |_| {
        let there = Builder::new().start("there").unwrap();
        let one = Builder::new().grace(Duration::MAX).build().unwrap();
        drop(one.spawn_local(pending::<()>()).unwrap());
        let other = at_home_here();
        let ends = [one.shutdown_handle(), other.shutdown_handle()];
        let (release, released) = futures::channel::oneshot::channel::<()>();
        let task = there.spawner().spawn(released);
        let home = Tid::here();
        let stops = thread::spawn(move || {
            until_parked(home);
            ends.iter().for_each(evbase::Shutdown::request);
            assert_eq!(ends[1].terminated().wait().unwrap().cause, Cause::Requested);
            release.send(()).unwrap();
        });
        task.wait().unwrap().unwrap().unwrap();
        stops.join().unwrap();
        one.shutdown_handle().request_now();
    });
}

/// The stop rings for the first of two threads that await the end, whose loop just ends, and which then does something else.
#[test]
fn a_stop_reaches_who_waits_for_what_has_no_home_although_another_thread_leaves_its_loop() {
    rounds_alone(1000, |_| {
        let x = unbound();
        let here = at_home_here();
        let (end, is_over) = futures::channel::oneshot::channel();
        let other = Builder::new().start("other").unwrap();
        let there = tid_of(&other);
        let [ours, theirs] = [(); 2].map(|()| x.shutdown_handle().terminated());
        let (waits, is_waiting) = mpsc::channel();
        let ran = here.block_on(async {
            // Its bell comes first into the list.
            let mut ours = ours;
            assert!(poll_here(&mut ours).await.is_pending());
            let told = other.spawner().spawn(tell_when_pending(theirs, waits));
            let (home, shutdown) = (Tid::here(), x.shutdown_handle());
            let stops = thread::spawn(move || {
                is_waiting.recv().unwrap();
                until_parked(home);
                until_parked(there);
                end.send(()).unwrap();
                shutdown.request();
            });
            futures::future::select(is_over, ours).await;
            (told, stops)
        });
        let (told, stops) = ran.unwrap();
        stops.join().unwrap();
        // Not by this thread's way to wait, which would see to the stop.
        assert_eq!(futures::executor::block_on(told).unwrap().cause, Cause::Requested);
    });
}

/// With virtual time, a loop looks at the kernel before it sleeps: that look must not take the bell's edge away.
#[test]
fn a_stop_is_heard_by_the_loop_of_another_runtime_whose_time_is_virtual() {
    rounds_alone(20_000, |round| {
        let (runtime, other) = (at_home_here(), Builder::new().paused().build().unwrap());
        other.block_on(async {}).unwrap();
        let shutdown = runtime.shutdown_handle();
        let mut end = shutdown.terminated();
        let polled = Arc::new(AtomicBool::new(false));
        let stops = thread::spawn({
            let polled = polled.clone();
            move || {
                while !polled.load(SeqCst) {
                    thread::yield_now();
                }
                (0..round % 400).for_each(|_| std::hint::spin_loop());
                shutdown.request();
            }
        });
        let ends = poll_fn(|cx| {
            let report = pin!(&mut end).poll(cx);
            polled.store(true, SeqCst);
            report
        });
        assert_eq!(other.block_on(ends).unwrap().cause, Cause::Requested);
        stops.join().unwrap();
    });
}

/// The ring that wakes the wait may come while the loop, which runs the grace period of another runtime, answers one before.
#[test]
fn a_wait_is_woken_although_the_loop_of_a_grace_period_answers_the_ring() {
    rounds_alone(50_000, |round| {
        let one = Builder::new().grace(Duration::MAX).build().unwrap();
        drop(one.spawn_local(pending::<()>()).unwrap());
        let other = at_home_here();
        one.shutdown_handle().request();
        let (shutdown, home) = (other.shutdown_handle(), Tid::here());
        let (start, handle) = mpsc::channel();
        let stops = thread::spawn(move || {
            let there = at_home_here();
            let (release, released) = futures::channel::oneshot::channel::<()>();
            start.send(there.spawn_local(released).unwrap()).unwrap();
            until_parked(home);
            shutdown.request();
            (0..round % 400 * 10).for_each(|_| std::hint::spin_loop());
            release.send(()).unwrap();
            while there.turn(Some(Duration::ZERO)).unwrap().polls == 0 {}
        });
        handle.recv().unwrap().wait().unwrap().unwrap().unwrap();
        stops.join().unwrap();
        one.shutdown_handle().request_now();
    });
}
