//! The executor by itself, on one thread, with a home that never sleeps.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;

struct NoBell;

impl Unpark for NoBell {
    fn unpark(&self) -> bool {
        true
    }

    fn stopped(&self) -> bool {
        false
    }

    fn owner(&self) -> Option<inbox::Owner> {
        None
    }
}

/// Of an executor that nobody has to wake.
pub(super) fn inbox() -> Arc<Inbox> {
    Arc::new(Inbox::new(Box::new(NoBell), false))
}

fn with_executor(f: impl FnOnce(&Executor)) {
    let executor = Executor::new(inbox(), None);
    current::within(&executor, || {
        f(&executor);
        close(&executor);
    });
}

fn close(executor: &Executor) {
    executor.begin_close();
    executor.cancel_all(|| true);
    executor.seal(|| true);
}

fn run(executor: &Executor) -> u32 {
    executor.receive(u32::MAX);
    executor.run(u32::MAX, None, || true).0
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_task_is_polled_once_a_wake_up() {
    with_executor(|executor| {
        let polls = Rc::new(Cell::new(0));
        let counted = polls.clone();
        let mut handle = executor
            .spawn_local(
                poll_fn(move |cx| {
                    counted.set(counted.get() + 1);
                    if counted.get() == 3 {
                        return Poll::Ready("done");
                    }
                    // However often it is woken.
                    cx.waker().wake_by_ref();
                    let kept = cx.waker().clone();
                    kept.wake_by_ref();
                    kept.wake();
                    Poll::Pending
                }),
                Origin::here(Priority::Normal),
            )
            .ok()
            .unwrap();
        assert_eq!(run(executor), 3);
        assert!(matches!(poll(&mut handle), Poll::Ready(Ok("done"))));
        assert_eq!(polls.get(), 3);
        assert_eq!(executor.tasks(), 0);
    });
}

#[test]
fn an_aborted_task_is_dropped_before_its_next_poll() {
    struct SetOnDrop(Rc<Cell<bool>>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    with_executor(|executor| {
        let dropped = Rc::new(Cell::new(false));
        let guard = SetOnDrop(dropped.clone());
        let mut handle = executor
            .spawn_local(
                async move {
                    let _guard = guard;
                    pending::<()>().await;
                },
                Origin::here(Priority::Normal),
            )
            .ok()
            .unwrap();
        run(executor);
        handle.abort();
        assert!(!dropped.get(), "not in the call");
        run(executor);
        assert!(dropped.get());
        assert!(matches!(poll(&mut handle), Poll::Ready(Err(error)) if error.is_cancelled()));
        assert_eq!(executor.inbox.counts().cancelled.get(), 1);
    });
}

#[test]
fn a_panic_travels_in_the_handle() {
    with_executor(|executor| {
        let mut handle = executor
            .spawn_local(async { panic!("on purpose") }, Origin::here(Priority::Normal))
            .ok()
            .map(|handle: JoinHandle<()>| handle)
            .unwrap();
        run(executor);
        let Poll::Ready(Err(error)) = poll(&mut handle) else {
            panic!("the task has ended");
        };
        assert!(error.is_panic());
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        assert_eq!(*error.into_panic().downcast_ref::<&str>().unwrap(), "on purpose");
    });
}

#[test]
fn messages_and_tasks_from_the_inbox_keep_their_order() {
    with_executor(|executor| {
        let order = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        for n in 0..100 {
            let order = order.clone();
            let handle = spawn(
                &executor.inbox,
                async move { order.lock().push(n) },
                Origin::here(Priority::Normal),
            );
            drop(handle);
        }
        run(executor);
        assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn slots_of_tasks_are_used_again() {
    with_executor(|executor| {
        for _ in 0..10 {
            let handles: Vec<_> = (0..100)
                .map(|n| {
                    executor
                        .spawn_local(async move { n }, Origin::here(Priority::Normal))
                        .ok()
                        .unwrap()
                })
                .collect();
            // One that stays keeps the list from starting anew.
            drop(executor.spawn_local(pending::<()>(), Origin::here(Priority::Normal)));
            run(executor);
            drop(handles);
        }
        assert_eq!(executor.tasks(), 10);
        assert!(executor.owned.borrow().capacity() <= 1024);
    });
}

#[test]
fn memory_of_very_many_tasks_goes_back_while_one_stays() {
    for stays in [0, 50_000, 99_999] {
        with_executor(|executor| {
            for n in 0..100_000 {
                let end = move |_: &mut Context<'_>| match n == stays {
                    true => Poll::Pending,
                    false => Poll::Ready(()),
                };
                drop(executor.spawn_local(poll_fn(end), Origin::here(Priority::Normal)));
            }
            assert!(executor.owned.borrow().capacity() >= 100_000);
            run(executor);
            assert_eq!(executor.tasks(), 1);
            assert!(executor.owned.borrow().capacity() <= 1024);
            for _ in 0..10 {
                run(executor);
            }
            assert!(executor.ready.borrow().capacity() <= 2 * ready::KEPT);
        });
    }
}

#[test]
fn the_ready_queue_is_first_in_first_out_whatever_comes_in_between() {
    let mut random = Random::new(7);
    // More pushes than pops, so that it grows beyond what it keeps; then more pops, so that it shrinks.
    for pushes in [600, 500, 400].repeat(3) {
        let (mut ready, mut model) = (Ready::default(), std::collections::VecDeque::new());
        let mut steps: Vec<usize> = (0..20_000).map(|n| n % 1000).collect();
        random.shuffle(&mut steps);
        for (n, step) in steps.into_iter().enumerate() {
            if step < 2 {
                ready.shrink();
            } else if step < 4 {
                assert!(ready.as_mut_slice().iter().eq(&model));
            } else if step < pushes {
                let task = NonNull::new(std::ptr::without_provenance_mut(16 * (n + 1))).unwrap();
                ready.push(task);
                model.push_back(task);
            } else {
                assert_eq!(ready.pop(), model.pop_front());
            }
            assert_eq!((ready.len(), ready.is_empty()), (model.len(), model.is_empty()));
        }
        assert!(std::iter::from_fn(|| ready.pop()).eq(model));
        (0..20).for_each(|_| ready.shrink());
        assert!(ready.capacity() <= 2 * ready::KEPT);
    }
}

#[test]
fn memory_of_very_many_ready_tasks_goes_back_whatever_their_priority_and_order() {
    for shuffled in [false, true] {
        with_executor(|executor| {
            if shuffled {
                executor.shuffle(Random::new(1));
            }
            for priority in [Priority::High, Priority::Normal, Priority::Low] {
                for _ in 0..20_000 {
                    drop(executor.spawn_local(async {}, Origin::here(priority)));
                }
            }
            run(executor);
            for _ in 0..20 {
                run(executor);
            }
            assert_eq!(executor.tasks(), 0);
            let levels = executor.levels.borrow().as_ref().map_or(0, |levels| levels.capacity());
            let most = 2 * ready::KEPT;
            assert!(executor.ready.borrow().capacity() <= most);
            assert!(levels <= 5 * most, "{levels}");
        });
    }
}

#[test]
fn memory_goes_back_to_who_spawns_abroad_and_none_is_left_at_the_end() {
    let inbox = inbox();
    let executor = Executor::new(inbox.clone(), None);
    let spawn_many_abroad = |tasks: usize| {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..tasks).for_each(|_| drop(spawn(&inbox, async {}, Origin::here(Priority::Normal)))));
        });
    };
    current::within(&executor, || {
        spawn_many_abroad(1000);
        run(&executor);
        let kept = inbox.shared_free_list().len();
        assert!(kept > 0, "somebody wanted some");
        spawn_many_abroad(1);
        assert_eq!(inbox.shared_free_list().len(), kept - 1);
        run(&executor);
        assert_eq!(inbox.shared_free_list().len(), kept - 1, "nobody wants more");

        // What goes after the end isn't kept: the inbox would keep itself.
        spawn_many_abroad(kept + 1);
        let last = spawn(&inbox, std::future::pending::<()>(), Origin::here(Priority::Normal))
            .ok()
            .unwrap();
        close(&executor);
        assert_eq!(inbox.shared_free_list().len(), 0);
        drop(last);
    });
    drop(executor);
    assert_eq!(Arc::strong_count(&inbox), 1);
}

