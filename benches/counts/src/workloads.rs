//! What is counted. Nothing here depends on which thread is faster: threads that take part have ended, or wait, when home goes on.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::net::{TcpListener, TcpStream};
use evbase::time::{Sleep, sleep, sleep_until};
use evbase::{Builder, JoinHandle, Runtime, spawn_local, yield_now};
use futures::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// How often `run` is asked to do it.
    pub(crate) count: usize,
    /// How many operations are one.
    pub(crate) operations: usize,
    pub(crate) run: fn(usize),
}

const fn workload(name: &'static str, count: usize, operations: usize, run: fn(usize)) -> Workload {
    Workload {
        name,
        count,
        operations,
        run,
    }
}

pub(crate) const WORKLOADS: &[Workload] = &[
    workload("spawn and join a local task", 50, 1000, spawn_and_join),
    workload("yield, 100 tasks in turn", 500, 100, yields),
    workload("spawn from another thread", 50, 1000, foreign_spawns),
    workload("wake from another thread", 50, 1000, foreign_wakes),
    workload("create, poll and drop a sleep, 10,000 alive", 50, 1000, timer_churn),
    workload("a timer fires and wakes its task", 50, 1000, timers_fire),
    workload("a byte there and back between two tasks, TCP", 5000, 1, echo),
    workload(
        "a turn of an embedded runtime that runs a task",
        20_000,
        1,
        embedded_turns,
    ),
    workload("an idle turn of an embedded runtime", 50_000, 1, idle_embedded_turns),
    workload("create and destroy a runtime", 1000, 1, runtimes),
];

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

fn spawn_and_join(rounds: usize) {
    let joined = runtime().block_on(async {
        let mut tasks: Vec<JoinHandle<usize>> = Vec::with_capacity(1000);
        for _ in 0..rounds {
            tasks.extend((0..1000).map(|n| spawn_local(async move { n })));
            for task in tasks.drain(..) {
                task.await.expect("an output");
            }
        }
    });
    joined.expect("a run");
}

fn yields(rounds: usize) {
    let yielded = runtime().block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                spawn_local(async move {
                    for _ in 0..rounds {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("an output");
        }
    });
    yielded.expect("a run");
}

fn foreign_spawns(rounds: usize) {
    let runtime = runtime();
    runtime.block_on(async {}).expect("a run");
    for _ in 0..rounds {
        let spawner = runtime.spawner();
        let spawns = thread::spawn(move || {
            for _ in 0..999 {
                drop(spawner.spawn(async {}));
            }
            spawner.spawn(async {})
        });
        let last = spawns.join().expect("no panic");
        runtime.block_on(last).expect("a run").expect("an output");
    }
}

fn foreign_wakes(rounds: usize) {
    let runtime = runtime();
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    for _ in 0..1000 {
        let wakers = wakers.clone();
        let mut first = true;
        drop(runtime.spawn_local(poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                wakers.lock().expect("no panic").push(cx.waker().clone());
            }
            Poll::<()>::Pending
        })));
    }
    while runtime.turn(Some(Duration::ZERO)).expect("a turn").more {}
    for _ in 0..rounds {
        let wakers = wakers.clone();
        let wakes = thread::spawn(move || wakers.lock().expect("no panic").iter().for_each(Waker::wake_by_ref));
        wakes.join().expect("no panic");
        while runtime.turn(Some(Duration::ZERO)).expect("a turn").more {}
    }
}

fn timer_churn(rounds: usize) {
    let churned = runtime().block_on(async {
        let mut cx = Context::from_waker(Waker::noop());
        let mut make = |n: usize| {
            let mut nap = sleep(Duration::from_millis(10_000 + n as u64 % 977));
            assert!(Pin::new(&mut nap).poll(&mut cx).is_pending());
            nap
        };
        let mut alive: VecDeque<Sleep> = (0..10_000).map(&mut make).collect();
        for n in 0..rounds * 1000 {
            alive.pop_front();
            alive.push_back(make(n));
        }
    });
    churned.expect("a run");
}

fn timers_fire(rounds: usize) {
    // In virtual time, so that it doesn't depend on the machine which of them fire together.
    let runtime = Builder::new().paused().build().expect("a runtime");
    let fired = runtime.block_on(async move {
        let tasks: Vec<_> = (0..1000)
            .map(|n| {
                spawn_local(async move {
                    let mut nap = sleep(Duration::from_micros(n + 1));
                    for _ in 0..rounds {
                        (&mut nap).await;
                        let next: Instant = nap.deadline() + Duration::from_micros(1000);
                        nap.reset(next);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("an output");
        }
        sleep_until(evbase::time::now()).await;
    });
    fired.expect("a run");
}

fn echo(count: usize) {
    let echoed = runtime().block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = spawn_local(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut byte = [0; 64];
            loop {
                let read = stream.read(&mut byte).await?;
                if read == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                stream.write_all(&byte[..read]).await?;
            }
        });
        let mut stream = TcpStream::connect(address).await?;
        for _ in 0..count {
            stream.write_all(b"x").await?;
            stream.read_exact(&mut [0]).await?;
        }
        drop(stream);
        server.await.map_err(std::io::Error::other)?
    });
    echoed.expect("a run").expect("no error");
}

fn embedded_turns(count: usize) {
    let runtime = runtime();
    let embedded = runtime.embed().expect("it is embedded");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    drop(runtime.spawn_local(async move {
        let fd = AsyncFd::new(ours).expect("a socket");
        while fd
            .read_with(|mut socket| socket.read(&mut [0; 64]))
            .await
            .is_ok_and(|read| read > 0)
        {}
    }));
    embedded.turn().expect("a turn");
    for _ in 0..count {
        theirs.write_all(b"x").expect("room");
        assert_eq!(embedded.turn().expect("a turn").polls, 1);
    }
}

fn idle_embedded_turns(count: usize) {
    let runtime = runtime();
    let embedded = runtime.embed().expect("it is embedded");
    drop(runtime.spawn_local(pending::<()>()));
    for _ in 0..count {
        embedded.turn().expect("a turn");
    }
}

fn runtimes(count: usize) {
    for _ in 0..count {
        runtime().block_on(async {}).expect("a run");
    }
}
