//! Spawning from anywhere: tasks arrive, refused ones come back, and what is not `Send` lives and dies at home.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use evbase::{Builder, LocalSpawner, Runtime, Shutdown, SpawnErrorKind, Spawner};
use futures::FutureExt;
use futures::task::{LocalSpawn, LocalSpawnExt, Spawn, SpawnExt};

use crate::support::{Drops, panics, until, watchdog};

/// A runtime whose home is busy until the sender is dropped: nothing else runs there meanwhile.
fn busy_runtime() -> (Runtime, mpsc::Sender<()>) {
    let runtime = Builder::new().start("busy home").unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel::<()>();
    drop(runtime.spawner().spawn_with(move || {
        begun.send(()).unwrap();
        let _ = released.recv();
        async {}
    }));
    has_begun.recv().unwrap();
    (runtime, release)
}

#[test]
fn a_spawner_works_before_there_is_a_home_and_at_home_and_abroad() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    let before = spawner.spawn(async { 1 });
    assert_eq!(runtime.home(), None, "spawning binds nothing");
    let with_before = spawner.spawn_with(|| {
        let two = Rc::new(2);
        async move { *two }
    });
    let abroad = {
        let spawner = spawner.clone();
        thread::spawn(move || (spawner.spawn(async { 3 }), spawner.spawn_with(|| async { 4 })))
            .join()
            .unwrap()
    };
    assert_eq!(runtime.home(), None);
    let outside = runtime.block_on(async {}).map(|()| spawner.spawn(async { 5 })).unwrap();
    let sum = runtime
        .block_on(async {
            let inside = spawner.spawn(async { 6 });
            let inside_with = spawner.spawn_with(|| async { 7 });
            let mut sum = 0;
            for handle in [before, with_before, abroad.0, abroad.1, outside, inside, inside_with] {
                sum += handle.await.unwrap();
            }
            sum
        })
        .unwrap();
    assert_eq!(sum, 28);
    assert_eq!(runtime.home(), Some(thread::current().id()));
}

#[test]
fn a_refused_future_comes_back_untouched() {
    let _watchdog = watchdog();
    let log = Drops::new();
    for ended_by_drop in [false, true] {
        let runtime = Runtime::new().unwrap();
        let spawner = runtime.spawner();
        if ended_by_drop {
            drop(runtime);
        } else {
            runtime.shutdown_handle().request();
        }
        let probe = log.probe();
        let polled = Arc::new(AtomicUsize::new(0));
        let future = {
            let polled = polled.clone();
            async move {
                polled.fetch_add(1, SeqCst);
                drop(probe);
                42
            }
        };
        let error = spawner.try_spawn(future).unwrap_err();
        assert_eq!(error.kind(), SpawnErrorKind::Stopped);
        assert_eq!(polled.load(SeqCst), 0);
        let dropped = log.count();
        let future = error.into_inner();
        assert_eq!(log.count(), dropped);
        assert_eq!(futures::executor::block_on(future), 42);
        assert_eq!(log.count(), dropped + 1);
    }
}

#[test]
fn a_refused_closure_comes_back_uncalled() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime.shutdown_handle().request();
    let called = Arc::new(AtomicBool::new(false));
    let call = called.clone();
    let log = Drops::new();
    let probe = log.probe();
    let error = runtime
        .spawner()
        .try_spawn_with(move || {
            call.store(true, SeqCst);
            let _probe = probe;
            async { 7 }
        })
        .unwrap_err();
    assert_eq!(error.kind(), SpawnErrorKind::Stopped);
    assert!(!called.load(SeqCst));
    assert_eq!(log.count(), 0);
    let future = (error.into_inner())();
    assert!(called.load(SeqCst));
    assert_eq!(log.count(), 1);
    assert_eq!(futures::executor::block_on(future), 7);
}

#[test]
fn a_refused_spawn_gives_a_cancelled_handle_and_drops_the_future_here() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let spawner = runtime.spawner();
    runtime.shutdown().wait().unwrap();
    let log = Drops::new();
    let (first, second) = (log.probe(), log.probe());
    let handle = spawner.spawn(async move { drop(first) });
    assert!(handle.is_finished());
    assert!(handle.abort_handle().is_finished());
    handle.abort();
    assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
    let handle = spawner.spawn_with(move || async move { drop(second) });
    assert!(futures::executor::block_on(handle).unwrap_err().is_cancelled());
    assert_eq!(log.threads(), [thread::current().id(); 2]);
}

