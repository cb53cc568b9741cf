//! Several runtimes of one thread, of which some are embedded: in one loop, in each other's.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::{sleep, timeout};
use evbase::{Builder, Cause, Embedded, JoinHandle, RunError, Runtime, Shutdown, spawn_local, yield_now};
use futures::StreamExt;

use crate::scenarios::is_readable;
use crate::support::{
    Drops, Tid, readable_within, rounds, stop_when_parked, turn_when_readable, until_parked, until_parked_or,
};
use crate::watched;

const SOON: Duration = Duration::from_secs(10);

/// Turns `guest` in the loop that polls this, until its runtime has closed. Whether a turn of this host has closed it.
async fn serve(guest: Rc<Embedded>) -> bool {
    let watched = AsyncFd::new(guest.as_fd().try_clone_to_owned().unwrap()).unwrap();
    loop {
        watched.readable().await.unwrap().clear_ready();
        match guest.turn() {
            Ok(turn) if turn.closed => return true,
            Ok(_) => {}
            Err(RunError::Stopped) => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_stop_that_comes_while_another_runtime_is_the_host_and_sleeps_is_closed_by_a_turn() {
    rounds(300, |round| {
        let host = Runtime::new().unwrap();
        let grace = [Duration::ZERO, SOON][round % 2];
        let guest = Builder::new().grace(grace).build().unwrap();
        let embedded = Rc::new(guest.embed().unwrap());
        let shutdown = guest.shutdown_handle();
        let terminated = shutdown.terminated();
        let task = guest.spawn_local(async {
            evbase::Shutdown::current().requested().await;
            sleep(Duration::from_micros(100)).await;
        });
        let stops = thread::spawn(move || {
            thread::sleep(Duration::from_micros(50 * (round as u64 % 20)));
            match round % 3 {
                0 => shutdown.request(),
                1 => shutdown.request_now(),
                _ => drop(guest),
            }
        });
        let closed = host.block_on(timeout(SOON, serve(embedded))).unwrap();
        assert_eq!(closed, Ok(true), "round {round}");
        stops.join().unwrap();
        let report = terminated.wait().unwrap();
        let in_grace = !grace.is_zero() && round % 3 != 1;
        assert_eq!(report.completed, u64::from(in_grace), "round {round}");
        assert_eq!(task.unwrap().wait().unwrap().is_ok(), in_grace);
    });
}

#[test]
fn a_task_of_the_host_that_awaits_the_end_does_not_cut_the_grace_period_short() {
    rounds(300, |round| {
        let host = Runtime::new().unwrap();
        let guest = Builder::new().grace(SOON).build().unwrap();
        let embedded = Rc::new(guest.embed().unwrap());
        let shutdown = guest.shutdown_handle();
        let terminated = shutdown.terminated();
        guest
            .spawn_local(async {
                evbase::Shutdown::current().requested().await;
                sleep(Duration::from_micros(100)).await;
            })
            .unwrap();
        let stops = thread::spawn(move || {
            thread::sleep(Duration::from_micros(50 * (round as u64 % 20)));
            match round % 2 {
                0 => shutdown.request(),
                _ => drop(guest),
            }
        });
        // Polled with each wake-up of the other.
        let both = futures::future::join(serve(embedded), terminated);
        let (by_turn, report) = host.block_on(timeout(SOON, both)).unwrap().unwrap();
        assert!(by_turn);
        assert_eq!((report.completed, report.cancelled), (1, 0));
        stops.join().unwrap();
    });
}

#[test]
fn a_turn_does_not_wait_for_the_end_of_another_runtime_of_its_thread() {
    watched(|| {
        let one = Runtime::new().unwrap();
        let other = Builder::new().grace(SOON).build().unwrap();
        let (one, its) = (
            one.embed().map(|embedded| (one, embedded)).unwrap(),
            other.embed().unwrap(),
        );
        let _stays = other.spawn_local(std::future::pending::<()>()).unwrap();
        its.turn().unwrap();
        let shutdown = other.shutdown_handle();
        thread::scope(|scope| scope.spawn(|| shutdown.request()).join().unwrap());
        let start = Instant::now();
        one.1.turn().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // Its own host closes it.
        assert!(is_readable(&its));
        assert!(!its.turn().unwrap().closed, "it is in its grace period");
        shutdown.request_now();
        assert!(is_readable(&its));
        assert!(its.turn().unwrap().closed);
    });
}

#[test]
fn a_runtime_that_nobody_turns_is_closed_by_the_loop_that_its_thread_is_in() {
    watched(|| {
        for n in 0..100 {
            let other = Runtime::new().unwrap();
            let guest = Builder::new().grace(SOON).build().unwrap();
            let embedded = guest.embed().unwrap();
            let _stays = guest.spawn_local(std::future::pending::<()>()).unwrap();
            embedded.turn().unwrap();
            let shutdown = guest.shutdown_handle();
            let terminated = shutdown.terminated();
            let stops = thread::spawn(move || {
                thread::sleep(Duration::from_micros(n * 20));
                shutdown.request();
            });
            let report = other.block_on(timeout(SOON / 2, terminated)).unwrap().unwrap();
            assert_eq!(report.cause, Cause::Requested);
            stops.join().unwrap();
            assert!(matches!(embedded.turn(), Err(RunError::Stopped)));
        }
    });
}

#[test]
fn two_runtimes_can_not_be_each_others_hosts_and_say_so() {
    watched(|| {
        let (one, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let (its, others) = (Rc::new(one.embed().unwrap()), Rc::new(other.embed().unwrap()));
        let first = other.spawn_local(serve(its.clone())).unwrap();
        others.turn().unwrap();
        let watched = AsyncFd::new(others.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let second = one.block_on(async move { watched.readable().await.map(drop) });
        assert!(second.unwrap().is_err(), "descriptors that watch each other");
        // The first goes on.
        let task = one.spawn_local(async { 42 }).unwrap();
        while !task.is_finished() {
            assert!(is_readable(&*others));
            others.turn().unwrap();
        }
        first.abort();
    });
}

#[test]
fn a_guest_of_a_guest_is_served_by_the_outermost_host() {
    watched(|| {
        let (outer, inner) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let embedded = outer.embed().unwrap();
        let innermost = Rc::new(inner.embed().unwrap());
        let served = outer.spawn_local(serve(innermost)).unwrap();
        let ticks = Rc::new(Cell::new(0));
        let task = {
            let ticks = ticks.clone();
            inner.spawn_local(async move {
                for _ in 0..5 {
                    sleep(Duration::from_millis(2)).await;
                    spawn_local(yield_now()).await.unwrap();
                    ticks.set(ticks.get() + 1);
                }
            })
        };
        let task = task.unwrap();
        let poll = |turns: &mut usize| {
            turn_when_readable(&embedded);
            *turns += 1;
        };
        let mut turns = 0;
        while !task.is_finished() {
            poll(&mut turns);
        }
        assert_eq!(ticks.get(), 5);
        assert!(turns < 60, "{turns}");
        // A stop of the innermost goes the same way.
        let stops = thread::spawn(move || drop(inner));
        while !served.is_finished() {
            poll(&mut turns);
        }
        stops.join().unwrap();
        assert!(served.wait().unwrap().unwrap());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_loop_that_watches_its_own_descriptor_is_told_so() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let own = AsyncFd::new(embedded.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let readable = runtime.block_on(async { own.readable().await.map(drop) });
        assert!(readable.unwrap().is_err());
        // It goes on.
        let task = runtime.spawn_local(async { 42 }).unwrap();
        while !task.is_finished() {
            turn_when_readable(&embedded);
        }
    });
}

/// Stops a runtime from abroad: by a request or, in every other round, by a drop.
fn stop_abroad(runtime: Runtime, round: usize) -> thread::JoinHandle<Option<Runtime>> {
    let shutdown = runtime.shutdown_handle();
    thread::spawn(move || {
        if round % 2 == 0 {
            shutdown.request();
            return Some(runtime);
        }
        drop(runtime);
        None
    })
}

/// Turns the guest once, so that it has parked outside of its loop, and drops the `Embedded`, at home or abroad.
fn embed_for_a_turn(guest: &Runtime, at_home: bool) {
    let embedded = guest.embed().unwrap();
    embedded.turn().unwrap();
    let_go(embedded, at_home);
}

fn let_go(embedded: Embedded, at_home: bool) {
    match at_home {
        true => drop(embedded),
        false => thread::spawn(move || drop(embedded)).join().unwrap(),
    }
}

#[test]
fn a_runtime_that_is_embedded_no_more_is_closed_by_the_loop_that_its_thread_is_in() {
    rounds(100, |round| {
        let guest = Runtime::new().unwrap();
        embed_for_a_turn(&guest, round % 4 < 2);
        let other = Builder::new().build().unwrap();
        let terminated = guest.shutdown_handle().terminated();
        let its_end = other.shutdown_handle();
        let abroad = thread::spawn({
            let tid = Tid::here();
            move || {
                if round % 3 > 0 {
                    until_parked(tid);
                }
                let left = stop_abroad(guest, round).join().unwrap();
                let report = terminated.wait_timeout(SOON).unwrap();
                its_end.request();
                (left, report)
            }
        });
        other.run().unwrap();
        let (_left, report) = abroad.join().unwrap();
        assert!(report.is_some(), "round {round}: nobody has closed it");
    });
}

#[test]
fn a_runtime_that_is_embedded_no_more_is_closed_by_the_wait_that_its_thread_is_in() {
    rounds(100, |round| {
        let guest = Runtime::new().unwrap();
        embed_for_a_turn(&guest, round % 4 < 2);
        let there = Builder::new().start("there").unwrap();
        let terminated = guest.shutdown_handle().terminated();
        let there_ends = there.shutdown_handle().terminated();
        let tid = Tid::here();
        let abroad = thread::spawn(move || {
            if round % 3 > 0 {
                until_parked(tid);
            }
            let left = stop_abroad(guest, round).join().unwrap();
            let report = terminated.wait_timeout(SOON).unwrap();
            drop(there);
            (left, report)
        });
        there_ends.wait().unwrap();
        let (_left, report) = abroad.join().unwrap();
        assert!(report.is_some(), "round {round}: nobody has closed it");
    });
}

#[test]
fn a_guest_whose_host_lets_go_of_it_in_its_grace_period_is_closed_by_the_loop_that_its_thread_is_in() {
    rounds(100, |round| {
        let guest = Builder::new().grace(SOON * 2).build().unwrap();
        drop(guest.spawn_local(std::future::pending::<()>()).unwrap());
        let embedded = guest.embed().unwrap();
        let other = Runtime::new().unwrap();
        let (shutdown, its_end) = (guest.shutdown_handle(), other.shutdown_handle());
        let terminated = shutdown.terminated();
        let abroad = thread::spawn(move || {
            let report = terminated.wait_timeout(SOON).unwrap();
            its_end.request();
            report
        });
        let host = async move {
            shutdown.request();
            assert!(!embedded.turn().unwrap().closed, "it is in its grace period");
            let_go(embedded, round % 2 == 0);
        };
        drop(other.spawn_local(host).unwrap());
        other.run().unwrap();
        let report = abroad.join().unwrap();
        assert!(report.is_some(), "round {round}: nobody has closed it");
    });
}

/// The last `Embedded` goes abroad, at any moment of the stop.
#[test]
fn a_host_that_lets_go_abroad_while_the_stop_comes_leaves_the_guest_to_the_loop_that_its_thread_is_in() {
    rounds(1000, |round| {
        let guest = Builder::new().grace(SOON * 2).build().unwrap();
        drop(guest.spawn_local(std::future::pending::<()>()).unwrap());
        let embedded = guest.embed().unwrap();
        embedded.turn().unwrap();
        let other = Runtime::new().unwrap();
        let terminated = guest.shutdown_handle().terminated();
        // Inside the loop: a call from outside would run the grace period.
        let race = async {
            let lets_go = thread::spawn(move || {
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                drop(embedded);
            });
            let stops = stop_abroad(guest, round);
            (timeout(SOON, terminated).await, lets_go, stops)
        };
        let start = Instant::now();
        let (report, lets_go, stops) = other.block_on(race).unwrap();
        // The poll that finds the time over would close it.
        assert!(
            report.is_ok() && start.elapsed() < SOON,
            "round {round}: nobody has closed it"
        );
        lets_go.join().unwrap();
        let _left = stops.join().unwrap();
    });
}

#[test]
fn a_home_that_was_a_guest_is_woken_in_its_own_loop_by_a_stop() {
    rounds(100, |round| {
        // With and without another runtime of the thread, for which the loop has to listen to the bell.
        let other = (round % 3 == 0).then(|| Runtime::new().unwrap());
        if let Some(other) = &other {
            other.turn(Some(Duration::ZERO)).unwrap();
        }
        let guest = Runtime::new().unwrap();
        embed_for_a_turn(&guest, round % 4 < 2);
        let stops = stop_when_parked(guest.shutdown_handle());
        guest.run().unwrap();
        stops.join().unwrap();
    });
}

#[test]
fn a_stop_that_comes_as_the_loop_of_another_runtime_ends_is_told_to_the_host() {
    rounds(2000, |_| {
        let guest = Runtime::new().unwrap();
        let embedded = guest.embed().unwrap();
        embedded.turn().unwrap();
        let shutdown = guest.shutdown_handle();
        let other = Runtime::new().unwrap();
        let (end, is_over) = futures::channel::oneshot::channel();
        let home = Tid::here();
        let stops = thread::spawn(move || {
            until_parked(home);
            end.send(()).unwrap();
            shutdown.request();
        });
        other.block_on(is_over).unwrap().unwrap();
        stops.join().unwrap();
        assert!(turn_when_readable(&embedded).closed);
    });
}

/// A task that only the end of the runtime drops.
fn spawn_for_ever(runtime: &Runtime, drops: &Drops) -> JoinHandle<()> {
    let probe = drops.probe();
    let waits = async move {
        let _probe = probe;
        std::future::pending().await
    };
    runtime.spawn_local(waits).unwrap()
}

#[test]
fn a_stop_that_comes_as_a_wait_ends_is_told_to_the_host() {
    rounds(1000, |_| {
        let there = Builder::new().start("there").unwrap();
        let guest = Builder::new().grace(Duration::ZERO).build().unwrap();
        let embedded = guest.embed().unwrap();
        let drops = Drops::new();
        let task = spawn_for_ever(&guest, &drops);
        embedded.turn().unwrap();
        let shutdown = guest.shutdown_handle();
        let home = Tid::here();
        let stops = there.spawner().spawn(async move {
            until_parked(home);
            shutdown.request();
        });
        stops.wait().unwrap().unwrap();
        // The wait may have found that it is due, and closed it.
        if drops.count() == 0 {
            assert!(turn_when_readable(&embedded).closed);
        }
        drop(task);
    });
}

/// How the task in another loop that turns a guest hears that it wants its turn.
#[derive(Clone, Copy, Debug)]
enum Told {
    ByAnotherThread,
    ByTheClock,
}

#[test]
fn a_guest_that_a_task_turns_gets_its_grace_period_however_the_task_is_told() {
    for told in [Told::ByAnotherThread, Told::ByTheClock] {
        rounds(30, |_| {
            let guest = Builder::new().grace(SOON).build().unwrap();
            let embedded = Arc::new(guest.embed().unwrap());
            let lasts = guest.spawn_local(async {
                evbase::Shutdown::current().requested().await;
                sleep(Duration::from_micros(100)).await;
            });
            let host = Runtime::new().unwrap();
            let (tell, mut is_told) = futures::channel::mpsc::channel(1);
            let closed = Arc::new(AtomicBool::new(false));
            let (polls, is_closed) = (embedded.clone(), closed.clone());
            let polls = thread::spawn(move || {
                let mut tell = tell;
                while !is_closed.load(SeqCst) {
                    if readable_within(&*polls, Duration::from_millis(5)) {
                        let _ = tell.try_send(());
                        thread::sleep(Duration::from_micros(100));
                    }
                }
            });
            let stops = stop_when_parked(guest.shutdown_handle());
            let turns = async {
                while !embedded.turn().unwrap().closed {
                    match told {
                        Told::ByAnotherThread => is_told.next().await.unwrap(),
                        Told::ByTheClock => sleep(Duration::from_millis(5)).await,
                    }
                }
            };
            host.block_on(timeout(SOON, turns)).unwrap().unwrap();
            closed.store(true, SeqCst);
            polls.join().unwrap();
            stops.join().unwrap();
            assert!(
                lasts.unwrap().wait().unwrap().is_ok(),
                "{told:?}: it had no grace period"
            );
        });
    }
}

#[test]
fn a_guest_that_its_task_has_turned_and_turns_no_more_is_closed_after_a_while() {
    watched(|| {
        let guest = Builder::new().grace(Duration::MAX).build().unwrap();
        let embedded = guest.embed().unwrap();
        drop(guest.spawn_local(std::future::pending::<()>()).unwrap());
        let stops = stop_when_parked(guest.shutdown_handle());
        let end = guest.shutdown_handle().terminated();
        let report = Runtime::new().unwrap().block_on(async {
            embedded.turn().unwrap();
            end.await
        });
        assert_eq!(report.unwrap().cancelled, 1);
        stops.join().unwrap();
    });
}

#[test]
fn a_wait_that_hears_of_two_stops_at_once_forgets_neither() {
    for second_first in [false, true] {
        rounds(200, |_| {
            let there = Builder::new().start("there").unwrap();
            let one = Builder::new().grace(Duration::MAX).build().unwrap();
            let _stays = one.spawn_local(std::future::pending::<()>()).unwrap();
            let other = Runtime::new().unwrap();
            let embedded = other.embed().unwrap();
            let drops = Drops::new();
            let task = spawn_for_ever(&other, &drops);
            embedded.turn().unwrap();
            let (first, second) = (one.shutdown_handle(), other.shutdown_handle());
            let home = Tid::here();
            let waited = Arc::new(AtomicBool::new(false));
            let is_over = waited.clone();
            let stops = thread::spawn(move || {
                until_parked_or(home, || is_over.load(SeqCst));
                match second_first {
                    true => [&second, &first].map(Shutdown::request),
                    false => [&first, &second].map(Shutdown::request),
                }
            });
            let end = there.shutdown_handle().terminated();
            assert!(end.wait_timeout(Duration::from_millis(5)).unwrap().is_none());
            waited.store(true, SeqCst);
            stops.join().unwrap();
            // The wait has closed it, or its host was told.
            assert!(drops.count() == 1 || readable_within(&embedded, SOON));
            one.shutdown_handle().request_now();
            drop(task);
        });
    }
}
