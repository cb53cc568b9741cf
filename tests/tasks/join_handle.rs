//! Join handles: awaited by anyone, aborted from anywhere, and never a way to lose or misplace an output.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;

use evbase::{Builder, JoinHandle, Runtime, Spawner, WaitError, yield_now};
use futures::FutureExt;
use futures::channel::oneshot;
use tokio_test::{assert_pending, assert_ready, task};

use crate::support::{Drops, panic_text, panics, rounds, turn_until, until, watchdog};

#[test]
fn a_handle_can_be_awaited_in_any_executor() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for round in 0..200 {
        let spawner = runtime.spawner();
        let handle = spawner.spawn(async move {
            evbase::yield_now().await;
            round
        });
        assert_eq!(futures::executor::block_on(handle).unwrap(), round);

        let other = Runtime::new().unwrap();
        let handle = spawner.spawn(async move { round });
        assert_eq!(other.block_on(handle).unwrap().unwrap(), round);

        let handle = spawner.spawn(async move { round });
        let in_task = other.spawner().spawn(async move { handle.await.unwrap() });
        assert_eq!(other.block_on(in_task).unwrap().unwrap(), round);
    }
}

#[test]
fn wait_blocks_a_thread_that_has_no_loop() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (send, receive) = oneshot::channel();
    let handle = runtime.spawner().spawn(async { receive.await.unwrap() });
    let waiting = thread::spawn(move || handle.wait());
    send.send(5).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().unwrap(), 5);
}

#[test]
fn wait_at_home_outside_of_the_loop_drives_the_runtime() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime
        .spawn_local(async {
            evbase::time::sleep(std::time::Duration::from_millis(2)).await;
            Rc::new(3)
        })
        .unwrap();
    let other = runtime.spawn_local(async { 4 }).unwrap();
    assert_eq!(*handle.wait().unwrap().unwrap(), 3);
    assert!(other.is_finished(), "the other tasks run meanwhile");
    assert_eq!(other.wait().unwrap().unwrap(), 4);
}

#[test]
fn a_wait_at_home_of_a_runtime_that_is_stopped_meanwhile_ends_with_cancelled() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.spawn_local(pending::<()>()).unwrap();
        let shutdown = runtime.shutdown_handle();
        let stopping = thread::spawn(move || shutdown.request());
        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
        stopping.join().unwrap();
        runtime.run().unwrap();
    }
}

#[test]
fn a_wait_at_home_in_the_grace_period_ends_with_its_task_and_not_with_the_runtime() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let runtime = Builder::new().grace(std::time::Duration::from_secs(5)).build().unwrap();
        let other = runtime.spawn_local(pending::<()>()).unwrap();
        let handle = runtime
            .spawn_local(async {
                evbase::Shutdown::current().requested().await;
                evbase::time::sleep(std::time::Duration::from_micros(50)).await;
                5
            })
            .unwrap();
        runtime.shutdown_handle().request();
        assert_eq!(handle.wait().unwrap().unwrap(), 5);
        assert!(
            !other.is_finished(),
            "the wait has waited for the end of the grace period"
        );
        other.abort();
        // The next call goes on with the grace period.
        let report = runtime.run().unwrap();
        assert_eq!((report.completed, report.cancelled), (1, 1));
    }
}

#[test]
fn a_wait_that_is_refused_detaches_the_task_which_runs_all_the_same() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = |ran: &Arc<AtomicUsize>| {
        let ran = ran.clone();
        async move {
            ran.fetch_add(1, SeqCst);
        }
    };
    let handle = runtime.spawner().spawn(count(&ran));
    assert_eq!(handle.wait().unwrap_err(), WaitError::Unbound);
    assert_eq!(ran.load(SeqCst), 0);
    runtime
        .block_on(async {
            let handle = evbase::spawn_local(count(&ran));
            assert_eq!(handle.wait().unwrap_err(), WaitError::InsideLoop);
        })
        .unwrap();
    turn_until(&runtime, || ran.load(SeqCst) == 2);
}

