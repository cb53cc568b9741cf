//! loom models of what crosses threads in a runtime's life. See `executor::models` for how they are run.
//!
//! The code under test is the product's: termination, binding, bells, and the inbox. What isn't under test is who sleeps, since
//! threads in the product sleep in the kernel, and keep their bell in one of `std`'s thread-locals. `listen` paraphrases that: what
//! `wait::block_on` and `Bell::wait` do, and `Home::pass` and `Home::sleep` for the bell, in their order. A `loom::sync::Notify`
//! stands for the descriptor that ends the sleep.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Notify};
use loom::thread;

use super::bell::{Bell, Bells, EndSleep};
use super::binding::{Binding, Claim};
use super::once::{Once, Waiter};
use crate::executor::{Executor, Inbox, StopLevel, Stops, Unpark};

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

struct Wait(Arc<Once<u32>>, Waiter);

impl Future for Wait {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        let Self(once, waiter) = &mut *self;
        match once.poll(waiter, cx.waker(), false) {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.leave(&mut self.1);
    }
}

/// Termination: close ∥ two who wait ∥ one who polls and goes. Four threads, two preemptions.
#[test]
fn everyone_who_waits_for_the_end_is_told() {
    model(2, || {
        let once = Arc::new(Once::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let wait = Wait(once.clone(), Waiter::default());
                thread::spawn(move || assert_eq!(loom::future::block_on(wait), 7))
            })
            .collect();
        let leaver = {
            let mut wait = Wait(once.clone(), Waiter::default());
            thread::spawn(move || {
                let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Pending | Poll::Ready(7)));
            })
        };
        once.set(7);
        for thread in waiters {
            thread.join().unwrap();
        }
        leaver.join().unwrap();
        assert_eq!(once.get(), Some(7));
    });
}

/// Unbound: two threads that drive or drop ∥ one that asks who is home. Three threads, four preemptions.
#[test]
fn one_thread_becomes_home_and_gets_the_base() {
    model(4, || {
        let base = Arc::new(AtomicUsize::new(0));
        let binding = Arc::new(Binding::new(base.clone()));
        let threads: Vec<_> = [1, 2]
            .into_iter()
            .map(|me| {
                let binding = binding.clone();
                thread::spawn(move || match binding.claim(me) {
                    Claim::Won(base) => {
                        base.fetch_add(1, Relaxed);
                        assert!(binding.is_home(me));
                        assert!(matches!(binding.claim(me), Claim::Lost));
                        true
                    }
                    Claim::Lost => {
                        assert!(binding.is_bound() && !binding.is_home(me));
                        false
                    }
                })
            })
            .collect();
        // Abroad, before or after.
        assert!(!binding.is_home(3));
        let won = threads.into_iter().map(|t| t.join().unwrap());
        assert_eq!(won.filter(|&won| won).count(), 1);
        assert_eq!(base.load(Relaxed), 1);
        assert!(binding.home().is_some());
    });
}

/// A notify descriptor: a write is not lost, and ends one wait.
impl EndSleep for Notify {
    fn end_sleep(&self) -> bool {
        self.notify();
        true
    }
}

type Owner = std::sync::Arc<dyn std::any::Any + Send + Sync>;

/// A home outside of its loop: nothing but its bell reaches it.
struct Outside(Arc<Bells<Notify>>);

impl Unpark for Outside {
    fn unpark(&self) -> bool {
        panic!("nobody is parked");
    }

    fn stopped(&self) -> bool {
        self.0.ring()
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// A runtime whose home is elsewhere, as far as its stops go.
fn outside() -> (Arc<Inbox>, Arc<Bells<Notify>>) {
    let bells = Arc::new(Bells::new());
    (Arc::new(Inbox::new(Box::new(Outside(bells.clone())), false)), bells)
}

/// Another thread asks for a stop.
fn stop_abroad(inbox: &Arc<Inbox>) -> thread::JoinHandle<()> {
    let inbox = inbox.clone();
    thread::spawn(move || {
        inbox.stop(StopLevel::Request);
    })
}

/// What ends the sleep of the bell's thread.
fn notifier(bell: &Bell<Notify>) -> &Notify {
    let Ok(notifier) = bell.notifier_or(|| Ok::<_, Infallible>(Notify::new()));
    notifier
}

/// A thread that waits: it sleeps, and looks at the stops when its bell has rung, until `done` says so.
fn listen(bell: &Bell<Notify>, inbox: &Inbox, mut done: impl FnMut(Stops) -> bool) {
    let notifier = notifier(bell);
    loop {
        if bell.answer() && done(inbox.stops()) {
            return;
        }
        if bell.fall_asleep() {
            notifier.wait();
            bell.wake_up();
        }
    }
}

/// Bell: a home that is outside of its loop, from its binding on ∥ two stops. Three threads, three preemptions.
#[test]
fn a_home_outside_its_loop_hears_each_stop() {
    model(3, || {
        let (inbox, bells) = outside();
        let bell = Arc::new(Bell::new());
        let stops = [StopLevel::Request, StopLevel::Now].map(|level| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                inbox.stop(level);
            })
        });
        bells.ring_home_on_stop(&bell, &inbox);
        listen(&bell, &inbox, Stops::now);
        for stop in stops {
            stop.join().unwrap();
        }
    });
}

