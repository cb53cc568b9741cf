//! `Shutdown::requested` and `is_requested`: who waits for the stop is woken, by home, once.

use std::future::pending;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime, Shutdown};

use crate::support::{Wakes, hold, parked, poll_once, poll_with, rounds, soon};

#[test]
fn a_task_that_awaits_the_stop_is_woken_in_the_grace_period() {
    rounds(300, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let task = runtime.spawner().spawn(async {
            Shutdown::current().requested().await;
            "said goodbye"
        });
        crate::support::until_parked(crate::support::tid_of(&runtime));
        let shutdown = runtime.shutdown_handle();
        assert!(!shutdown.is_requested());
        shutdown.request();
        assert!(shutdown.is_requested());
        assert_eq!(task.wait().unwrap().unwrap(), "said goodbye");
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 0);
    });
}

#[test]
fn whoever_awaits_the_stop_elsewhere_is_woken_by_home() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let shutdown = runtime.shutdown_handle();
        let (wakes, waker) = Wakes::new();
        let mut waiting: Vec<_> = (0..5).map(|_| shutdown.requested()).collect();
        for requested in &mut waiting {
            assert_eq!(poll_with(requested, &waker), Poll::Pending);
        }
        // One goes before the stop, and one changes its waker.
        drop(waiting.pop());
        let (others, other) = Wakes::new();
        assert_eq!(poll_with(&mut waiting[0], &other), Poll::Pending);
        runtime.shutdown().wait().unwrap();
        assert_eq!((wakes.count(), others.count()), (3, 1));
        for requested in &mut waiting {
            assert!(poll_once(requested).is_ready());
        }
        assert!(poll_once(&mut shutdown.requested()).is_ready());
    });
}

#[test]
fn a_drop_of_the_runtime_is_told_as_well() {
    rounds(200, |_| {
        let runtime = Builder::new().grace(Duration::MAX).start("home").unwrap();
        let told = runtime.spawner().spawn(async { Shutdown::current().requested().await });
        drop(runtime);
        told.wait().unwrap().unwrap();
    });
}

#[test]
fn a_stop_of_a_runtime_without_a_home_is_told_when_it_closes() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let shutdown = runtime.shutdown_handle();
        let (wakes, waker) = Wakes::new();
        let mut requested = shutdown.requested();
        assert_eq!(poll_with(&mut requested, &waker), Poll::Pending);
        shutdown.request();
        assert_eq!(wakes.count(), 0, "a request may do no more than set a bit");
        // The bit can be seen, though.
        assert!(poll_once(&mut shutdown.requested()).is_ready());
        drop(runtime);
        assert_eq!(wakes.count(), 1);
    });
}

#[test]
fn a_request_while_home_is_busy_is_told_when_home_next_runs() {
    rounds(200, |_| {
        let runtime = Builder::new().grace(Duration::MAX).start("home").unwrap();
        let shutdown = runtime.shutdown_handle();
        let release = hold(&runtime);
        let (wakes, waker) = Wakes::new();
        let mut requested = shutdown.requested();
        assert_eq!(poll_with(&mut requested, &waker), Poll::Pending);
        shutdown.request();
        assert_eq!(wakes.count(), 0);
        release.open();
        shutdown.terminated().wait().unwrap();
        assert_eq!(wakes.count(), 1);
    });
}

#[test]
fn the_stop_is_told_once_however_often_it_is_asked_for() {
    rounds(100, |_| {
        let runtime = Builder::new().grace(Duration::MAX).start("home").unwrap();
        let hold = runtime.spawner().spawn(pending::<()>());
        let shutdown = runtime.shutdown_handle();
        let (wakes, waker) = Wakes::new();
        let mut requested = shutdown.requested();
        assert_eq!(poll_with(&mut requested, &waker), Poll::Pending);
        let askers: Vec<_> = (0..3)
            .map(|_| {
                let shutdown = shutdown.clone();
                thread::spawn(move || (0..10).for_each(|_| shutdown.request()))
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        assert!(soon(|| wakes.count() == 1));
        hold.abort();
        runtime.shutdown().wait().unwrap();
        assert_eq!(wakes.count(), 1);
    });
}