#[test]
fn whoever_may_not_go_on_leaves_the_shared_memory_alone() {
    let inbox = inbox();
    let executor = Executor::new(inbox.clone(), None);
    current::within(&executor, || {
        let spawn_abroad = || drop(spawn_abroad(&inbox));
        (0..1000).for_each(|_| spawn_abroad());
        run(&executor);
        let kept = inbox.shared_free_list().len();
        assert!(kept > 0);
        executor.begin_close();
        executor.cancel_all(|| true);
        // As in the child of a fork that a destructor makes, in the last message.
        let may_go_on = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let last = may_go_on.clone();
        assert!(inbox.send(move || last.store(false, Relaxed)).is_ok());
        executor.seal(|| may_go_on.load(Relaxed));
        assert_eq!(inbox.shared_free_list().len(), kept);
        // What it has left is freed here, for a test that leaks nothing.
        inbox.shared_free_list().close();
    });
}

#[test]
fn a_header_stays_small() {
    assert_eq!(size_of::<task::Header>(), size_of::<usize>() * 5 + 8);
}

#[test]
fn a_wake_up_that_failed_is_tried_again_by_the_next_message() {
    struct FailsOnce(std::sync::Arc<std::sync::atomic::AtomicUsize>);
    impl Unpark for FailsOnce {
        fn unpark(&self) -> bool {
            self.0.fetch_add(1, Relaxed) > 0
        }

        fn stopped(&self) -> bool {
            false
        }

        fn owner(&self) -> Option<inbox::Owner> {
            None
        }
    }
    let wake_ups = std::sync::Arc::default();
    let inbox = Inbox::new(Box::new(FailsOnce(std::sync::Arc::clone(&wake_ups))), false);
    assert!(inbox.park(Stops::default()));
    assert!(inbox.send(|| {}).is_ok());
    assert_eq!(wake_ups.load(Relaxed), 1, "failed");
    assert!(inbox.send(|| {}).is_ok());
    assert_eq!(wake_ups.load(Relaxed), 2, "tried again");
    inbox.stop(StopLevel::Request);
    assert_eq!(wake_ups.load(Relaxed), 2, "home is awake by then");
    // The messages are home's to free.
    with_executor(|executor| {
        let messages = inbox.take().1;
        while let Some(message) = messages.pop() {
            message.deliver(executor);
        }
    });
}

