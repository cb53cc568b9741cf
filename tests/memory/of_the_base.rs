//! The memory of timers and sources of a base that have gone goes back while others stay.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Interest, Mode};

use crate::support::{alone, heap_bytes, limit_descriptors};

/// How much more is on the heap than before.
fn more_than(before: isize) -> usize {
    usize::try_from(heap_bytes() - before).unwrap_or(0)
}

const MANY: usize = 1_000_000;
const LITTLE: usize = 384 * 1024;

#[test]
fn of_a_million_timers_all_are_cancelled_but_one_and_the_memory_goes_back() {
    alone(|| {
        for stays in [0, MANY / 2, MANY - 1] {
            let mut keys = Vec::with_capacity(MANY);
            let before = heap_bytes();
            let mut base = EventBase::<()>::new().unwrap();
            let hour = Instant::now() + Duration::from_secs(3600);
            keys.extend((0..MANY).map(|_| base.arm(hour, ())));
            assert!(more_than(before) > 10 * LITTLE);
            let kept = keys.swap_remove(stays);
            assert!(keys.iter().all(|key| base.disarm(*key).is_some()));
            assert!(more_than(before) < LITTLE, "{stays}: {} bytes", more_than(before));
            assert_eq!((base.timers(), base.timer(kept)), (1, Some(&())));
        }
    });
}

#[test]
fn of_a_million_timers_all_fire_but_one_and_the_memory_goes_back() {
    alone(|| {
        let before = heap_bytes();
        let mut base = EventBase::<()>::new().unwrap();
        let now = Instant::now();
        base.arm(now + Duration::from_secs(3600), ());
        for _ in 1..MANY {
            base.arm(now, ());
        }
        assert_eq!(base.fire_timers(|_| {}), MANY - 1);
        assert!(more_than(before) < LITTLE, "{} bytes", more_than(before));
        assert_eq!(base.timers(), 1);
    });
}

#[test]
fn of_many_sources_all_are_deregistered_but_one_and_the_memory_goes_back() {
    alone(|| {
        type Payload = [u64; 64];
        const SOURCES: usize = 4000;
        limit_descriptors(SOURCES + 100);
        let (socket, _peer) = UnixDatagram::pair().unwrap();
        for stays in [0, SOURCES / 2, SOURCES - 1] {
            let mut sockets = Vec::with_capacity(SOURCES);
            let mut keys = Vec::with_capacity(SOURCES);
            let mut base = EventBase::<Payload, ()>::new().unwrap();
            let before = heap_bytes();
            for _ in 0..SOURCES {
                // Where fewer may be open, there are fewer.
                let Ok(another) = socket.try_clone() else { break };
                keys.push(
                    base.register(&another, Interest::READABLE, Mode::Edge, [0; 64])
                        .unwrap(),
                );
                sockets.push(another);
            }
            let kept = keys.swap_remove(stays);
            // The chunk of the one that stays, and no more than one beside it that is empty.
            let two_chunks = 2 * 512 * (size_of::<Payload>() + 32) + LITTLE / 4;
            assert!(more_than(before) > 2 * two_chunks);
            assert!(keys.iter().all(|key| base.deregister(*key).is_some()));
            assert!(more_than(before) < two_chunks, "{stays}: {} bytes", more_than(before));
            assert!(base.get(kept).is_some());
        }
    });
}
