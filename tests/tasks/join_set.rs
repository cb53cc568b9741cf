//! A `JoinSet`: what its tasks gave, as it comes, and no task that outlives the set unasked.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;

use evbase::{Builder, JoinSet, Runtime, yield_now};
use futures::channel::oneshot;

use crate::support::{Drops, Latch, Wakes, panics, poll_here, poll_with, rounds, turn_until, until, watchdog};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

/// Takes what has ended, with a waker of one's own.
fn poll<T>(tasks: &mut JoinSet<T>, waker: &Waker) -> Poll<Option<Result<T, evbase::JoinError>>> {
    tasks.poll_join_next(&mut Context::from_waker(waker))
}

#[test]
fn outputs_come_in_the_order_in_which_the_tasks_end() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for n in 0..3 {
            let (sender, receiver) = oneshot::channel::<()>();
            senders.push(Some(sender));
            tasks.spawn_local(async move {
                receiver.await.unwrap();
                n
            });
        }
        assert!(poll_here(pin!(tasks.join_next())).await.is_pending());
        for n in [2, 0, 1] {
            senders[n].take().unwrap().send(()).unwrap();
            assert_eq!(tasks.join_next().await.unwrap().unwrap(), n);
        }
        assert!(tasks.is_empty());
    });
}

#[test]
fn a_set_that_is_empty_says_so_at_once_and_can_be_filled_again() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        for n in 0..3 {
            assert!(tasks.is_empty() && tasks.join_next().await.is_none() && tasks.try_join_next().is_none());
            tasks.spawn_local(async move { n });
            assert_eq!(tasks.len(), 1);
            assert_eq!(tasks.join_next().await.unwrap().unwrap(), n);
        }
        assert!(tasks.join_all().await.is_empty());
    });
}

#[test]
fn a_wait_that_is_dropped_half_way_has_taken_nothing() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let mut tasks = JoinSet::new();
    let (sender, receiver) = oneshot::channel::<u8>();
    tasks.insert(runtime.spawn_local(receiver).unwrap());
    let (first, second) = (Wakes::new(), Wakes::new());
    assert!(poll_with(&mut pin!(tasks.join_next()), &first.1).is_pending());
    // Another one waits now, and is the one that is woken.
    assert!(poll_with(&mut pin!(tasks.join_next()), &second.1).is_pending());
    sender.send(7).unwrap();
    turn_until(&runtime, || second.0.count() == 1);
    assert_eq!(first.0.count(), 0);
    // As if a `select` had taken its other branch: it is still there.
    drop(tasks.join_next());
    assert_eq!(tasks.try_join_next().unwrap().unwrap().unwrap(), 7);
}

#[test]
fn who_waits_is_woken_by_a_task_that_is_added_later_and_has_ended() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let ended = runtime.spawn_local(async { 1 }).unwrap();
    turn_until(&runtime, || ended.is_finished());
    let mut tasks = JoinSet::new();
    tasks.insert(runtime.spawn_local(pending()).unwrap());
    let (wakes, waker) = Wakes::new();
    assert!(poll(&mut tasks, &waker).is_pending());
    let abort_handle = tasks.insert(ended);
    assert!(abort_handle.is_finished());
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll(&mut tasks, &waker), Poll::Ready(Some(Ok(1)))));
    assert!(poll(&mut tasks, &waker).is_pending());
}

#[test]
fn an_output_can_be_told_with_the_id_of_its_task() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        let one = tasks.spawn_local(async { 1 }).id();
        let failed = tasks.spawn_local(pending());
        failed.abort();
        let two = tasks.spawn_local(async { 2 }).id();
        let mut joined = vec![tasks.join_next_with_id().await.unwrap()];
        yield_now().await;
        while let Some(next) = tasks.try_join_next_with_id() {
            joined.push(next);
        }
        let (outputs, errors): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
        let mut outputs: Vec<_> = outputs.into_iter().map(Result::unwrap).collect();
        outputs.sort_unstable_by_key(|&(_, output)| output);
        assert_eq!(outputs, [(one, 1), (two, 2)]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors.into_iter().next().unwrap().unwrap_err().id(), failed.id());
        assert!(tasks.join_next_with_id().await.is_none());
    });
}

