//! loom models of a message that is sent again and again: see `models.rs` for how to run them.

use std::sync::atomic::Ordering::Relaxed;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::models::{Home, model};
use super::{Coalescing, Inbox, RunAtHome};

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

/// A timer that is not armed, and where home will note it.
fn timer() -> (Arc<Coalescing<Deadline>>, Arc<Armed>) {
    let armed = Arc::new(Armed {
        deadline: AtomicUsize::new(0),
        deliveries: AtomicUsize::new(0),
    });
    let timer = Coalescing::new(Deadline {
        wanted: AtomicUsize::new(0),
        armed: armed.clone(),
    });
    (timer, armed)
}

fn reset(timer: &Arc<Coalescing<Deadline>>, inbox: &Inbox, deadline: usize) {
    timer.content().wanted.store(deadline, Relaxed);
    Coalescing::post(timer, inbox);
}

/// Several resets ∥ deliveries, and the drop: the last one is what counts. Two threads, four preemptions.
#[test]
fn the_last_reset_arrives() {
    model(4, || {
        let (home, inbox) = Home::new();
        let (timer, armed) = timer();
        let abroad = thread::spawn(move || {
            (1..=3).for_each(|deadline| reset(&timer, &inbox, deadline));
            drop(timer);
        });
        home.drive(|_| armed.deadline.load(Relaxed) == 3);
        abroad.join().unwrap();
        assert!((1..=3).contains(&armed.deliveries.load(Relaxed)));
        home.close();
    });
}

/// Two senders ∥ delivery: what each of them did is seen, though one may send nothing. Three threads, two preemptions.
#[test]
fn two_who_send_at_once_are_both_seen() {
    model(2, || {
        let (home, inbox) = Home::new();
        let (timer, armed) = timer();
        let senders = [(), ()].map(|()| {
            let (timer, inbox) = (timer.clone(), inbox.clone());
            thread::spawn(move || {
                timer.content().wanted.fetch_add(1, Relaxed);
                Coalescing::post(&timer, &inbox);
            })
        });
        drop(timer);
        home.drive(|_| armed.deadline.load(Relaxed) == 2);
        for sender in senders {
            sender.join().unwrap();
        }
        home.close();
    });
}

/// Resets ∥ close: each message is delivered or refused, and none is leaked. Two threads, five preemptions.
#[test]
fn a_reset_that_meets_the_end_is_freed() {
    model(5, || {
        let (home, inbox) = Home::new();
        let (timer, _) = timer();
        let abroad = thread::spawn(move || {
            (1..=2).for_each(|deadline| reset(&timer, &inbox, deadline));
            drop(timer);
        });
        home.close();
        abroad.join().unwrap();
    });
}
