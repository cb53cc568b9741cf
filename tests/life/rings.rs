//! A ring of a thread's bell may be for several: a stop of one of its runtimes, of one that is embedded, of one without a home, or
//! for a wait. Whoever answers it forgets nobody, also if it ends just then.

use std::cell::RefCell;
use std::future::pending;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use evbase::time::sleep;
use evbase::{Builder, JoinHandle, Report, Runtime, Shutdown, yield_now};
use futures::channel::oneshot;

use crate::support::{SOON, Tid, alone, poll_here, rounds_alone, stop_when_parked, until, until_parked};

fn at_home_here() -> Runtime {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {}).unwrap();
    runtime
}

/// At home here, with a grace period without end.
fn stays() -> Runtime {
    let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
    drop(runtime.spawn_local(pending::<()>()).unwrap());
    runtime
}

/// A thread that tells whether that one closes in time, and then ends the other one.
fn closes_in_time(one: &Shutdown, other: &Runtime) -> thread::JoinHandle<Option<Report>> {
    let (end, other) = (one.terminated(), other.shutdown_handle());
    thread::spawn(move || {
        let report = end.wait_timeout(SOON).unwrap();
        other.request_now();
        report
    })
}

/// A task of another thread, which ends when it is told to.
fn task_elsewhere(there: &Runtime) -> (oneshot::Sender<()>, JoinHandle<Result<(), oneshot::Canceled>>) {
    let (release, released) = oneshot::channel();
    (release, there.spawner().spawn(released))
}

fn elsewhere() -> Runtime {
    Builder::new().start("there").unwrap()
}

/// How this thread comes to run `one`'s grace period.
#[derive(Clone, Copy, Debug)]
enum Then {
    Drop,
    Loop,
}

#[test]
fn a_wait_that_is_over_at_once_leaves_stops_to_who_comes_next() {
    alone(|| {
        for then in [Then::Drop, Then::Loop] {
            let (there, one, other) = (elsewhere(), stays(), at_home_here());
            let task = there.spawner().spawn(async {});
            until(|| task.is_finished());
            let (first, second) = (one.shutdown_handle(), other.shutdown_handle());
            let closes = closes_in_time(&second, &one);
            first.request();
            second.request();
            task.wait().unwrap().unwrap();
            match then {
                Then::Drop => drop(one),
                Then::Loop => Runtime::new().unwrap().block_on(async {}).unwrap(),
            }
            assert!(closes.join().unwrap().is_some(), "{then:?}: nobody has closed it");
        }
    });
}

#[test]
fn a_stop_that_comes_as_a_wait_ends_is_heard_by_the_next_loop() {
    rounds_alone(200, |round| {
        let (there, guest, next) = (elsewhere(), Runtime::new().unwrap(), at_home_here());
        let embedded = guest.embed().unwrap();
        embedded.turn().unwrap();
        let shutdown = guest.shutdown_handle();
        let (release, task) = task_elsewhere(&there);
        let home = Tid::here();
        let stop = shutdown.clone();
        let stops = thread::spawn(move || {
            until_parked(home);
            release.send(()).unwrap();
            (0..round * 20).for_each(|_| std::hint::spin_loop());
            stop.request();
        });
        task.wait().unwrap().unwrap().unwrap();
        stops.join().unwrap();
        let closes = closes_in_time(&shutdown, &next);
        next.run().unwrap();
        assert!(closes.join().unwrap().is_some(), "nobody has closed it");
    });
}

#[test]
fn a_guest_whose_grace_period_a_wait_has_begun_is_closed_by_the_next_loop() {
    alone(|| {
        let guest = Builder::new().grace(Duration::from_millis(200)).build().unwrap();
        drop(guest.spawn_local(pending::<()>()).unwrap());
        let _embedded = guest.embed().unwrap();
        let (there, next) = (elsewhere(), at_home_here());
        let (release, task) = task_elsewhere(&there);
        let shutdown = guest.shutdown_handle();
        let requested = shutdown.requested();
        let tells = async {
            requested.await;
            release.send(()).unwrap();
        };
        drop(guest.spawn_local(tells).unwrap());
        shutdown.request();
        task.wait().unwrap().unwrap().unwrap();
        let closes = closes_in_time(&shutdown, &next);
        next.run().unwrap();
        assert!(closes.join().unwrap().is_some(), "nobody has closed it");
    });
}

#[test]
fn a_loop_that_ends_while_it_waits_for_a_host_leaves_the_guest_to_the_next() {
    alone(|| {
        let (one, next, guest) = (at_home_here(), at_home_here(), Runtime::new().unwrap());
        let embedded = guest.embed().unwrap();
        let shutdown = guest.shutdown_handle();
        let turns_once = async {
            embedded.turn().unwrap();
            shutdown.request();
            sleep(Duration::from_millis(100)).await;
        };
        one.block_on(turns_once).unwrap();
        let closes = closes_in_time(&shutdown, &next);
        next.run().unwrap();
        assert!(closes.join().unwrap().is_some(), "nobody has closed it");
    });
}

