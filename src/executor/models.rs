//! loom models of what crosses threads in the executor. Run with
//! `RUSTFLAGS="--cfg evbase_loom" cargo test --release --lib models`.
//!
//! Each says how many threads it has, and how many preemptions are its bound, which is as high as it ends in seconds with (loom's
//! own advice: two find nearly everything).
//!
//! The code under test is the product's: inbox, gate, tasks, handles, free lists, and `Executor`. What drives an executor in the
//! product is not under test, since it needs a kernel queue, a clock and `std`'s thread-locals, which loom can't run or see. It is
//! paraphrased here, and a mistake in the original has to be found by the tests of `tests/`:
//!
//! - `Home::drive` stands for the loop in `home::home`: it receives, looks whether it is done, runs what is ready, and sleeps
//!   only after `park`. Unlike that, it goes on polling what is ready when a stop has come;
//! - `Home::close_with` stands for `home::close`: the same steps in the same order;
//! - the notify fd is a `loom::sync::Notify`: a lost wake-up is a deadlock, which loom reports.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::inbox::Owner;
use super::{Executor, Inbox, JoinHandle, Origin, Priority, StopLevel, Stops, Unpark, current, spawn};
use crate::sync::{Mutex, UnsafeCell};

/// The notify fd of a home that sleeps in its own loop only, where no bell rings.
struct NotifyFd(Arc<Notify>);

impl Unpark for NotifyFd {
    fn unpark(&self) -> bool {
        self.0.notify();
        true
    }

