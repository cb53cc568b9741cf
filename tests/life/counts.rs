//! The books: accepted = completed + cancelled + panicked, whoever spawned and however it ended; and metrics that any
//! thread can read at any time.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, Cause, Runtime, spawn_local};

use crate::support::{Random, until, watchdog, watched};

#[test]
fn accepted_is_completed_plus_cancelled_plus_panicked_in_mixed_runs() {
    let _watchdog = watchdog();
    for seed in 1..=40 {
        let mut random = Random::new(seed);
        let runtime = Builder::new().start("home").unwrap();
        let (mut accepted, mut refused) = (0_u64, 0);
        let (mut completed, mut panicked, mut cancelled) = (0, 0, 0);
        let mut handles = Vec::new();
        for n in 0..200 {
            let kind = random.below(5);
            let task = async move {
                match kind {
                    0 => {}
                    1 => evbase::yield_now().await,
                    2 => panic!("one of the tasks that panic"),
                    3 => pending().await,
                    _ => {
                        // A child at home, detached.
                        drop(evbase::spawn_local(async {}));
                    }
                }
            };
            let spawned = if n % 2 == 0 {
                runtime.spawner().try_spawn(task).map_err(drop)
            } else {
                runtime.spawner().try_spawn_with(move || task).map_err(drop)
            };
            match spawned {
                Ok(handle) => {
                    accepted += 1;
                    if random.below(4) == 0 {
                        handle.abort();
                    }
                    handles.push(handle);
                }
                Err(()) => refused += 1,
            }
            if n == 150 && seed % 2 == 0 {
                runtime.shutdown_handle().request();
            }
        }
        let terminated = runtime.shutdown();
        let report = terminated.wait().unwrap();
        for handle in handles {
            match handle.wait().unwrap() {
                Ok(()) => completed += 1,
                Err(error) if error.is_panic() => panicked += 1,
                Err(_) => cancelled += 1,
            }
        }
        assert_eq!(accepted, completed + panicked + cancelled, "seed {seed}");
        assert_eq!(report.panicked, panicked, "seed {seed}");
        // The children, which nobody counted here, come on top.
        let children = report.completed + report.cancelled - completed - cancelled;
        assert!(children <= accepted, "seed {seed}: {report:?}");
        assert_eq!(accepted + refused, 200);
        assert_eq!(
            report.cause,
            if seed % 2 == 0 {
                Cause::Requested
            } else {
                Cause::Dropped
            }
        );
    }
}

#[test]
fn roots_and_refused_tasks_count_nowhere() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    runtime.block_on(async {}).unwrap();
    runtime
        .block_on(async { evbase::spawn_local(async {}).await.unwrap() })
        .unwrap();
    let _ = crate::support::panics(|| runtime.block_on(async { panic!("a root") }));
    runtime.shutdown_handle().request();
    drop(spawner.spawn(async {}));
    drop(spawner.spawn_with(|| async {}));
    let report = runtime.run().unwrap();
    assert_eq!((report.completed, report.cancelled, report.panicked), (1, 0, 0));
    assert_eq!(runtime.metrics().spawned, 1);
}

#[test]
fn aborted_or_dropped_before_it_ever_ran_is_cancelled() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime.spawner().spawn(async {}).abort();
    runtime.spawner().spawn_with(|| async {}).abort();
    drop(runtime.spawner().spawn(async {}));
    let aborted = runtime.spawn_local(async {}).unwrap();
    aborted.abort();
    drop(runtime.spawn_local(async {}).unwrap());
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!((report.completed, report.cancelled, report.panicked), (0, 5, 0));
}

#[test]
fn a_destructor_that_panics_at_close_leaves_its_task_cancelled() {
    let _watchdog = watchdog();
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    let runtime = Runtime::new().unwrap();
    for _ in 0..3 {
        drop(runtime.spawn_local(async {
            let _bomb = PanicsInDrop;
            pending::<()>().await;
        }));
    }
    drop(runtime.spawn_local(pending::<()>()));
    runtime.block_on(evbase::yield_now()).unwrap();
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!((report.completed, report.cancelled, report.panicked), (0, 4, 0));
}

#[test]
fn the_metrics_agree_with_the_report_when_the_runtime_is_closed() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for n in 0..10 {
        let handle = runtime.spawner().spawn(async move { assert!(n != 3) });
        if n == 5 {
            handle.abort();
        }
        let _ = handle.wait().unwrap();
    }
    drop(runtime.spawner().spawn(pending::<()>()));
    runtime.shutdown_handle().request();
    let report = runtime.shutdown_handle().terminated().wait().unwrap();
    let metrics = runtime.metrics();
    assert_eq!(metrics.alive(), 0);
    assert_eq!(
        (metrics.spawned, metrics.completed, metrics.cancelled, metrics.panicked),
        (
            report.completed + report.cancelled + report.panicked,
            report.completed,
            report.cancelled,
            report.panicked
        )
    );
    assert!(metrics.polls >= report.completed + report.panicked);
    assert!(metrics.turns >= metrics.parks);
    assert_eq!(runtime.run().unwrap(), report, "the same report, on any thread");
}

#[test]
fn metrics_count_turns_events_and_timers() {
    let _watchdog = watchdog();
    use std::io::{Read, Write};
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let before = runtime.metrics();
    assert_eq!(before, evbase::Metrics::default());
    runtime
        .block_on(async {
            evbase::time::sleep(Duration::from_millis(50)).await;
            let reader = evbase::io::AsyncFd::new(reader).unwrap();
            let read = evbase::spawn_local(async move { reader.read_with(|mut pipe| pipe.read(&mut [0])).await });
            evbase::yield_now().await;
            writer.write_all(b"!").unwrap();
            read.await.unwrap().unwrap();
        })
        .unwrap();
    let after = runtime.metrics();
    assert_eq!((after.spawned, after.completed, after.timers), (1, 1, 1));
    assert!(
        after.events >= 1 && after.parks >= 1 && after.turns >= 2 && after.polls >= 4,
        "{after:?}"
    );
}