#[test]
fn a_wait_inside_the_loop_of_another_runtime_is_refused_too() {
    let _watchdog = watchdog();
    let (here, there) = (Runtime::new().unwrap(), Builder::new().start("there").unwrap());
    let handle = there.spawner().spawn(pending::<()>());
    here.block_on(async { assert_eq!(handle.wait().unwrap_err(), WaitError::InsideLoop) })
        .unwrap();
}

#[test]
fn abort_cancels_a_task_that_waits_and_drops_its_future_at_home() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let home = runtime.home().unwrap();
    for round in 0..300 {
        let log = Drops::new();
        let probe = log.probe();
        let handle = runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        let abort = handle.abort_handle();
        match round % 3 {
            0 => handle.abort(),
            1 => abort.clone().abort(),
            _ => thread::spawn(move || abort.abort()).join().unwrap(),
        }
        assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
        assert_eq!(log.threads(), [home], "gone before the handle says so");
    }
}

#[test]
fn an_abort_of_a_finished_task_takes_nothing_away() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let handle = runtime.spawner().spawn(async { "output" });
    until(|| handle.is_finished());
    handle.abort();
    handle.abort_handle().abort();
    assert_eq!(handle.wait().unwrap().unwrap(), "output");
    assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 0);
}

#[test]
fn an_abort_that_races_with_the_end_gives_one_or_the_other() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (mut completed, mut cancelled) = (0, 0);
    for _ in 0..2000 {
        let log = Drops::new();
        let probe = log.probe();
        let handle = runtime.spawner().spawn(async move {
            evbase::yield_now().await;
            probe
        });
        handle.abort();
        match handle.wait().unwrap() {
            Ok(probe) => {
                completed += 1;
                assert_eq!(log.count(), 0);
                drop(probe);
            }
            Err(error) => {
                cancelled += 1;
                assert!(error.is_cancelled());
            }
        }
        assert_eq!(log.count(), 1);
    }
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!((report.completed, report.cancelled), (completed, cancelled));
}

#[test]
fn a_task_that_aborts_itself_ends_at_its_next_await_and_one_without_completes() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawn = |awaits: bool| {
        let (send, receive) = oneshot::channel::<evbase::AbortHandle>();
        let handle = runtime
            .spawn_local(async move {
                receive.await.unwrap().abort();
                if awaits {
                    evbase::yield_now().await;
                }
                1
            })
            .unwrap();
        assert!(send.send(handle.abort_handle()).is_ok());
        runtime.block_on(handle).unwrap()
    };
    assert!(spawn(true).unwrap_err().is_cancelled());
    assert_eq!(spawn(false).unwrap(), 1);
}

#[test]
fn abort_runs_no_destructor_on_the_callers_thread_even_at_home() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let log = Drops::new();
    let probe = log.probe();
    runtime
        .block_on(async {
            let handle = evbase::spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            });
            evbase::yield_now().await;
            handle.abort();
            handle.abort();
            assert_eq!(log.count(), 0, "in a poll of another task");
            assert!(!handle.is_finished());
            assert!(handle.await.unwrap_err().is_cancelled());
            assert_eq!(log.count(), 1);
        })
        .unwrap();
}

#[test]
fn an_abort_handle_outlives_the_join_handle_and_the_runtime() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.spawn_local(async { Rc::new(Cell::new(1)) }).unwrap();
    let abort = handle.abort_handle();
    drop(handle);
    assert!(!abort.is_finished());
    runtime.block_on(evbase::yield_now()).unwrap();
    assert!(abort.is_finished());
    let pending = runtime.spawn_local(pending::<()>()).unwrap().abort_handle();
    drop(runtime);
    assert!(pending.is_finished());
    pending.abort();
    abort.clone().abort();
}

