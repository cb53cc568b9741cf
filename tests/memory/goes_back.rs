//! Memory goes back when what it was for is gone.

use std::future::pending;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::time::{Sleep, sleep};
use evbase::{JoinSet, Runtime, Spawner, yield_now};

use crate::support::{Random, alone, heap_bytes, limit_descriptors, poll_here};

const HOUR: Duration = Duration::from_secs(3600);

/// What may be on the heap more than before: tables that grow once, a word or two for each chunk of a table in which the last
/// one stays, and a free list that keeps some.
const SOME: isize = 384 << 10;

#[track_caller]
fn assert_gone(before: isize) {
    let more = heap_bytes() - before;
    assert!(more < SOME, "{more} bytes are left");
}

/// A sleep that was polled once in the runtime that calls this.
async fn armed(duration: Duration) -> Sleep {
    let mut sleep = sleep(duration);
    assert!(poll_here(&mut sleep).await.is_pending());
    sleep
}

/// Each new guard kept the dead one below it, without end.
#[test]
fn enter_guards_that_overlap_leave_nothing_behind() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut guard = runtime.enter().unwrap();
        let before = heap_bytes();
        for _ in 0..100_000 {
            let next = runtime.enter().unwrap();
            guard = next;
        }
        assert_gone(before);
        drop(guard);
        assert!(Spawner::try_current().is_none());
    });
}

#[test]
fn a_hundred_thousand_timers_that_were_armed_and_cancelled_leave_nothing_behind() {
    const MANY: u64 = 100_000;
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut random = Random::new(4);
        runtime.block_on(async { drop(armed(HOUR).await) }).unwrap();
        let before = heap_bytes();
        for _ in 0..3 {
            runtime
                .block_on(async {
                    let mut sleeps = Vec::new();
                    for _ in 0..MANY {
                        sleeps.push(armed(HOUR + Duration::from_nanos(random.below(1 << 40))).await);
                    }
                    assert!(
                        heap_bytes() - before > SOME,
                        "they are on the heap while they are armed"
                    );
                    // In another order than they were armed.
                    while !sleeps.is_empty() {
                        drop(sleeps.swap_remove(random.below(sleeps.len() as u64) as usize));
                    }
                })
                .unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            assert_gone(before);
        }
    });
}

/// A debug build takes a while for a million.
const A_MILLION: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };

/// Which of all timers stays.
#[derive(Clone, Copy, PartialEq)]
enum Stays {
    First,
    Last,
}

fn a_million_timers_beside(stays: Stays) {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async { drop(armed(HOUR).await) }).unwrap();
        let before = heap_bytes();
        runtime
            .block_on(async {
                let first = armed(HOUR).await;
                let mut sleeps = Vec::new();
                for _ in 0..A_MILLION {
                    sleeps.push(armed(HOUR).await);
                }
                let last = armed(HOUR).await;
                let (stays, goes) = if stays == Stays::First {
                    (first, last)
                } else {
                    (last, first)
                };
                drop(goes);
                drop(sleeps);
                yield_now().await;
                assert_gone(before);
                drop(stays);
            })
            .unwrap();
    });
}

#[test]
fn a_million_cancelled_timers_while_the_first_one_stays() {
    a_million_timers_beside(Stays::First);
}

#[test]
fn a_million_cancelled_timers_while_the_last_one_stays() {
    a_million_timers_beside(Stays::Last);
}

#[test]
fn very_many_ended_tasks_and_the_queue_they_stood_in_while_one_stays() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let stays = runtime.spawn_local(pending::<()>()).unwrap();
        runtime.block_on(yield_now()).unwrap();
        let before = heap_bytes();
        runtime
            .block_on(async {
                let tasks: Vec<_> = (0..A_MILLION).map(|_| evbase::spawn_local(async {})).collect();
                assert!(
                    heap_bytes() - before > 4 * SOME + (512 << 10),
                    "they are on the heap while they are ready"
                );
                for task in tasks {
                    task.await.unwrap();
                }
            })
            .unwrap();
        runtime.block_on(yield_now()).unwrap();
        // The memory of some tasks is kept for the next ones.
        assert_gone(before + (512 << 10));
        assert!(!stays.is_finished());
    });
}

#[test]
fn a_thousand_closed_sources_while_one_stays() {
    const PAIRS: usize = 1500;
    alone(|| {
        limit_descriptors(2 * PAIRS + 500);
        let runtime = Runtime::new().unwrap();
        let make = || UnixStream::pair().map(|(one, other)| [one, other].map(|end| AsyncFd::new(end).unwrap()));
        let (before, with_all) = runtime
            .block_on(async {
                let stays = make().unwrap();
                assert!(poll_here(pin!(stays[0].readable())).await.is_pending());
                let before = heap_bytes();
                let all: Vec<_> = (0..PAIRS).map(|_| make().unwrap()).collect();
                for fd in all.iter().flatten() {
                    assert!(poll_here(pin!(fd.readable())).await.is_pending());
                }
                let with_all = heap_bytes();
                drop(all);
                yield_now().await;
                let left = heap_bytes();
                drop(stays);
                (left - before, with_all - before)
            })
            .unwrap();
        // A fifth of what they took: one that stays keeps a table of some hundred.
        assert!(before * 5 < with_all, "{before} bytes are left of {with_all}");
    });
}

/// Each left its waker with the descriptor until the next event.
#[test]
fn twenty_thousand_waits_for_a_descriptor_that_were_given_up() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = std::rc::Rc::new(AsyncFd::new(ours).unwrap());
        runtime
            .block_on(async { assert!(poll_here(pin!(fd.readable())).await.is_pending()) })
            .unwrap();
        let before = heap_bytes();
        for _ in 0..200 {
            // Each of them by a task, and a waker, of its own.
            let waits = |_| {
                let fd = fd.clone();
                runtime
                    .spawn_local(async move { drop(fd.readable().await.map(drop)) })
                    .unwrap()
            };
            let tasks: Vec<_> = (0..100).map(waits).collect();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            tasks.iter().for_each(evbase::JoinHandle::abort);
            runtime
                .block_on(async {
                    for task in tasks {
                        assert!(task.await.unwrap_err().is_cancelled());
                    }
                })
                .unwrap();
        }
        assert_gone(before);
    });
}

#[test]
fn a_set_of_tasks_that_was_large_gives_its_memory_back_while_one_stays() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut tasks = JoinSet::new();
        tasks.insert(runtime.spawn_local(pending()).unwrap());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let before = heap_bytes();
        for _ in 0..2 {
            runtime
                .block_on(async {
                    for _ in 0..30_000 {
                        tasks.spawn_local(async {});
                    }
                    assert!(heap_bytes() - before > SOME);
                    while tasks.len() > 1 {
                        tasks.join_next().await.unwrap().unwrap();
                    }
                })
                .unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            assert_gone(before);
        }
    });
}
