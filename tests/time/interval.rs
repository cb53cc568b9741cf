//! Intervals that are reset, and that stand beside others in a `select`.

use std::time::{Duration, Instant};

use evbase::Runtime;
use evbase::time::{Interval, interval, interval_at, timeout};
use futures::StreamExt;

use crate::support::{poll_here, watchdog};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

#[test]
fn a_reset_says_when_the_next_tick_comes_and_the_others_follow_each_a_period_later() {
    let _watchdog = watchdog();
    let period = 4 * MS;
    type Reset = fn(&mut Interval);
    let resets: [(Reset, Duration); 3] = [
        (Interval::reset, period),
        (Interval::reset_immediately, Duration::ZERO),
        (|ticks| ticks.reset_after(2 * MS), 2 * MS),
    ];
    block_on(async {
        for (reset, after) in resets {
            for waits in [false, true] {
                let mut ticks = interval(period);
                ticks.tick().await;
                if waits {
                    // Pending, unless this machine is slow: then it is a tick more.
                    let _ = poll_here(ticks.tick()).await;
                }
                let before = Instant::now();
                reset(&mut ticks);
                let latest = Instant::now() + after;
                let planned = ticks.tick().await;
                assert!(planned >= before + after && planned <= latest);
                assert!(Instant::now() >= planned);
                assert_eq!(ticks.tick().await, planned + period);
                assert_eq!(ticks.period(), period);
            }
        }
        let (mut ticks, deadline) = (interval(HOUR), Instant::now() + 3 * MS);
        ticks.tick().await;
        ticks.reset_at(deadline);
        assert_eq!(ticks.tick().await, deadline);
    });
}

#[test]
fn a_reset_of_an_interval_that_was_waited_for_moves_the_wake_up() {
    let _watchdog = watchdog();
    block_on(async {
        let mut ticks = interval_at(Instant::now() + HOUR, HOUR);
        assert!(poll_here(ticks.tick()).await.is_pending());
        ticks.reset_after(MS);
        ticks.tick().await;
        let mut ticks = interval_at(Instant::now() + MS, MS);
        let _ = poll_here(ticks.tick()).await;
        ticks.reset_after(HOUR);
        assert!(timeout(5 * MS, ticks.tick()).await.is_err());
    });
}

#[test]
fn a_reset_to_the_past_brings_the_missed_ticks_at_once() {
    let _watchdog = watchdog();
    block_on(async {
        let mut ticks = interval(HOUR);
        let start = Instant::now() - 2 * HOUR - HOUR / 2;
        ticks.reset_at(start);
        for n in 0..3 {
            assert_eq!(ticks.tick().await, start + n * HOUR);
        }
        assert!(poll_here(ticks.tick()).await.is_pending());
    });
}

#[test]
fn a_reset_before_the_first_tick_takes_its_place() {
    let _watchdog = watchdog();
    block_on(async {
        let mut ticks = interval(HOUR);
        ticks.reset();
        assert!(poll_here(ticks.tick()).await.is_pending());
        ticks.reset_immediately();
        assert!(poll_here(ticks.tick()).await.is_ready());
    });
}

#[test]
fn intervals_in_a_select_lose_no_tick() {
    let _watchdog = watchdog();
    block_on(async {
        let start = Instant::now();
        let (mut fast, mut slow) = (interval_at(start, MS).fuse(), interval_at(start, 3 * MS).fuse());
        let (mut fast_ticks, mut slow_ticks) = (0, 0);
        while slow_ticks < 5 || fast_ticks < 5 {
            futures::select! {
                planned = fast.select_next_some() => {
                    assert_eq!(planned, start + fast_ticks * MS);
                    fast_ticks += 1;
                }
                planned = slow.select_next_some() => {
                    assert_eq!(planned, start + slow_ticks * 3 * MS);
                    slow_ticks += 1;
                }
            }
        }
    });
}
