//! Other threads spawn into the loop as fast as they can.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;
use std::time::Instant;

use atomic_waker::AtomicWaker;

use super::{Cell, one};
use crate::measure::{Core, pin};
use crate::peers::{self, ByChannel, Foreign, Name};

pub fn cell(name: Name, threads: usize, tasks: usize) -> Cell {
    let nanoseconds = match name {
        Name::Evbase => spawn_all::<peers::Evbase>(threads, tasks),
        Name::TokioLocalSet => spawn_all::<peers::LocalSet>(threads, tasks),
        Name::TokioLocalRuntime => spawn_all::<peers::LocalRuntime>(threads, tasks),
        Name::Smol => spawn_all::<peers::Smol>(threads, tasks),
        Name::MonoioEpoll => spawn_all::<ByChannel<peers::MonoioEpoll>>(threads, tasks),
        Name::MonoioUring => spawn_all::<ByChannel<peers::MonoioUring>>(threads, tasks),
        Name::Compio => spawn_all::<ByChannel<peers::Compio>>(threads, tasks),
        Name::Glommio => spawn_all::<ByChannel<peers::Glommio>>(threads, tasks),
        Name::Calloop => spawn_all::<peers::Calloop>(threads, tasks),
        Name::Bare => spawn_all::<peers::Bare>(threads, tasks),
        name => unreachable!("{} has no tasks", name.text()),
    };
    one("ns", nanoseconds)
}

/// Tasks that have run. Only the loop writes it, so it needs no read-modify-write.
static RUN: AtomicUsize = AtomicUsize::new(0);
static ALL_RUN: AtomicWaker = AtomicWaker::new();

fn spawn_all<P: Foreign>(threads: usize, tasks: usize) -> f64 {
    let each = tasks / threads;
    let tasks = each * threads;
    let nanoseconds = Arc::new(AtomicU64::new(0));
    let result = nanoseconds.clone();
    P::run(move |spawner| {
        let start_line = Arc::new(Barrier::new(threads + 1));
        let producers: Vec<_> = (0..threads)
            .map(|_| {
                let (spawner, start_line) = (spawner.clone(), start_line.clone());
                thread::spawn(move || {
                    pin(Core::Counterpart);
                    start_line.wait();
                    for _ in 0..each {
                        P::spawn(&spawner, async move {
                            let run = RUN.load(Relaxed) + 1;
                            RUN.store(run, Relaxed);
                            if run == tasks {
                                ALL_RUN.wake();
                            }
                        });
                    }
                })
            })
            .collect();
        async move {
            start_line.wait();
            let start = Instant::now();
            poll_fn(|cx| {
                ALL_RUN.register(cx.waker());
                match RUN.load(Relaxed) == tasks {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            result.store(start.elapsed().as_nanos() as u64, Relaxed);
            for producer in producers {
                producer.join().expect("a producer");
            }
        }
    });
    nanoseconds.load(Relaxed) as f64 / tasks as f64
}