#[test]
fn a_closure_that_is_aborted_before_it_ran_is_dropped_unrun_at_home() {
    let _watchdog = watchdog();
    for round in 0..100 {
        let (runtime, release) = busy_runtime();
        let log = Drops::new();
        let ran = Arc::new(AtomicBool::new(false));
        let (probe, runs) = (log.probe(), ran.clone());
        let handle = runtime.spawner().spawn_with(move || {
            let _probe = probe;
            runs.store(true, SeqCst);
            async {}
        });
        if round % 2 == 0 {
            handle.abort();
        } else {
            let abort = handle.abort_handle();
            thread::spawn(move || abort.abort()).join().unwrap();
        }
        assert_eq!(log.count(), 0, "home is busy, and nobody else may drop it");
        drop(release);
        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
        assert!(!ran.load(SeqCst));
        assert_eq!(log.threads(), [runtime.home().unwrap()]);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.cancelled, report.panicked), (1, 1, 0));
    }
}

#[test]
fn a_closure_that_panics_is_a_task_that_panicked() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let handle = runtime.spawner().spawn_with(|| {
        if true {
            panic!("no future today");
        }
        async {}
    });
    let error = handle.wait().unwrap().unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert!(error.to_string().contains("no future today"), "{error}");
    // Home goes on.
    assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
    assert_eq!(runtime.shutdown().wait().unwrap().panicked, 1);
}

/// Never ready by itself; hands its waker out.
struct Handing {
    waker: Arc<Mutex<Option<Waker>>>,
    finish: Arc<AtomicBool>,
    probe: crate::support::LocalDropProbe,
}

impl Future for Handing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.probe.check();
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        if self.finish.load(SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[test]
fn a_future_that_is_not_send_lives_and_dies_at_home_whoever_ends_it() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let home = runtime.home().unwrap();
    for round in 0..600 {
        let log = Drops::new();
        let waker = Arc::new(Mutex::new(None));
        let finish = Arc::new(AtomicBool::new(false));
        let handle = runtime.spawner().spawn_with({
            let (log, waker, finish) = (log.clone(), waker.clone(), finish.clone());
            move || Handing {
                waker,
                finish,
                probe: log.local_probe(),
            }
        });
        if round % 7 != 0 {
            until(|| waker.lock().unwrap().is_some());
        }
        match round % 4 {
            // Aborted from abroad, while it is woken from abroad.
            0 => {
                let other = waker.lock().unwrap().clone();
                let waking = thread::spawn(move || other.map(Waker::wake));
                handle.abort();
                waking.join().unwrap();
                drop(handle);
            }
            // Woken to its end from abroad; that waker is the last one.
            1 => {
                finish.store(true, SeqCst);
                until(|| waker.lock().unwrap().is_some());
                if let Some(waker) = waker.lock().unwrap().take() {
                    waker.wake();
                }
                handle.wait().unwrap().unwrap();
            }
            // The handle is dropped first, then it is woken to its end.
            2 => {
                drop(handle);
                finish.store(true, SeqCst);
                until(|| waker.lock().unwrap().is_some());
                if let Some(waker) = waker.lock().unwrap().take() {
                    waker.wake_by_ref();
                    drop(waker);
                }
            }
            // Aborted through an abort handle that goes last.
            _ => {
                let abort = handle.abort_handle();
                drop(handle);
                thread::spawn(move || abort.abort()).join().unwrap();
            }
        }
        if round % 7 == 0 && round % 4 == 3 {
            // May have been aborted before it was made.
            until(|| log.count() == 1 || Arc::strong_count(&finish) == 1);
        } else if !(round % 7 == 0 && round % 4 == 0) {
            log.wait_for(1);
        }
        for thread in log.threads() {
            assert_eq!(thread, home);
        }
    }
}