/// Bell: a thread that waits for the end of a runtime without a home ∥ one that becomes its home, and waits for something else ∥ a
/// stop. Home hears it, whoever else does. Three threads, three preemptions.
#[test]
fn a_home_hears_a_stop_although_another_thread_has_waited_for_the_end_before() {
    model(3, || {
        let (inbox, bells) = outside();
        let (closed, waiter) = (Arc::new(AtomicUsize::new(0)), Arc::new(Bell::new()));
        bells.ring_on_stop(&waiter, &inbox);
        let home = {
            let (inbox, bells, closed, waiter) = (inbox.clone(), bells.clone(), closed.clone(), waiter.clone());
            thread::spawn(move || {
                let bell = Arc::new(Bell::new());
                bells.ring_home_on_stop(&bell, &inbox);
                listen(&bell, &inbox, Stops::requested);
                // The other one is told by the waker that it waits with.
                closed.store(1, Relaxed);
                waiter.ring();
            })
        };
        let stop = stop_abroad(&inbox);
        listen(&waiter, &inbox, |_| closed.load(Relaxed) == 1);
        home.join().unwrap();
        stop.join().unwrap();
    });
}

/// A home that may be embedded in a host, as `HomeWaker` in `shared.rs` wakes it.
struct InAHost {
    bells: Arc<Bells<Notify>>,
    descriptor: Arc<Notify>,
}

impl Unpark for InAHost {
    fn unpark(&self) -> bool {
        self.descriptor.end_sleep()
    }

    fn stopped(&self) -> bool {
        self.bells.ring()
    }

    fn owner(&self) -> Option<Owner> {
        None
    }
}

/// A home, and what wakes it: its executor, its bell, and the descriptor that it sleeps on in its own loop.
struct Guest {
    inbox: Arc<Inbox>,
    bells: Arc<Bells<Notify>>,
    bell: Arc<Bell<Notify>>,
    descriptor: Arc<Notify>,
    executor: Executor,
}

impl Guest {
    fn new() -> Self {
        let (bells, descriptor) = (Arc::new(Bells::new()), Arc::new(Notify::new()));
        let in_a_host = InAHost {
            bells: bells.clone(),
            descriptor: descriptor.clone(),
        };
        let inbox = Arc::new(Inbox::new(Box::new(in_a_host), false));
        let bell = Arc::new(Bell::new());
        bells.ring_home_on_stop(&bell, &inbox);
        Self {
            executor: Executor::new(inbox.clone(), None),
            inbox,
            bells,
            bell,
            descriptor,
        }
    }

    /// Its one host lets go of it, on another thread.
    fn unembed_abroad(&self) -> thread::JoinHandle<()> {
        let (bells, inbox) = (self.bells.clone(), self.inbox.clone());
        thread::spawn(move || bells.unembed(&inbox))
    }

    /// A wait for something else, which closes this home as soon as `due`: it looks first, as `wait::for_termination` does.
    fn wait_elsewhere(&self, due: impl Fn(&Self, Stops) -> bool) {
        if !due(self, self.inbox.stops()) {
            listen(&self.bell, &self.inbox, |stops| due(self, stops));
        }
    }

    fn close(self) {
        self.executor.begin_close();
        self.executor.seal(|| true);
    }
}

/// Bell: an embedded home that has parked, and then waits on its thread for something else ∥ a stop. It hears it by its bell. Two
/// threads, five preemptions.
#[test]
fn an_embedded_home_that_waits_elsewhere_hears_a_stop() {
    model(5, || {
        let guest = Guest::new();
        let stop = stop_abroad(&guest.inbox);
        guest.bells.embed();
        guest.executor.settle(Stops::default(), false);
        guest.wait_elsewhere(|_, stops| stops.requested());
        stop.join().unwrap();
        guest.close();
    });
}

/// Bell: a home that has parked as a guest, and waits on its thread for something else, which leaves a stop to the host ∥ a stop ∥
/// the host lets go. Whichever comes first, home hears that it has to close. Three threads, three preemptions.
#[test]
fn a_home_that_was_left_to_a_host_hears_that_there_is_none() {
    model(3, || {
        let guest = Guest::new();
        guest.bells.embed();
        guest.executor.settle(Stops::default(), false);
        let abroad = [stop_abroad(&guest.inbox), guest.unembed_abroad()];
        // As `context::sweep`.
        guest.wait_elsewhere(|guest, stops| stops.requested() && !guest.bells.is_embedded());
        for thread in abroad {
            thread.join().unwrap();
        }
        guest.close();
    });
}

