//! Which runtime is the current one: in loops, under guards, after panics, and in the executors of others.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Cause, Runtime, Shutdown, Spawner, spawn_local, yield_now};

use crate::support::{poll_once, rounds};

#[test]
fn after_a_panic_that_left_block_on_the_thread_is_outside_of_every_loop_and_context() {
    rounds(100, |round| {
        let (runtime, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _outer = other.enter().unwrap();
            drop(runtime.block_on(async {
                let _inner = other.enter().unwrap();
                if round % 2 == 0 {
                    yield_now().await;
                }
                resume_unwind(Box::new("on purpose"))
            }));
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert!(Spawner::try_current().is_none());
        assert_eq!(other.block_on(async { 1 }).unwrap(), 1);
        assert_eq!(
            runtime
                .block_on(async { spawn_local(async { 2 }).await })
                .unwrap()
                .unwrap(),
            2
        );
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 1);
    });
}

#[test]
fn another_executor_polls_timers_and_descriptors_under_an_enter_guard() {
    rounds(50, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let deadline = Instant::now() + Duration::from_micros(500);
        let mut pool = futures::executor::LocalPool::new();
        let done = Rc::new(Cell::new(0));
        let (slept, read) = (done.clone(), done.clone());
        let guard = runtime.enter().unwrap();
        let spawner = pool.spawner();
        use futures::task::LocalSpawnExt;
        spawner
            .spawn_local(async move {
                evbase::time::sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
                slept.set(slept.get() + 1);
            })
            .unwrap();
        spawner
            .spawn_local(async move {
                let mut byte = [0];
                fd.read_with(|mut io| io.read(&mut byte)).await.unwrap();
                read.set(read.get() + 1);
            })
            .unwrap();
        pool.run_until_stalled();
        theirs.write_all(b"x").unwrap();
        // Our loop waits, and wakes the other executor's wakers.
        while done.get() < 2 {
            runtime.turn(None).unwrap();
            pool.run_until_stalled();
        }
        drop(guard);
    });
}

#[test]
fn a_guard_of_a_runtime_that_was_closed_is_a_context_that_refuses() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter().unwrap();
        runtime.shutdown_handle().request();
        // In passing, this closes what was asked to stop on this thread.
        drop(Runtime::new().unwrap());
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
        assert!(Shutdown::current().is_requested());
        assert!(Spawner::current().try_spawn(async {}).is_err());
        let mut refused = spawn_local(async {});
        assert!(matches!(poll_once(&mut refused), Poll::Ready(Err(error)) if error.is_cancelled()));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let polled = fd.poll_read_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(error)) if error.to_string().contains("closed")));
        drop(guard);
        assert!(Spawner::try_current().is_none());
    });
}