#[test]
fn a_future_dies_at_home_when_the_runtime_is_dropped_abroad_and_wakers_outlive_it() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let log = Drops::new();
        let waker = Arc::new(Mutex::new(None));
        let finish = Arc::new(AtomicBool::new(false));
        let handle = runtime.spawner().spawn_with({
            let (log, waker) = (log.clone(), waker.clone());
            move || Handing {
                waker,
                finish,
                probe: log.local_probe(),
            }
        });
        until(|| waker.lock().unwrap().is_some());
        let waker = waker.lock().unwrap().take().unwrap();
        let waking = thread::spawn(move || {
            for _ in 0..100 {
                waker.wake_by_ref();
            }
            waker
        });
        runtime.shutdown().wait().unwrap();
        assert_eq!(log.threads(), [home], "destructors run before Terminated resolves");
        assert!(handle.is_finished());
        let waker = waking.join().unwrap();
        waker.wake_by_ref();
        drop(waker.clone());
        drop(waker);
        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
        assert_eq!(log.count(), 1);
    }
}

#[test]
fn the_spawn_traits_of_futures_work_and_refuse_when_stopped() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (spawner, local) = (runtime.spawner(), runtime.local_spawner().unwrap());
    Spawn::status(&spawner).unwrap();
    LocalSpawn::status_local(&local).unwrap();
    let remote = spawner.spawn_with_handle(async { 1 }).unwrap();
    let not_send = Rc::new(2);
    let near = local.spawn_local_with_handle(async move { *not_send }).unwrap();
    let through_local = SpawnExt::spawn_with_handle(&local, async { 3 }).unwrap();
    let sum = runtime
        .block_on(async { remote.await + near.await + through_local.await })
        .unwrap();
    assert_eq!(sum, 6);
    runtime.shutdown_handle().request();
    runtime.run().unwrap();
    assert!(Spawn::status(&spawner).unwrap_err().is_shutdown());
    assert!(SpawnExt::spawn(&spawner, async {}).unwrap_err().is_shutdown());
    assert!(local.status_local().unwrap_err().is_shutdown());
    assert!(LocalSpawnExt::spawn_local(&local, async {}).unwrap_err().is_shutdown());
}

/// Into which of the runtimes the free functions lead.
fn current_leads_to(runtime: &Runtime) -> bool {
    let before = runtime.metrics().spawned;
    drop(LocalSpawner::current().spawn_local(async {}).unwrap());
    runtime.metrics().spawned == before + 1
}

#[test]
fn current_is_the_innermost_context_and_guards_may_end_in_any_order() {
    let _watchdog = watchdog();
    let [a, b, c] = [(); 3].map(|()| Runtime::new().unwrap());
    assert!(Spawner::try_current().is_none());
    assert!(Shutdown::try_current().is_none());
    assert!(LocalSpawner::try_current().is_none());
    let in_a = a.enter().unwrap();
    assert!(current_leads_to(&a));
    let in_b = b.enter().unwrap();
    assert!(current_leads_to(&b));
    let in_c = c.enter().unwrap();
    assert!(current_leads_to(&c));
    drop(in_b);
    assert!(current_leads_to(&c));
    let again_in_a = a.enter().unwrap();
    assert!(current_leads_to(&a));
    drop(in_c);
    assert!(current_leads_to(&a));
    drop(again_in_a);
    assert!(current_leads_to(&a), "b's and c's guards are gone");
    drop(in_a);
    assert!(Spawner::try_current().is_none());
    assert!(LocalSpawner::try_current().is_none());
}

#[test]
fn a_running_loop_is_the_context_within_a_guard_of_another_runtime() {
    let _watchdog = watchdog();
    let (a, b) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let _in_a = a.enter().unwrap();
    b.block_on(async {
        assert!(current_leads_to(&b));
        let in_a = a.enter().unwrap();
        assert!(current_leads_to(&a));
        // Across an await, and for the other tasks meanwhile: it is the thread's, not the task's.
        let other = Spawner::spawn(&b.spawner(), async { 1 });
        assert_eq!(other.await.unwrap(), 1);
        drop(in_a);
        assert!(current_leads_to(&b));
    })
    .unwrap();
    assert!(current_leads_to(&a));
}

#[test]
fn a_guard_made_in_a_loop_may_outlive_it() {
    let _watchdog = watchdog();
    let (a, b) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let guard = b.block_on(async { a.enter().unwrap() }).unwrap();
    assert!(current_leads_to(&a));
    b.block_on(async { assert!(current_leads_to(&b)) }).unwrap();
    assert!(current_leads_to(&a));
    drop(guard);
    assert!(Spawner::try_current().is_none());
}

