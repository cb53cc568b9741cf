//! A source is reported as its mode and its interest say.

use std::io::Write;
use std::net::Shutdown;
#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
use std::os::fd::AsRawFd;

use evbase::base::{EventBase, Interest, Mode};

use crate::support::{AT_ONCE, drain, pair, ready, sources};

#[test]
fn a_level_source_is_reported_until_it_is_drained() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    base.register(&ours, Interest::READABLE, Mode::Level, 'a').unwrap();
    assert!(ready(&mut base).is_empty());
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['a']);
    assert_eq!(ready(&mut base), ['a']);
    drain(&ours);
    assert!(ready(&mut base).is_empty());
}

#[test]
fn an_edge_source_is_reported_once_for_each_arrival() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    base.register(&ours, Interest::READABLE, Mode::Edge, 'a').unwrap();
    for _ in 0..3 {
        theirs.write_all(b"hello").unwrap();
        assert_eq!(ready(&mut base), ['a']);
        assert!(ready(&mut base).is_empty());
    }
}

#[test]
fn an_edge_source_that_is_ready_is_reported_again_after_reregister() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = base.register(&ours, Interest::READABLE, Mode::Edge, 'a').unwrap();
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['a']);
    base.reregister(key, Interest::READABLE, Mode::Edge).unwrap();
    assert_eq!(ready(&mut base), ['a']);
    assert!(ready(&mut base).is_empty());
}

#[test]
fn a_one_shot_source_is_reported_once_until_it_is_armed_again() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = base.register(&ours, Interest::READABLE, Mode::OneShot, 'a').unwrap();
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['a']);
    theirs.write_all(b"again").unwrap();
    assert!(ready(&mut base).is_empty());
    base.reregister(key, Interest::READABLE, Mode::OneShot).unwrap();
    assert_eq!(ready(&mut base), ['a']);
    assert!(ready(&mut base).is_empty());
    drain(&ours);
    base.reregister(key, Interest::READABLE, Mode::OneShot).unwrap();
    assert!(ready(&mut base).is_empty());
    theirs.write_all(b"more").unwrap();
    assert_eq!(ready(&mut base), ['a']);
}

#[test]
fn the_mode_can_be_changed() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = base.register(&ours, Interest::READABLE, Mode::Edge, 'a').unwrap();
    theirs.write_all(b"hello").unwrap();
    assert_eq!(ready(&mut base), ['a']);
    base.reregister(key, Interest::READABLE, Mode::Level).unwrap();
    assert_eq!(ready(&mut base), ['a']);
    assert_eq!(ready(&mut base), ['a']);
    base.reregister(key, Interest::READABLE, Mode::OneShot).unwrap();
    assert_eq!(ready(&mut base), ['a']);
    assert!(ready(&mut base).is_empty());
}

#[test]
fn the_interest_can_be_changed() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = base.register(&ours, Interest::READABLE, Mode::Level, 'a').unwrap();
    assert!(ready(&mut base).is_empty());
    base.reregister(key, Interest::WRITABLE, Mode::Level).unwrap();
    let fired = sources(&mut base, AT_ONCE);
    assert!(
        fired
            .iter()
            .all(|(_, event)| event.is_writable() && !event.is_readable())
    );
    assert_eq!(fired.len(), 1);
    theirs.write_all(b"hello").unwrap();
    base.reregister(key, Interest::READABLE | Interest::WRITABLE, Mode::Level)
        .unwrap();
    let fired = sources(&mut base, AT_ONCE);
    assert!(fired.iter().any(|(_, event)| event.is_writable()));
    assert!(fired.iter().any(|(_, event)| event.is_readable()));
    base.reregister(key, Interest::READABLE, Mode::Level).unwrap();
    let fired = sources(&mut base, AT_ONCE);
    assert!(
        fired
            .iter()
            .all(|(_, event)| event.is_readable() && !event.is_writable())
    );
    assert_eq!(fired.len(), 1);
}

#[test]
fn a_peer_that_stops_writing_closes_reading_only() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, theirs) = pair();
    base.register(&ours, Interest::READABLE | Interest::WRITABLE, Mode::Level, 'a')
        .unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    let fired = sources(&mut base, AT_ONCE);
    assert!(fired.iter().any(|(_, event)| event.is_read_closed()));
    assert!(
        fired
            .iter()
            .all(|(_, event)| !event.is_write_closed() && !event.is_error())
    );
}

#[test]
fn a_peer_that_has_gone_closes_both_directions() {
    let mut base = EventBase::<_>::new().unwrap();
    let (ours, theirs) = pair();
    base.register(&ours, Interest::READABLE | Interest::WRITABLE, Mode::Level, 'a')
        .unwrap();
    drop(theirs);
    let fired = sources(&mut base, AT_ONCE);
    assert!(fired.iter().any(|(_, event)| event.is_read_closed()));
    assert!(fired.iter().any(|(_, event)| event.is_write_closed()));
}

#[test]
fn a_pipe_tells_each_end_that_the_other_has_gone() {
    let mut base = EventBase::<_>::new().unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let key = base.register(&read, Interest::READABLE, Mode::Level, 'r').unwrap();
    drop(write);
    let fired = sources(&mut base, AT_ONCE);
    assert!(fired.len() == 1 && fired[0].1.is_read_closed(), "{fired:?}");
    base.deregister(key);

    let (read, write) = std::io::pipe().unwrap();
    base.register(&write, Interest::WRITABLE, Mode::Level, 'w').unwrap();
    drop(read);
    let fired = sources(&mut base, AT_ONCE);
    assert!(
        fired.len() == 1 && (fired[0].1.is_error() || fired[0].1.is_write_closed()),
        "{fired:?}"
    );
}

#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn out_of_band_data_is_priority() {
    let _watchdog = crate::support::watchdog();
    let mut base = EventBase::<_>::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    base.register(&ours, Interest::PRIORITY, Mode::Level, 'a').unwrap();
    assert!(ready(&mut base).is_empty());
    // SAFETY: sends one byte of an array that outlives the call.
    let sent = unsafe { libc::send(theirs.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    let fired = sources(&mut base, None);
    assert!(fired.len() == 1 && fired[0].1.is_priority() && !fired[0].1.is_readable());
}

#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn an_interest_in_errors_alone_hears_of_no_data() {
    let _watchdog = crate::support::watchdog();
    let mut base = EventBase::<_>::new().unwrap();
    let (read, mut write) = std::io::pipe().unwrap();
    base.register(&read, Interest::ERROR, Mode::Level, 'r').unwrap();
    base.register(&write, Interest::ERROR, Mode::Level, 'w').unwrap();
    write.write_all(b"data").unwrap();
    assert!(ready(&mut base).is_empty());
    drop(read);
    let fired = sources(&mut base, AT_ONCE);
    assert!(
        fired.len() == 1 && fired[0].0 == 'w' && fired[0].1.is_error(),
        "{fired:?}"
    );
}

#[test]
fn interests_add_up_and_say_so() {
    const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
    assert_eq!(BOTH, Interest::WRITABLE | Interest::READABLE);
    assert_eq!(
        format!("{:?}", BOTH | Interest::PRIORITY | Interest::ERROR),
        "READABLE | WRITABLE | PRIORITY | ERROR"
    );
    assert!(Interest::ERROR.is_error() && !BOTH.is_error() && !Interest::ERROR.is_readable());
    assert!(!Interest::READABLE.is_writable() && !Interest::WRITABLE.is_readable());
}