    fn stopped(&self) -> bool {
        false
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

pub(super) fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// Home, in small: receives, runs, parks.
pub(super) struct Home {
    pub(super) executor: Executor,
    notify_fd: Arc<Notify>,
}

impl Home {
    pub(super) fn new() -> (Self, Arc<Inbox>) {
        let notify_fd = Arc::new(Notify::new());
        Self::with(notify_fd.clone(), NotifyFd(notify_fd))
    }

    fn with(notify_fd: Arc<Notify>, unpark: impl Unpark + 'static) -> (Self, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(Box::new(unpark), false));
        let executor = Executor::new(inbox.clone(), None);
        (Self { executor, notify_fd }, inbox)
    }

    /// Calls `f` in this home's context. Outside of it, this thread is abroad like any other.
    fn in_context<R>(&self, f: impl FnOnce() -> R) -> R {
        current::within(&self.executor, f)
    }

    /// Drives until `done`, sleeping whenever the gate lets it.
    pub(super) fn drive(&self, done: impl FnMut(Stops) -> bool) {
        self.drive_in_portions(8, done);
    }

    /// As `drive`, with so many messages a pass.
    fn drive_in_portions(&self, portion: u32, mut done: impl FnMut(Stops) -> bool) {
        self.in_context(|| {
            loop {
                let seen = self.executor.receive(portion);
                self.executor.run(8, None, || true);
                if done(seen) {
                    break;
                }
                if !self.executor.has_work() && self.executor.park(seen) {
                    self.notify_fd.wait();
                }
            }
        });
    }

    /// One pass, without a sleep.
    fn pass(&self) {
        self.drive(|_| true);
    }

    /// Until no task is left of those that have arrived.
    fn drive_all_tasks(&self) {
        self.drive(|_| self.executor.tasks() == 0);
    }

    /// Drops and delivers everything, and shuts the gate.
    pub(super) fn close(self) {
        self.close_with(|| {});
    }

    /// As `close`; `clear` is what home does to its base.
    fn close_with(&self, clear: impl FnOnce()) {
        self.in_context(|| {
            self.executor.begin_close();
            self.executor.cancel_all(|| true);
            clear();
            self.executor.seal(|| true);
        });
    }
}

fn wait<T>(mut handle: JoinHandle<T>) -> Result<T, super::JoinError> {
    loom::future::block_on(poll_fn(move |cx| Pin::new(&mut handle).poll(cx)))
}

/// Sends a message that counts its delivery.
fn send_counted(inbox: &Inbox, count: &Arc<AtomicUsize>) {
    let count = count.clone();
    let sent = inbox.send(move || {
        count.fetch_add(1, Relaxed);
    });
    assert!(sent.is_ok());
}

/// Gate: two pushers ∥ drain and park. Three threads, three preemptions.
#[test]
fn no_message_is_lost_and_home_does_not_oversleep() {
    model(3, || {
        let (home, inbox) = Home::new();
        let count = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = (0..2)
            .map(|_| {
                let (inbox, count) = (inbox.clone(), count.clone());
                thread::spawn(move || {
                    send_counted(&inbox, &count);
                })
            })
            .collect();
        home.drive(|_| count.load(Relaxed) == 2);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        home.close();
    });
}

/// Gate: two pushers ∥ home that delivers one message a pass, and parks. Three threads, two preemptions.
#[test]
fn no_message_is_lost_when_home_takes_them_in_portions() {
    model(2, || {
        let (home, inbox) = Home::new();
        let count = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = [1, 2]
            .into_iter()
            .map(|messages| {
                let (inbox, count) = (inbox.clone(), count.clone());
                thread::spawn(move || {
                    for _ in 0..messages {
                        send_counted(&inbox, &count);
                    }
                })
            })
            .collect();
        home.drive_in_portions(1, |_| count.load(Relaxed) == 3);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        home.close();
    });
}

/// Gate: a pusher ∥ home that delivers one message a pass, and parks. Two threads, four preemptions.
#[test]
fn messages_of_one_sender_arrive_in_their_order() {
    model(4, || {
        let (home, inbox) = Home::new();
        let count = Arc::new(AtomicUsize::new(0));
        let pusher = {
            let count = count.clone();
            thread::spawn(move || {
                for earlier in 0..3 {
                    let count = count.clone();
                    // One that comes out of its order doesn't count, and home waits for ever.
                    let sent = inbox.send(move || {
                        let _ = count.compare_exchange(earlier, earlier + 1, Relaxed, Relaxed);
                    });
                    assert!(sent.is_ok());
                }
            })
        };
        home.drive_in_portions(1, |_| count.load(Relaxed) == 3);
        pusher.join().unwrap();
        home.close();
    });
}

/// Gate: two pushers ∥ seal. Each message is delivered at home, or comes back to its sender, which sees then what home did
/// before the seal. Three threads, four preemptions.
#[test]
fn a_message_that_meets_the_seal_is_delivered_once_or_comes_back() {
    model(4, || {
        let (home, inbox) = Home::new();
        let registered = Arc::new(Registered(UnsafeCell::new(1)));
        let counts: Vec<_> = (0..2).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let pushers: Vec<_> = counts
            .iter()
            .map(|count| {
                let (inbox, count, registered) = (inbox.clone(), count.clone(), registered.clone());
                thread::spawn(move || {
                    let counted = count.clone();
                    let sent = inbox.send(move || {
                        counted.fetch_add(1, Relaxed);
                    });
                    if let Err(message) = sent {
                        registered.assert_forgotten();
                        message();
                    }
                })
            })
            .collect();
        home.close_with(|| registered.forget());
        for pusher in pushers {
            pusher.join().unwrap();
        }
        assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
    });
}

/// Gate: a stop ∥ home that takes work and messages one a pass, and ends when there is no task left. What was accepted before
/// the stop has run by then. Three threads, two preemptions.
#[test]
fn work_that_a_stop_finds_accepted_is_run() {
    model(2, || {
        let (home, inbox) = Home::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let spawner = {
            let (inbox, ran) = (inbox.clone(), ran.clone());
            thread::spawn(move || {
                // So that home has something to deliver when the task comes.
                let _ = inbox.send(|| {});
                let _ = inbox.send(|| {});
                let future = async move {
                    ran.fetch_add(1, Relaxed);
                };
                spawn(&inbox, future, Origin::here(Priority::Normal)).is_ok()
            })
        };
        let stopper = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(StopLevel::Request);
            })
        };
        home.drive_in_portions(1, |stops| stops.requested() && !home.executor.has_tasks());
        home.close();
        let accepted = spawner.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(ran.load(Relaxed), usize::from(accepted));
    });
}

