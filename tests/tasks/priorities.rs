//! Priorities: the higher ones first, in their order, and nobody starves.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use evbase::{Builder, LocalSpawner, Priority, Runtime, Spawner, yield_now};
use futures::task::{LocalSpawnExt, SpawnExt};

use crate::support::watchdog;

const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn of_the_ready_tasks_the_higher_go_first_each_in_its_order() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(1000).build().unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    let spawner = runtime.local_spawner().unwrap();
    for n in 0..5 {
        for priority in ALL.into_iter().rev() {
            let order = order.clone();
            let task = async move { order.borrow_mut().push((priority, n)) };
            drop(spawner.clone().with_priority(priority).spawn_local(task).unwrap());
        }
    }
    runtime.turn(None).unwrap();
    let expected: Vec<_> = ALL
        .into_iter()
        .flat_map(|priority| (0..5).map(move |n| (priority, n)))
        .collect();
    assert_eq!(*order.borrow(), expected);
}

/// A task that is ready all the time, and counts its polls.
fn busy(polls: &Rc<Cell<u64>>) -> impl Future<Output = ()> + use<> {
    let polls = polls.clone();
    poll_fn(move |cx| {
        polls.set(polls.get() + 1);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

fn spawn_busy(spawner: &LocalSpawner, priority: Priority, polls: &Rc<Cell<u64>>) {
    drop(
        spawner
            .clone()
            .with_priority(priority)
            .spawn_local(busy(polls))
            .unwrap(),
    );
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn a_low_task_among_a_thousand_high_ones_is_polled_every_300_polls() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.local_spawner().unwrap();
    let counts = ALL.map(|_| Rc::new(Cell::new(0)));
    for _ in 0..1000 {
        spawn_busy(&spawner, Priority::High, &counts[0]);
    }
    spawn_busy(&spawner, Priority::Normal, &counts[1]);
    let high = counts[0].clone();
    let normal = counts[1].clone();
    let since = Rc::new(Cell::new(0));
    let longest = Rc::new(Cell::new(0));
    let low = {
        let (since, longest) = (since.clone(), longest.clone());
        poll_fn(move |cx| {
            let now = high.get() + normal.get();
            longest.set(longest.get().max(now - since.replace(now)));
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })
    };
    drop(spawner.clone().with_priority(Priority::Low).spawn_local(low).unwrap());
    while counts[0].get() < 100_000 {
        runtime.turn(None).unwrap();
    }
    assert!(counts[0].get() + counts[1].get() - since.get() < 300);
    assert!(longest.get() > 100 && longest.get() < 300, "{longest:?}");
    // Sixteen times as often as the next.
    let ratio = counts[0].get() as f64 / counts[1].get() as f64;
    assert!((16.0..18.5).contains(&ratio), "{ratio}");
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn after_sixteen_polls_of_a_level_the_next_lower_one_gets_one() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(1000).build().unwrap();
    let spawner = runtime.local_spawner().unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    for (priority, tasks) in [(Priority::Low, 3), (Priority::Normal, 60)] {
        for _ in 0..tasks {
            let order = order.clone();
            let task = async move { order.borrow_mut().push(priority) };
            drop(spawner.clone().with_priority(priority).spawn_local(task).unwrap());
        }
    }
    runtime.turn(None).unwrap();
    let order = order.take();
    let low: Vec<_> = (0..order.len()).filter(|&at| order[at] == Priority::Low).collect();
    assert_eq!(low, [16, 33, 50]);
}

#[test]
fn without_others_a_low_task_has_all_the_polls() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(10).build().unwrap();
    let polls = Rc::new(Cell::new(0));
    spawn_busy(&runtime.local_spawner().unwrap(), Priority::Low, &polls);
    for _ in 0..10 {
        assert!(runtime.turn(None).unwrap().more);
    }
    assert_eq!(polls.get(), 100);
}

#[test]
fn every_way_to_spawn_knows_the_priority_and_none_inherits_it() {
    let _watchdog = watchdog();
    let order = Arc::new(Mutex::new(Vec::new()));
    let push = |what: &'static str| {
        let order = order.clone();
        async move { order.lock().unwrap().push(what) }
    };
    let runtime = Builder::new().event_interval(1000).build().unwrap();
    let normal = runtime.spawner();
    drop(normal.spawn(push("normal")));
    let high: Spawner = runtime.spawner().with_priority(Priority::High);
    drop(high.spawn(push("spawn")));
    drop(high.try_spawn(push("try_spawn")).unwrap());
    let task = push("spawn_with");
    drop(high.spawn_with(move || task));
    SpawnExt::spawn(&high, push("futures")).unwrap();
    let local = runtime.local_spawner().unwrap().with_priority(Priority::High);
    drop(local.spawn_local(push("spawn_local")).unwrap());
    LocalSpawnExt::spawn_local(&local, push("futures local")).unwrap();
    {
        // At home, in the context.
        let _guard = runtime.enter().unwrap();
        drop(high.spawn(push("at home")));
        assert!(Spawner::current().spawn(push("current")).id() != high.spawn(push("last")).id());
    }
    let large = [0_u8; 40_000];
    let task = push("large");
    let parent = {
        let child = push("child");
        async move {
            assert_eq!(large.len(), 40_000);
            task.await;
            drop(evbase::spawn_local(child));
        }
    };
    drop(high.spawn_with(move || parent));
    while runtime.turn(None).unwrap().more {}
    let order = order.lock().unwrap();
    let position = |what| order.iter().position(|other| *other == what).expect(what);
    for what in [
        "spawn",
        "try_spawn",
        "spawn_with",
        "futures",
        "spawn_local",
        "futures local",
        "at home",
        "last",
        "large",
    ] {
        assert!(position(what) < position("normal"), "{what}: {order:?}");
    }
    for what in ["current", "child"] {
        assert!(position(what) > position("large"), "{what}: {order:?}");
    }
}

#[test]
fn the_future_of_block_on_is_of_normal_priority() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.local_spawner().unwrap();
    let counts = ALL.map(|_| Rc::new(Cell::new(0)));
    for (priority, polls) in ALL.into_iter().zip(&counts) {
        spawn_busy(&spawner, priority, polls);
    }
    runtime
        .block_on(async {
            for _ in 0..1000 {
                yield_now().await;
            }
        })
        .unwrap();
    // The root takes turns with the normal task.
    assert!(counts[1].get().abs_diff(1000) <= 2, "{counts:?}");
    assert!(counts[2].get() >= 100, "{counts:?}");
}

