//! A sleep that is reset from abroad, again and again, is one message: no memory piles up while home doesn't look.

use std::thread;
use std::time::{Duration, Instant};

use evbase::Runtime;
use evbase::time::sleep;

use crate::support::{alone, heap_bytes, poll_here};

const RESETS: u32 = 200_000;

#[test]
fn a_sleep_that_is_reset_abroad_again_and_again_takes_no_more_memory_and_keeps_the_last_deadline() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let hour = Duration::from_secs(3600);
        let mut sleeps = [(); 3].map(|()| sleep(hour));
        runtime
            .block_on(async {
                for sleep in &mut sleeps {
                    assert!(poll_here(sleep).await.is_pending());
                }
            })
            .unwrap();
        let start = Instant::now();
        let last = start + Duration::from_millis(5);
        thread::scope(|scope| {
            let resets = sleeps.iter_mut().map(|sleep| {
                scope.spawn(move || {
                    let before = heap_bytes();
                    for round in 0..RESETS {
                        sleep.reset(start + hour + Duration::from_secs(round.into()));
                    }
                    sleep.reset(last);
                    before
                })
            });
            let resets: Vec<_> = resets.collect();
            let before = resets.into_iter().map(|reset| reset.join().unwrap()).min().unwrap();
            let after = heap_bytes();
            assert!(after < before + 20_000, "{} bytes", after - before);
        });
        // Nobody polls them: each fires in the base, at the deadline that the message brought.
        let mut fired = 0;
        while fired < sleeps.len() {
            fired += runtime.turn(None).unwrap().timers;
            assert!(Instant::now() >= last || fired == 0);
        }
        runtime
            .block_on(async {
                for sleep in &mut sleeps {
                    assert!(poll_here(sleep).await.is_ready());
                }
            })
            .unwrap();
    });
}
