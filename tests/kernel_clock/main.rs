//! Points in time and durations at the ends of what their types hold, in every order; and a clock that jumps by years, steps
//! back, or does both at random: no panic, no timer early, none twice, none lost, and no spinning.
//!
//! The process's clock is this executable's.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::future::{pending, ready};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired};
use evbase::time::{MissedTickBehavior, Sleep, interval, interval_at, sleep, sleep_until, timeout, timeout_at};
use evbase::{Builder, Runtime, spawn_local, yield_now};
use futures::FutureExt;

use support::{Random, alone, poll_here, until, watchdog};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);

// ---- The clock ----

/// Nanoseconds that the monotonic clocks are ahead of the kernel's.
static AHEAD: AtomicI64 = AtomicI64::new(0);
/// Each look at the clock adds up to so many nanoseconds more, at random.
static JITTER: AtomicU64 = AtomicU64::new(0);

/// Takes the place of the C library's function, which the standard library calls.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    // SAFETY: the kernel writes to `time`, which the caller has given for that.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    if result == 0 && matches!(clock, libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE) {
        let jitter = match JITTER.load(SeqCst) {
            // The coarse clock is never ahead.
            _ if clock != libc::CLOCK_MONOTONIC => 0,
            0 => 0,
            most => Random::new(LOOKS.fetch_add(1, SeqCst)).below(most) as i64,
        };
        // SAFETY: as above.
        let time = unsafe { &mut *time };
        let nanoseconds = time.tv_nsec + (AHEAD.load(SeqCst) + jitter) % 1_000_000_000;
        time.tv_sec += (AHEAD.load(SeqCst) + jitter) / 1_000_000_000 + nanoseconds.div_euclid(1_000_000_000);
        time.tv_nsec = nanoseconds.rem_euclid(1_000_000_000);
    }
    result
}

fn jump_ahead(by: Duration) {
    AHEAD.fetch_add(by.as_nanos() as i64, SeqCst);
}

fn step_back(by: Duration) {
    AHEAD.fetch_sub(by.as_nanos() as i64, SeqCst);
}

/// The last point in time that `Instant` can hold.
fn last() -> Instant {
    edge(Instant::now(), Instant::checked_add)
}

/// The first one.
fn first() -> Instant {
    edge(Instant::now(), Instant::checked_sub)
}

fn edge(mut at: Instant, go: impl Fn(&Instant, Duration) -> Option<Instant>) -> Instant {
    let mut step = Duration::MAX;
    while !step.is_zero() {
        match go(&at, step) {
            Some(further) => at = further,
            None => step /= 2,
        }
    }
    at
}

/// Deadlines of all kinds, `now` being one of them.
fn deadlines(now: Instant) -> Vec<Instant> {
    let mut all = vec![first(), now, last()];
    let apart = [
        Duration::from_nanos(1),
        Duration::from_nanos(1023),
        Duration::from_nanos(1024),
        Duration::from_micros(300),
        MS,
        2 * MS,
        HOUR,
        30 * YEAR,
        Duration::from_nanos(u64::MAX - 1),
        Duration::from_nanos(u64::MAX),
        600 * YEAR,
        Duration::from_millis(u64::MAX),
        Duration::from_secs(u64::MAX),
        Duration::MAX,
    ];
    for apart in apart {
        all.extend(now.checked_add(apart));
        all.extend(now.checked_sub(apart));
    }
    all
}

fn shuffle<T>(things: &mut [T], random: &mut Random) {
    for n in (1..things.len()).rev() {
        things.swap(n, random.below(n as u64 + 1) as usize);
    }
}

// ---- The ends of the types ----