/// Sends messages that note their numbers.
fn numbered(inbox: &Inbox, numbers: std::ops::Range<u64>, order: &std::sync::Arc<parking_lot::Mutex<Vec<u64>>>) {
    for number in numbers {
        let order = order.clone();
        assert!(inbox.send(move || order.lock().push(number)).is_ok());
    }
}

#[test]
fn messages_come_in_portions_and_in_order_and_home_has_work_until_the_last() {
    with_executor(|executor| {
        let order = std::sync::Arc::default();
        numbered(&executor.inbox, 0..100, &order);
        for portion in 1..=4 {
            executor.receive(25);
            assert_eq!(order.lock().len(), portion * 25);
            assert_eq!(executor.has_work(), portion < 4);
            assert!(portion == 4 || !executor.park(Stops::default()));
            // For after all these.
            numbered(&executor.inbox, 100..101, &order);
        }
        assert!(!executor.park(Stops::default()), "there is more behind the gate");
        executor.receive(u32::MAX);
        assert!(executor.park(Stops::default()));
        executor.receive(1);
        assert_eq!(order.lock()[..100], (0..100).collect::<Vec<_>>());
        assert_eq!(order.lock().len(), 104);
    });
}

#[test]
fn a_list_of_a_hundred_thousand_messages_is_turned_round_in_steps() {
    with_executor(|executor| {
        let order = std::sync::Arc::default();
        numbered(&executor.inbox, 0..100_000, &order);
        let steps = (1..).find(|_| {
            executor.receive(1);
            !order.lock().is_empty()
        });
        assert_eq!(steps, Some(100_000 / 4096 + 1));
        assert_eq!(*order.lock(), [0]);
        executor.receive(u32::MAX);
        assert_eq!(*order.lock(), (0..100_000).collect::<Vec<_>>());
    });
}

#[test]
fn whatever_was_sent_is_delivered_at_once_also_from_within_a_message_and_each_message_once() {
    with_executor(|executor| {
        let order = std::sync::Arc::default();
        numbered(&executor.inbox, 0..10, &order);
        let counted = order.clone();
        let sent = executor.inbox.send_with(counted, |counted, home| {
            home.receive_all();
            counted.lock().push(1000);
        });
        assert!(sent.is_ok());
        numbered(&executor.inbox, 10..20, &order);
        // In the middle of a portion.
        executor.receive(15);
        let expected: Vec<_> = (0..20).chain([1000]).collect();
        assert_eq!(*order.lock(), expected);
        numbered(&executor.inbox, 20..30, &order);
        executor.receive(5);
        numbered(&executor.inbox, 30..40, &order);
        executor.receive_all();
        assert_eq!(order.lock()[21..], (20..40).collect::<Vec<_>>());
    });
}

