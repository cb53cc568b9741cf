//! A notification ends the wait, from wherever it comes, and is never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evbase::base::EventBase;

use crate::support::{AT_ONCE, watchdog};

#[test]
fn notify_wakes_a_parked_turn_from_another_thread() {
    let _watchdog = watchdog();
    let mut base = EventBase::<()>::new().unwrap();
    let notifier = base.notifier();
    let round = Arc::new(AtomicUsize::new(0));
    let abroad = thread::spawn({
        let round = round.clone();
        move || {
            for expected in 0..2000 {
                while round.load(Ordering::Acquire) != expected {
                    thread::yield_now();
                }
                notifier.notify().unwrap();
            }
        }
    });
    for done in 1..=2000 {
        while !base.turn(None, |_| {}).unwrap().notified {}
        round.store(done, Ordering::Release);
    }
    abroad.join().unwrap();
}

#[test]
fn notify_before_the_turn_is_not_lost() {
    let _watchdog = watchdog();
    let mut base = EventBase::<()>::new().unwrap();
    base.notifier().notify().unwrap();
    assert!(base.turn(None, |_| {}).unwrap().notified);
    assert!(!base.turn(AT_ONCE, |_| {}).unwrap().notified);
}

#[test]
fn what_was_published_before_notify_is_seen_by_many_notifiers_base() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let mut base = EventBase::<()>::new().unwrap();
        let published = Arc::new(AtomicUsize::new(0));
        let abroad: Vec<_> = (0..4)
            .map(|_| {
                let (notifier, published) = (base.notifier(), published.clone());
                thread::spawn(move || {
                    for _ in 0..25 {
                        published.fetch_add(1, Ordering::Release);
                        notifier.notify().unwrap();
                    }
                })
            })
            .collect();
        // Without a timeout: one lost notification, and this hangs.
        while published.load(Ordering::Acquire) < 100 {
            base.turn(None, |_| {}).unwrap();
        }
        abroad.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_notifier_that_outlives_its_base_does_nothing() {
    let base = EventBase::<()>::new().unwrap();
    let (notifier, other) = (base.notifier(), base.notifier());
    drop(base);
    thread::spawn(move || notifier.notify().unwrap()).join().unwrap();
    other.notify().unwrap();
}

#[test]
fn very_many_notifications_fill_nothing_up() {
    let _watchdog = watchdog();
    let mut base = EventBase::<()>::new().unwrap();
    let notifier = base.notifier();
    // More than a socket holds.
    for _ in 0..100_000 {
        notifier.notify().unwrap();
    }
    assert!(base.turn(None, |_| {}).unwrap().notified);
    assert!(!base.turn(AT_ONCE, |_| {}).unwrap().notified);
    notifier.notify().unwrap();
    assert!(base.turn(Some(Duration::from_secs(20)), |_| {}).unwrap().notified);
}
