//! A request to stop may come from a signal handler, where nobody may allocate.

use std::time::Duration;

use evbase::{Builder, Cause, Runtime};

use crate::support::{heap_calls_of_this_thread, hold, parked, rounds};

#[test]
fn a_request_allocates_and_frees_nothing() {
    rounds(100, |_| {
        let unbound = Runtime::new().unwrap();
        let outside = Runtime::new().unwrap();
        outside.block_on(async {}).unwrap();
        let sleeps = parked(Builder::new().grace(Duration::MAX));
        let busy = Builder::new().start("home").unwrap();
        let release = hold(&busy);
        let closed = Runtime::new().unwrap();
        closed.shutdown_handle().request();
        closed.run().unwrap();
        let runtimes = [unbound, outside, sleeps, busy, closed];
        let handles = runtimes.each_ref().map(Runtime::shutdown_handle);
        let before = heap_calls_of_this_thread();
        for handle in &handles {
            let _ = handle.is_requested();
            handle.request();
            handle.request();
            handle.request_now();
            assert!(handle.is_requested());
        }
        assert_eq!(heap_calls_of_this_thread(), before);
        release.open();
        drop(runtimes);
        for handle in handles {
            assert_eq!(handle.terminated().wait().unwrap().cause, Cause::Requested);
        }
    });
}
