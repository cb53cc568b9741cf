//! A process that is stopped and continued.

use std::time::Duration;

use evbase::{Builder, Cause};

use crate::support::{alone, parked, poll_once, until};

#[test]
fn a_home_that_is_stopped_and_continued_in_its_sleep_sleeps_on() {
    alone(|| {
        let runtime = parked(Builder::new());
        let parent = std::process::id();
        let in_state = |state: char| {
            let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with(state)
        };
        let mut sleeping = runtime.spawner().spawn(evbase::time::sleep(Duration::from_secs(1000)));
        runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
        let code = crate::support::fork(|| {
            for _ in 0..50 {
                // SAFETY: stops the parent, and continues it.
                unsafe { libc::kill(parent.cast_signed(), libc::SIGSTOP) };
                until(|| in_state('T'));
                // SAFETY: as above.
                unsafe { libc::kill(parent.cast_signed(), libc::SIGCONT) };
                until(|| !in_state('T'));
            }
        });
        assert_eq!(code, 0);
        assert!(poll_once(&mut sleeping).is_pending());
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 3, 1)
        );
    });
}