#[test]
fn timers_of_a_base_at_all_ends_fire_in_order_or_not_at_all() {
    let _watchdog = watchdog();
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut base = EventBase::<(), Instant>::new().unwrap();
        let now = Instant::now();
        let mut all = deadlines(now);
        shuffle(&mut all, &mut random);
        let keys: Vec<_> = all.iter().map(|at| (base.arm(*at, *at), *at)).collect();
        // Each goes from its own end of time to another one and back, or away and comes anew.
        for (key, at) in &keys {
            for _ in 0..random.below(3) {
                let other = all[random.below(all.len() as u64) as usize];
                assert!(base.reset(*key, other));
            }
            assert!(base.reset(*key, *at));
        }
        let near = now + 10 * MS;
        let mut expected: Vec<_> = all.iter().copied().filter(|at| *at < near).collect();
        expected.sort();
        let mut fired = Vec::new();
        while fired.len() < expected.len() {
            let turned = base.turn(Some(Duration::MAX), |event| {
                if let Fired::Timer { payload, .. } = event {
                    assert!(payload <= Instant::now(), "early");
                    fired.push(payload);
                }
            });
            turned.unwrap();
        }
        // All that is before the base counts as one time, and comes in the order of arming.
        assert!(fired.iter().filter(|at| **at > now).is_sorted(), "seed {seed}");
        fired.sort();
        assert_eq!(fired, expected, "seed {seed}");
        assert_eq!(base.timers(), all.len() - expected.len());
        assert!(base.next_deadline().is_some_and(|at| at > near));
        // They don't keep a turn that doesn't want to wait, and a notification ends one that does.
        assert_eq!(base.turn(Some(MS), |_| {}).unwrap().timers, 0);
        base.notifier().notify().unwrap();
        assert!(base.turn(None, |_| {}).unwrap().notified);
        let (_, left) = base.clear();
        assert_eq!(left.len(), all.len() - expected.len());
        assert_eq!(base.next_deadline(), None);
    }
}

#[test]
fn timeouts_of_a_turn_may_be_as_long_as_durations_are() {
    let _watchdog = watchdog();
    let timeouts = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(i64::MAX as u64 + 1),
        Duration::from_millis(u64::MAX),
        Duration::from_nanos(u64::MAX),
        Duration::from_millis(i32::MAX as u64),
        Duration::from_millis(i32::MAX as u64 + 1),
        Duration::from_nanos(1),
        Duration::ZERO,
    ];
    let mut base = EventBase::<(), ()>::new().unwrap();
    let runtime = Runtime::new().unwrap();
    for limit in timeouts {
        base.notifier().notify().unwrap();
        while !base.turn(Some(limit), |_| {}).unwrap().notified {}
        base.arm(Instant::now() + MS, ());
        while base.turn(Some(limit), |_| {}).unwrap().timers == 0 {}
        let short = runtime.spawn_local(sleep(MS)).unwrap();
        while !short.is_finished() {
            runtime.turn(Some(limit)).unwrap();
        }
        assert_eq!(runtime.block_on(timeout(limit, ready(7))).unwrap(), Ok(7));
    }
}

#[test]
fn sleeps_and_timeouts_at_all_ends_are_ready_or_pending_as_they_should() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let work = async {
        let now = Instant::now();
        for at in deadlines(now) {
            // Those in between may be either.
            if at <= now {
                assert!(sleep_until(at).now_or_never().is_some());
                assert!(timeout_at(at, pending::<()>()).now_or_never().unwrap().is_err());
            } else if at > now + HOUR / 2 {
                assert!(poll_here(sleep_until(at)).await.is_pending());
                assert!(poll_here(timeout_at(at, pending::<()>())).await.is_pending());
                assert!(poll_here(interval_at(at, MS).tick()).await.is_pending());
            }
            assert_eq!(sleep_until(at).deadline(), at);
            assert_eq!(timeout_at(at, ready(1)).await, Ok(1));
        }
        // One sleep, moved everywhere; then it fires.
        let mut random = Random::new(1);
        let all = deadlines(now);
        let mut moved = sleep(Duration::MAX);
        for _ in 0..2000 {
            let at = all[random.below(all.len() as u64) as usize];
            moved.reset(at);
            let mut is_ready = poll_here(&mut moved).await.is_ready();
            if !is_ready && at <= now {
                // The budget of one poll is used up.
                yield_now().await;
                is_ready = poll_here(&mut moved).await.is_ready();
            }
            assert!(!is_ready || at <= Instant::now());
            assert!(is_ready || at > now);
        }
        moved.reset(Instant::now() + MS);
        moved.await;
    };
    runtime.block_on(work).unwrap();
    assert_eq!(runtime.block_on(async { 1 }).unwrap(), 1);
}