/// The notify fd that a host polls, and how often it was written to.
struct HostPolls {
    writes: Arc<AtomicUsize>,
    notify_fd: Arc<Notify>,
}

impl Unpark for HostPolls {
    fn unpark(&self) -> bool {
        self.writes.fetch_add(1, Relaxed);
        self.notify_fd.notify();
        true
    }

    fn stopped(&self) -> bool {
        false
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// A home that is embedded in a host, and how often its notify fd was written to.
fn embedded() -> (Home, Arc<Inbox>, Arc<AtomicUsize>) {
    let (notify_fd, writes) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let polls = HostPolls {
        writes: writes.clone(),
        notify_fd: notify_fd.clone(),
    };
    let (home, inbox) = Home::with(notify_fd, polls);
    (home, inbox, writes)
}

impl Home {
    /// Spawns a task that counts that it has run.
    fn spawn_counted(&self, count: &Arc<AtomicUsize>) {
        let count = count.clone();
        let task = async move {
            count.fetch_add(1, Relaxed);
        };
        drop(self.executor.spawn_local(task, Origin::here(Priority::Normal)));
    }

    /// What a host does: it waits for the notify fd, and turns. Between two turns it calls `meanwhile`. Returns the turns.
    /// (As `home::home` does it: `turn`, and `settle` when a turn has ended.)
    fn host(&self, mut meanwhile: impl FnMut(), mut done: impl FnMut(Stops) -> bool) -> usize {
        let mut seen = Stops::default();
        for turns in 0.. {
            self.executor.settle(seen, false);
            meanwhile();
            self.notify_fd.wait();
            let over = self.in_context(|| {
                self.executor.wake_up();
                seen = self.executor.receive(1);
                self.executor.run(1, None, || true);
                done(seen)
            });
            if over {
                return turns + 1;
            }
        }
        unreachable!()
    }
}

/// Embedded: two pushers ∥ a host that turns when it is told, and delivers one message a turn. Three threads, two preemptions.
#[test]
fn a_host_is_told_of_each_message() {
    model(2, || {
        let (home, inbox, writes) = embedded();
        let delivered = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = (0..2)
            .map(|_| {
                let (inbox, delivered) = (inbox.clone(), delivered.clone());
                thread::spawn(move || send_counted(&inbox, &delivered))
            })
            .collect();
        let turns = home.host(|| {}, |_| delivered.load(Relaxed) == 2);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        let writes = writes.load(Relaxed);
        assert!(writes <= turns, "{writes} writes for {turns} turns");
        home.close();
    });
}

/// Embedded: a request ∥ a second stop ∥ a host that turns when it is told. Three threads, three preemptions.
#[test]
fn a_host_is_told_of_each_stop() {
    model(3, || {
        let (home, inbox, _) = embedded();
        let stops = [StopLevel::Request, StopLevel::Now].map(|level| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(level);
            })
        });
        home.host(|| {}, Stops::now);
        for stop in stops {
            stop.join().unwrap();
        }
        home.close();
    });
}

/// Embedded: home spawns between two turns, and nobody else does anything. One thread.
#[test]
fn what_home_does_between_turns_tells_its_host() {
    model(0, || {
        let (home, _, writes) = embedded();
        let ran = Arc::new(AtomicUsize::new(0));
        let mut to_spawn = 2;
        let spawns = || (0..std::mem::take(&mut to_spawn)).for_each(|_| home.spawn_counted(&ran));
        let turns = home.host(spawns, |_| ran.load(Relaxed) == 2);
        assert_eq!((turns, writes.load(Relaxed)), (2, 2));
        home.close();
    });
}

