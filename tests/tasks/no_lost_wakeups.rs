//! A wake-up from abroad is never lost, however it meets a home that goes to sleep. A lost one hangs, which the watchdog
//! tells.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime};
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::task::AtomicWaker;

use crate::support::{rounds, watched};

/// A cheap source of different waits.
struct Dice(u32);

impl Dice {
    fn spin(&mut self) {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        for _ in 0..self.0 >> 22 {
            std::hint::spin_loop();
        }
    }
}

#[test]
fn a_ball_that_is_thrown_to_and_fro_is_never_dropped() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        let (mut throw, catch) = mpsc::channel::<usize>(1);
        let (throw_back, caught) = std::sync::mpsc::channel();
        drop(runtime.spawner().spawn(async move {
            let mut catch = catch;
            while let Some(n) = catch.next().await {
                throw_back.send(n + 1).unwrap();
            }
        }));
        let mut dice = Dice(1);
        for n in 0..20_000 {
            dice.spin();
            throw.try_send(n).unwrap();
            assert_eq!(caught.recv().unwrap(), n + 1);
        }
    });
}

#[test]
fn wakes_of_many_threads_all_count() {
    rounds(20, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let cell = Arc::new((AtomicWaker::new(), AtomicUsize::new(0)));
        let seen = cell.clone();
        let task = runtime.spawner().spawn(poll_fn(move |cx| {
            seen.0.register(cx.waker());
            if seen.1.load(SeqCst) == 4 * 500 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        let wakers: Vec<_> = (0..4)
            .map(|n| {
                let cell = cell.clone();
                thread::spawn(move || {
                    let mut dice = Dice(round as u32 * 4 + n);
                    for _ in 0..500 {
                        dice.spin();
                        cell.1.fetch_add(1, SeqCst);
                        cell.0.wake();
                    }
                })
            })
            .collect();
        task.wait().unwrap().unwrap();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn a_task_spawned_abroad_is_always_polled() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        let spawner = runtime.spawner();
        let mut dice = Dice(7);
        for n in 0..10_000 {
            dice.spin();
            assert_eq!(spawner.spawn(async move { n }).wait().unwrap().unwrap(), n);
        }
    });
}

#[test]
fn the_root_of_block_on_is_woken_from_abroad() {
    rounds(2000, |round| {
        let runtime = Runtime::new().unwrap();
        let (send, receive) = oneshot::channel();
        let sender = thread::spawn(move || {
            Dice(round as u32).spin();
            send.send(round).unwrap();
        });
        assert_eq!(runtime.block_on(receive).unwrap(), Ok(round));
        sender.join().unwrap();
    });
}

#[test]
fn an_abort_from_abroad_always_ends_the_task() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        let mut dice = Dice(11);
        for _ in 0..5_000 {
            let task = runtime.spawner().spawn(std::future::pending::<()>());
            dice.spin();
            task.abort();
            assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn two_runtimes_that_wake_each_other_go_on() {
    watched(|| {
        let (left, right) = (
            Builder::new().start("left").unwrap(),
            Builder::new().start("right").unwrap(),
        );
        let (mut to_right, mut from_left) = mpsc::channel::<u32>(1);
        let (mut to_left, mut from_right) = mpsc::channel::<u32>(1);
        let there = left.spawner().spawn(async move {
            for n in 0..10_000 {
                to_right.try_send(n).unwrap();
                assert_eq!(from_right.next().await, Some(n));
            }
        });
        let back = right.spawner().spawn(async move {
            while let Some(n) = from_left.next().await {
                to_left.try_send(n).unwrap();
            }
        });
        there.wait().unwrap().unwrap();
        back.wait().unwrap().unwrap();
    });
}

#[test]
fn a_turn_without_timeout_is_ended_by_a_wake() {
    rounds(1000, |round| {
        let runtime = Runtime::new().unwrap();
        let (send, receive) = oneshot::channel();
        let task = runtime.spawn_local(receive).unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let sender = thread::spawn(move || {
            Dice(round as u32).spin();
            send.send(()).unwrap();
        });
        crate::support::until(|| {
            assert!(!runtime.turn(None).unwrap().closed);
            task.is_finished()
        });
        sender.join().unwrap();
    });
}

/// A wake-up of a root that had ended, seen by a `turn`, left the runtime thinking that the next root stood in the queue.
#[test]
fn a_late_wake_up_of_a_root_does_not_keep_the_next_one_from_being_polled() {
    watched(|| {
        for abroad in [false, true] {
            let runtime = Runtime::new().unwrap();
            let waker = runtime.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone()))).unwrap();
            if abroad {
                thread::spawn(move || waker.wake()).join().unwrap();
            } else {
                let _context = runtime.enter().unwrap();
                waker.wake();
            }
            runtime.turn(Some(Duration::ZERO)).unwrap();
            // Was not polled, and hung.
            assert_eq!(runtime.block_on(async { 7 }).unwrap(), 7);
        }
    });
}
