//! A timer fires once, in order, never early, and after no more waits than it needs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired};

use crate::support::{AT_ONCE, watchdog};

type Timers<T> = EventBase<(), T>;

/// The payloads of the timers that fire in one turn.
fn fired<T>(base: &mut Timers<T>, timeout: Option<Duration>) -> Vec<T> {
    let mut payloads = Vec::new();
    base.turn(timeout, |fired| {
        if let Fired::Timer { payload, .. } = fired {
            payloads.push(payload);
        }
    })
    .unwrap();
    payloads
}

#[test]
fn a_timer_never_fires_early() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let start = Instant::now();
    // Spread over 40 ms by a step that hits no round number.
    for n in 0..2000_u64 {
        let deadline = start + Duration::from_nanos(n * 7_654_321 % 40_000_000);
        base.arm(deadline, deadline);
    }
    let mut last = start;
    let mut count = 0;
    while base.timers() > 0 {
        for deadline in fired(&mut base, None) {
            assert!(Instant::now() >= deadline);
            assert!(deadline >= last, "in the order of deadlines, over turns as well");
            last = deadline;
            count += 1;
        }
    }
    assert_eq!(count, 2000);
}

#[test]
fn timers_fire_in_the_order_of_deadlines_and_equal_ones_as_armed() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let now = Instant::now();
    let at = |micros| now + Duration::from_micros(micros);
    for (payload, micros) in [(4, 900), (0, 0), (2, 500), (3, 500), (1, 1), (5, 900)] {
        base.arm(at(micros), payload);
    }
    let mut all = Vec::new();
    while base.timers() > 0 {
        all.extend(fired(&mut base, None));
    }
    assert_eq!(all, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_far_timer_makes_one_wait_only() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    for millis in [1, 7, 300] {
        let deadline = Instant::now() + Duration::from_millis(millis);
        base.arm(deadline, millis);
        assert_eq!(base.next_deadline(), Some(deadline));
        assert_eq!(fired(&mut base, None), [millis]);
        assert!(Instant::now() >= deadline);
    }
}

#[test]
fn a_deadline_in_the_past_fires_in_the_next_turn() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let now = Instant::now();
    base.arm(now, "now");
    if let Some(past) = now.checked_sub(Duration::from_secs(60)) {
        base.arm(past, "before the base was made");
    }
    let all = fired(&mut base, None);
    assert_eq!(all.last(), Some(&"now"));
    assert_eq!((base.timers(), base.next_deadline()), (0, None));
}

#[test]
fn a_timeout_shorter_than_the_timer_wins() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(3600);
    base.arm(deadline, ());
    let start = Instant::now();
    assert_eq!(fired(&mut base, Some(Duration::from_millis(3))), []);
    assert!(start.elapsed() >= Duration::from_millis(3));
    assert_eq!(fired(&mut base, AT_ONCE), []);
    assert_eq!((base.timers(), base.next_deadline()), (1, Some(deadline)));
}

#[test]
fn reset_moves_a_timer_both_ways() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let hour = Instant::now() + Duration::from_secs(3600);
    let one = base.arm(hour, "one");
    let other = base.arm(Instant::now(), "other");
    assert!(base.reset(other, hour));
    assert_eq!((fired(&mut base, AT_ONCE), base.next_deadline()), (vec![], Some(hour)));
    let soon = Instant::now() + Duration::from_millis(2);
    assert!(base.reset(one, soon));
    assert_eq!(base.next_deadline(), Some(soon));
    assert_eq!(fired(&mut base, None), ["one"]);
    assert!(Instant::now() >= soon);
    assert!(!base.reset(one, soon), "it has fired");
    assert_eq!(base.timer(other), Some(&"other"));
}

#[test]
fn a_disarmed_timer_gives_its_payload_back_and_does_not_fire() {
    let _watchdog = watchdog();
    let mut base = Timers::new().unwrap();
    let soon = Instant::now() + Duration::from_millis(1);
    let first = base.arm(soon, "first".to_owned());
    let second = base.arm(soon + Duration::from_millis(1), "second".to_owned());
    base.timer_mut(second).unwrap().push('!');
    assert_eq!(base.disarm(first).as_deref(), Some("first"));
    assert_eq!((base.disarm(first), base.timer(first), base.timers()), (None, None, 1));
    assert_eq!(fired(&mut base, None), ["second!"]);
    assert_eq!((base.disarm(second), base.timer_mut(second)), (None, None));
}

#[test]
fn the_key_of_a_timer_is_handed_out_with_it() {
    let mut base = Timers::new().unwrap();
    let key = base.arm(Instant::now(), ());
    let mut keys = Vec::new();
    let turned = base.turn(None, |fired| {
        if let Fired::Timer { key, .. } = fired {
            keys.push(key);
        }
    });
    assert_eq!((turned.unwrap().timers, keys), (1, vec![key]));
}

/// Lets a handler panic at the first timer that it is given; gives what it was given.
fn fired_by_a_turn_that_panics(base: &mut Timers<&'static str>) -> &'static str {
    let mut first = "";
    let turn = AssertUnwindSafe(|| {
        base.turn(AT_ONCE, |event| {
            if let Fired::Timer { payload, .. } = event {
                first = payload;
                resume_unwind(Box::new("on purpose"));
            }
        })
    });
    assert!(catch_unwind(turn).is_err());
    first
}

#[test]
fn timers_that_a_panic_has_left_behind_come_before_younger_ones_with_the_same_deadline() {
    let mut base = Timers::new().unwrap();
    // To the base, all that was before it is one time.
    let past = Instant::now() - Duration::from_secs(1);
    for payload in ["a", "b", "c"] {
        base.arm(past, payload);
    }
    assert_eq!(fired_by_a_turn_that_panics(&mut base), "a");
    for payload in ["d", "e", "f"] {
        base.arm(past, payload);
    }
    assert_eq!(fired(&mut base, AT_ONCE), ["b", "c", "d", "e", "f"]);
}

#[test]
fn a_timer_that_a_panic_has_left_behind_and_that_is_reset_takes_its_new_place() {
    let mut base = Timers::new().unwrap();
    let (first, second) = (Instant::now(), Instant::now() + Duration::from_nanos(1));
    base.arm(first, "a");
    let moved = base.arm(first, "b");
    base.arm(first, "c");
    while Instant::now() <= second {}
    assert_eq!(fired_by_a_turn_that_panics(&mut base), "a");
    assert!(base.reset(moved, second));
    assert_eq!(fired(&mut base, AT_ONCE), ["c", "b"]);
}