#[test]
fn current_is_there_in_tasks_and_their_destructors() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    struct AsksInDrop(mpsc::Sender<bool>);
    impl Drop for AsksInDrop {
        fn drop(&mut self) {
            let _ = self
                .0
                .send(Spawner::try_current().is_some() && LocalSpawner::try_current().is_some());
        }
    }
    let (answer, answers) = mpsc::channel();
    let asks = AsksInDrop(answer.clone());
    runtime
        .spawner()
        .spawn(async move {
            answer.send(Spawner::try_current().is_some()).unwrap();
            let _asks = asks;
        })
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!(answers.iter().take(2).collect::<Vec<_>>(), [true, true]);
    // The handles work abroad, where they lead home.
    let (spawner, shutdown) = runtime
        .spawner()
        .spawn(async { (Spawner::current(), Shutdown::current()) })
        .wait()
        .unwrap()
        .unwrap();
    assert_eq!(spawner.spawn(async { 9 }).wait().unwrap().unwrap(), 9);
    shutdown.request();
    shutdown.terminated().wait().unwrap();
}

#[test]
fn outside_of_a_context_the_free_functions_panic_and_say_what_is_missing() {
    let _watchdog = watchdog();
    for text in [
        panics(|| evbase::spawn_local(async {})),
        panics(Spawner::current),
        panics(Shutdown::current),
        panics(LocalSpawner::current),
        // Another executor is no context.
        panics(|| futures::executor::block_on(async { evbase::spawn_local(async {}).await })),
    ] {
        assert!(
            text.contains("evbase") && text.contains("block_on") && text.contains("EnterGuard"),
            "{text}"
        );
    }
}

#[test]
fn spawn_local_runs_what_is_not_send_in_the_running_loop() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let sum = runtime
        .block_on(async {
            let shared = Rc::new(Cell::new(0));
            let handles = (1..=10).map(|n| {
                let shared = shared.clone();
                evbase::spawn_local(async move {
                    evbase::yield_now().await;
                    shared.set(shared.get() + n);
                })
            });
            for handle in handles.collect::<Vec<_>>() {
                handle.await.unwrap();
            }
            shared.get()
        })
        .unwrap();
    assert_eq!(sum, 55);
}

#[test]
fn a_local_spawn_binds_an_unbound_runtime_and_is_refused_abroad() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.spawn_local(async { Rc::new(1) }).unwrap();
    assert_eq!(runtime.home(), Some(thread::current().id()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let error = runtime.spawn_local(async { 2 }).unwrap_err();
            assert!(matches!(error.kind(), SpawnErrorKind::NotHome { home } if Some(home) == runtime.home()));
            assert_eq!(futures::executor::block_on(error.into_inner()), 2);
        });
    });
    assert_eq!(*runtime.block_on(handle).unwrap().unwrap(), 1);
}

