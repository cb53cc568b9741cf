//! The timer slack of a thread with several runtimes is that of the youngest of them that asked for one; when none is left,
//! it is what it was.

use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime};

use crate::support::watchdog;

/// What the kernel says of the calling thread.
fn slack() -> libc::c_long {
    // SAFETY: takes no pointer. Not libc's `prctl`, which answers an int.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) }
}

/// At home on this thread.
fn with_slack(nanoseconds: u64) -> Runtime {
    let builder = Builder::new().timer_slack(Duration::from_nanos(nanoseconds));
    let runtime = builder.build().unwrap();
    drop(runtime.enter().unwrap());
    runtime
}

#[test]
fn two_slacks_on_one_thread_end_in_either_order() {
    let _watchdog = watchdog();
    let before = slack();
    for first_to_go in [0, 1] {
        let mut runtimes = vec![with_slack(1111), with_slack(2222)];
        assert_eq!(slack(), 2222);
        drop(runtimes.remove(first_to_go));
        assert_eq!(slack(), [2222, 1111][first_to_go], "what is left still counts");
        drop(runtimes);
        assert_eq!(slack(), before);
    }
}

#[test]
fn of_many_slacks_the_youngest_that_lives_counts() {
    let _watchdog = watchdog();
    let before = slack();
    let mut runtimes: Vec<_> = (1..=4).map(|n| (n, with_slack(n))).collect();
    for (goes, left) in [(2, 4), (4, 3), (1, 3)] {
        runtimes.retain(|(n, _)| *n != goes);
        assert_eq!(slack(), left);
    }
    // One that asks for nothing changes nothing.
    Runtime::new().unwrap().block_on(async {}).unwrap();
    assert_eq!(slack(), 3);
    drop(runtimes);
    assert_eq!(slack(), before);
}

#[test]
fn slacks_beyond_an_int_and_at_the_ends_are_put_back_exactly() {
    let _watchdog = watchdog();
    let before = slack();
    let long = with_slack(5_000_000_000);
    assert_eq!(slack(), 5_000_000_000);
    let longest = Builder::new().timer_slack(Duration::MAX).build().unwrap();
    drop(longest.enter().unwrap());
    assert_eq!(slack(), libc::c_long::MAX);
    let least = with_slack(0);
    assert_eq!(slack(), 1);
    drop(longest);
    drop(least);
    assert_eq!(slack(), 5_000_000_000);
    drop(long);
    assert_eq!(slack(), before);
}

#[test]
fn slacks_above_one_that_the_thread_has_set_itself_go_back_to_that() {
    let _watchdog = watchdog();
    let own = thread::spawn(|| {
        // SAFETY: takes no pointer, and concerns the calling thread only.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 3_000_000_000_u64) };
        let (one, other) = (with_slack(1111), with_slack(2222));
        drop(one);
        drop(other);
        slack()
    });
    assert_eq!(own.join().unwrap(), 3_000_000_000);
}
