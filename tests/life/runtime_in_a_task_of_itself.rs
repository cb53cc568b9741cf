//! A task that holds the runtime it runs in is a cycle that an explicit request ends.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::thread;

use evbase::{Builder, Cause, Runtime, yield_now};

use crate::support::{Drops, MOMENT, parked, rounds};

#[test]
fn a_request_ends_the_cycle_at_home() {
    rounds(300, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let weak: Weak<Runtime> = Arc::downgrade(&runtime);
        let drops = Drops::new();
        let (held, probe) = (runtime.clone(), drops.local_probe());
        drop(runtime.spawn_local(async move {
            let _held = (held, probe);
            pending::<()>().await;
        }));
        runtime.block_on(yield_now()).unwrap();
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert!(!shutdown.is_requested(), "the task holds it");
        shutdown.request();
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested);
        assert!(weak.upgrade().is_none());
        drops.assert_on(thread::current().id(), 1);
    });
}

#[test]
fn a_request_from_abroad_ends_the_cycle_of_a_parked_home() {
    rounds(200, |_| {
        let runtime = Arc::new(parked(Builder::new()));
        let weak: Weak<Runtime> = Arc::downgrade(&runtime);
        let (held, drops) = (runtime.clone(), Drops::new());
        let probe = drops.probe();
        drop(runtime.spawner().spawn(async move {
            let _held = (held, probe);
            pending::<()>().await;
        }));
        let (home, shutdown) = (runtime.home().unwrap(), runtime.shutdown_handle());
        drop(runtime);
        shutdown.request();
        shutdown.terminated().wait().unwrap();
        assert!(weak.upgrade().is_none());
        drops.assert_on(home, 1);
    });
}

#[test]
fn a_runtime_that_was_moved_into_its_own_task_goes_on_until_it_is_asked_to_stop() {
    rounds(20, |_| {
        let runtime = parked(Builder::new());
        let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
        drop(spawner.spawn(async move {
            let _runtime = runtime;
            pending::<()>().await;
        }));
        assert_eq!(shutdown.terminated().wait_timeout(MOMENT / 10), Ok(None));
        assert_eq!(spawner.spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        shutdown.request();
        shutdown.terminated().wait().unwrap();
    });
}

#[test]
fn a_task_that_never_arrived_may_hold_its_runtime() {
    rounds(200, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let weak = Arc::downgrade(&runtime);
        let held = runtime.clone();
        drop(runtime.spawner().spawn(async move { drop(held) }));
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        shutdown.request();
        // Nobody has bound it: the wait does, and drops the task with the runtime in it.
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 1);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn the_exit_of_home_ends_the_cycle() {
    rounds(200, |_| {
        let (shutdown, weak) = thread::spawn(|| {
            let runtime = Arc::new(Runtime::new().unwrap());
            let held = runtime.clone();
            drop(runtime.spawn_local(async move {
                let _held = held;
                pending::<()>().await;
            }));
            runtime.block_on(yield_now()).unwrap();
            (runtime.shutdown_handle(), Arc::downgrade(&runtime))
        })
        .join()
        .unwrap();
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::HomeExited);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn a_handle_of_a_task_in_that_task_is_no_cycle_of_the_runtime() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let place = Arc::new(std::sync::Mutex::new(None));
        let held = place.clone();
        let handle = runtime.spawn_local(async move {
            let _held = held;
            pending::<()>().await;
        });
        *place.lock().unwrap() = Some(handle.unwrap());
        runtime.block_on(yield_now()).unwrap();
        let weak = Arc::downgrade(&place);
        drop(place);
        let shutdown = runtime.shutdown_handle();
        drop(runtime);
        assert_eq!(shutdown.terminated().wait().unwrap().cancelled, 1);
        assert!(weak.upgrade().is_none());
    });
}