#[test]
fn intervals_with_the_least_and_the_longest_period_tick() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let work = async {
        for missed_tick in [
            MissedTickBehavior::Burst,
            MissedTickBehavior::Delay,
            MissedTickBehavior::Skip,
        ] {
            let start = Instant::now();
            let mut least = interval(Duration::from_nanos(1));
            least.set_missed_tick_behavior(missed_tick);
            let mut before = None;
            for n in 0..1000 {
                let planned = least.tick().await;
                assert!(before.is_none_or(|before| planned > before) && planned <= Instant::now());
                if missed_tick == MissedTickBehavior::Burst {
                    assert!(planned.duration_since(start) >= Duration::from_nanos(n));
                }
                before = Some(planned);
            }
            for period in [Duration::MAX, Duration::from_secs(u64::MAX), 600 * YEAR] {
                let mut longest = interval_at(start, period);
                longest.set_missed_tick_behavior(missed_tick);
                assert_eq!(longest.tick().await, start);
                assert!(poll_here(longest.tick()).await.is_pending());
                longest.reset();
                assert!(poll_here(longest.tick()).await.is_pending());
            }
            // Since the beginning of time, with periods that fit in rarely.
            for period in [600 * YEAR, Duration::MAX] {
                let mut ancient = interval_at(first(), period);
                ancient.set_missed_tick_behavior(missed_tick);
                let planned = ancient.tick().await;
                assert!(planned < start);
            }
        }
    };
    runtime.block_on(work).unwrap();
}

#[test]
fn a_runtime_with_the_longest_grace_and_waits_ends_when_its_tasks_do() {
    let _watchdog = watchdog();
    let runtime = Builder::new().grace(Duration::MAX).start("home").unwrap();
    let task = runtime.spawner().spawn_with(|| async {
        evbase::Shutdown::current().requested().await;
        sleep(MS).await;
    });
    let terminated = runtime.shutdown_handle().terminated();
    assert!(terminated.wait_timeout(Duration::ZERO).unwrap().is_none());
    assert!(terminated.wait_timeout(MS).unwrap().is_none());
    drop(runtime);
    let report = terminated.wait_timeout(Duration::MAX).unwrap().unwrap();
    assert_eq!((report.completed, report.cancelled), (1, 0));
    task.wait().unwrap().unwrap();
}

