//! Somebody has filled the notify descriptor, an eventfd to its maximum or a socket to the brim: home is woken all the same,
//! stopped, and told of everything.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use evbase::base::EventBase;
use evbase::{Builder, Cause};

use crate::support::{alone, open_descriptors, tid_of, until, until_parked};

/// The end of a notify descriptor that is written to, among those made since `before` was asked.
fn written_end(before: &[RawFd]) -> RawFd {
    let is_it = |fd: &RawFd| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let link = link.to_str().unwrap();
        link.contains("eventfd") || link.starts_with("socket:")
    };
    let made = open_descriptors();
    let found = made.iter().filter(|fd| !before.contains(fd)).filter(|fd| is_it(fd));
    // Of two sockets, it is the second.
    *found.max().expect("a notify descriptor")
}

/// Writes until nothing more goes in; not for ever, if home is awake and empties a socket meanwhile.
fn fill(fd: RawFd) {
    let (most, mut count) = (u64::MAX - 1, 0_u64);
    // An eventfd takes none of these.
    let bytes = [0xff_u8; 4096];
    // SAFETY: the kernel reads or writes the locals during the calls; the descriptor is the runtime's, which lives.
    unsafe {
        // That end of a socket pair has nothing to read.
        libc::read(fd, (&raw mut count).cast(), 8);
        libc::write(fd, (&raw const most).cast(), 8);
        for len in [bytes.len(), 1] {
            let mut left = 100;
            while left > 0 && libc::write(fd, bytes.as_ptr().cast(), len) > 0 {
                left -= 1;
            }
        }
    }
}

#[test]
fn a_home_asleep_behind_a_full_descriptor_is_woken_and_stopped() {
    alone(|| {
        let before = open_descriptors();
        for round in 0..40 {
            let cause = [Cause::Requested, Cause::Dropped][round % 2];
            wake_and_stop(&before, cause);
            // A home thread's own handle may keep its notify fd for a moment.
            until(|| open_descriptors() == before);
        }
    });
}

fn wake_and_stop(before: &[RawFd], cause: Cause) {
    let runtime = Builder::new().start("home").unwrap();
    let notify = written_end(before);
    let tid = tid_of(&runtime);
    let fill_in_sleep = || {
        until_parked(tid);
        // That itself wakes home, which goes to sleep again.
        let turns = runtime.metrics().turns;
        fill(notify);
        until(|| runtime.metrics().turns > turns);
        until_parked(tid);
    };
    for n in 0..3 {
        fill_in_sleep();
        assert_eq!(runtime.spawner().spawn(async move { n }).wait().unwrap().unwrap(), n);
    }
    fill_in_sleep();
    let shutdown = runtime.shutdown_handle();
    match cause {
        Cause::Requested => shutdown.request(),
        _ => drop(runtime),
    }
    assert_eq!(shutdown.terminated().wait().unwrap().cause, cause);
}

#[test]
fn wake_ups_get_through_to_a_descriptor_that_somebody_fills_all_the_time() {
    alone(|| {
        let before = open_descriptors();
        let runtime = Builder::new().start("home").unwrap();
        let notify = written_end(&before);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    fill(notify);
                }
            });
            for n in 0..500 {
                assert_eq!(runtime.spawner().spawn(async move { n }).wait().unwrap().unwrap(), n);
            }
            over.store(true, SeqCst);
        });
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 0);
    });
}

#[test]
fn a_notifier_of_a_base_wakes_through_a_full_descriptor_from_many_threads() {
    alone(|| {
        let before = open_descriptors();
        let mut base = EventBase::<()>::new().unwrap();
        let notify = written_end(&before);
        for _ in 0..50 {
            fill(notify);
            assert!(base.turn(None, |_| {}).unwrap().notified);
            let notifiers: Vec<_> = (0..4)
                .map(|_| {
                    let notifier = base.notifier();
                    thread::spawn(move || notifier.notify().unwrap())
                })
                .collect();
            // Only these can end it.
            assert!(base.turn(None, |_| {}).unwrap().notified);
            notifiers.into_iter().for_each(|thread| thread.join().unwrap());
        }
    });
}
