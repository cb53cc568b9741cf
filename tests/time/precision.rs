//! A timer is as exact as the rule says: the kernel's slack for a thread, and what epoll allows itself for long waits, don't
//! come on top of it.

#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::panic::{catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

use evbase::time::sleep;
use evbase::{Builder, RunError, Runtime};
use futures::future::join_all;

use crate::support::{alone, until, watchdog};

const MS: Duration = Duration::from_millis(1);

/// What the kernel says of the calling thread.
fn slack() -> libc::c_long {
    // SAFETY: takes no pointer. Not libc's `prctl`, which answers an int.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) }
}

/// Gives the calling thread a slack of its own.
fn set_slack(slack: libc::c_long) {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_TIMERSLACK, slack, 0, 0, 0) };
}

/// How often the calling thread has gone to sleep.
fn sleeps() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it writes a `rusage`, for which zeroes are valid, too.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_nvcsw
    }
}

/// The slack in a task that has waited for a timer. On a busy machine, a deadline may have come before home goes to wait for it: then
/// after the first one for which home has slept.
async fn slack_after_a_sleep() -> libc::c_long {
    let before = sleeps();
    while sleeps() == before {
        sleep(MS).await;
    }
    slack()
}

#[test]
fn home_is_exact_from_its_first_wait_for_a_near_timer_until_its_loop_ends() {
    let _watchdog = watchdog();
    let before = slack();
    assert!(before > 1);
    let runtime = Runtime::new().unwrap();
    for _ in 0..3 {
        let slacks = runtime.block_on(async {
            evbase::yield_now().await;
            (slack(), slack_after_a_sleep().await)
        });
        assert_eq!((slacks.unwrap(), slack()), ((before, 1), before));
        let task = runtime.spawn_local(slack_after_a_sleep()).unwrap();
        while !task.is_finished() {
            runtime.turn(None).unwrap();
            assert_eq!(slack(), before);
        }
        assert_eq!(task.wait().unwrap().unwrap(), 1);
    }
    assert_eq!(evbase::block_on(slack_after_a_sleep()).unwrap(), 1);
    assert_eq!(slack(), before);
}

#[test]
fn a_panic_that_leaves_the_loop_leaves_no_exact_thread_behind() {
    let _watchdog = watchdog();
    let before = slack();
    let runtime = Runtime::new().unwrap();
    let panicked = catch_unwind(|| {
        runtime.block_on(async {
            assert_eq!(slack_after_a_sleep().await, 1);
            resume_unwind(Box::new("a panic"));
        })
    });
    assert!(panicked.is_err());
    assert_eq!(slack(), before);
    assert_eq!(runtime.block_on(slack_after_a_sleep()).unwrap(), 1);
    assert_eq!(slack(), before);
}

#[test]
fn a_turn_or_an_end_of_another_runtime_inside_the_loop_leaves_it_exact() {
    let _watchdog = watchdog();
    let before = slack();
    let (outer, inner) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    assert_eq!(inner.block_on(slack_after_a_sleep()).unwrap(), 1);
    let embedded = inner.embed().unwrap();
    let nested = outer.block_on(async {
        // Not the turn makes it exact: it doesn't wait.
        let sleeper = inner.spawn_local(slack_after_a_sleep()).unwrap();
        embedded.turn().unwrap();
        assert_eq!(slack(), before);
        assert_eq!(slack_after_a_sleep().await, 1);
        while !sleeper.is_finished() {
            embedded.turn().unwrap();
            sleep(MS).await;
        }
        assert_eq!(slack(), 1);
        drop(inner);
        slack()
    });
    assert_eq!((nested.unwrap(), slack()), (1, before));
}

/// Waits in the kernel until another thread sends something, and nothing else ends that; then tells the slack.
fn slack_after_a_message(runtime: &Runtime) -> libc::c_long {
    let parks = runtime.metrics().parks;
    let (tell, told) = futures::channel::oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            until(|| runtime.metrics().parks > parks);
            tell.send(()).unwrap();
        });
        let told = runtime.block_on(async {
            told.await.unwrap();
            slack()
        });
        told.unwrap()
    })
}

#[test]
fn a_wait_without_a_timer_or_far_from_it_leaves_the_thread_alone() {
    let _watchdog = watchdog();
    let before = slack();
    let runtime = Runtime::new().unwrap();
    for timers in [0, 3] {
        let armed: Vec<_> = (0..timers)
            .map(|n| runtime.spawn_local(sleep(Duration::from_secs(3600) * (n + 1))).unwrap())
            .collect();
        assert_eq!(slack_after_a_message(&runtime), before);
        drop(armed);
    }
}

#[test]
fn a_slack_that_the_thread_has_set_itself_is_put_back() {
    let _watchdog = watchdog();
    for own in [1, 3_000_000_000, libc::c_long::MAX] {
        let home = thread::spawn(move || {
            set_slack(own);
            assert_eq!(evbase::block_on(slack_after_a_sleep()).unwrap(), 1);
            slack()
        });
        assert_eq!(home.join().unwrap(), own);
    }
}

#[test]
fn a_wide_slack_of_the_thread_delays_no_timer_near_or_far() {
    let _watchdog = watchdog();
    for length in [MS, 100 * MS] {
        let home = thread::spawn(move || {
            set_slack(3_600_000_000_000);
            let runtime = Runtime::new().unwrap();
            let start = Instant::now();
            runtime.block_on(sleep(length)).unwrap();
            // The next loop finds the same.
            runtime.block_on(sleep(length)).unwrap();
            start.elapsed()
        });
        let elapsed = home.join().unwrap();
        assert!(elapsed < Duration::from_secs(1000), "{elapsed:?}");
    }
}

/// In a process of its own, where the pool has no threads yet.
#[cfg(feature = "unblock")]
#[test]
fn threads_and_processes_that_this_crate_makes_start_with_the_slack_of_before() {
    alone(|| {
        let before = slack();
        let made = evbase::block_on(async {
            assert_eq!(slack_after_a_sleep().await, 1);
            let of_the_pool = evbase::unblock(slack).await;
            let other = Builder::new().start("another home").unwrap();
            let of_a_home = other.spawner().spawn(async { slack() }).await.unwrap();
            let output = evbase::process::Command::new("cat")
                .arg("/proc/self/timerslack_ns")
                .output()
                .await
                .unwrap();
            let of_a_process = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            // What the program makes otherwise is its own affair.
            let of_the_program = thread::spawn(slack).join().unwrap();
            ([of_the_pool, of_a_home, of_a_process], of_the_program, slack())
        });
        assert_eq!(made.unwrap(), ([before; 3], 1, 1));
        assert_eq!(slack(), before);
    });
}

#[test]
fn the_child_of_a_fork_in_the_loop_is_exact_until_it_leaves_it() {
    alone(|| {
        let before = slack();
        let runtime = Runtime::new().unwrap();
        let left = runtime.block_on(async {
            assert_eq!(slack_after_a_sleep().await, 1);
            // SAFETY: no other thread of this process holds a lock.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            child
        });
        let left = match left {
            Ok(0) | Err(RunError::Forked) => {
                let of_a_new_one = evbase::block_on(slack_after_a_sleep()).ok();
                let is_back = slack() == before && of_a_new_one == Some(1);
                // SAFETY: ends the child.
                unsafe { libc::_exit(if is_back { 7 } else { 1 }) }
            }
            Ok(child) => child,
            Err(error) => panic!("{error}"),
        };
        let mut status = 0;
        // SAFETY: `status` is valid for the call.
        assert_eq!(unsafe { libc::waitpid(left, &mut status, 0) }, left);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
        assert_eq!(slack(), before);
    });
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