#[test]
fn a_wake_up_from_abroad_keeps_the_priority_of_the_task() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(1000).build().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let wakers = Arc::new(Mutex::new(Vec::new()));
    for priority in [Priority::Low, Priority::High] {
        let (order, wakers) = (order.clone(), wakers.clone());
        let task = poll_fn(move |cx| {
            order.lock().unwrap().push(priority);
            wakers.lock().unwrap().push(cx.waker().clone());
            Poll::<()>::Pending
        });
        drop(runtime.spawner().with_priority(priority).spawn(task));
    }
    for round in 0..3 {
        assert_eq!(runtime.turn(None).unwrap().polls, 2);
        assert_eq!(
            order.lock().unwrap().split_off(0),
            [Priority::High, Priority::Low],
            "{round}"
        );
        let mut woken = wakers.lock().unwrap().split_off(0);
        if round % 2 == 0 {
            // The low one first.
            woken.reverse();
        }
        thread::spawn(move || woken.into_iter().for_each(|waker| waker.wake()))
            .join()
            .unwrap();
    }
}

#[test]
fn closing_cancels_the_tasks_of_every_priority() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let runtime = Runtime::new().unwrap();
        let alive = Arc::new(());
        for priority in ALL {
            for _ in 0..10 {
                let alive = alive.clone();
                let task = async move {
                    let _alive = alive;
                    loop {
                        yield_now().await;
                    }
                };
                drop(runtime.spawner().with_priority(priority).spawn(task));
            }
        }
        runtime.turn(None).unwrap();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.cancelled, 30);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
