//! Runtimes in a certain state.

use std::future::poll_fn;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, Runtime, Shutdown};

use super::{Latch, SOON, Tid, until_parked};

/// The kernel's name of a runtime's home, which runs.
pub(crate) fn tid_of(runtime: &Runtime) -> Tid {
    runtime.spawner().spawn(async { Tid::here() }).wait().unwrap().unwrap()
}

/// A runtime with a thread of its own, which sleeps in the kernel.
pub(crate) fn parked(builder: Builder) -> Runtime {
    let runtime = builder.start("home").unwrap();
    until_parked(tid_of(&runtime));
    runtime
}

/// The waker of a task of that runtime that waits for ever.
pub(crate) fn waker_of(runtime: &Runtime) -> Waker {
    let (give, given) = mpsc::channel();
    drop(runtime.spawner().spawn(poll_fn(move |cx| {
        // It is polled again when the waker is used.
        let _ = give.send(cx.waker().clone());
        Poll::<()>::Pending
    })));
    given.recv().unwrap()
}

/// Another thread, which asks for a stop as soon as this one sleeps.
pub(crate) fn stop_when_parked(shutdown: Shutdown) -> thread::JoinHandle<()> {
    let here = Tid::here();
    thread::spawn(move || {
        until_parked(here);
        shutdown.request();
    })
}

/// Keeps home inside of a task until the latch is opened.
pub(crate) fn hold(runtime: &Runtime) -> Latch {
    let (entered, release) = (Latch::new(), Latch::new());
    let (in_task, let_go) = (entered.clone(), release.clone());
    drop(runtime.spawner().spawn(async move {
        in_task.open();
        let_go.wait();
    }));
    entered.wait();
    release
}

/// Turns the loop until the condition holds.
pub(crate) fn turn_until(runtime: &Runtime, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "the loop turned for {SOON:?} in vain");
        runtime.turn(Some(Duration::from_millis(20))).unwrap();
    }
}
