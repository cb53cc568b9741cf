//! A timer is as exact as the rule says: the kernel's slack for a thread, and what epoll allows itself for long waits, don't
//! come on top of it.

#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::thread;
use std::time::{Duration, Instant};

use evbase::time::sleep;
use evbase::{Builder, Runtime};
use futures::future::join_all;

use crate::support::watchdog;

const MS: Duration = Duration::from_millis(1);

/// What the kernel says of the calling thread.
fn slack() -> libc::c_long {
    // SAFETY: takes no pointer. Not libc's `prctl`, which answers an int.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) }
}

/// At home on this thread, where it has waited for a timer.
fn that_has_slept() -> Runtime {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(sleep(MS)).unwrap();
    runtime
}

#[test]
fn home_is_exact_from_its_first_wait_for_a_timer_until_the_runtime_closes() {
    let _watchdog = watchdog();
    let before = slack();
    assert!(before > 1);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(evbase::yield_now()).unwrap();
    assert_eq!(slack(), before, "it has waited for nothing");
    runtime.block_on(sleep(MS)).unwrap();
    assert_eq!(slack(), 1);
    runtime.shutdown().wait().unwrap();
    assert_eq!(slack(), before);
}

#[test]
fn a_wait_without_a_timer_leaves_the_thread_alone() {
    let _watchdog = watchdog();
    let before = slack();
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    let (tell, told) = futures::channel::oneshot::channel();
    let abroad = thread::spawn(move || drop(spawner.spawn(async move { tell.send(()) })));
    runtime.block_on(told).unwrap().unwrap();
    abroad.join().unwrap();
    assert_eq!(slack(), before);
}

#[test]
fn a_thread_with_several_homes_is_exact_until_the_last_of_them_closes() {
    let _watchdog = watchdog();
    let before = slack();
    for first_to_go in [0, 1] {
        let mut runtimes = vec![that_has_slept(), that_has_slept()];
        drop(runtimes.remove(first_to_go));
        assert_eq!(slack(), 1);
        drop(runtimes);
        assert_eq!(slack(), before);
    }
}

#[test]
fn a_slack_that_the_thread_has_set_itself_is_put_back() {
    let _watchdog = watchdog();
    for own in [1, 3_000_000_000, libc::c_long::MAX] {
        let home = thread::spawn(move || {
            // SAFETY: takes no pointer, and concerns the calling thread only.
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_TIMERSLACK, own, 0, 0, 0) };
            drop(that_has_slept());
            slack()
        });
        assert_eq!(home.join().unwrap(), own);
    }
}

/// What the kernel allows itself there is 10 ms. The least of several, since a machine that is busy is late itself.
#[test]
fn a_sleep_of_two_seconds_is_no_ten_milliseconds_late_in_a_niced_process() {
    let _watchdog = watchdog();
    let sleeper = |n: u32| {
        thread::spawn(move || {
            // SAFETY: takes no pointer. On Linux it concerns the calling thread only.
            assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) }, 0);
            let length = 2000 * MS + n * 37 * MS;
            let start = Instant::now();
            Builder::new()
                .timer_slack(Duration::ZERO)
                .build()
                .unwrap()
                .block_on(sleep(length))
                .unwrap();
            start.elapsed() - length
        })
    };
    let mut late = Vec::new();
    for _round in 0..8 {
        let sleepers: Vec<_> = (0..4).map(sleeper).collect();
        late.extend(sleepers.into_iter().map(|sleeper| sleeper.join().unwrap()));
        if late.iter().any(|late| *late < 5 * MS) {
            return;
        }
    }
    panic!("{late:?}");
}

/// Counted in sleeps of the loop: a machine that is busy has fewer.
#[test]
fn a_hundred_thousand_sleeps_within_a_second_share_wake_ups() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    // None is so short that it is exact.
    let sleeps = (0..100_000).map(|n| sleep(100 * MS + Duration::from_micros(10) * n));
    runtime.block_on(join_all(sleeps)).unwrap();
    let parks = runtime.metrics().parks;
    assert!(parks < 1_400, "{parks}");
}
