//! Timers: armed and cancelled, fired, and how late they are.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Cell, one};
use crate::measure::{Batches, batches, quantile, scattered, thread_cpu};
use crate::peers::raw::Epoll;
use crate::peers::{Library, Name, Timers, with_reactor};

// ---- Churn: create, poll once, drop ----

const CHURNED: usize = 10_000;

/// Deadlines between 10 and 70 seconds away, in microseconds: far enough that none fires.
fn far(count: usize) -> Vec<u64> {
    scattered(60_000_000).map(|us| us + 10_000_000).take(count).collect()
}

pub fn churn(name: Name, alive: usize) -> Cell {
    let nanoseconds = match name {
        Name::Libevent | Name::Libuv => {
            let library = Library::of(name);
            let (standing, churned) = (far(alive), far(CHURNED));
            // SAFETY: the arrays are as long as said.
            unsafe {
                let timers = (library.timers_new)(standing.as_ptr(), alive as i32);
                batches(CHURNED, || {
                    (library.timers_churn)(timers, churned.as_ptr(), CHURNED as i32)
                })
            }
        }
        name => with_reactor!(name, P => P::run(|peer| churn_in_task(peer, alive))),
    };
    one("ns", nanoseconds)
}

async fn churn_in_task<P: Timers>(peer: P, alive: usize) -> f64 {
    let mut standing = Vec::with_capacity(alive);
    for us in far(alive) {
        let mut sleep = Box::pin(peer.sleep(Duration::from_micros(us)));
        poll_once(sleep.as_mut()).await;
        standing.push(sleep);
    }
    let churned = far(CHURNED);
    let mut batches = Batches::new();
    while batches.more() {
        let start = Instant::now();
        for some in churned.chunks(1_000) {
            for &us in some {
                poll_once(pin!(peer.sleep(Duration::from_micros(us)))).await;
            }
            // The loop may have put off some of the work.
            P::yield_now().await;
        }
        batches.add(start, CHURNED);
    }
    batches.median()
}

async fn poll_once(mut sleep: Pin<&mut impl Future>) {
    poll_fn(|cx| {
        assert!(sleep.as_mut().poll(cx).is_pending(), "it is far away");
        Poll::Ready(())
    })
    .await;
}

// ---- Fire ----

pub fn fire(name: Name, timers: usize) -> Cell {
    let near: Vec<u64> = scattered(1_000_000).take(timers).collect();
    let cpu = match name {
        Name::Libevent | Name::Libuv => {
            let start = thread_cpu();
            // SAFETY: the array is as long as said.
            unsafe { (Library::of(name).timers_fire)(near.as_ptr(), timers as i32) };
            thread_cpu() - start
        }
        name => with_reactor!(name, P => P::run(|peer| fire_in_tasks(peer, near))),
    };
    one("ms", cpu.as_nanos() as f64 / 1e6)
}

async fn fire_in_tasks<P: Timers>(peer: P, near: Vec<u64>) -> Duration {
    let mut joins = Vec::with_capacity(near.len());
    let start = thread_cpu();
    for us in near {
        let sleep = peer.sleep(Duration::from_micros(us));
        joins.push(peer.spawn(async {
            sleep.await;
        }));
    }
    for join in joins {
        join.await;
    }
    thread_cpu() - start
}

// ---- Precision ----

const SLEEPS: usize = 1_000;
const SLEEP: Duration = Duration::from_micros(200);

/// Median overshoot; `exact`: with a timer slack of 1 ns, for raw.
pub fn precision(name: Name, exact: bool) -> Cell {
    let mut overshoots = match name {
        Name::Libevent | Name::Libuv => {
            let library = Library::of(name);
            // SAFETY: the sleeps are what the library made.
            let sleeps = unsafe { (library.sleeps_new)() };
            overshoots(|| unsafe { (library.sleeps_sleep)(sleeps, SLEEP.as_micros() as u64) })
        }
        Name::Raw => {
            if exact {
                // SAFETY: changes a number of this thread.
                unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
            }
            let mut epoll = Epoll::new();
            overshoots(|| assert_eq!(epoll.wait(Some(SLEEP.as_nanos() as u64)).count(), 0))
        }
        name => with_reactor!(name, P => P::run(overshoots_in_task)),
    };
    one("us", quantile(&mut overshoots, 0.5))
}

fn overshoots(mut sleep: impl FnMut()) -> Vec<f64> {
    let once = |_| {
        let start = Instant::now();
        sleep();
        overshoot(start)
    };
    (0..SLEEPS).map(once).collect()
}

async fn overshoots_in_task<P: Timers>(peer: P) -> Vec<f64> {
    let mut overshoots = Vec::with_capacity(SLEEPS);
    for _ in 0..SLEEPS {
        let start = Instant::now();
        peer.sleep(SLEEP).await;
        overshoots.push(overshoot(start));
    }
    overshoots
}

/// Microseconds; negative if it was early.
fn overshoot(start: Instant) -> f64 {
    (start.elapsed().as_nanos() as f64 - SLEEP.as_nanos() as f64) / 1e3
}