#[test]
fn work_that_was_accepted_before_the_stop_counts_as_tasks_until_it_is_there() {
    with_executor(|executor| {
        let order = std::sync::Arc::default();
        assert!(executor.has_tasks(), "there may be some on their way");
        numbered(&executor.inbox, 0..3, &order);
        executor.receive(2);
        let handle = spawn_abroad(&executor.inbox);
        executor.inbox.stop(StopLevel::Request);
        assert!(executor.receive(1).requested());
        assert!(executor.has_tasks() && executor.has_work());
        executor.receive(1);
        assert_eq!(executor.tasks(), 1);
        run(executor);
        assert!(handle.is_finished());
        assert!(!executor.has_tasks());
    });
}

#[test]
fn what_is_sent_before_the_seal_is_delivered_and_its_tasks_are_cancelled_and_nothing_is_taken_after_it() {
    with_executor(|executor| {
        let order = std::sync::Arc::default();
        let inbox = executor.inbox.clone();
        numbered(&inbox, 0..2, &order);
        executor.receive(1);
        let handle = spawn_abroad(&inbox);
        let local = executor
            .spawn_local(pending::<()>(), Origin::here(Priority::Normal))
            .ok()
            .unwrap();
        executor.begin_close();
        assert!(
            executor
                .spawn_local(pending::<()>(), Origin::here(Priority::Normal))
                .is_err()
        );
        executor.cancel_all(|| true);
        assert!(local.is_finished() && !handle.is_finished());
        numbered(&inbox, 2..4, &order);
        executor.seal(|| true);
        assert!(handle.is_finished());
        assert_eq!(*order.lock(), [0, 1, 2, 3]);
        assert_eq!(executor.inbox.counts().cancelled.get(), 2);
        assert!(inbox.send(|| {}).is_err());
        assert!(!executor.has_work());
    });
}

/// A task that ends at its first poll, made on another thread.
fn spawn_abroad(inbox: &Arc<Inbox>) -> JoinHandle<()> {
    std::thread::scope(|scope| {
        let spawned = scope.spawn(|| spawn(inbox, async {}, Origin::here(Priority::Normal)).ok().unwrap());
        spawned.join().unwrap()
    })
}

/// How often a future may be ready until the next refusal, and how often it is refused then.
fn spend_until_full_again(cx: &Context<'_>) -> (usize, usize) {
    let ready = (0..).find(|_| coop::spend(cx).is_pending()).unwrap();
    let refused = (1..).find(|_| coop::spend(cx).is_ready()).unwrap();
    (ready, refused)
}

#[test]
fn each_poll_has_a_budget_of_its_own_which_is_full_again_after_many_refusals() {
    let cx = Context::from_waker(Waker::noop());
    let _polling = coop::Polling::begin();
    coop::refill();
    let first = spend_until_full_again(&cx);
    assert_eq!(first, (128, 64));
    // One of the next budget has told that the refusals are over.
    assert_eq!(spend_until_full_again(&cx), (127, 64));
    let inner = coop::Polling::begin();
    coop::refill();
    assert_eq!(spend_until_full_again(&cx), first);
    drop(inner);
    assert_eq!(spend_until_full_again(&cx), (127, 64), "it went on where it was");
}

#[test]
fn outside_of_a_poll_nothing_is_spent() {
    with_executor(|executor| {
        let cx = Context::from_waker(Waker::noop());
        drop(executor.spawn_local(async {}, Origin::here(Priority::Normal)));
        run(executor);
        assert!((0..10_000).all(|_| coop::spend(&cx).is_ready()));
    });
}

#[test]
fn who_is_refused_is_woken() {
    with_executor(|executor| {
        let spender = poll_fn(|cx| {
            while coop::spend(cx).is_ready() {}
            Poll::<()>::Pending
        });
        let handle = executor
            .spawn_local(spender, Origin::here(Priority::Normal))
            .ok()
            .unwrap();
        executor.receive(1);
        for _ in 0..3 {
            assert_eq!(
                executor.run(3, None, || true),
                (1, false),
                "a look at the rest comes after it"
            );
        }
        handle.abort();
        run(executor);
    });
}