/// Embedded: a message ∥ a host that spawns twice itself between its turns: it is told, by one write. Two threads, five
/// preemptions.
#[test]
fn what_home_does_between_turns_tells_its_host_once() {
    model(5, || {
        let (home, inbox, writes) = embedded();
        let (delivered, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pusher = {
            let (inbox, delivered) = (inbox.clone(), delivered.clone());
            thread::spawn(move || send_counted(&inbox, &delivered))
        };
        let mut to_spawn = 2;
        let spawns = || (0..std::mem::take(&mut to_spawn)).for_each(|_| home.spawn_counted(&ran));
        let turns = home.host(spawns, |_| delivered.load(Relaxed) + ran.load(Relaxed) == 3);
        pusher.join().unwrap();
        let writes = writes.load(Relaxed);
        assert!(writes <= turns, "{writes} writes for {turns} turns");
        home.close();
    });
}

/// A home that sleeps elsewhere than in its own loop, and listens there from some time on.
struct Elsewhere {
    listens: AtomicUsize,
    bell: Notify,
}

struct BellElsewhere(Arc<Elsewhere>);

impl Unpark for BellElsewhere {
    fn unpark(&self) -> bool {
        unreachable!("home is not parked");
    }

    fn stopped(&self) -> bool {
        let listens = self.0.listens.load(Relaxed) == 1;
        if listens {
            self.0.bell.notify();
        }
        listens
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// Gate: two stops ∥ a home outside of its loop that begins to listen. Three threads, three preemptions.
#[test]
fn a_home_that_is_not_parked_hears_each_stop() {
    model(3, || {
        let elsewhere = Arc::new(Elsewhere {
            listens: AtomicUsize::new(0),
            bell: Notify::new(),
        });
        let inbox = Arc::new(Inbox::new(Box::new(BellElsewhere(elsewhere.clone())), false));
        let stops = [StopLevel::Request, StopLevel::Now].map(|level| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(level);
            })
        });
        elsewhere.listens.store(1, Relaxed);
        let mut stopped = inbox.stops_so_far();
        while !stopped.now() {
            elsewhere.bell.wait();
            stopped = inbox.stops();
        }
        for stop in stops {
            stop.join().unwrap();
        }
    });
}

/// A notify fd that can't be written to at first.
struct FailsOnce {
    tried: AtomicUsize,
    notify_fd: Arc<Notify>,
}

impl Unpark for FailsOnce {
    fn unpark(&self) -> bool {
        let works = self.tried.fetch_add(1, Relaxed) > 0;
        if works {
            self.notify_fd.notify();
        }
        works
    }

    fn stopped(&self) -> bool {
        false
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// Gate: two pushes one after the other ∥ park. The second one rings if the first could not. Two threads, five preemptions.
#[test]
fn a_ring_that_failed_is_tried_again_by_the_next_message() {
    model(5, || {
        let notify_fd = Arc::new(Notify::new());
        let (home, inbox) = Home::with(
            notify_fd.clone(),
            FailsOnce {
                tried: AtomicUsize::new(0),
                notify_fd,
            },
        );
        let count = Arc::new(AtomicUsize::new(0));
        let pusher = {
            let count = count.clone();
            thread::spawn(move || {
                // One more: the first may find home awake, and leave the failure to the second.
                for _ in 0..3 {
                    send_counted(&inbox, &count);
                }
            })
        };
        home.drive(|_| count.load(Relaxed) >= 2);
        pusher.join().unwrap();
        home.close();
    });
}

/// Gate: push ∥ stop ∥ park, seal. Three threads, three preemptions.
#[test]
fn a_stop_wakes_home_and_every_message_is_delivered_or_comes_back() {
    model(3, || {
        let (home, inbox) = Home::new();
        let count = Arc::new(AtomicUsize::new(0));
        let pusher = {
            let (inbox, count) = (inbox.clone(), count.clone());
            thread::spawn(move || {
                let message = {
                    let count = count.clone();
                    move || {
                        count.fetch_add(1, Relaxed);
                    }
                };
                if let Err(message) = inbox.send(message) {
                    message();
                }
            })
        };
        let stopper = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(StopLevel::Request);
            })
        };
        home.drive(Stops::requested);
        home.close();
        pusher.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(count.load(Relaxed), 1);
        assert!(inbox.stops().requested());
    });
}