#[test]
fn futures_are_collected_into_a_set_whose_tasks_they_become() {
    let _watchdog = watchdog();
    let mut outputs = block_on(async {
        // Not `Send`, as with `spawn_local`.
        let here = Rc::new(10);
        let task = |n| {
            let here = here.clone();
            async move { *here + n }
        };
        let mut tasks: JoinSet<_> = (0..3).map(task).collect();
        tasks.extend((3..5).map(task));
        assert_eq!(tasks.len(), 5);
        tasks.join_all().await
    });
    outputs.sort_unstable();
    assert_eq!(outputs, [10, 11, 12, 13, 14]);
    assert!(panics(|| [pending::<()>()].into_iter().collect::<JoinSet<_>>()).contains("no runtime here"));
    let nobody: JoinSet<()> = std::iter::empty::<std::future::Pending<()>>().collect();
    assert!(nobody.is_empty());
}

#[test]
fn a_failure_is_told_with_the_id_of_its_task() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        let aborted = tasks.spawn_local(pending());
        let panicked = tasks.spawn_local(async { panic!("on purpose") });
        aborted.abort();
        for _ in 0..2 {
            let error = tasks.join_next().await.unwrap().unwrap_err();
            let expected = if error.is_panic() { panicked.id() } else { aborted.id() };
            assert_eq!(error.id(), expected);
        }
        assert!(tasks.is_empty() && aborted.is_finished());
        let _: JoinSet<()> = tasks;
    });
}

#[test]
fn a_set_that_is_dropped_aborts_its_tasks_whose_futures_are_dropped_at_home() {
    rounds(200, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let (drops, begun) = (Drops::new(), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..3 {
            let (drops, begun) = (drops.clone(), begun.clone());
            tasks.insert(runtime.spawner().spawn_with(move || async move {
                let _probe = drops.local_probe();
                begun.fetch_add(1, SeqCst);
                pending::<()>().await;
            }));
        }
        if round % 2 == 0 {
            until(|| begun.load(SeqCst) == 3);
        }
        drop(tasks);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.cancelled), (0, 3));
        // One that was aborted before it ran has made no probe.
        drops.assert_on(home, begun.load(SeqCst));
    });
}

#[test]
fn tasks_that_were_detached_go_on_and_are_no_longer_the_sets() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let mut tasks = JoinSet::new();
    let (old, old_ends) = oneshot::channel::<u8>();
    let (new, new_ends) = oneshot::channel::<u8>();
    let done = Rc::new(Cell::new(0));
    let spawn = |tasks: &mut JoinSet<u8>, ends: oneshot::Receiver<u8>| {
        let done = done.clone();
        let task = runtime.spawn_local(async move {
            let output = ends.await.unwrap();
            done.set(output);
            output
        });
        tasks.insert(task.unwrap());
    };
    spawn(&mut tasks, old_ends);
    turn_until(&runtime, || runtime.metrics().polls > 0);
    tasks.detach_all();
    assert!(tasks.is_empty() && tasks.try_join_next().is_none());
    spawn(&mut tasks, new_ends);
    old.send(1).unwrap();
    turn_until(&runtime, || done.get() == 1);
    let (wakes, waker) = Wakes::new();
    assert!(poll(&mut tasks, &waker).is_pending(), "the old one is no member");
    new.send(2).unwrap();
    turn_until(&runtime, || wakes.count() == 1);
    assert!(matches!(poll(&mut tasks, &waker), Poll::Ready(Some(Ok(2)))));
    assert!(tasks.is_empty());
}

#[test]
fn join_all_gives_all_outputs_in_the_order_of_their_ends() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        for n in 0..10_usize {
            tasks.spawn_local(async move {
                for _ in 0..10 - n {
                    yield_now().await;
                }
                n
            });
        }
        assert_eq!(tasks.join_all().await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    });
}

#[test]
fn join_all_panics_as_the_task_did_and_aborts_the_others() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    for cancelled in [false, true] {
        let mut tasks = JoinSet::<()>::new();
        let left = tasks.insert(runtime.spawn_local(pending()).unwrap());
        if cancelled {
            tasks.insert(runtime.spawn_local(pending()).unwrap()).abort();
        } else {
            tasks.insert(runtime.spawn_local(async { panic!("on purpose") }).unwrap());
        }
        let said = panics(|| runtime.block_on(tasks.join_all()));
        assert!(
            said.contains(if cancelled { "cancelled" } else { "on purpose" }),
            "{said}"
        );
        turn_until(&runtime, || left.is_finished());
    }
}