#[test]
fn turns_tell_what_they_did_and_the_metrics_are_their_sums() {
    let _watchdog = watchdog();
    use std::io::{Read, Write};
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reads = runtime
        .spawn_local(async move {
            let reader = evbase::io::AsyncFd::new(reader).unwrap();
            reader.read_with(|mut pipe| pipe.read(&mut [0])).await
        })
        .unwrap();
    let sleeps = runtime
        .spawn_local(evbase::time::sleep(Duration::from_millis(5)))
        .unwrap();
    let first = runtime.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(
        (first.events, first.timers, first.polls, first.closed),
        (0, 0, 2, false)
    );
    writer.write_all(b"!").unwrap();
    let (mut turns, mut sums) = (1, [first.events, first.timers, first.polls]);
    while !(reads.is_finished() && sleeps.is_finished()) {
        let turn = runtime.turn(None).unwrap();
        assert!(!turn.closed);
        turns += 1;
        sums = [sums[0] + turn.events, sums[1] + turn.timers, sums[2] + turn.polls];
    }
    assert!(sums[0] >= 1 && sums[1] <= 1 && sums[2] >= 4, "{sums:?}");
    let metrics = runtime.metrics();
    assert_eq!(
        [metrics.events, metrics.timers, metrics.polls],
        sums.map(|sum| sum as u64)
    );
    assert_eq!(metrics.turns, turns);
    runtime.shutdown_handle().request();
    assert!(runtime.turn(None).unwrap().closed);
}

#[test]
fn metrics_can_be_read_from_other_threads_at_any_time_and_never_go_back() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = runtime.metrics();
                while !done.load(SeqCst) {
                    let now = runtime.metrics();
                    assert!(now.spawned >= last.spawned && now.completed >= last.completed);
                    assert!(now.polls >= last.polls && now.turns >= last.turns && now.parks >= last.parks);
                    last = now;
                }
            });
        }
        for _ in 0..50 {
            let handles: Vec<_> = (0..100).map(|_| runtime.spawner().spawn(async {})).collect();
            handles.into_iter().for_each(|handle| handle.wait().unwrap().unwrap());
        }
        done.store(true, SeqCst);
    });
    assert_eq!(runtime.metrics().completed, 5000);
}

#[test]
fn the_number_of_tasks_alive_can_be_asked_while_home_works() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    // It may be off by what happened since, but not by 2^64.
                    assert!(runtime.metrics().alive() < 1_000_000);
                }
            });
        }
        let handle = runtime.spawner().spawn_with(|| async {
            let end = Instant::now() + Duration::from_millis(500);
            // Fewer where tasks are slow: with a sanitizer, on a busy machine.
            for _ in (0..300_000).take_while(|_| Instant::now() < end) {
                evbase::spawn_local(async {}).await.unwrap();
            }
        });
        let ended = handle.wait().unwrap();
        done.store(true, SeqCst);
        ended.unwrap();
    });
}

#[test]
fn an_idle_home_stays_parked() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let sleeps = runtime.spawner().spawn(evbase::time::sleep(Duration::from_secs(3600)));
    until(|| runtime.metrics().spawned == 1 && runtime.metrics().parks >= 1);
    // It may be between two turns still.
    thread::sleep(Duration::from_millis(20));
    let before = runtime.metrics();
    thread::sleep(Duration::from_millis(100));
    let after = runtime.metrics();
    assert!(
        after.turns <= before.turns + 1,
        "an idle loop turned: {before:?} {after:?}"
    );
    sleeps.abort();
    assert!(sleeps.wait().unwrap().unwrap_err().is_cancelled());
}

/// The counters are read one after the other, and their difference was below zero at times.
#[test]
fn the_number_of_living_tasks_is_never_below_zero() {
    let runtime = Builder::new().start("home").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let stop = stop.clone();
        runtime.spawner().spawn_with(move || async move {
            while !stop.load(Relaxed) {
                let tasks: Vec<_> = (0..50).map(|_| evbase::spawn_local(async {})).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
        })
    };
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        // An overflow panics, or, in a release build, gives some 2^64.
        let metrics = runtime.metrics();
        assert!(metrics.alive() < 1_000_000, "{metrics:?}");
    }
    stop.store(true, Relaxed);
    busy.wait().unwrap().unwrap();
}

#[test]
fn alive_makes_sense_while_home_goes_on() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let is_enough = enough.clone();
        let task = runtime.spawner().spawn_with(move || async move {
            while !is_enough.load(SeqCst) {
                for _ in 0..10 {
                    spawn_local(async {}).await.unwrap();
                }
            }
        });
        // At most the one above and the one that it waits for. An overflow panics, or gives some 2^64. More readers than
        // cores, so that some are interrupted between two figures.
        let results: Vec<_> = thread::scope(|scope| {
            let read = || {
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(1) {
                    let metrics = runtime.metrics();
                    assert!(metrics.alive() < 1_000_000, "{metrics:?}");
                }
            };
            let readers: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
            let results = readers.into_iter().map(|reader| reader.join()).collect();
            enough.store(true, SeqCst);
            results
        });
        task.wait().unwrap().unwrap();
        assert!(results.iter().all(|result| result.is_ok()), "see above");
    });
}
