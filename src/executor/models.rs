//! loom models of what crosses threads in the executor. Run with
//! `RUSTFLAGS="--cfg evbase_loom" cargo test --release --lib models`.
//!
//! Each says how many threads it has; two preemptions are the bound where more would not end in minutes (loom's own
//! advice: two find nearly everything). The code under test is the product's; only the notify fd is a stand-in, which
//! turns a lost wake-up into a deadlock that loom reports.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::inbox::Owner;
use super::{Executor, Inbox, JoinHandle, StopLevel, Stops, Unpark, current, spawn};
use crate::sync::{Mutex, UnsafeCell};

/// Ends home's sleep, in its loop or elsewhere: a model's home sleeps in one place at a time.
struct Bell(Arc<Notify>);

impl Unpark for Bell {
    fn unpark(&self) -> bool {
        self.0.notify();
        true
    }

    fn stopped(&self) {
        self.0.notify();
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// Home, in small: receives, runs, parks.
struct Home {
    executor: Executor,
    bell: Arc<Notify>,
}

impl Home {
    fn new() -> (Self, Arc<Inbox>) {
        let bell = Arc::new(Notify::new());
        Self::with(bell.clone(), Bell(bell))
    }

    fn with(bell: Arc<Notify>, unpark: impl Unpark + 'static) -> (Self, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(Box::new(unpark)));
        let executor = Executor::new(inbox.clone());
        (Self { executor, bell }, inbox)
    }

    /// Drives until `done`, sleeping whenever the gate lets it.
    fn drive(&self, done: impl FnMut(Stops) -> bool) {
        self.drive_in_portions(8, done);
    }

    /// As `drive`, with so many messages a pass.
    fn drive_in_portions(&self, portion: u32, mut done: impl FnMut(Stops) -> bool) {
        // SAFETY: this thread is home, and `self` stays until `None` is set below.
        unsafe { current::set(Some(&self.executor)) };
        loop {
            let seen = self.executor.receive(portion);
            self.executor.run(8, None, || true);
            if done(seen) {
                break;
            }
            if !self.executor.has_work() && self.executor.park(seen) {
                self.bell.wait();
            }
        }
        // SAFETY: as above.
        unsafe { current::set(None) };
    }

    /// Drops and delivers everything, and shuts the gate.
    fn close(self) {
        self.close_with(|| {});
    }

    /// As `close`; `clear` is what home does to its base.
    fn close_with(self, clear: impl FnOnce()) {
        // SAFETY: as in `drive`.
        unsafe { current::set(Some(&self.executor)) };
        self.executor.begin_close();
        self.executor.cancel_all(|| true);
        clear();
        self.executor.seal(|| true);
        // SAFETY: as in `drive`.
        unsafe { current::set(None) };
    }
}

fn wait<T>(mut handle: JoinHandle<T>) -> Result<T, super::JoinError> {
    loom::future::block_on(poll_fn(move |cx| Pin::new(&mut handle).poll(cx)))
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
                    let sent = inbox.send(move || {
                        count.fetch_add(1, Relaxed);
                    });
                    assert!(sent.is_ok());
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
                        let count = count.clone();
                        let sent = inbox.send(move || {
                            count.fetch_add(1, Relaxed);
                        });
                        assert!(sent.is_ok());
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

/// Gate: a pusher ∥ home that delivers one message a pass, and parks. Two threads, three preemptions.
#[test]
fn messages_of_one_sender_arrive_in_their_order() {
    model(3, || {
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
/// before the seal. Three threads, three preemptions.
#[test]
fn a_message_that_meets_the_seal_is_delivered_once_or_comes_back() {
    model(3, || {
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
                spawn(&inbox, future).is_ok()
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

    fn stopped(&self) {
        if self.0.listens.load(Relaxed) == 1 {
            self.0.bell.notify();
        }
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
        let inbox = Arc::new(Inbox::new(Box::new(BellElsewhere(elsewhere.clone()))));
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
    bell: Arc<Notify>,
}

impl Unpark for FailsOnce {
    fn unpark(&self) -> bool {
        let works = self.tried.fetch_add(1, Relaxed) > 0;
        if works {
            self.bell.notify();
        }
        works
    }

    fn stopped(&self) {}

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// Gate: two pushes one after the other ∥ park. The second one rings if the first could not. Two threads, four preemptions.
#[test]
fn a_ring_that_failed_is_tried_again_by_the_next_message() {
    model(4, || {
        let bell = Arc::new(Notify::new());
        let (home, inbox) = Home::with(
            bell.clone(),
            FailsOnce {
                tried: AtomicUsize::new(0),
                bell,
            },
        );
        let count = Arc::new(AtomicUsize::new(0));
        let pusher = {
            let count = count.clone();
            thread::spawn(move || {
                // One more: the first may find home awake, and leave the failure to the second.
                for _ in 0..3 {
                    let count = count.clone();
                    let sent = inbox.send(move || {
                        count.fetch_add(1, Relaxed);
                    });
                    assert!(sent.is_ok());
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

/// A future that is done when its flag is up, and leaves its waker where others find it.
fn flagged(flag: Arc<AtomicUsize>, wakers: Arc<Mutex<Option<Waker>>>) -> impl Future<Output = u32> {
    poll_fn(move |cx: &mut Context<'_>| {
        *wakers.lock() = Some(cx.waker().clone());
        if flag.load(Relaxed) == 1 {
            // The cycle of task and waker ends here.
            wakers.lock().take();
            return Poll::Ready(7);
        }
        Poll::Pending
    })
}

/// Task: wake by value ∥ poll ∥ completion. Two threads, four preemptions. The flag is Relaxed: the wake-up publishes it.
#[test]
fn a_wake_up_is_never_lost_and_publishes_what_came_before_it() {
    model(4, || {
        let (home, inbox) = Home::new();
        let flag = Arc::new(AtomicUsize::new(0));
        let wakers = Arc::new(Mutex::new(None));
        let handle = home
            .executor
            .spawn_local(flagged(flag.clone(), wakers.clone()))
            .ok()
            .unwrap();
        let waker = thread::spawn(move || {
            flag.store(1, Relaxed);
            let waker: Option<Waker> = wakers.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        home.drive(|_| handle.is_finished());
        waker.join().unwrap();
        assert_eq!(wait(handle).unwrap(), 7);
        home.close();
        drop(inbox);
    });
}

/// Task: two wakes by reference, with their drops ∥ poll and completion. Three threads, two preemptions.
#[test]
fn wake_ups_of_two_threads_and_the_last_drop() {
    model(2, || {
        let (home, _inbox) = Home::new();
        let flag = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(Mutex::new(None));
        let handle = {
            let (flag, held) = (flag.clone(), held.clone());
            let future = poll_fn(move |cx| {
                // First: a waker that is dropped sees what others did, and would hide that the wake-up doesn't.
                let done = flag.load(Relaxed) == 2;
                *held.lock() = Some(cx.waker().clone());
                if done { Poll::Ready(()) } else { Poll::Pending }
            });
            home.executor.spawn_local(future).ok().unwrap()
        };
        // The first poll leaves a waker for each thread.
        home.drive(|_| true);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (flag, waker) = (flag.clone(), held.lock().clone().unwrap());
                thread::spawn(move || {
                    flag.fetch_add(1, Relaxed);
                    waker.wake_by_ref();
                })
            })
            .collect();
        home.drive(|_| handle.is_finished());
        held.lock().take();
        drop(handle);
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
        let wakers = Arc::new(Mutex::new(None));
        let handle = home
            .executor
            .spawn_local(flagged(flag.clone(), wakers.clone()))
            .ok()
            .unwrap();
        home.drive(|_| true);
        let waker = wakers.lock().take().unwrap();
        let abort = handle.abort_handle();
        let waking = thread::spawn(move || {
            flag.store(1, Relaxed);
            waker.wake();
        });
        let aborting = thread::spawn(move || abort.abort());
        home.drive(|_| handle.is_finished());
        // The future that was dropped unfinished leaves its last waker.
        wakers.lock().take();
        match wait(handle) {
            Ok(output) => assert_eq!(output, 7),
            Err(error) => assert!(error.is_cancelled()),
        }
        waking.join().unwrap();
        aborting.join().unwrap();
        home.close();
    });
}

/// Task: spawn, abort ∥ arrival. Two threads, three preemptions.
#[test]
fn a_task_is_aborted_while_it_arrives() {
    model(3, || {
        let (home, inbox) = Home::new();
        let spawner = thread::spawn(move || {
            let handle = spawn(&inbox, std::future::pending::<()>()).ok().unwrap();
            handle.abort();
        });
        // Before, after or without its arrival.
        home.drive(|_| home.executor.tasks() == 0);
        spawner.join().unwrap();
        home.drive(|_| home.executor.tasks() == 0);
        home.close();
    });
}

/// Task: a task completes while it stands in the inbox ∥ the last waker is dropped. Two threads, four preemptions.
#[test]
fn a_completed_task_is_delivered_while_its_last_waker_goes() {
    model(4, || {
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
        drop(home.executor.spawn_local(future));
        home.drive(|_| true);
        home.drive(|_| true);
        waker_thread.join().unwrap();
        home.close();
        drop(inbox);
    });
}

/// Join cell: complete ∥ poll of the handle, twice with different wakers. Two threads, three preemptions.
#[test]
fn whoever_joins_is_woken() {
    model(3, || {
        let (home, inbox) = Home::new();
        let joiner = thread::spawn(move || {
            let mut handle = spawn(&inbox, async { 3 }).ok().unwrap();
            let noop = Waker::noop();
            // Leaves a waker that will not do.
            match Pin::new(&mut handle).poll(&mut Context::from_waker(noop)) {
                Poll::Ready(output) => assert_eq!(output.unwrap(), 3),
                Poll::Pending => assert_eq!(wait(handle).unwrap(), 3),
            }
            inbox.stop(StopLevel::Request);
        });
        home.drive(Stops::requested);
        home.close();
        joiner.join().unwrap();
    });
}

/// Join cell: complete ∥ drop of a handle that was polled; the output goes once. Two threads, four preemptions.
#[test]
fn a_handle_dropped_while_its_task_completes() {
    struct Output(Arc<AtomicUsize>);
    impl Drop for Output {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    model(4, || {
        let (home, inbox) = Home::new();
        let drops = Arc::new(AtomicUsize::new(0));
        let joiner = {
            let drops = drops.clone();
            thread::spawn(move || {
                let mut handle = spawn(&inbox, async move { Output(drops) }).ok().unwrap();
                let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(Waker::noop()));
                drop(handle);
                drop(polled);
                inbox.stop(StopLevel::Request);
            })
        };
        home.drive(Stops::requested);
        home.close();
        joiner.join().unwrap();
        assert_eq!(drops.load(Relaxed), 1);
    });
}

/// Spawn ∥ stop ∥ close: every handle resolves, every future is dropped once. Three threads, two preemptions.
#[test]
fn a_spawn_meets_the_end() {
    model(2, || {
        let (home, inbox) = Home::new();
        let spawner = {
            let inbox = inbox.clone();
            thread::spawn(move || match spawn(&inbox, async { 5 }) {
                Ok(handle) => match wait(handle) {
                    Ok(output) => assert_eq!(output, 5),
                    Err(error) => assert!(error.is_cancelled()),
                },
                Err(future) => drop(future),
            })
        };
        let stopper = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(StopLevel::Now);
            })
        };
        home.drive(Stops::requested);
        home.close();
        spawner.join().unwrap();
        stopper.join().unwrap();
    });
}

/// Wakes and drops of wakers while home closes: nothing leaks, nothing is freed twice. Three threads, two preemptions.
#[test]
fn wake_ups_during_shutdown() {
    model(2, || {
        let (home, _inbox) = Home::new();
        let held = Arc::new(Mutex::new(None));
        let handle = {
            let held = held.clone();
            let future = poll_fn(move |cx| {
                *held.lock() = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            home.executor.spawn_local(future).ok().unwrap()
        };
        home.drive(|_| true);
        let waker: Waker = held.lock().take().unwrap();
        let other = waker.clone();
        let waking = thread::spawn(move || waker.wake());
        let aborting = thread::spawn(move || {
            other.wake_by_ref();
            handle.abort();
        });
        home.close();
        waking.join().unwrap();
        aborting.join().unwrap();
        held.lock().take();
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