#[test]
fn a_loop_that_always_has_something_to_do_closes_a_guest_that_nobody_turns() {
    alone(|| {
        let (guest, busy) = (at_home_here(), at_home_here());
        let _embedded = guest.embed().unwrap();
        let yields = async {
            loop {
                yield_now().await;
            }
        };
        drop(busy.spawn_local(yields).unwrap());
        let begins = busy.spawn_local(async {}).unwrap();
        let shutdown = guest.shutdown_handle();
        let closes = closes_in_time(&shutdown, &busy);
        let stops = thread::spawn(move || {
            until(|| begins.is_finished());
            shutdown.request();
        });
        busy.run().unwrap();
        stops.join().unwrap();
        assert!(closes.join().unwrap().is_some(), "nobody has closed it");
    });
}

/// Also if that loop is one of turns: each is a loop of its own, but of the same home.
#[test]
fn a_guest_in_a_loop_of_turns_gets_its_grace_period() {
    rounds_alone(20, |_| {
        let guest = Builder::new().grace(SOON).build().unwrap();
        let embedded = Arc::new(guest.embed().unwrap());
        let lasts = async {
            Shutdown::current().requested().await;
            sleep(Duration::from_micros(100)).await;
        };
        let lasts = guest.spawn_local(lasts).unwrap();
        let host = Runtime::new().unwrap();
        let turned = embedded.clone();
        let turns = async move {
            while turned.turn().is_ok_and(|turn| !turn.closed) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let turns = host.spawn_local(turns).unwrap();
        host.turn(Some(Duration::ZERO)).unwrap();
        let stops = stop_when_parked(guest.shutdown_handle());
        while !turns.is_finished() {
            host.turn(None).unwrap();
        }
        stops.join().unwrap();
        assert!(lasts.wait().unwrap().is_ok(), "it had no grace period");
    });
}

/// The hook drops a runtime, whose loop answers while it is awake, so that nothing is written to wake the other one.
#[test]
fn a_wait_is_woken_although_a_loop_in_a_hook_of_its_loop_answers_the_ring() {
    alone(|| {
        let (there, one) = (elsewhere(), stays());
        let (release, task) = task_elsewhere(&there);
        let dropped = Builder::new().grace(Duration::MAX).build().unwrap();
        let ends_the_wait = async move {
            release.send(()).unwrap();
            // It has been woken by then.
            thread::sleep(Duration::from_millis(100));
            for _ in 0..10_000 {
                yield_now().await;
            }
        };
        drop(dropped.spawn_local(ends_the_wait).unwrap());
        let dropped = RefCell::new(Some(dropped));
        let _hook = one.before_wait(move |_| drop(dropped.take())).unwrap();
        one.shutdown_handle().request();
        task.wait().unwrap().unwrap().unwrap();
        one.shutdown_handle().request_now();
    });
}

/// A runtime without a home, which has a task, and for whose end a loop of this thread has waited.
fn awaited_here(grace: Duration) -> Runtime {
    let unbound = Builder::new().grace(grace).build().unwrap();
    drop(unbound.spawner().spawn(pending::<()>()));
    let mut end = unbound.shutdown_handle().terminated();
    let here = Runtime::new().unwrap();
    here.block_on(async { assert!(poll_here(&mut end).await.is_pending()) })
        .unwrap();
    unbound
}

#[test]
fn a_wait_that_becomes_home_is_woken() {
    alone(|| {
        let (unbound, there) = (awaited_here(Duration::MAX), elsewhere());
        let (release, task) = task_elsewhere(&there);
        unbound.shutdown_handle().request();
        let is_closed = unbound.shutdown_handle().terminated();
        let releases = thread::spawn(move || {
            is_closed.wait().unwrap();
            release.send(()).unwrap();
        });
        task.wait().unwrap().unwrap().unwrap();
        releases.join().unwrap();
    });
}

/// Others wait for the end as well, and rely on whom the stop has woken.
#[test]
fn a_wait_that_becomes_home_leaves_nothing_half_closed() {
    alone(|| {
        let unbound = Arc::new(awaited_here(Duration::from_millis(300)));
        let (_keeps_the_bell, there, other) = (at_home_here(), elsewhere(), elsewhere());
        let (tell, told) = mpsc::channel();
        let (waits, is_waiting) = mpsc::channel();
        let mut end = unbound.shutdown_handle().terminated();
        drop(other.spawner().spawn(async move {
            assert!(poll_here(&mut end).await.is_pending());
            waits.send(()).unwrap();
            tell.send(end.await).unwrap();
        }));
        is_waiting.recv().unwrap();
        let (release, task) = task_elsewhere(&there);
        let (home, has_home) = (Tid::here(), unbound.clone());
        let stops = thread::spawn(move || {
            until_parked(home);
            has_home.shutdown_handle().request();
            until(|| has_home.home().is_some());
            release.send(()).unwrap();
        });
        task.wait().unwrap().unwrap().unwrap();
        stops.join().unwrap();
        assert!(told.recv_timeout(SOON).is_ok(), "nobody has closed it");
    });
}
