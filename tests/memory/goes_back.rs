//! Memory goes back when what it was for is gone.

use std::time::Duration;

use evbase::time::{Sleep, sleep};
use evbase::{Runtime, Spawner};

use crate::support::{Random, alone, heap_bytes, poll_here};

const HOUR: Duration = Duration::from_secs(3600);

/// What may be on the heap more than before: tables that grow once, and a free list that keeps some.
const SOME: isize = 64 << 10;

#[track_caller]
fn assert_gone(before: isize) {
    let more = heap_bytes() - before;
    assert!(more < SOME, "{more} bytes are left");
}

/// A sleep that was polled once in the runtime that calls this.
async fn armed(duration: Duration) -> Sleep {
    let mut sleep = sleep(duration);
    assert!(poll_here(&mut sleep).await.is_pending());
    sleep
}

/// Each new guard kept the dead one below it, without end.
#[test]
fn enter_guards_that_overlap_leave_nothing_behind() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut guard = runtime.enter().unwrap();
        let before = heap_bytes();
        for _ in 0..100_000 {
            let next = runtime.enter().unwrap();
            guard = next;
        }
        assert_gone(before);
        drop(guard);
        assert!(Spawner::try_current().is_none());
    });
}

#[test]
fn a_hundred_thousand_timers_that_were_armed_and_cancelled_leave_nothing_behind() {
    const MANY: u64 = 100_000;
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut random = Random::new(4);
        runtime.block_on(async { drop(armed(HOUR).await) }).unwrap();
        let before = heap_bytes();
        for _ in 0..3 {
            runtime
                .block_on(async {
                    let mut sleeps = Vec::new();
                    for _ in 0..MANY {
                        sleeps.push(armed(HOUR + Duration::from_nanos(random.below(1 << 40))).await);
                    }
                    assert!(
                        heap_bytes() - before > SOME,
                        "they are on the heap while they are armed"
                    );
                    // In another order than they were armed.
                    while !sleeps.is_empty() {
                        drop(sleeps.swap_remove(random.below(sleeps.len() as u64) as usize));
                    }
                })
                .unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            assert_gone(before);
        }
    });
}
