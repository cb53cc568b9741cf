//! A join handle that aborts its task when it goes.

use std::future::pending;
use std::time::Duration;

use evbase::{Builder, Runtime};

use crate::support::{Drops, rounds, turn_until, watchdog};

#[test]
fn a_task_ends_with_its_handle_wherever_that_is_dropped() {
    rounds(300, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let drops = Drops::new();
        let probes = drops.clone();
        let task = runtime.spawner().spawn_with(move || async move {
            let _probe = probes.local_probe();
            pending::<()>().await;
        });
        let task = task.abort_on_drop();
        let abort_handle = task.abort_handle();
        drop(task);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.cancelled), (0, 1));
        assert!(abort_handle.is_finished() && drops.count() <= 1);
    });
}

#[test]
fn awaiting_it_is_awaiting_the_task() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let mut task = runtime.spawn_local(async { 42 }).unwrap().abort_on_drop();
    let id = task.id();
    assert!(!task.is_finished());
    assert_eq!(runtime.block_on(&mut task).unwrap().unwrap(), 42);
    assert!(task.is_finished() && task.id() == id);
    drop(task);
    let error = runtime.block_on(async {
        let task = evbase::spawn_local(pending::<()>()).abort_on_drop();
        task.abort();
        task.await.unwrap_err()
    });
    assert!(error.unwrap().is_cancelled());
    assert_eq!(runtime.metrics().completed, 1);
}

#[test]
fn a_timeout_around_it_ends_the_task_and_a_detached_one_goes_on() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let [ends, goes_on] = [(); 2].map(|()| runtime.spawn_local(pending::<()>()).unwrap());
    let (ended, going) = (ends.abort_handle(), goes_on.abort_handle());
    let limit = Duration::from_millis(1);
    runtime
        .block_on(async {
            let task = ends.abort_on_drop();
            assert!(evbase::time::timeout(limit, task).await.is_err());
            let task = goes_on.abort_on_drop();
            assert!(evbase::time::timeout(limit, task.detach()).await.is_err());
        })
        .unwrap();
    turn_until(&runtime, || ended.is_finished());
    assert!(!going.is_finished());
}