/// Gate: a request ∥ a drop ∥ park. Three threads, three preemptions.
#[test]
fn the_first_cause_wins() {
    model(3, || {
        let (home, inbox) = Home::new();
        let stoppers: Vec<_> = [StopLevel::Drop, StopLevel::Now]
            .into_iter()
            .map(|level| {
                let inbox = inbox.clone();
                thread::spawn(move || inbox.stop(level))
            })
            .collect();
        home.drive(Stops::requested);
        let before: Vec<_> = stoppers.into_iter().map(|t| t.join().unwrap()).collect();
        let drop_was_first = !before[0].requested();
        assert_ne!(drop_was_first, !before[1].requested(), "one of the two was first");
        assert_eq!(inbox.stops().by_drop(), drop_was_first);
        assert!(inbox.stops().now());
        home.close();
    });
}

/// A task that is done when its flag has reached the goal, and was polled once; with a waker of it.
fn flagged(home: &Home, flag: &Arc<AtomicUsize>, goal: usize) -> (JoinHandle<u32>, Waker) {
    let first = Rc::new(Cell::new(None));
    let future = {
        let (flag, first) = (flag.clone(), first.clone());
        let mut is_first = true;
        poll_fn(move |cx: &mut Context<'_>| {
            // Nothing but the wake-up publishes the flag.
            if flag.load(Relaxed) == goal {
                return Poll::Ready(7);
            }
            if mem::take(&mut is_first) {
                first.set(Some(cx.waker().clone()));
            }
            Poll::Pending
        })
    };
    let handle = home
        .executor
        .spawn_local(future, Origin::here(Priority::Normal))
        .ok()
        .unwrap();
    home.pass();
    (handle, first.take().unwrap())
}

/// Task: wake by value ∥ poll ∥ completion. Two threads, five preemptions.
#[test]
fn a_wake_up_is_never_lost_and_publishes_what_came_before_it() {
    model(5, || {
        let (home, _inbox) = Home::new();
        let flag = Arc::new(AtomicUsize::new(0));
        let (handle, waker) = flagged(&home, &flag, 1);
        let waking = thread::spawn(move || {
            flag.store(1, Relaxed);
            waker.wake();
        });
        home.drive_all_tasks();
        waking.join().unwrap();
        assert_eq!(wait(handle).unwrap(), 7);
        home.close();
    });
}

/// Task: two wakes by reference, with their drops ∥ poll and completion. Three threads, two preemptions.
#[test]
fn wake_ups_of_two_threads_and_the_last_drop() {
    model(2, || {
        let (home, _inbox) = Home::new();
        let flag = Arc::new(AtomicUsize::new(0));
        let (handle, waker) = flagged(&home, &flag, 2);
        drop(handle);
        let threads = [waker.clone(), waker].map(|waker| {
            let flag = flag.clone();
            thread::spawn(move || {
                flag.fetch_add(1, Relaxed);
                waker.wake_by_ref();
            })
        });
        home.drive_all_tasks();
        for thread in threads {
            thread.join().unwrap();
        }
        home.close();
    });
}

/// Task: abort ∥ wake ∥ poll, with the last reference dropped abroad. Three threads, two preemptions.
#[test]
fn an_abort_and_a_wake_up_from_abroad() {
    model(2, || {
        let (home, _inbox) = Home::new();
        let flag = Arc::new(AtomicUsize::new(0));
        let (handle, waker) = flagged(&home, &flag, 1);
        let abort = handle.abort_handle();
        let waking = thread::spawn(move || {
            flag.store(1, Relaxed);
            waker.wake();
        });
        let aborting = thread::spawn(move || abort.abort());
        home.drive_all_tasks();
        match wait(handle) {
            Ok(output) => assert_eq!(output, 7),
            Err(error) => assert!(error.is_cancelled()),
        }
        waking.join().unwrap();
        aborting.join().unwrap();
        home.close();
    });
}