#[test]
fn a_task_that_is_finished_has_no_future_any_more() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for _ in 0..500 {
        let log = Drops::new();
        let probe = log.probe();
        let handle = runtime.spawner().spawn(async move {
            let _probe = probe;
            evbase::yield_now().await;
        });
        until(|| handle.is_finished());
        assert_eq!(log.count(), 1);
        assert!(handle.now_or_never().unwrap().is_ok());
    }
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn dropping_a_handle_detaches_the_task() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (send, receive) = mpsc::channel();
    for n in 0..100 {
        let send = send.clone();
        drop(runtime.spawner().spawn(async move {
            evbase::yield_now().await;
            send.send(n).unwrap();
        }));
    }
    assert!(receive.iter().take(100).eq(0..100));
}

#[test]
fn a_handle_that_was_polled_and_dropped_only_detaches_and_lets_go_of_the_waker() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (send, receive) = oneshot::channel::<()>();
    let mut handle = task::spawn(runtime.spawn_local(receive).unwrap());
    runtime.block_on(evbase::yield_now()).unwrap();
    assert_pending!(handle.poll());
    drop(handle);
    send.send(()).unwrap();
    runtime.block_on(evbase::yield_now()).unwrap();
    assert_eq!(runtime.shutdown().wait().unwrap().completed, 1);
}

/// The last reference to a task frees plain memory, on whichever thread: what is user code has gone before.
#[test]
fn a_task_that_has_ended_holds_no_future_output_or_join_waker_however_long_its_waker_lives() {
    let _watchdog = watchdog();
    struct Joins;
    impl std::task::Wake for Joins {
        fn wake(self: Arc<Self>) {}
    }
    let runtime = Builder::new().start("home").unwrap();
    for round in 0..600 {
        let (log, joins) = (Drops::new(), Arc::new(Joins));
        let (future, output) = (log.probe(), log.probe());
        let (give, given) = mpsc::channel();
        let (send, receive) = oneshot::channel::<()>();
        let mut handle = runtime.spawner().spawn(async move {
            let _future = future;
            std::future::poll_fn(|cx| {
                let _ = give.send(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
            let _ = receive.await;
            output
        });
        let waker: Waker = given.recv().unwrap();
        let join_waker = Waker::from(joins.clone());
        assert_pending!(Pin::new(&mut handle).poll(&mut Context::from_waker(&join_waker)));
        drop(join_waker);
        match round % 6 {
            // The handle goes before the end, at it, and after it.
            0 => {
                drop(handle);
                assert_eq!(Arc::strong_count(&joins), 1, "a handle leaves no waker behind");
                drop(send);
            }
            1 => {
                drop(send);
                drop(handle);
            }
            2 => {
                drop(send);
                until(|| handle.is_finished());
                drop(handle);
            }
            // Nobody wants the output, or somebody has got it.
            3 => {
                handle.abort();
                drop(handle);
            }
            4 => {
                drop(send);
                drop(handle.wait().unwrap().unwrap());
            }
            _ => {
                handle.abort();
                assert!(handle.wait().unwrap().unwrap_err().is_cancelled());
            }
        }
        log.wait_for(2);
        until(|| Arc::strong_count(&joins) == 1);
        // The last reference, which drops nothing of ours.
        waker.wake_by_ref();
        drop(waker);
        assert_eq!(log.count(), 2);
    }
}

#[test]
fn an_output_without_a_handle_is_dropped_at_home_and_one_with_a_handle_where_that_is() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (home, here) = (runtime.home().unwrap(), thread::current().id());
    for _ in 0..300 {
        let log = Drops::new();
        let (send, receive) = oneshot::channel::<()>();
        let probe = log.probe();
        drop(runtime.spawner().spawn(async move {
            receive.await.unwrap();
            probe
        }));
        send.send(()).unwrap();
        assert_eq!(log.wait_for(1), [home]);

        let probe = log.probe();
        let handle = runtime.spawner().spawn(async move { probe });
        until(|| handle.is_finished());
        drop(handle);
        assert_eq!(log.threads(), [home, here]);

        let probe = log.probe();
        let taken = runtime.spawner().spawn(async move { probe }).wait().unwrap().unwrap();
        assert_eq!(log.count(), 2);
        drop(taken);
        assert_eq!(log.threads(), [home, here, here]);
    }
}

#[test]
fn an_output_is_dropped_once_when_its_handle_is_dropped_while_the_task_ends() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let log = Drops::new();
    for _ in 0..3000 {
        let probe = log.probe();
        drop(runtime.spawner().spawn(async move { probe }));
    }
    runtime.shutdown().wait().unwrap();
    assert_eq!(log.count(), 3000);
}

#[test]
fn an_output_of_a_closed_runtime_can_still_be_taken() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let handle = runtime.spawner().spawn(async { vec![1, 2, 3] });
    until(|| handle.is_finished());
    let never = runtime.spawner().spawn(pending::<()>());
    runtime.shutdown().wait().unwrap();
    assert_eq!(futures::executor::block_on(handle).unwrap(), [1, 2, 3]);
    assert!(never.wait().unwrap().unwrap_err().is_cancelled());
}

