//! From a stop on, foreign work is refused and given back; what was accepted before runs or is cancelled, and every join
//! handle resolves.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime, Shutdown, SpawnErrorKind, Spawner, spawn_local};

use crate::support::{Drops, Latch, OnDrop, parked, poll_once, rounds};

#[test]
fn a_foreign_spawn_after_the_stop_gives_the_future_back_untouched() {
    rounds(200, |_| {
        let runtime = parked(Builder::new().grace(Duration::MAX));
        let hold = runtime.spawner().spawn(pending::<()>());
        runtime.shutdown_handle().request();
        let drops = Drops::new();
        let probe = drops.probe();
        let refused = runtime
            .spawner()
            .try_spawn(async move {
                let _probe = probe;
                11
            })
            .unwrap_err();
        assert_eq!(refused.kind(), SpawnErrorKind::Stopped);
        assert_eq!(drops.count(), 0);
        let future = refused.into_inner();
        assert_eq!(Runtime::new().unwrap().block_on(future).unwrap(), 11);
        drops.assert_on(thread::current().id(), 1);
        hold.abort();
        let report = runtime.shutdown().wait().unwrap();
        // The refused one counts nowhere.
        assert_eq!((report.completed, report.cancelled, report.panicked), (1, 1, 0));
    });
}

#[test]
fn a_closure_that_is_refused_comes_back_unrun() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        runtime.shutdown_handle().request();
        let drops = Drops::new();
        let probe = drops.probe();
        let refused = runtime.spawner().try_spawn_with(move || {
            drop(probe);
            async { 12 }
        });
        let refused = refused.map(drop).unwrap_err();
        assert_eq!(refused.kind(), SpawnErrorKind::Stopped);
        assert_eq!(drops.count(), 0);
        let future = refused.into_inner()();
        assert_eq!(drops.count(), 1);
        assert_eq!(Runtime::new().unwrap().block_on(future).unwrap(), 12);
    });
}

#[test]
fn a_foreign_spawn_that_is_refused_is_dropped_by_its_caller_and_its_handle_is_cancelled() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        runtime.shutdown_handle().request();
        let drops = Drops::new();
        let probe = drops.probe();
        let handle = runtime.spawner().spawn(async move { drop(probe) });
        drops.assert_on(thread::current().id(), 1);
        assert!(handle.is_finished());
        assert!(handle.abort_handle().is_finished());
        handle.abort();
        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
    });
}

