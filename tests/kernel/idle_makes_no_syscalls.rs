//! A runtime that has nothing to do does nothing: no system call, with a far timer armed and a descriptor registered.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use evbase::Builder;
use evbase::io::AsyncFd;

use crate::support::{mark, parked, tid_of, traced, until_parked};

#[test]
fn an_idle_runtime_with_a_far_timer_makes_no_system_call() {
    let trace = traced("all", || {
        let runtime = parked(Builder::new());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        drop(
            runtime
                .spawner()
                .spawn(async move { drop(fd.readable().await.map(drop)) }),
        );
        drop(runtime.spawner().spawn(evbase::time::sleep(Duration::from_secs(3600))));
        let tid = tid_of(&runtime);
        until_parked(tid);
        let turns = runtime.metrics().turns;
        mark(tid);
        // There is nothing to wait for: that is the point.
        std::thread::sleep(Duration::from_secs(3));
        mark(tid);
        assert_eq!(runtime.metrics().turns, turns);
    });
    if let Some(trace) = trace {
        let calls = trace.calls_at_home();
        assert!(calls.is_empty(), "{calls:#?}");
    }
}