#[test]
fn a_panic_travels_in_the_handle() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let spawner = runtime.spawner();
    let error = spawner
        .spawn(async { panic!("plain text") })
        .wait()
        .unwrap()
        .unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert!(error.to_string().contains("plain text"), "{error}");
    assert!(format!("{error:?}").contains("plain text"), "{error:?}");
    assert_eq!(panic_text(&*error.into_panic()), "plain text");

    let number = 7;
    let error = spawner
        .spawn(async move { panic!("number {number}") })
        .wait()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("number 7"));

    let error = spawner
        .spawn(async { std::panic::panic_any(42_u32) })
        .wait()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    let payload: Box<dyn Any + Send> = error.try_into_panic().unwrap();
    assert_eq!(payload.downcast_ref::<u32>(), Some(&42));

    // Home goes on.
    assert_eq!(spawner.spawn(async { 1 }).wait().unwrap().unwrap(), 1);
    assert_eq!(runtime.shutdown().wait().unwrap().panicked, 3);
}

#[test]
fn the_error_of_a_cancelled_task_holds_no_panic() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let cancelled = || {
        let handle = runtime.spawner().spawn(pending::<()>());
        handle.abort();
        handle.wait().unwrap().unwrap_err()
    };
    let error = cancelled();
    assert!(error.is_cancelled() && !error.is_panic());
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert!(error.try_into_panic().unwrap_err().is_cancelled());
    let error = cancelled();
    assert!(panics(|| error.into_panic()).contains("into_panic"));
}

/// A payload, output or future whose destructor panics, with something that does the same.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        std::panic::panic_any(SecondBomb(self.0.clone()));
    }
}

struct SecondBomb(Arc<AtomicUsize>);

impl Drop for SecondBomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        panic!("the payload of a payload");
    }
}

#[test]
fn a_payload_whose_destructor_panics_harms_nobody() {
    let _watchdog = watchdog();
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new().start("home").unwrap();
    let throw = || {
        let bomb = Bomb(drops.clone());
        runtime.spawner().spawn(async move { std::panic::panic_any(bomb) })
    };
    // Dropped at home, without a handle; with a handle; with the error.
    drop(throw());
    let handle = throw();
    until(|| handle.is_finished());
    drop(handle);
    drop(throw().wait().unwrap().unwrap_err());
    assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
    assert_eq!(runtime.shutdown().wait().unwrap().panicked, 3);
    assert!(drops.load(SeqCst) >= 3);
}

#[test]
fn a_future_whose_destructor_panics_ends_as_it_would_have() {
    let _watchdog = watchdog();
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new().start("home").unwrap();
    let spawn = |waits: bool| {
        let drops = drops.clone();
        runtime.spawner().spawn(async move {
            let _bomb = Bomb(drops);
            if waits {
                pending::<()>().await;
            }
        })
    };
    let handle = spawn(true);
    handle.abort();
    let _ = handle.wait().unwrap().unwrap_err();
    // The destructor of a local runs in the poll: that is the task's own panic.
    assert!(spawn(false).wait().unwrap().unwrap_err().is_panic());
    assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
    let left = spawn(true);
    let report = runtime.shutdown().wait().unwrap();
    assert!(left.wait().unwrap().unwrap_err().is_cancelled());
    assert_eq!((report.completed, report.cancelled, report.panicked), (1, 2, 1));
}

