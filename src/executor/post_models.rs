//! loom models of a message that is sent again and again: see `models.rs` for how to run them.

use std::sync::atomic::Ordering::Relaxed;

use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::{Coalescing, Executor, Inbox, RunAtHome, Unpark};

struct Bell(Arc<Notify>);

impl Unpark for Bell {
    fn unpark(&self) -> bool {
        self.0.notify();
        true
    }

    fn stopped(&self) {}

    fn owner(&self) -> Option<std::sync::Arc<dyn std::any::Any + Send + Sync>> {
        None
    }
}

/// A deadline that is set abroad, and what home has made of it. loom says so if it is leaked.
struct Deadline {
    wanted: AtomicUsize,
    armed: Arc<Armed>,
}

struct Armed {
    deadline: AtomicUsize,
    deliveries: AtomicUsize,
}

impl RunAtHome for Deadline {
    fn run_at_home(&self) {
        self.armed.deadline.store(self.wanted.load(Relaxed), Relaxed);
        self.armed.deliveries.fetch_add(1, Relaxed);
    }
}

struct Home {
    executor: Executor,
    inbox: Arc<Inbox>,
    bell: Arc<Notify>,
    armed: Arc<Armed>,
}

impl Home {
    fn new() -> Self {
        let bell = Arc::new(Notify::new());
        let inbox = Arc::new(Inbox::new(Box::new(Bell(bell.clone()))));
        Self {
            executor: Executor::new(inbox.clone()),
            inbox,
            bell,
            armed: Arc::new(Armed {
                deadline: AtomicUsize::new(0),
                deliveries: AtomicUsize::new(0),
            }),
        }
    }

    fn timer(&self) -> Arc<Coalescing<Deadline>> {
        Coalescing::new(Deadline {
            wanted: AtomicUsize::new(0),
            armed: self.armed.clone(),
        })
    }

    /// Sleeps whenever the gate lets it, until the deadline has come: one that is lost is a deadlock.
    fn drive_until(&self, deadline: usize) {
        loop {
            let seen = self.executor.receive(8);
            if self.armed.deadline.load(Relaxed) == deadline {
                return;
            }
            if !self.executor.has_work() && self.executor.park(seen) {
                self.bell.wait();
            }
        }
    }

    fn close(self) {
        self.executor.begin_close();
        self.executor.cancel_all(|| true);
        self.executor.seal(|| true);
    }
}

fn reset(timer: &Arc<Coalescing<Deadline>>, inbox: &Inbox, deadline: usize) {
    timer.content().wanted.store(deadline, Relaxed);
    Coalescing::post(timer, inbox);
}

/// Two threads. The last of several resets is what counts, however they meet with deliveries; and the drop.
#[test]
fn the_last_reset_arrives() {
    loom::model(|| {
        let home = Home::new();
        let (timer, inbox) = (home.timer(), home.inbox.clone());
        let abroad = thread::spawn(move || {
            (1..=3).for_each(|deadline| reset(&timer, &inbox, deadline));
            drop(timer);
        });
        home.drive_until(3);
        abroad.join().unwrap();
        assert!((1..=3).contains(&home.armed.deliveries.load(Relaxed)));
        home.close();
    });
}

/// Three threads. What each of two senders did is seen, though one of them may send nothing.
#[test]
fn two_who_send_at_once_are_both_seen() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let home = Home::new();
        let timer = home.timer();
        let senders = [(), ()].map(|()| {
            let (timer, inbox) = (timer.clone(), home.inbox.clone());
            thread::spawn(move || {
                timer.content().wanted.fetch_add(1, Relaxed);
                Coalescing::post(&timer, &inbox);
            })
        });
        drop(timer);
        home.drive_until(2);
        for sender in senders {
            sender.join().unwrap();
        }
        home.close();
    });
}

/// Two threads. Home closes meanwhile: each message is delivered or refused, and none is leaked.
#[test]
fn a_reset_that_meets_the_end_is_freed() {
    loom::model(|| {
        let home = Home::new();
        let (timer, inbox) = (home.timer(), home.inbox.clone());
        let abroad = thread::spawn(move || {
            (1..=2).for_each(|deadline| reset(&timer, &inbox, deadline));
            drop(timer);
        });
        home.close();
        abroad.join().unwrap();
    });
}