/// Task: abort ∥ arrival. Two threads, five preemptions.
#[test]
fn a_task_is_aborted_while_it_arrives() {
    model(5, || {
        let (home, inbox) = Home::new();
        let handle = spawn(&inbox, std::future::pending::<()>(), Origin::here(Priority::Normal))
            .ok()
            .unwrap();
        // Before, during or after the arrival, which the first pass is.
        let aborting = thread::spawn(move || handle.abort());
        home.drive_all_tasks();
        aborting.join().unwrap();
        home.close();
    });
}

/// Task: a task completes while it stands in the inbox ∥ the last waker is dropped. Two threads, five preemptions.
#[test]
fn a_completed_task_is_delivered_while_its_last_waker_goes() {
    model(5, || {
        let (home, inbox) = Home::new();
        let (waking, woken) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
        let waker_thread = {
            let (waking, woken) = (waking.clone(), woken.clone());
            thread::spawn(move || {
                let waker: Option<Waker> = waking.lock().take();
                let posted = waker.as_ref().map(Waker::wake_by_ref).is_some();
                woken.notify();
                drop(waker);
                posted
            })
        };
        let future = poll_fn(move |cx| {
            *waking.lock() = Some(cx.waker().clone());
            // In the middle of the poll, the other thread may wake; then the task completes.
            woken.wait();
            waking.lock().take();
            Poll::Ready(())
        });
        drop(home.executor.spawn_local(future, Origin::here(Priority::Normal)));
        home.pass();
        home.pass();
        waker_thread.join().unwrap();
        home.close();
        drop(inbox);
    });
}

/// Join cell: complete ∥ poll of the handle, twice with different wakers. Two threads, five preemptions.
#[test]
fn whoever_joins_is_woken() {
    model(5, || {
        let (home, inbox) = Home::new();
        let mut handle = spawn(&inbox, async { 3 }, Origin::here(Priority::Normal)).ok().unwrap();
        let joiner = thread::spawn(move || {
            // Leaves a waker that will not do.
            match Pin::new(&mut handle).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(output) => assert_eq!(output.unwrap(), 3),
                Poll::Pending => assert_eq!(wait(handle).unwrap(), 3),
            }
        });
        home.drive_all_tasks();
        joiner.join().unwrap();
        home.close();
    });
}

/// A waker that wakes nobody. loom reports it if it is not dropped.
struct Counted(#[expect(dead_code, reason = "it is there to be dropped")] Arc<()>);

impl Wake for Counted {
    fn wake(self: std::sync::Arc<Self>) {}
}

impl Counted {
    fn waker() -> Waker {
        Waker::from(std::sync::Arc::new(Self(Arc::new(()))))
    }
}

/// Join cell: complete ∥ drop of a handle that was polled; its waker is dropped, and the output goes once. Two threads, five
/// preemptions.
#[test]
fn a_handle_dropped_while_its_task_completes() {
    struct Output(Arc<AtomicUsize>);
    impl Drop for Output {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    model(5, || {
        let (home, inbox) = Home::new();
        let drops = Arc::new(AtomicUsize::new(0));
        let mut handle = {
            let drops = drops.clone();
            spawn(&inbox, async move { Output(drops) }, Origin::here(Priority::Normal))
                .ok()
                .unwrap()
        };
        let joiner = thread::spawn(move || {
            let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&Counted::waker()));
            drop(handle);
            drop(polled);
        });
        home.drive_all_tasks();
        joiner.join().unwrap();
        home.close();
        assert_eq!(drops.load(Relaxed), 1);
    });
}