#[test]
fn a_captured_value_whose_destructor_panics_at_the_end_leaves_the_task_completed() {
    let _watchdog = watchdog();
    struct Holds(#[allow(dead_code)] Bomb);
    impl Future for Holds {
        type Output = u8;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            Poll::Ready(8)
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new().start("home").unwrap();
    let handle = runtime.spawner().spawn(Holds(Bomb(drops.clone())));
    assert_eq!(handle.wait().unwrap().unwrap(), 8);
    assert!(drops.load(SeqCst) >= 1);
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!((report.completed, report.panicked), (1, 0));
}

#[test]
fn an_output_whose_destructor_panics_at_home_harms_nobody() {
    let _watchdog = watchdog();
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = Builder::new().start("home").unwrap();
    let bomb = Bomb(drops.clone());
    let (send, receive) = oneshot::channel::<()>();
    drop(runtime.spawner().spawn(async move {
        receive.await.unwrap();
        bomb
    }));
    send.send(()).unwrap();
    until(|| drops.load(SeqCst) >= 1);
    assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
    assert_eq!(runtime.shutdown().wait().unwrap().completed, 2);
}

#[test]
fn a_join_waker_that_panics_harms_nobody() {
    let _watchdog = watchdog();
    const VTABLE: RawWakerVTable = RawWakerVTable::new(
        |_| RawWaker::new(std::ptr::null(), &VTABLE),
        |_| panic!("this waker panics"),
        |_| panic!("this waker panics"),
        |_| {},
    );
    // SAFETY: the vtable's functions don't look at the pointer.
    let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) };
    let runtime = Builder::new().start("home").unwrap();
    let (send, receive) = oneshot::channel::<u8>();
    let mut handle = runtime.spawner().spawn(receive);
    assert!(
        Pin::new(&mut handle)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    send.send(6).unwrap();
    assert_eq!(handle.wait().unwrap().unwrap(), Ok(6));
    assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
}

#[test]
fn only_the_waker_of_the_last_poll_is_woken() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (send, receive) = oneshot::channel::<u8>();
    let handle = Arc::new(Mutex::new(runtime.spawn_local(receive).unwrap()));
    let poller = |handle: &Arc<Mutex<JoinHandle<_>>>| {
        let handle = handle.clone();
        task::spawn(std::future::poll_fn(move |cx| handle.lock().unwrap().poll_unpin(cx)))
    };
    let (mut first, mut second) = (poller(&handle), poller(&handle));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_pending!(second.poll());
    send.send(4).unwrap();
    turn_until(&runtime, || second.is_woken());
    assert!(!first.is_woken());
    assert_eq!(assert_ready!(second.poll()).unwrap(), Ok(4));
    // And after the end there is nothing to be polled for.
    assert!(panics(|| first.poll()).contains("after it gave its output"));
}

#[test]
fn no_wake_up_is_lost_when_a_handle_is_polled_while_the_task_ends() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for round in 0..5000_u32 {
        let handle = runtime.spawner().spawn(async move { round });
        if round % 3 == 0 {
            // Another waker first.
            let mut handle = task::spawn(handle);
            if handle.poll().is_pending() {
                assert_eq!(futures::executor::block_on(handle.into_inner()).unwrap(), round);
            }
        } else {
            assert_eq!(futures::executor::block_on(handle).unwrap(), round);
        }
    }
}

#[test]
fn handles_in_a_cycle_are_freed_when_the_runtime_closes() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let log = Drops::new();
    let slots: Rc<[Cell<Option<JoinHandle<()>>>; 2]> = Rc::default();
    for n in 0..2 {
        let (slots_of_task, probe) = (slots.clone(), log.probe());
        let handle = runtime.spawn_local(async move {
            let _probe = probe;
            evbase::yield_now().await;
            let other = slots_of_task[1 - n].take().unwrap();
            let _ = other.await;
        });
        slots[n].set(Some(handle.unwrap()));
    }
    runtime
        .block_on(async {
            for _ in 0..5 {
                evbase::yield_now().await;
            }
        })
        .unwrap();
    assert_eq!(log.count(), 0, "each waits for the other");
    drop(runtime);
    assert_eq!(log.count(), 2);
}

