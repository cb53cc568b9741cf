//! Runs in a random order: the same for the same seed, and nobody is overtaken for ever.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::time::{self, sleep};
use evbase::{Builder, Priority, Runtime, spawn_local, yield_now};

use crate::support::watchdog;

fn shuffled(seed: u64) -> Runtime {
    Builder::new().shuffle(seed).paused().build().unwrap()
}

/// What a program of tasks, timers and wake-ups does, in its order.
fn trace(seed: u64) -> Vec<(u32, u32)> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let program = async {
        let tasks: Vec<_> = (0..20_u32)
            .map(|task| {
                let log = log.clone();
                spawn_local(async move {
                    for step in 0..10 {
                        log.borrow_mut().push((task, step));
                        match (task + step) % 3 {
                            0 => yield_now().await,
                            1 => sleep(Duration::from_millis(u64::from(step))).await,
                            _ => spawn_local(yield_now()).await.unwrap(),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    };
    shuffled(seed).block_on(program).unwrap();
    log.take()
}

#[test]
fn equal_seeds_give_equal_runs_and_others_differ() {
    let _watchdog = watchdog();
    let traces: Vec<_> = (0..20).map(trace).collect();
    for (seed, expected) in traces.iter().enumerate() {
        assert_eq!(trace(seed as u64), *expected, "seed {seed}");
    }
    let different: HashSet<_> = traces.into_iter().collect();
    assert!(different.len() >= 19, "{}", different.len());
}

#[test]
fn of_a_hundred_tasks_that_yield_none_runs_twice_before_all_ran_once() {
    let _watchdog = watchdog();
    for seed in 0..50 {
        let runtime = Builder::new().shuffle(seed).event_interval(7).build().unwrap();
        let log = Rc::new(RefCell::new(Vec::new()));
        for task in 0..100 {
            let log = log.clone();
            drop(runtime.spawn_local(async move {
                loop {
                    log.borrow_mut().push(task);
                    yield_now().await;
                }
            }));
        }
        while log.borrow().len() < 1000 {
            runtime.turn(None).unwrap();
        }
        let log = log.take();
        for round in log.chunks_exact(100) {
            assert_eq!(round.iter().collect::<HashSet<_>>().len(), 100, "seed {seed}");
        }
        assert_ne!(log[..100], log[100..200], "each batch has an order of its own");
    }
}

/// Forgets that the consumer may come first.
async fn has_an_ordering_bug() -> bool {
    let slot = Rc::new(RefCell::new(None));
    let filled = slot.clone();
    let producers: Vec<_> = (0..6)
        .map(|n| {
            let slot = filled.clone();
            spawn_local(async move {
                if n == 5 {
                    slot.replace(Some(42));
                }
            })
        })
        .collect();
    let consumer = spawn_local(async move { slot.take().is_some() });
    for producer in producers {
        producer.await.unwrap();
    }
    consumer.await.unwrap()
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn a_bug_of_order_is_found_soon() {
    let _watchdog = watchdog();
    assert!(
        Runtime::new().unwrap().block_on(has_an_ordering_bug()).unwrap(),
        "it hides"
    );
    let found = (0..1000).find(|&seed| !shuffled(seed).block_on(has_an_ordering_bug()).unwrap());
    assert!(found.is_some());
}

#[test]
fn timers_with_equal_deadlines_fire_in_any_order_and_others_in_theirs() {
    let _watchdog = watchdog();
    let order = |seed| {
        let runtime = shuffled(seed);
        let log = Rc::new(RefCell::new(Vec::new()));
        runtime
            .block_on(async {
                let start = time::now();
                let tasks: Vec<_> = (0..30_u64)
                    .map(|n| {
                        let log = log.clone();
                        spawn_local(async move {
                            time::sleep_until(start + Duration::from_millis(n / 10)).await;
                            log.borrow_mut().push(n);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            })
            .unwrap();
        log.take()
    };
    let orders: HashSet<_> = (0..20).map(order).collect();
    assert!(orders.len() > 10);
    for order in orders {
        assert!(order.windows(2).all(|two| two[0] / 10 <= two[1] / 10), "{order:?}");
    }
}

#[test]
fn events_are_handed_out_in_any_order() {
    let _watchdog = watchdog();
    let order = |seed| {
        let runtime = Builder::new().shuffle(seed).build().unwrap();
        let log = Rc::new(RefCell::new(Vec::new()));
        let mut others = Vec::new();
        for n in 0..10 {
            let (ours, other) = UnixStream::pair().unwrap();
            others.push(other);
            let log = log.clone();
            drop(runtime.spawn_local(async move {
                let fd = AsyncFd::new(ours).unwrap();
                fd.readable().await.unwrap().retain_ready();
                log.borrow_mut().push(n);
            }));
        }
        runtime.turn(Some(Duration::ZERO)).unwrap();
        drop(others);
        while log.borrow().len() < 10 {
            runtime.turn(None).unwrap();
        }
        log.take()
    };
    let orders: HashSet<_> = (0..10).map(order).collect();
    assert!(orders.len() > 5);
}

#[test]
fn priorities_hold_in_a_batch() {
    let _watchdog = watchdog();
    for seed in 0..50 {
        let runtime = shuffled(seed);
        let log = Rc::new(RefCell::new(Vec::new()));
        let spawner = runtime.local_spawner().unwrap();
        for n in 0..10 {
            for priority in [Priority::Low, Priority::High, Priority::Normal] {
                let log = log.clone();
                let task = async move { log.borrow_mut().push((priority, n)) };
                drop(spawner.clone().with_priority(priority).spawn_local(task));
            }
        }
        runtime.turn(None).unwrap();
        let priorities: Vec<_> = log.take().into_iter().map(|(priority, _)| priority).collect();
        let expected: Vec<_> = [Priority::High, Priority::Normal, Priority::Low]
            .into_iter()
            .flat_map(|priority| [priority; 10])
            .collect();
        assert_eq!(priorities, expected);
    }
}
