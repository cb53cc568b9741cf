//! Intervals that are reset, that miss ticks, and that stand beside others in a `select`: which tick comes when, in virtual time.

use std::time::{Duration, Instant};

use evbase::Builder;
use evbase::time::{Interval, MissedTickBehavior, interval, interval_at, now, sleep, timeout};
use futures::StreamExt;

use crate::support::{poll_here, watchdog};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Builder::new().paused().build().unwrap().block_on(future).unwrap()
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
                    assert!(poll_here(ticks.tick()).await.is_pending());
                }
                sleep(MS).await;
                let due = now() + after;
                reset(&mut ticks);
                for tick in [due, due + period] {
                    assert_eq!(ticks.tick().await, tick);
                    assert_eq!(now(), tick);
                }
                assert_eq!(ticks.period(), period);
            }
        }
        let (mut ticks, deadline) = (interval(HOUR), now() + 3 * MS);
        ticks.tick().await;
        ticks.reset_at(deadline);
        assert_eq!(ticks.tick().await, deadline);
    });
}

#[test]
fn a_reset_of_an_interval_that_was_waited_for_moves_the_wake_up() {
    let _watchdog = watchdog();
    block_on(async {
        let start = now();
        let mut ticks = interval_at(start + HOUR, HOUR);
        assert!(poll_here(ticks.tick()).await.is_pending());
        ticks.reset_after(MS);
        ticks.tick().await;
        assert_eq!(now(), start + MS);
        let mut ticks = interval_at(now() + MS, MS);
        assert!(poll_here(ticks.tick()).await.is_pending());
        ticks.reset_after(HOUR);
        assert!(timeout(HOUR - MS, ticks.tick()).await.is_err());
    });
}

#[test]
fn a_reset_to_the_past_brings_the_missed_ticks_at_once() {
    let _watchdog = watchdog();
    block_on(async {
        let mut ticks = interval(HOUR);
        let start = now() - 2 * HOUR - HOUR / 2;
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
        let start = now();
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

/// Takes a tick, misses the next one and a half, and gives, in milliseconds since the first, the late one and the next three; and
/// when each of these came.
fn ticks_after_a_delay(missed_tick: MissedTickBehavior) -> [(u128, u128); 4] {
    block_on(async {
        let mut ticks = interval(20 * MS);
        ticks.set_missed_tick_behavior(missed_tick);
        assert_eq!(ticks.missed_tick_behavior(), missed_tick);
        let first = ticks.tick().await;
        sleep(50 * MS).await;
        let mut next = [(0, 0); 4];
        for tick in &mut next {
            let since_first = |time: Instant| (time - first).as_millis();
            *tick = (since_first(ticks.tick().await), since_first(now()));
        }
        next
    })
}

#[test]
fn missed_ticks_come_in_a_burst_by_default() {
    let _watchdog = watchdog();
    let ticks = ticks_after_a_delay(MissedTickBehavior::default());
    assert_eq!(ticks, [(20, 50), (40, 50), (60, 60), (80, 80)]);
}

#[test]
fn missed_ticks_move_all_later_ones_with_delay() {
    let _watchdog = watchdog();
    let ticks = ticks_after_a_delay(MissedTickBehavior::Delay);
    assert_eq!(ticks, [(20, 50), (70, 70), (90, 90), (110, 110)]);
}

#[test]
fn missed_ticks_are_left_out_with_skip() {
    let _watchdog = watchdog();
    let ticks = ticks_after_a_delay(MissedTickBehavior::Skip);
    assert_eq!(ticks, [(20, 50), (60, 60), (80, 80), (100, 100)]);
}

#[test]
fn a_tick_that_is_dropped_takes_nothing() {
    let _watchdog = watchdog();
    block_on(async {
        let mut ticks = interval(100 * MS);
        let first = ticks.tick().await;
        for _ in 0..5 {
            assert!(poll_here(ticks.tick()).await.is_pending());
        }
        assert!(timeout(MS, ticks.tick()).await.is_err());
        // Due, and not taken.
        sleep(104 * MS).await;
        drop(ticks.tick());
        assert_eq!(ticks.tick().await, first + 100 * MS);
        assert_eq!(now(), first + 105 * MS);
    });
}

#[test]
fn an_interval_is_a_stream_without_end() {
    let _watchdog = watchdog();
    block_on(async {
        let ticks: Vec<_> = interval(MS).take(1000).collect().await;
        assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == MS));
        assert_eq!(now(), ticks[999]);
    });
}

#[test]
fn an_interval_of_all_time_ticks_once_and_after_each_reset_that_says_so() {
    let _watchdog = watchdog();
    block_on(async {
        for missed_tick in [
            MissedTickBehavior::Burst,
            MissedTickBehavior::Delay,
            MissedTickBehavior::Skip,
        ] {
            let mut ticks = interval(Duration::MAX);
            ticks.set_missed_tick_behavior(missed_tick);
            assert_eq!(ticks.period(), Duration::MAX);
            ticks.tick().await;
            assert!(timeout(HOUR, ticks.tick()).await.is_err());
            ticks.reset();
            assert!(timeout(HOUR, ticks.tick()).await.is_err());
            ticks.reset_after(Duration::MAX);
            assert!(timeout(HOUR, ticks.tick()).await.is_err());
            ticks.reset_immediately();
            ticks.tick().await;
            assert!(timeout(HOUR, ticks.tick()).await.is_err());
        }
    });
}