// ---- The clock's jumps ----

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn a_clock_that_jumps_by_years_fires_what_is_due_and_nothing_else() {
    alone(|| {
        let runtime = Builder::new().start("home").unwrap();
        let start = Instant::now();
        let fired = runtime.spawner().spawn_with(move || {
            let fired = Rc::new(RefCell::new(Vec::new()));
            for hours in [1, 2, 24, 24 * 365, 24 * 365 * 20, 24 * 365 * 100, 24 * 365 * 250] {
                let (at, fired) = (start + hours * HOUR, fired.clone());
                drop(spawn_local(async move {
                    sleep_until(at).await;
                    assert!(Instant::now() >= at, "early");
                    fired.borrow_mut().push(hours);
                }));
            }
            FIRED.with(|kept| *kept.borrow_mut() = Some(fired));
            yield_now()
        });
        fired.wait().unwrap().unwrap();
        for (years, due) in [(0, 2), (1, 4), (19, 5), (80, 6), (150, 7)] {
            jump_ahead(years * YEAR + 3 * HOUR);
            // Home sleeps by the kernel's clock; what wakes it makes it look at ours.
            let look = || {
                let fired = || async { FIRED.with_borrow(|fired| fired.as_ref().unwrap().borrow().clone()) };
                runtime.spawner().spawn_with(fired).wait().unwrap().unwrap()
            };
            until(|| look().len() >= due);
            let seen = look();
            assert_eq!(seen.len(), due, "after {years} years: {seen:?}");
            assert!(seen.is_sorted());
        }
        // Everything works in that far future.
        runtime.spawner().spawn(sleep(MS)).wait().unwrap().unwrap();
        let late = Runtime::new().unwrap();
        let at = Instant::now();
        late.block_on(sleep(MS)).unwrap();
        assert!(at.elapsed() >= MS);
        assert!(late.block_on(timeout(MS, sleep(Duration::MAX))).unwrap().is_err());
        assert_eq!(runtime.shutdown().wait().unwrap().panicked, 0);
    });
}

thread_local! {
    static FIRED: RefCell<Option<Rc<RefCell<Vec<u32>>>>> = const { RefCell::new(None) };
}

#[test]
fn a_clock_that_steps_back_makes_timers_late_and_nobody_spin() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        // Something has fired before: time has gone on in the wheel.
        runtime.block_on(sleep(5 * MS)).unwrap();
        for by in [Duration::from_nanos(1), MS, 20 * MS] {
            let mut timer: Sleep = sleep(3 * MS);
            let at = timer.deadline();
            runtime
                .block_on(async { assert!(poll_here(&mut timer).await.is_pending() || at <= Instant::now()) })
                .unwrap();
            step_back(by);
            let turns = runtime.metrics().turns;
            runtime.block_on(&mut timer).unwrap();
            assert!(Instant::now() >= at);
            assert!(runtime.metrics().turns - turns < 50);
        }
        // A base that is older than the time.
        let mut base = EventBase::<(), ()>::new().unwrap();
        step_back(HOUR / 6);
        base.arm(Instant::now() + MS, ());
        base.arm(Instant::now(), ());
        let mut timers = 0;
        while timers < 2 {
            timers += base.turn(Some(50 * MS), |_| {}).unwrap().timers;
            jump_ahead(HOUR / 12);
        }
        runtime.shutdown().wait().unwrap();
    });
}

#[test]
fn with_a_clock_that_goes_forth_and_back_at_random_each_timer_fires_once() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        JITTER.store(3_000_000, SeqCst);
        let work = async {
            let mut tasks = Vec::new();
            for seed in 0..20 {
                tasks.push(spawn_local(async move {
                    let mut random = Random::new(seed);
                    let mut fired = 0;
                    for _ in 0..50 {
                        let mut timer = sleep(Duration::from_micros(random.below(2000)));
                        if random.below(3) == 0 {
                            let _ = poll_here(&mut timer).await;
                            timer.reset(Instant::now() + Duration::from_micros(random.below(2000)));
                        }
                        timer.await;
                        fired += 1;
                    }
                    fired
                }));
            }
            for task in tasks {
                assert_eq!(task.await.unwrap(), 50);
            }
        };
        runtime.block_on(work).unwrap();
        let mut base = EventBase::<(), usize>::new().unwrap();
        let mut random = Random::new(7);
        let mut seen = [0; 500];
        for n in 0..seen.len() {
            base.arm(Instant::now() + Duration::from_micros(random.below(4000)), n);
        }
        while base.timers() > 0 {
            let turned = base.turn(None, |event| {
                if let Fired::Timer { payload, .. } = event {
                    seen[payload] += 1;
                }
            });
            turned.unwrap();
        }
        assert_eq!(seen, [1; 500]);
        JITTER.store(0, SeqCst);
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 20);
    });
}
