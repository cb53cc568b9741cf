//! Blocking work away from the loop.

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use evbase::{Runtime, unblock};

use crate::support::{Drops, panic_text, panics, until, watchdog};

#[test]
fn the_result_comes_back_and_the_work_runs_on_another_thread() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let worker = runtime.block_on(unblock(|| thread::current().id())).unwrap();
    assert_ne!(worker, thread::current().id());
    let sum: u64 = runtime
        .block_on(async {
            let works: Vec<_> = (0..100).map(|n| unblock(move || n)).collect();
            futures::future::join_all(works).await.into_iter().sum()
        })
        .unwrap();
    assert_eq!(sum, 4950);
}

#[test]
fn the_loop_goes_on_while_the_work_blocks() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (release, released) = mpsc::channel::<()>();
    runtime
        .block_on(async {
            let work = unblock(move || released.recv());
            evbase::time::sleep(Duration::from_millis(2)).await;
            evbase::spawn_local(async {}).await.unwrap();
            release.send(()).unwrap();
            work.await.unwrap();
        })
        .unwrap();
}

#[test]
fn works_run_at_the_same_time() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let barrier = Arc::new(Barrier::new(4));
    let works = (0..4).map(|_| {
        let barrier = barrier.clone();
        unblock(move || barrier.wait().is_leader())
    });
    let leaders = runtime.block_on(futures::future::join_all(works)).unwrap();
    assert_eq!(leaders.into_iter().filter(|&leads| leads).count(), 1);
}

#[test]
fn a_panic_of_the_work_is_one_of_whoever_awaits_it() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    assert_eq!(
        panics(|| runtime.block_on(unblock(|| panic!("in the pool")))),
        "in the pool"
    );
    let error = runtime
        .block_on(async { evbase::spawn_local(unblock(|| panic!("in the pool"))).await })
        .unwrap();
    assert_eq!(panic_text(&*error.unwrap_err().into_panic()), "in the pool");
    assert_eq!(runtime.block_on(unblock(|| 1)).unwrap(), 1);
}

#[test]
fn it_works_in_any_executor() {
    let _watchdog = watchdog();
    assert_eq!(futures::executor::block_on(unblock(|| 7)), 7);
}

#[test]
fn the_work_begins_at_the_call_and_its_result_is_dropped_when_nobody_wants_it() {
    let _watchdog = watchdog();
    let log = Drops::new();
    let (probe, (begin, begun)) = (log.probe(), mpsc::channel());
    let work = unblock(move || {
        begin.send(()).unwrap();
        probe
    });
    begun.recv().unwrap();
    drop(work);
    until(|| log.count() == 1);
}