/// Bell: a home that sleeps in its own loop, and listens to its bell at first, then no more, as there is nobody else to hear of ∥ a
/// ring for another runtime ∥ a stop. It is woken by the bell, or by the descriptor. Three threads, three preemptions.
#[test]
fn a_home_in_its_own_loop_is_woken_by_a_stop_whether_it_listens_or_not() {
    model(3, || {
        let guest = Guest::new();
        let notifier = notifier(&guest.bell);
        let stop = stop_abroad(&guest.inbox);
        // Another runtime of the thread wakes it, and is gone then.
        let other = {
            let bell = guest.bell.clone();
            thread::spawn(move || {
                bell.ring();
            })
        };
        if guest.bell.fall_asleep() {
            notifier.wait();
            guest.bell.wake_up();
        }
        loop {
            let seen = guest.executor.receive(8);
            if seen.requested() {
                break;
            }
            if guest.executor.park(seen) {
                guest.descriptor.wait();
            }
        }
        for thread in [stop, other] {
            thread.join().unwrap();
        }
        guest.close();
    });
}

/// Bell: a thread that waits for the end of a runtime without a home ∥ one that was going to wait, too, but asks for a stop and
/// goes. Two threads, five preemptions.
#[test]
fn a_bell_that_nobody_answers_keeps_no_other_from_being_rung() {
    model(5, || {
        let (inbox, bells) = outside();
        let leaver = {
            let (inbox, bells) = (inbox.clone(), bells.clone());
            thread::spawn(move || {
                bells.ring_on_stop(&Arc::new(Bell::new()), &inbox);
                inbox.stop(StopLevel::Request);
            })
        };
        let bell = Arc::new(Bell::new());
        bells.ring_on_stop(&bell, &inbox);
        listen(&bell, &inbox, Stops::requested);
        leaver.join().unwrap();
    });
}

/// Bell: a thread that waits for the end of a runtime without a home ∥ one that has waited before, and goes ∥ a stop. The bell of
/// the first comes into the place of the other's, or not; it hears the stop. Three threads, three preemptions.
#[test]
fn a_bell_in_the_place_of_one_that_goes_hears_a_stop() {
    model(3, || {
        let (inbox, bells) = outside();
        let before = Arc::new(Bell::new());
        bells.ring_on_stop(&before, &inbox);
        let goes = thread::spawn(move || before.go());
        let stop = stop_abroad(&inbox);
        let bell = Arc::new(Bell::new());
        bells.ring_on_stop(&bell, &inbox);
        listen(&bell, &inbox, Stops::requested);
        goes.join().unwrap();
        stop.join().unwrap();
    });
}

/// Bell: a thread that waits for the end of a runtime without a home ∥ one that has waited for longer, is woken by something else, and
/// goes, as `Driving::drop` and `context::pass_rings_on` have it ∥ a stop. The first hears it. Three threads, three preemptions.
#[test]
fn a_thread_that_goes_passes_a_ring_on() {
    model(3, || {
        let (inbox, bells) = outside();
        let goes = Arc::new(Bell::new());
        notifier(&goes);
        bells.ring_on_stop(&goes, &inbox);
        let leaver = {
            let (bells, bell) = (bells.clone(), goes.clone());
            thread::spawn(move || {
                if bell.fall_asleep() {
                    notifier(&bell).wait();
                    bell.wake_up();
                }
                if bell.has_rung() {
                    bells.ring();
                }
            })
        };
        let stop = {
            let (inbox, goes) = (inbox.clone(), goes.clone());
            thread::spawn(move || {
                notifier(&goes).notify();
                inbox.stop(StopLevel::Request);
            })
        };
        let bell = Arc::new(Bell::new());
        bells.ring_on_stop(&bell, &inbox);
        listen(&bell, &inbox, Stops::requested);
        leaver.join().unwrap();
        stop.join().unwrap();
    });
}

/// Bell: two threads that wait for the end of a runtime without a home ∥ a stop. One of them at least closes it. Three threads,
/// three preemptions.
#[test]
fn the_stop_of_a_runtime_without_a_home_is_heard_by_who_waits_for_it() {
    a_stop_is_heard_by_one_of_two(false);
}

/// Bell: as before, and there is the place of a bell that has gone, which one of the two gets. Three threads, three preemptions.
#[test]
fn the_place_of_a_bell_that_has_gone_is_for_one() {
    a_stop_is_heard_by_one_of_two(true);
}

fn a_stop_is_heard_by_one_of_two(after_another: bool) {
    model(3, move || {
        let (inbox, bells) = outside();
        if after_another {
            let gone = Arc::new(Bell::new());
            bells.ring_on_stop(&gone, &inbox);
            gone.go();
        }
        let closed = Arc::new(AtomicUsize::new(0));
        let both: Vec<_> = (0..2).map(|_| Arc::new(Bell::new())).collect();
        let waiters: Vec<_> = (0..2)
            .map(|me: usize| {
                let (inbox, bells, closed, both) = (inbox.clone(), bells.clone(), closed.clone(), both.clone());
                thread::spawn(move || {
                    bells.ring_on_stop(&both[me], &inbox);
                    listen(&both[me], &inbox, |stops| {
                        if stops.requested() && closed.fetch_add(1, Relaxed) == 0 {
                            // The other one is told by the waker that it waits with.
                            both[1 - me].ring();
                        }
                        closed.load(Relaxed) > 0
                    });
                })
            })
            .collect();
        inbox.stop(StopLevel::Request);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}
