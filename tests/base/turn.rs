//! A turn waits as long as it should, and hands out everything exactly once.

use std::io::Write;
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired, Interest, Mode};

use crate::support::{AT_ONCE, pair, watchdog};

/// One turn whose handler panics after `before` more things were handed to it. What was handed out is in `seen`.
fn turn_that_panics(base: &mut EventBase<usize>, before: usize, seen: &mut Vec<usize>) {
    let mut left = before;
    let result = catch_unwind(AssertUnwindSafe(|| {
        base.turn(AT_ONCE, |fired| {
            seen.push(match fired {
                Fired::Source { payload, .. } => *payload,
                Fired::Timer { payload, .. } => payload,
                _ => unreachable!(),
            });
            if left == 0 {
                std::panic::resume_unwind(Box::new("from the handler"));
            }
            left -= 1;
        })
    }));
    assert!(result.is_err());
}

#[test]
fn a_handler_that_panics_loses_nothing() {
    let mut base = EventBase::<usize>::new().unwrap();
    let pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    for (n, (ours, theirs)) in pairs.iter().enumerate() {
        base.register(ours, Interest::READABLE, Mode::Edge, n).unwrap();
        (&*theirs).write_all(b"hello").unwrap();
    }
    let now = Instant::now();
    for n in 4..8 {
        base.arm(now - Duration::from_secs(8 - n as u64), n);
    }
    base.notifier().notify().unwrap();

    let mut seen = Vec::new();
    for before in [0, 1, 2, 0] {
        turn_that_panics(&mut base, before, &mut seen);
    }
    // The next turn doesn't wait, though nothing new will come.
    let _watchdog = watchdog();
    let turned = base
        .turn(None, |fired| {
            if let Fired::Timer { payload, .. } = fired {
                seen.push(payload);
            }
        })
        .unwrap();
    assert_eq!((turned.events, turned.timers, turned.notified), (0, 1, true));
    assert_eq!(seen[4..], [4, 5, 6, 7], "sources come first, then timers in order");
    seen.sort();
    assert!(seen.into_iter().eq(0..8));
    let turned = base.turn(AT_ONCE, |_| {}).unwrap();
    assert_eq!((turned.events, turned.timers, turned.notified), (0, 0, false));
}

#[test]
fn what_was_not_handed_out_can_be_taken_back() {
    let mut base = EventBase::<usize>::new().unwrap();
    let pairs = [pair(), pair()];
    let mut keys = Vec::new();
    for (n, (ours, theirs)) in pairs.iter().enumerate() {
        keys.push(base.register(ours, Interest::READABLE, Mode::Level, n).unwrap());
        (&*theirs).write_all(b"hello").unwrap();
    }
    let timer = base.arm(Instant::now(), 2);
    let mut seen = Vec::new();
    turn_that_panics(&mut base, 0, &mut seen);
    // An event that the kernel has reported is ignored if its source has gone, and so is its number's next tenant.
    let gone = 1 - seen[0];
    assert_eq!(base.deregister(keys[gone]), Some(gone));
    base.register(&pairs[gone].0, Interest::WRITABLE, Mode::Edge, 9)
        .unwrap();
    assert_eq!(base.disarm(timer), Some(2));
    let turned = base.turn(AT_ONCE, |_| panic!("nothing is left")).unwrap();
    assert_eq!((turned.events, turned.timers), (0, 0));
}

#[test]
fn sources_come_before_timers() {
    let mut base = EventBase::<&str>::new().unwrap();
    let (ours, mut theirs) = pair();
    base.arm(Instant::now(), "timer");
    base.register(&ours, Interest::READABLE, Mode::Level, "source").unwrap();
    theirs.write_all(b"hello").unwrap();
    let mut seen = Vec::new();
    base.turn(None, |fired| match fired {
        Fired::Source { payload, .. } => seen.push(*payload),
        Fired::Timer { payload, .. } => seen.push(payload),
        _ => unreachable!(),
    })
    .unwrap();
    assert_eq!(seen, ["source", "timer"]);
}

#[test]
fn a_turn_waits_for_its_timeout_and_not_less() {
    let _watchdog = watchdog();
    let mut base = EventBase::<()>::new().unwrap();
    for micros in [1, 50, 999, 1000, 1001, 20_000] {
        let timeout = Duration::from_micros(micros);
        let start = Instant::now();
        let turned = base.turn(Some(timeout), |_| {}).unwrap();
        assert!(start.elapsed() >= timeout);
        assert_eq!((turned.events, turned.timers, turned.notified), (0, 0, false));
    }
}

#[test]
fn the_longest_timeouts_and_deadlines_are_taken() {
    let _watchdog = watchdog();
    let mut base = EventBase::<()>::new().unwrap();
    let notifier = base.notifier();
    let century = Duration::from_secs(100 * 365 * 86_400);
    let longest = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        century,
        10 * century,
        Duration::from_secs(1 << 40),
    ];
    for timeout in longest {
        notifier.notify().unwrap();
        assert!(base.turn(Some(timeout), |_| {}).unwrap().notified);
        if let Some(deadline) = Instant::now().checked_add(timeout) {
            base.arm(deadline, ());
            notifier.notify().unwrap();
            assert!(base.turn(None, |_| {}).unwrap().notified);
            assert!(base.next_deadline().is_none_or(|next| next > Instant::now()));
        }
    }
    // And they do wait.
    let timeout = thread::spawn(move || {
        let start = Instant::now();
        while !base.turn(Some(Duration::MAX), |_| {}).unwrap().notified {}
        start.elapsed()
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        thread::yield_now();
    }
    notifier.notify().unwrap();
    assert!(timeout.join().unwrap() < Duration::from_secs(20));
}

#[test]
fn a_signal_ends_a_wait_without_an_error() {
    crate::support::alone(|| {
        extern "C" fn nothing(_signal: libc::c_int) {}
        // SAFETY: the handler does nothing, and stays for the life of the process. No SA_RESTART.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        }
        let returned = Arc::new(AtomicBool::new(false));
        let home = thread::spawn({
            let returned = returned.clone();
            move || {
                let turned = EventBase::<()>::new().unwrap().turn(None, |_| {});
                returned.store(true, Ordering::Release);
                turned
            }
        });
        while !returned.load(Ordering::Acquire) {
            // SAFETY: the thread hasn't been joined, so its identifier is valid.
            unsafe { libc::pthread_kill(home.as_pthread_t(), libc::SIGUSR1) };
            thread::yield_now();
        }
        let turned = home.join().unwrap().unwrap();
        assert_eq!((turned.events, turned.timers, turned.notified), (0, 0, false));
    });
}

#[test]
fn a_base_can_move_to_another_thread_between_turns() {
    let _watchdog = watchdog();
    let mut base = EventBase::<u32>::new().unwrap();
    let (ours, mut theirs) = pair();
    base.register(&ours, Interest::READABLE, Mode::Level, 7).unwrap();
    theirs.write_all(b"hello").unwrap();
    let turned = thread::spawn(move || base.turn(None, |_| {}).unwrap()).join().unwrap();
    assert_eq!(turned.events, 1);
}