#[test]
fn what_was_accepted_is_run_or_cancelled_and_every_handle_resolves() {
    rounds(150, |round| {
        let grace = if round % 2 == 0 { Duration::ZERO } else { Duration::MAX };
        let runtime = Builder::new().grace(grace).start("home").unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let drops = Drops::new();
        let home = runtime.home().unwrap();
        let spawners: Vec<_> = (0..3)
            .map(|_| {
                let (spawner, ran, drops) = (runtime.spawner(), ran.clone(), drops.clone());
                thread::spawn(move || {
                    let mut handles = Vec::new();
                    loop {
                        let (ran, probe) = (ran.clone(), drops.probe());
                        let task = async move {
                            let _probe = probe;
                            ran.fetch_add(1, SeqCst);
                        };
                        match spawner.try_spawn(task) {
                            Ok(handle) => handles.push(handle),
                            Err(refused) => {
                                // Its probe is counted when it is dropped, after all others.
                                return (handles, refused.into_inner());
                            }
                        }
                        if handles.len() % 16 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..round % 20 {
            thread::yield_now();
        }
        let terminated = runtime.shutdown();
        let (handles, _refused): (Vec<_>, Vec<_>) = spawners.into_iter().map(|spawner| spawner.join().unwrap()).unzip();
        let handles: Vec<_> = handles.into_iter().flatten().collect();
        let accepted = handles.len();
        let completed = handles
            .into_iter()
            .filter_map(|handle| handle.wait().unwrap().ok())
            .count();
        let report = terminated.wait().unwrap();
        assert_eq!(completed, ran.load(SeqCst));
        assert_eq!(
            (report.completed, report.cancelled),
            (completed as u64, (accepted - completed) as u64)
        );
        if round % 2 == 1 {
            assert_eq!(completed, accepted, "cancelled in an endless grace period");
        }
        drops.assert_on(home, accepted);
    });
}

#[test]
fn a_handle_of_cancelled_work_that_is_awaited_elsewhere_wakes_its_task() {
    rounds(150, |_| {
        let runtime = parked(Builder::new());
        let other = Builder::new().start("other").unwrap();
        let task = runtime.spawner().spawn(pending::<()>());
        let awaiting = other
            .spawner()
            .spawn(async move { task.await.unwrap_err().is_cancelled() });
        let terminated = runtime.shutdown();
        assert!(awaiting.wait().unwrap().unwrap());
        terminated.wait().unwrap();
    });
}

#[test]
fn home_may_spawn_in_the_grace_period() {
    rounds(150, |_| {
        let runtime = Builder::new().grace(Duration::MAX).build().unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let count = ran.clone();
        let result = runtime.block_on(async move {
            Shutdown::current().request();
            let add = move |n| {
                let count = count.clone();
                async move {
                    count.fetch_add(n, SeqCst);
                    n
                }
            };
            // The next turn of the loop has seen the stop.
            evbase::yield_now().await;
            let local = spawn_local(add(1)).await.unwrap();
            let sent = Spawner::current().try_spawn(add(10)).unwrap().await.unwrap();
            let made = Spawner::current().try_spawn_with({
                let add = add.clone();
                move || add(100)
            });
            let in_spawner = evbase::LocalSpawner::current().spawn_local(add(1000)).unwrap();
            local + sent + made.unwrap().await.unwrap() + in_spawner.await.unwrap()
        });
        assert_eq!(result.unwrap(), 1111);
        assert_eq!(ran.load(SeqCst), 1111);
        let report = runtime.run().unwrap();
        assert_eq!((report.completed, report.cancelled), (4, 0));
    });
}

#[test]
fn a_destructor_in_closing_is_refused_by_every_way_to_spawn() {
    rounds(200, |_| {
        let runtime = Arc::new(Runtime::new().unwrap());
        let (refused, inner_drops) = (Latch::new(), Drops::new());
        let (told, probes) = (refused.clone(), inner_drops.clone());
        // Weak: the task must not keep what it runs in.
        let (weak, spawner, shutdown) = (Arc::downgrade(&runtime), runtime.spawner(), runtime.shutdown_handle());
        let local = runtime.local_spawner().unwrap();
        let guard = OnDrop(move || {
            let probe = probes.local_probe();
            let mut free = spawn_local(async move {
                let _probe = probe;
            });
            assert!(free.is_finished());
            assert!(matches!(poll_once(&mut free), std::task::Poll::Ready(Err(error)) if error.is_cancelled()));
            assert_eq!(probes.count(), 1, "the free function drops what it refuses");
            assert_eq!(spawner.try_spawn(async {}).unwrap_err().kind(), SpawnErrorKind::Stopped);
            assert_eq!(local.spawn_local(async {}).unwrap_err().kind(), SpawnErrorKind::Stopped);
            if let Some(runtime) = weak.upgrade() {
                assert_eq!(
                    runtime.spawn_local(async {}).unwrap_err().kind(),
                    SpawnErrorKind::Stopped
                );
            }
            told.open();
        });
        drop(runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        }));
        shutdown.request();
        let report = runtime.run().unwrap();
        assert!(refused.is_open());
        assert_eq!((report.cancelled, report.completed), (1, 0));
    });
}

#[test]
fn an_abort_before_the_arrival_drops_the_closure_unrun_at_home() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        let spawner = runtime.spawner();
        let handle = thread::spawn(move || {
            let handle = spawner.spawn_with(move || {
                drop(probe);
                async { unreachable!("the closure was aborted") }
            });
            handle.abort();
            handle
        });
        let handle = handle.join().unwrap();
        assert_eq!(drops.count(), 0);
        runtime.block_on(evbase::yield_now()).unwrap();
        drops.assert_on(thread::current().id(), 1);
        let result: Result<(), _> = handle.wait().unwrap();
        assert!(result.unwrap_err().is_cancelled());
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 1);
    });
}

#[test]
fn a_destructor_of_the_root_in_closing_is_refused_by_every_way_to_spawn() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let told = Arc::new(std::sync::Mutex::new(None));
        let (tell, spawner, shutdown) = (told.clone(), runtime.spawner(), runtime.shutdown_handle());
        let local = runtime.local_spawner().unwrap();
        let guard = OnDrop(move || {
            let free = spawn_local(async {});
            let refused = [
                free.is_finished(),
                local.spawn_local(async {}).is_err(),
                spawner.try_spawn(async {}).is_err(),
                spawner.try_spawn_with(|| async {}).is_err(),
            ];
            *tell.lock().unwrap() = Some(refused);
        });
        let stopped = runtime.block_on(async move {
            let _guard = guard;
            shutdown.request();
            pending::<()>().await;
        });
        assert!(stopped.is_err());
        assert_eq!(
            told.lock().unwrap().take(),
            Some([true; 4]),
            "free, local, spawn, spawn_with"
        );
        let report = runtime.run().unwrap();
        assert_eq!(
            (report.completed, report.cancelled),
            (0, 0),
            "what is refused counts nowhere"
        );
    });
}
