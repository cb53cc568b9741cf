//! The base in somebody else's loop: its descriptor says when there is something to do.

use std::io::Write;
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired, Interest, Mode};

use crate::support::{AT_ONCE, alone, fork, limit_descriptors, readable_within, watchdog};

/// The timers that a turn hands out.
fn fired(base: &mut EventBase<u32>) -> Vec<u32> {
    let mut fired = Vec::new();
    base.turn(AT_ONCE, |event| match event {
        Fired::Timer { payload, .. } => fired.push(payload),
        Fired::Source { payload, .. } => fired.push(*payload),
        _ => unreachable!(),
    })
    .unwrap();
    fired
}

#[test]
fn the_descriptor_is_readable_at_the_next_deadline_and_not_before() {
    let _watchdog = watchdog();
    let mut base = EventBase::new().unwrap();
    base.set_alarm().unwrap();
    assert!(!readable_within(&base, Duration::from_millis(5)));
    let deadline = Instant::now() + Duration::from_millis(20);
    base.arm(deadline, 1);
    let far = base.arm(deadline + Duration::from_secs(3600), 2);
    base.set_alarm().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert!(Instant::now() >= deadline);
    assert_eq!(fired(&mut base), [1]);
    base.set_alarm().unwrap();
    assert!(!readable_within(&base, Duration::from_millis(5)));
    // Earlier again.
    assert!(base.reset(far, Instant::now()));
    base.set_alarm().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert_eq!(fired(&mut base), [2]);
    assert!(!readable_within(&base, Duration::from_millis(0)));
}

#[test]
fn an_alarm_whose_timer_is_gone_is_set_anew() {
    let _watchdog = watchdog();
    let mut base = EventBase::new().unwrap();
    let timer = base.arm(Instant::now() + Duration::from_millis(2), 1);
    base.set_alarm().unwrap();
    base.disarm(timer);
    base.set_alarm().unwrap();
    assert!(
        !readable_within(&base, Duration::from_millis(10)),
        "there is none any more"
    );
    base.arm(Instant::now() + Duration::from_millis(1), 2);
    base.set_alarm().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert_eq!(fired(&mut base), [2]);
}

#[test]
fn an_alarm_that_was_taken_too_early_goes_off_again() {
    let _watchdog = watchdog();
    let mut base = EventBase::new().unwrap();
    let timer = base.arm(Instant::now() + Duration::from_millis(2), 1);
    base.set_alarm().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    // The timer moves; the alarm has gone off for the old deadline, and nobody has looked.
    let deadline = Instant::now() + Duration::from_millis(20);
    assert!(base.reset(timer, deadline));
    assert_eq!(fired(&mut base), []);
    base.set_alarm().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert!(Instant::now() >= deadline);
    assert_eq!(fired(&mut base), [1]);
}

#[test]
fn sources_and_notifiers_make_it_readable_without_an_alarm() {
    let _watchdog = watchdog();
    let mut base = EventBase::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    base.register(&reader, Interest::READABLE, Mode::Edge, 7).unwrap();
    assert!(!readable_within(&base, Duration::from_millis(0)));
    writer.write_all(b"x").unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert_eq!(fired(&mut base), [7]);
    assert!(!readable_within(&base, Duration::from_millis(0)), "the edge was taken");
    base.notifier().notify().unwrap();
    assert!(readable_within(&base, Duration::from_millis(10_000)));
    assert_eq!(fired(&mut base), []);
    assert!(!readable_within(&base, Duration::from_millis(0)));
}

#[test]
fn a_base_is_a_source_of_another_base() {
    let _watchdog = watchdog();
    let mut outer = EventBase::<u32>::new().unwrap();
    let mut inner = EventBase::<u32>::new().unwrap();
    outer.register(&inner, Interest::READABLE, Mode::Level, 1).unwrap();
    inner.arm(Instant::now() + Duration::from_millis(3), 2);
    inner.set_alarm().unwrap();
    let mut events = 0;
    outer.turn(None, |_| events += 1).unwrap();
    assert_eq!(events, 1);
    assert_eq!(fired(&mut inner), [2]);
}

#[test]
fn without_descriptors_the_alarm_is_an_error_and_the_base_goes_on() {
    alone(|| {
        let mut base = EventBase::new().unwrap();
        limit_descriptors(64);
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        base.arm(Instant::now() + Duration::from_millis(1), 1);
        #[cfg(not(evbase_libkqueue))]
        assert_eq!(base.set_alarm().unwrap_err().raw_os_error(), Some(libc::EMFILE));
        files.pop();
        base.set_alarm().unwrap();
        assert!(readable_within(&base, Duration::from_millis(10_000)));
        assert_eq!(fired(&mut base), [1]);
    });
}

#[test]
fn in_the_child_of_a_fork_the_alarm_is_refused() {
    alone(|| {
        let mut base = EventBase::new().unwrap();
        base.arm(Instant::now() + Duration::from_millis(30), 1);
        base.set_alarm().unwrap();
        let code = fork(|| {
            base.arm(Instant::now(), 2);
            assert!(base.set_alarm().unwrap_err().to_string().contains("fork()"));
        });
        assert_eq!(code, 0);
        assert!(readable_within(&base, Duration::from_millis(10_000)));
        while fired(&mut base) != [1] {}
    });
}
