//! Destructors and hooks are user code, which may come back into the runtime wherever it runs.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use evbase::{Builder, JoinHandle, RunError, Runtime, spawn_local, yield_now};

use crate::support::{Drops, OnDrop, alone, poll_once, rounds, until};

#[test]
fn a_panic_hook_may_use_the_runtime_in_whose_task_the_panic_is() {
    alone(|| {
        thread_local! {
            static HELD: RefCell<Option<(Rc<Runtime>, JoinHandle<()>)>> = const { RefCell::new(None) };
        }
        static HOOKS: AtomicUsize = AtomicUsize::new(0);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("on purpose") {
                return default(info);
            }
            let (runtime, handle) = HELD.take().unwrap();
            assert!(matches!(runtime.block_on(async {}), Err(RunError::Nested)));
            drop(spawn_local(async {
                HOOKS.fetch_add(1, SeqCst);
            }));
            let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
            assert!(poll_once(&mut sleep).is_pending());
            handle.abort();
            drop(handle);
            HOOKS.fetch_add(1, SeqCst);
        }));
        let runtime = Rc::new(Runtime::new().unwrap());
        for round in 1..=100 {
            let waits = runtime.spawn_local(pending::<()>()).unwrap();
            HELD.set(Some((runtime.clone(), waits)));
            let panics = runtime.spawn_local(async { panic!("on purpose") });
            let error: evbase::JoinError = runtime.block_on(panics.unwrap()).unwrap().unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
            runtime.block_on(yield_now()).unwrap();
            assert_eq!(HOOKS.load(SeqCst), 2 * round);
        }
        let report = Rc::into_inner(runtime).unwrap().shutdown().wait().unwrap();
        assert_eq!((report.panicked, report.completed, report.cancelled), (100, 100, 100));
    });
}

#[test]
fn a_destructor_of_a_future_wakes_its_own_task_at_home_and_abroad() {
    rounds(100, |round| {
        let runtime = Runtime::new().unwrap();
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let mine = wakers.clone();
        let drops = Drops::new();
        let (probe, polls) = (drops.local_probe(), Rc::new(Cell::new(0)));
        let guard = OnDrop(move || {
            let wakers = wakers.lock().unwrap().clone();
            wakers.iter().for_each(Waker::wake_by_ref);
            thread::spawn(move || wakers.into_iter().for_each(Waker::wake))
                .join()
                .unwrap();
        });
        let (count, completes) = (polls.clone(), round % 3 == 0);
        let task = runtime.spawn_local(poll_fn(move |cx| {
            let _ = (&guard, &probe);
            count.set(count.get() + 1);
            mine.lock().unwrap().push(cx.waker().clone());
            if completes { Poll::Ready(()) } else { Poll::Pending }
        }));
        let task = task.unwrap();
        runtime.block_on(yield_now()).unwrap();
        if round % 3 == 1 {
            task.abort();
            runtime.block_on(yield_now()).unwrap();
        }
        if round % 3 < 2 {
            drops.assert_on(thread::current().id(), 1);
        }
        // What the destructor's wake-ups have left behind polls nothing.
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(polls.get(), 1);
        assert_eq!(report.completed, u64::from(completes));
        assert_eq!(report.completed + report.cancelled, 1);
        drops.assert_on(thread::current().id(), 1);
    });
}

#[test]
fn tasks_whose_destructors_abort_each_other_in_a_ring_are_dropped_once() {
    rounds(100, |round| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let handles = Rc::new(RefCell::new(Vec::<JoinHandle<()>>::new()));
        for n in 0..5 {
            let (all, probe) = (handles.clone(), drops.local_probe());
            let guard = OnDrop(move || {
                let all = all.borrow();
                all[(n + 1) % 5].abort();
                all[n].abort();
            });
            let task = runtime.spawn_local(async move {
                let _held = (guard, probe);
                pending::<()>().await;
            });
            handles.borrow_mut().push(task.unwrap());
        }
        if round % 2 == 0 {
            runtime.block_on(yield_now()).unwrap();
        }
        handles.borrow()[2].abort();
        // Each destructor's abort arrives, at last that of the one it began with.
        while drops.count() < 5 {
            runtime.block_on(yield_now()).unwrap();
        }
        drops.assert_on(thread::current().id(), 5);
        handles.take();
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 5);
    });
}

#[test]
fn the_destructor_of_an_output_a_payload_or_an_unrun_closure_may_use_the_runtime() {
    rounds(100, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let meddler = || {
            let (tell, spawner, shutdown) = (told.clone(), runtime.spawner(), runtime.shutdown_handle());
            OnDrop(move || {
                // Under a borrow of home's own, or a lock, one of these would panic or hang.
                assert_eq!(thread::current().id(), home);
                drop(spawn_local(async {}));
                drop(spawner.spawn(async {}));
                let aborted = spawn_local(pending::<()>());
                aborted.abort();
                assert!(poll_once(&mut { aborted }).is_pending());
                let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
                assert!(poll_once(&mut sleep).is_pending());
                assert!(poll_once(&mut shutdown.requested()).is_pending());
                assert!(poll_once(&mut shutdown.terminated()).is_pending());
                tell.fetch_add(1, SeqCst);
            })
        };
        // Each of them is dropped at home: nobody else has a handle.
        let release = crate::support::hold(&runtime);
        let output = meddler();
        drop(runtime.spawner().spawn(async move { output }));
        let payload = meddler();
        drop(runtime.spawner().spawn(async move { resume_unwind(Box::new(payload)) }));
        let closure = meddler();
        let unrun = runtime.spawner().spawn_with(move || {
            let _closure = &closure;
            unreachable!("it was aborted");
            #[allow(unreachable_code)]
            async {}
        });
        unrun.abort();
        if round % 2 == 0 {
            drop(unrun);
        }
        release.open();
        until(|| told.load(SeqCst) == 3);
        // Two for each of them, one for this, and the one that held home; a third for each was aborted.
        runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
        until(|| runtime.metrics().alive() == 0);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.cancelled, report.panicked), (6 + 1 + 2, 4, 1));
    });
}

#[test]
fn an_output_whose_destructor_panics_is_contained_where_its_handle_is_dropped() {
    crate::support::quiet_panics();
    rounds(100, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let handle = runtime.spawner().spawn(async { OnDrop(|| panic!("on purpose")) });
        until(|| handle.is_finished());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(handle))).is_ok());
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.panicked), (1, 0));
    });
}

#[test]
fn a_destructor_that_panics_in_an_aborted_task_is_contained() {
    crate::support::quiet_panics();
    rounds(100, |round| {
        let runtime = Runtime::new().unwrap();
        let guard = OnDrop(|| panic!("on purpose"));
        let task = runtime.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let task = task.unwrap();
        if round % 2 == 0 {
            runtime.block_on(yield_now()).unwrap();
        }
        task.abort();
        assert!(runtime.block_on(task).unwrap().unwrap_err().is_cancelled());
        assert_eq!(runtime.block_on(async { 1 }).unwrap(), 1);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.cancelled, report.panicked), (1, 0));
    });
}
