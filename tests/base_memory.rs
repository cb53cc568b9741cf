//! The memory of timers and sources that have gone goes back while others stay. The allocator counts; so these tests have a
//! binary of their own, and run one at a time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Interest, Mode};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

// SAFETY: all is left to `System`; a counter is no part of what is allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much more is held than before. Threads of the test harness hold a little, too.
fn more_than(before: usize) -> usize {
    HELD.load(Ordering::Relaxed).saturating_sub(before)
}

const MANY: usize = 1_000_000;
const LITTLE: usize = 256 * 1024;

#[test]
fn of_a_million_timers_all_are_cancelled_but_one_and_the_memory_goes_back() {
    let _one = ONE_AT_A_TIME.lock();
    for stays in [0, MANY / 2, MANY - 1] {
        let mut keys = Vec::with_capacity(MANY);
        let before = HELD.load(Ordering::Relaxed);
        let mut base = EventBase::<()>::new().unwrap();
        let hour = Instant::now() + Duration::from_secs(3600);
        keys.extend((0..MANY).map(|_| base.arm(hour, ())));
        assert!(more_than(before) > 10 * LITTLE);
        let kept = keys.swap_remove(stays);
        assert!(keys.iter().all(|key| base.disarm(*key).is_some()));
        assert!(more_than(before) < LITTLE, "{stays}: {} bytes", more_than(before));
        assert_eq!((base.timers(), base.timer(kept)), (1, Some(&())));
    }
}

#[test]
fn of_a_million_timers_all_fire_but_one_and_the_memory_goes_back() {
    let _one = ONE_AT_A_TIME.lock();
    let before = HELD.load(Ordering::Relaxed);
    let mut base = EventBase::<()>::new().unwrap();
    let now = Instant::now();
    base.arm(now + Duration::from_secs(3600), ());
    for _ in 1..MANY {
        base.arm(now, ());
    }
    assert_eq!(base.fire_timers(|_| {}), MANY - 1);
    assert!(more_than(before) < LITTLE, "{} bytes", more_than(before));
    assert_eq!(base.timers(), 1);
}

#[test]
fn of_many_sources_all_are_deregistered_but_one_and_the_memory_goes_back() {
    let _one = ONE_AT_A_TIME.lock();
    type Payload = [u64; 64];
    const SOURCES: usize = 4000;
    if raise_open_files_limit() < SOURCES as u64 + 100 {
        eprintln!("skipped: this process may not open so many descriptors");
        return;
    }
    let (socket, _peer) = UnixDatagram::pair().unwrap();
    for stays in [0, SOURCES / 2, SOURCES - 1] {
        let mut sockets = Vec::with_capacity(SOURCES);
        let mut keys = Vec::with_capacity(SOURCES);
        let mut base = EventBase::<Payload, ()>::new().unwrap();
        let before = HELD.load(Ordering::Relaxed);
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
}

/// As far as the process may.
fn raise_open_files_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes to, and then reads from, `limit`, which outlives the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max.min(10_000);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    limit.rlim_cur.into()
}