#[test]
fn a_detached_task_ends_with_its_runtime() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (begun, dropped) = (Arc::new(AtomicBool::new(false)), Drops::new());
    let (begin, probe) = (begun.clone(), dropped.probe());
    drop(runtime.spawner().spawn(async move {
        let _probe = probe;
        begin.store(true, SeqCst);
        pending::<()>().await;
    }));
    until(|| begun.load(SeqCst));
    let report = runtime.shutdown().wait().unwrap();
    assert_eq!(dropped.count(), 1);
    assert_eq!(report.cancelled, 1);
}

#[test]
fn two_runtimes_wait_for_each_other_a_hundred_deep() {
    fn at_depth(depth: usize, here: Spawner, there: Spawner) -> futures::future::BoxFuture<'static, usize> {
        Box::pin(async move {
            if depth == 0 {
                return 0;
            }
            let next = at_depth(depth - 1, there.clone(), here);
            1 + there.spawn(next).await.unwrap()
        })
    }
    rounds(20, |_| {
        let (a, b) = (Builder::new().start("a").unwrap(), Builder::new().start("b").unwrap());
        let bottom = a.spawner().spawn(at_depth(100, a.spawner(), b.spawner()));
        assert_eq!(bottom.wait().unwrap().unwrap(), 100);
    });
}

#[test]
fn a_task_that_awaits_its_own_handle_waits_until_it_is_cancelled_and_is_freed() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let place = Rc::new(Cell::new(None::<JoinHandle<()>>));
        let (own, drops) = (place.clone(), Drops::new());
        let probe = drops.local_probe();
        let handle = runtime.spawn_local(async move {
            let _probe = probe;
            let ended = own.take().unwrap().await;
            unreachable!("it has awaited its own end: {ended:?}");
        });
        let handle = handle.unwrap();
        let abort = handle.abort_handle();
        place.set(Some(handle));
        for _ in 0..3 {
            runtime.block_on(yield_now()).unwrap();
        }
        assert_eq!(drops.count(), 0);
        if round % 2 == 0 {
            abort.abort();
            runtime.block_on(yield_now()).unwrap();
            drops.assert_on(thread::current().id(), 1);
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.cancelled, report.panicked), (1, 0));
        drops.assert_on(thread::current().id(), 1);
        assert!(abort.is_finished());
    });
}

#[test]
fn a_task_whose_output_is_its_own_waker_is_freed_with_its_output() {
    rounds(200, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        let mut output = Some(probe);
        let own_waker = poll_fn(move |cx| Poll::Ready((cx.waker().clone(), output.take())));
        let handle = runtime.spawner().spawn(own_waker);
        match round % 3 {
            // Nobody wants the output: home drops it, and with it a reference to the task that it lies in.
            0 => drop(handle),
            1 => {
                until(|| handle.is_finished());
                drop(handle);
            }
            _ => {
                let (waker, probe) = handle.wait().unwrap().unwrap();
                waker.wake_by_ref();
                waker.wake();
                drop(probe);
            }
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.completed + report.cancelled, 1);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_task_drops_its_own_handle_while_it_is_polled() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let place = Rc::new(Cell::new(None::<JoinHandle<crate::support::DropProbe>>));
        let (own, drops) = (place.clone(), Drops::new());
        let output = drops.probe();
        let handle = runtime.spawn_local(async move {
            drop(own.take().unwrap());
            output
        });
        place.set(Some(handle.unwrap()));
        runtime.block_on(yield_now()).unwrap();
        // Nobody is left to take the output.
        drops.assert_on(thread::current().id(), 1);
        assert_eq!(runtime.metrics().completed, 1);
    });
}