/// Spawn ∥ close: the handle resolves, or the future comes back; it is dropped once. Two threads, five preemptions.
#[test]
fn a_spawn_meets_the_end() {
    model(5, || {
        let (home, inbox) = Home::new();
        let spawner = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                let held = Arc::new(());
                let future = async move {
                    drop(held);
                    5
                };
                match spawn(&inbox, future, Origin::here(Priority::Normal)) {
                    Ok(handle) => match wait(handle) {
                        Ok(output) => assert_eq!(output, 5),
                        Err(error) => assert!(error.is_cancelled()),
                    },
                    Err(future) => drop(future),
                }
            })
        };
        home.pass();
        inbox.stop(StopLevel::Now);
        // At once: home doesn't receive what has come since.
        home.close();
        spawner.join().unwrap();
    });
}

/// Wakes and drops of wakers while home closes: nothing leaks, nothing is freed twice. Three threads, three preemptions.
#[test]
fn wake_ups_during_shutdown() {
    model(3, || {
        let (home, _inbox) = Home::new();
        let (handle, waker) = flagged(&home, &Arc::new(AtomicUsize::new(0)), 1);
        let other = waker.clone();
        let waking = thread::spawn(move || waker.wake());
        let aborting = thread::spawn(move || {
            other.wake_by_ref();
            handle.abort();
        });
        home.close();
        waking.join().unwrap();
        aborting.join().unwrap();
    });
}

/// Free lists: spawns from abroad ∥ tasks that end at home, whose memory goes to those, and the end. Two threads, five
/// preemptions.
#[test]
fn the_memory_of_tasks_meets_the_end() {
    model(5, || {
        let (home, inbox) = Home::new();
        let spawner = thread::spawn(move || {
            for _ in 0..2 {
                // The first one makes home share; the second one may find what home has shared.
                drop(spawn(&inbox, async {}, Origin::here(Priority::Normal)));
            }
        });
        let late = home.executor.spawn_local(async {}, Origin::here(Priority::Normal));
        for _ in 0..3 {
            drop(home.executor.spawn_local(async {}, Origin::here(Priority::Normal)));
        }
        home.drive_all_tasks();
        home.close_with(|| {});
        // What is freed now must not be shared any more.
        home.in_context(|| drop(late));
        spawner.join().unwrap();
    });
}

/// What stands for home's base: how many descriptors are registered there.
struct Registered(UnsafeCell<usize>);

// SAFETY: the model finds two threads that touch it at once.
unsafe impl Sync for Registered {}

impl Registered {
    fn forget(&self) {
        // SAFETY: as above.
        self.0.with_mut(|registered| unsafe { *registered = 0 });
    }

    fn assert_forgotten(&self) {
        // SAFETY: as above.
        assert_eq!(self.0.with(|registered| unsafe { *registered }), 0);
    }
}

/// An `AsyncFd` dropped abroad ∥ stop ∥ close: its descriptor is closed once, at home while there is a base, or abroad when
/// home takes nothing more and has forgotten the registration. Three threads, three preemptions.
#[test]
fn a_descriptor_dropped_abroad_meets_the_end() {
    model(3, || {
        let (home, inbox) = Home::new();
        let registered = Arc::new(Registered(UnsafeCell::new(1)));
        let closed = Arc::new(AtomicUsize::new(0));
        let dropper = {
            let (inbox, registered, closed) = (inbox.clone(), registered.clone(), closed.clone());
            thread::spawn(move || {
                let close = {
                    let inbox = inbox.clone();
                    move || {
                        if current::with(Arc::as_ptr(&inbox), |_| ()).is_some() {
                            registered.forget();
                        }
                        closed.fetch_add(1, Relaxed);
                    }
                };
                if let Err(close) = inbox.send(close) {
                    close();
                }
            })
        };
        let stopper = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(StopLevel::Now);
            })
        };
        home.drive(Stops::requested);
        home.close_with(|| registered.forget());
        dropper.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(closed.load(Relaxed), 1);
    });
}
