//! The event base by itself.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use evbase::base::{Event, EventBase, Fired};

pub(crate) const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A non-blocking pair of sockets.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (one, other)
}

/// Reads until it would block.
pub(crate) fn drain(mut stream: &UnixStream) {
    let mut sink = [0; 64];
    while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
}

/// The sources that fire in one turn, sorted, each with all that was reported about it.
pub(crate) fn sources<S: Copy + Ord, T>(base: &mut EventBase<S, T>, timeout: Option<Duration>) -> Vec<(S, Event)> {
    let mut fired = Vec::new();
    base.turn(timeout, |event| {
        if let Fired::Source { payload, event, .. } = event {
            fired.push((*payload, event));
        }
    })
    .unwrap();
    fired.sort_by_key(|(payload, _)| *payload);
    fired
}

/// The payloads of the sources that fire in a turn that doesn't wait.
pub(crate) fn ready<S: Copy + Ord, T>(base: &mut EventBase<S, T>) -> Vec<S> {
    let mut payloads: Vec<_> = sources(base, AT_ONCE).into_iter().map(|(payload, _)| payload).collect();
    // kqueue reports directions one by one.
    payloads.dedup();
    payloads
}