#[test]
fn shutdown_returns_when_all_futures_are_gone() {
    let _watchdog = watchdog();
    let drops = Drops::new();
    block_on(async {
        let mut tasks = JoinSet::new();
        for n in 0..10 {
            let probe = drops.probe();
            tasks.spawn_local(async move {
                let _probe = probe;
                if n % 2 == 0 {
                    pending::<()>().await;
                }
            });
        }
        yield_now().await;
        tasks.shutdown().await;
        assert!(tasks.is_empty() && drops.count() == 10);
        // It can be used again.
        tasks.spawn_local(async {});
        tasks.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn a_task_that_is_refused_is_in_the_set_as_one_that_was_cancelled() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    drop(runtime);
    let mut tasks = JoinSet::new();
    let refused = tasks.spawn_on(async {}, &spawner);
    assert_eq!(tasks.len(), 1);
    let error = futures::executor::block_on(tasks.join_next()).unwrap().unwrap_err();
    assert!(error.is_cancelled() && error.id() == refused.id());
}

#[test]
fn a_handle_without_an_output_is_no_member() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let mut handle = runtime.spawn_local(async {}).unwrap();
    runtime.block_on(&mut handle).unwrap().unwrap();
    let mut tasks = JoinSet::new();
    assert!(panics(|| tasks.insert(handle)).contains("gave its output"));
    assert!(tasks.is_empty());
}

#[test]
fn the_tasks_of_a_runtime_that_closes_end_as_cancelled() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        tasks.spawn_on(pending::<()>(), &runtime.spawner());
    }
    drop(runtime);
    futures::executor::block_on(async {
        for _ in 0..100 {
            assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        }
        assert!(tasks.join_next().await.is_none());
    });
}

#[test]
fn one_of_many_tasks_is_found_at_once() {
    const MANY: usize = 100_000;
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..MANY {
            tasks.spawn_local(pending());
        }
        // Each of these would look at all the others.
        for n in 0..MANY {
            tasks.spawn_local(async move { n });
            assert_eq!(tasks.join_next().await.unwrap().unwrap(), n);
        }
        assert_eq!(tasks.len(), MANY);
    });
}

#[test]
fn who_takes_outputs_that_are_all_there_lets_others_have_their_turn() {
    let _watchdog = watchdog();
    block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..1000 {
            tasks.spawn_local(async {});
        }
        yield_now().await;
        let turns = Rc::new(Cell::new(0));
        let others = turns.clone();
        evbase::spawn_local(async move {
            loop {
                others.set(others.get() + 1);
                yield_now().await;
            }
        });
        while tasks.join_next().await.is_some() {}
        assert!(turns.get() > 3, "{} turns", turns.get());
    });
}

#[test]
fn four_threads_add_and_take_and_drop_half_way_while_the_loop_stops() {
    rounds(300, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
        let (drops, barrier) = (Drops::new(), Barrier::new(4));
        let (made, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4 {
                let (spawner, shutdown) = (spawner.clone(), shutdown.clone());
                let (drops, barrier, made, taken) = (&drops, &barrier, &made, &taken);
                scope.spawn(move || {
                    let mut tasks = JoinSet::new();
                    barrier.wait();
                    for n in 0..50 {
                        let probe = drops.probe();
                        made.fetch_add(1, SeqCst);
                        tasks.spawn_on(
                            async move {
                                for _ in 0..n % 3 {
                                    yield_now().await;
                                }
                                probe
                            },
                            &spawner,
                        );
                        if n % 7 == 0 {
                            let joined = futures::executor::block_on(tasks.join_next()).unwrap();
                            taken.fetch_add(usize::from(joined.is_ok()), SeqCst);
                        }
                        if n == 25 && thread == round % 4 {
                            shutdown.request();
                        }
                        if n == 40 && thread % 2 == 0 {
                            tasks.detach_all();
                        }
                    }
                    if thread == 3 {
                        while futures::executor::block_on(tasks.join_next()).is_some() {}
                    }
                });
            }
        });
        let report = runtime.shutdown().wait().unwrap();
        assert!(report.completed as usize >= taken.load(SeqCst));
        // Each future, and each output, is dropped once.
        assert_eq!(drops.wait_for(made.load(SeqCst)).len(), 200);
        assert_eq!(drops.count(), 200);
    });
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn no_end_is_lost_that_comes_while_somebody_begins_to_wait() {
    rounds(3000, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let go = Latch::new();
        let mut tasks = JoinSet::new();
        for n in 0..2 {
            let go = go.clone();
            tasks.insert(runtime.spawner().spawn_with(move || async move {
                go.wait();
                n
            }));
        }
        go.open();
        let outputs = futures::executor::block_on(async {
            let first = tasks.join_next().await.unwrap().unwrap();
            let second = poll_fn(|cx| tasks.poll_join_next(cx)).await.unwrap().unwrap();
            [first, second]
        });
        assert_eq!(outputs, [0, 1]);
    });
}