#[test]
fn a_spawner_leads_to_its_own_runtime_wherever_it_is_used() {
    let _watchdog = watchdog();
    let (here, there) = (Runtime::new().unwrap(), Builder::new().start("there").unwrap());
    let home = there.home().unwrap();
    let spawner = there.spawner();
    let ran_on = here
        .block_on(async { spawner.spawn(async { thread::current().id() }).await.unwrap() })
        .unwrap();
    assert_eq!(ran_on, home);
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn tasks_that_are_spawned_from_one_thread_begin_in_their_order() {
    let _watchdog = watchdog();
    let (runtime, release) = busy_runtime();
    let order = Arc::new(Mutex::new(Vec::new()));
    let handles: Vec<_> = (0..1000)
        .map(|n| {
            let order = order.clone();
            runtime.spawner().spawn(async move { order.lock().unwrap().push(n) })
        })
        .collect();
    drop(release);
    for handle in handles {
        handle.wait().unwrap().unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq(0..1000));
}

#[test]
fn every_task_of_many_threads_arrives_once() {
    let _watchdog = watchdog();
    const THREADS: usize = 4;
    const EACH: usize = 2000;
    let runtime = Builder::new().start("home").unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (spawner, ran) = (runtime.spawner(), ran.clone());
            scope.spawn(move || {
                let handles: Vec<_> = (0..EACH)
                    .map(|n| {
                        let ran = ran.clone();
                        let future = async move {
                            ran.fetch_add(1, SeqCst);
                        };
                        if n % 2 == 0 {
                            spawner.spawn(future)
                        } else {
                            spawner.spawn_with(|| future)
                        }
                    })
                    .collect();
                for handle in handles {
                    handle.wait().unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(ran.load(SeqCst), THREADS * EACH);
    assert_eq!(runtime.shutdown().wait().unwrap().completed, (THREADS * EACH) as u64);
}

#[test]
fn a_spawn_that_races_with_a_stop_is_run_or_cancelled_or_refused_and_never_lost() {
    let _watchdog = watchdog();
    for _ in 0..200 {
        let runtime = Builder::new().start("home").unwrap();
        let spawner = runtime.spawner();
        let log = Drops::new();
        let spawning = thread::spawn({
            let log = log.clone();
            move || {
                let handles: Vec<_> = (0..100)
                    .map(|_| {
                        let probe = log.probe();
                        spawner.try_spawn(async move { drop(probe) })
                    })
                    .collect();
                let mut refused = 0;
                let (mut completed, mut cancelled) = (0, 0);
                for handle in handles {
                    match handle.map(|handle| handle.wait().unwrap()) {
                        Ok(Ok(())) => completed += 1,
                        Ok(Err(error)) => {
                            assert!(error.is_cancelled());
                            cancelled += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
                assert_eq!(refused + completed + cancelled, 100);
                (completed, cancelled)
            }
        });
        let report = runtime.shutdown().wait().unwrap();
        let (completed, cancelled) = spawning.join().unwrap();
        assert_eq!(
            (report.completed, report.cancelled, report.panicked),
            (completed, cancelled, 0)
        );
        assert_eq!(log.count(), 100);
    }
}

#[test]
fn a_spawn_in_a_destructor_while_the_runtime_closes_is_refused_without_a_panic() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (tell, told) = mpsc::channel();
    struct SpawnsInDrop(mpsc::Sender<(bool, bool)>);
    impl Drop for SpawnsInDrop {
        fn drop(&mut self) {
            let handle = evbase::spawn_local(pending::<()>());
            let cancelled = handle
                .now_or_never()
                .is_some_and(|ended| ended.unwrap_err().is_cancelled());
            let refused = Spawner::current().try_spawn(async {}).is_err();
            self.0.send((cancelled, refused)).unwrap();
        }
    }
    let spawns = SpawnsInDrop(tell);
    drop(runtime.spawn_local(async move {
        let _spawns = spawns;
        pending::<()>().await;
    }));
    runtime.block_on(evbase::yield_now()).unwrap();
    drop(runtime);
    assert_eq!(told.recv().unwrap(), (true, true));
}

#[test]
fn futures_of_any_size_and_alignment_can_be_spawned() {
    let _watchdog = watchdog();
    #[repr(align(256))]
    struct Aligned(u8);
    let runtime = Builder::new().start("home").unwrap();
    let handle = runtime.spawner().spawn(async {
        let aligned = Aligned(3);
        evbase::yield_now().await;
        assert_eq!((&raw const aligned).addr() % 256, 0);
        aligned
    });
    let aligned = handle.wait().unwrap().unwrap();
    assert_eq!(((&raw const aligned).addr() % 256, aligned.0), (0, 3));
    let big = [7_u8; 20_000];
    let sum = runtime.spawner().spawn(async move {
        evbase::yield_now().await;
        big.iter().map(|&n| u64::from(n)).sum::<u64>()
    });
    assert_eq!(sum.wait().unwrap().unwrap(), 140_000);
    runtime.spawner().spawn(std::future::ready(())).wait().unwrap().unwrap();
}

#[test]
fn a_wake_up_during_the_poll_polls_again_and_wake_ups_in_between_count_once() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let polls = Rc::new(Cell::new(0));
    let handle = runtime
        .spawn_local({
            let polls = polls.clone();
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                for _ in 0..10 {
                    cx.waker().wake_by_ref();
                    let waker = cx.waker().clone();
                    waker.wake_by_ref();
                    waker.wake();
                }
                if polls.get() == 5 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
        })
        .unwrap();
    runtime.block_on(handle).unwrap().unwrap();
    assert_eq!(polls.get(), 5);
}
