//! What is measured: the list of all workloads, each with the definition of what is timed.

mod echo;
mod foreign_spawn;
mod lifecycle;
mod memory;
mod ring;
mod shutdown;
mod spawn;
mod timers;
mod udp;
mod unix;
mod waits;
mod wake;
mod yields;

use self::ring::Ring;
use self::shutdown::By;
use crate::peers::Name;

/// The figures of one cell, by their keys; an error says why there are none.
pub type Cell = Result<Numbers, String>;
pub type Numbers = Vec<(&'static str, f64)>;

fn one(key: &'static str, number: f64) -> Cell {
    Ok(vec![(key, number)])
}

/// Prints the one line by which a cell answers the driver, and ends the process: pending work is not waited for.
pub fn finish(name: Name, cell: Cell) -> ! {
    match cell {
        Ok(numbers) => {
            let fields: Vec<_> = numbers.iter().map(|(key, number)| format!("{key}={number}")).collect();
            println!("{}", fields.join(" "));
        }
        Err(reason) => println!("unavailable={}: {reason}", name.text()),
    }
    std::process::exit(0);
}

/// Workloads that time the same thing, in different sizes.
pub struct Family {
    pub name: &'static str,
    /// What is timed, and why that is fair.
    pub what: &'static str,
    pub figures: &'static [Figure],
    pub peers: &'static [Name],
    pub members: &'static [Member],
    /// Two members, the second with a thousand times the work, whose first figure should be the same.
    pub growth: Option<(&'static str, &'static str)>,
}

pub struct Figure {
    pub key: &'static str,
    pub unit: &'static str,
}

pub struct Member {
    pub name: &'static str,
    pub title: &'static str,
    pub cell: fn(Name) -> Cell,
}

const fn figure(key: &'static str, unit: &'static str) -> Figure {
    Figure { key, unit }
}

const fn member(name: &'static str, title: &'static str, cell: fn(Name) -> Cell) -> Member {
    Member { name, title, cell }
}

use Name::*;

#[rustfmt::skip]
const TASKS: &[Name] =
    &[Evbase, TokioLocalSet, TokioLocalRuntime, Smol, MonoioEpoll, MonoioUring, Compio, Glommio, Calloop, Bare];
#[rustfmt::skip]
const REACTORS: &[Name] =
    &[Evbase, TokioLocalSet, TokioLocalRuntime, Smol, MonoioEpoll, MonoioUring, Compio, Glommio, Calloop];
#[rustfmt::skip]
const REACTORS_AND_RAW: &[Name] =
    &[Evbase, TokioLocalSet, TokioLocalRuntime, Smol, MonoioEpoll, MonoioUring, Compio, Glommio, Calloop, Raw];
#[rustfmt::skip]
const REACTORS_AND_C: &[Name] =
    &[Evbase, TokioLocalSet, TokioLocalRuntime, Smol, MonoioEpoll, MonoioUring, Compio, Glommio, Calloop, Libevent, Libuv];
#[rustfmt::skip]
const REACTORS_C_AND_RAW: &[Name] =
    &[Evbase, TokioLocalSet, TokioLocalRuntime, Smol, MonoioEpoll, MonoioUring, Compio, Glommio, Calloop, Libevent, Libuv, Raw];

const ENDS: &[Figure] = &[
    figure("p50", "us, p50"),
    figure("p99", "us, p99"),
    figure("awake", "us to awake"),
    figure("leaked", "leaked"),
];

pub const FAMILIES: &[Family] = &[
    Family {
        name: "spawn",
        what: "A task spawns N tasks `async {}` with join handles, and awaits the handles in order; wall time a task. \
               calloop has no join handles: its tasks fill a cell on the heap.",
        figures: &[figure("ns", "ns/task")],
        peers: TASKS,
        members: &[
            member("spawn-1000", "spawn + join, batches of 1,000", |name| {
                spawn::cell(name, 1_000)
            }),
            member("spawn-1000000", "spawn + join, batches of 1,000,000", |name| {
                spawn::cell(name, 1_000_000)
            }),
        ],
        growth: Some(("spawn-1000", "spawn-1000000")),
    },
    Family {
        name: "yield",
        what: "N tasks yield in turn, by the runtime's own yield, or by waking themselves where there is none; wall time a \
               yield. Spawning and joining them is in it, 1/1000 of the yields (1/50 with 100,000 tasks). monoio puts a \
               task that wakes itself to the front of the queue: it doesn't yield to the others.",
        figures: &[figure("ns", "ns/yield")],
        peers: TASKS,
        members: &[
            member("yield-100", "100 tasks yield in turn", |name| {
                yields::cell(name, 100, 1_000)
            }),
            member("yield-100000", "100,000 tasks yield in turn", |name| {
                yields::cell(name, 100_000, 50)
            }),
        ],
        growth: Some(("yield-100", "yield-100000")),
    },
    Family {
        name: "foreign",
        what: "Threads on the other core spawn 1,000,000 tasks into the loop; each counts itself. Wall time from the start \
               signal to the last task's run, a task; making the threads is not in it. Peers with a spawn from abroad use \
               it (tokio: the runtime's handle; smol: an `Executor` run by one thread); monoio, compio and glommio get \
               boxed futures through an async-channel, calloop through its own channel.",
        figures: &[figure("ns", "ns/task")],
        peers: TASKS,
        members: &[
            member("foreign-1", "foreign spawn, 1 thread", |name| {
                foreign_spawn::cell(name, 1, 1_000_000)
            }),
            member("foreign-4", "foreign spawn, 4 threads", |name| {
                foreign_spawn::cell(name, 4, 1_000_000)
            }),
            member("foreign-1000", "foreign spawn, 1,000 threads", |name| {
                foreign_spawn::cell(name, 1_000, 1_000_000)
            }),
        ],
        growth: Some(("foreign-1", "foreign-1000")),
    },
    Family {
        name: "wake",
        what: "A thread on the other core spins for 50 us, so that the loop sleeps, then calls a task's waker (libevent: \
               `event_active`; libuv: `uv_async_send`; raw: an edge-triggered eventfd, never read; bare: no epoll, a blocking read of its eventfd) \
               and parks; the task unparks it. 5,000 trips: the thread's wall time a trip, and the CPU time of the loop's \
               thread (CLOCK_THREAD_CPUTIME_ID) a trip, its half of the unparking included.",
        figures: &[
            figure("p50", "us, p50"),
            figure("p99", "us, p99"),
            figure("cpu", "us CPU"),
        ],
        peers: &Name::ALL,
        members: &[member("wake", "foreign wake, round trip", wake::cell)],
        growth: None,
    },
    Family {
        name: "churn",
        what: "With N timers armed, a task makes a sleep of 10 to 70 s, polls it once and drops it; wall time a sleep. It \
               yields every 1,000, so that work put off is in it. libevent: add and delete; libuv: update the loop's \
               time, start and stop. calloop's own future doesn't cancel: a timer source, inserted and removed, stands in.",
        figures: &[figure("ns", "ns/timer")],
        peers: REACTORS_AND_C,
        members: &[
            member("churn-100", "timer arm + cancel, 100 alive", |name| {
                timers::churn(name, 100)
            }),
            member("churn-10000", "timer arm + cancel, 10,000 alive", |name| {
                timers::churn(name, 10_000)
            }),
            member("churn-100000", "timer arm + cancel, 100,000 alive", |name| {
                timers::churn(name, 100_000)
            }),
        ],
        growth: Some(("churn-100", "churn-100000")),
    },
    Family {
        name: "fire",
        what: "100,000 tasks sleep until scattered microseconds of the second that begins with the first spawn, and are \
               joined; CPU time (CLOCK_THREAD_CPUTIME_ID) of the loop's thread for all of it. libevent and libuv: timers \
               with an empty callback, no tasks. Timers with millisecond resolution (tokio, monoio, libuv, libevent) get \
               by with a thousand turns; the others may take one for each timer.",
        figures: &[figure("ms", "ms CPU")],
        peers: REACTORS_AND_C,
        members: &[member("fire-100000", "100,000 timers fire within 1 s", |name| {
            timers::fire(name, 100_000)
        })],
        growth: None,
    },
    Family {
        name: "precision",
        what: "A task sleeps 200 us, 1,000 times, one after the other: the median of what each took longer. libevent with \
               its flag for precise timers; libuv counts in milliseconds. raw: `epoll_pwait2`. `precision-slack`: raw \
               with a timer slack of 1 ns instead of the kernel's 50 us, which evbase sets by itself.",
        figures: &[figure("us", "us late")],
        peers: REACTORS_C_AND_RAW,
        members: &[member("precision", "200 us sleep", |name| {
            timers::precision(name, false)
        })],
        growth: None,
    },
    Family {
        name: "precision-slack",
        what: "",
        figures: &[figure("us", "us late")],
        peers: &[Raw],
        members: &[member("precision-slack", "200 us sleep, 1 ns slack", |name| {
            timers::precision(name, true)
        })],
        growth: None,
    },
    Family {
        name: "ring",
        what: "libevent's chain, closed to a ring of P socket pairs with T one-byte tokens: a task (or callback) for each \
               pair reads a byte and writes it to the next pair, each by its runtime's own sockets; wall time a hop, in \
               batches of 2,000, which begin with the tokens evenly spread. One-byte reads, as in libevent's benchmark: only a further read tells who caches readiness that nothing is \
               left. `-wide`: reads into 64 bytes, so that a short read tells it, as it does in most programs. `-again`: \
               after each token the reading end is taken off the loop and put back. raw: level-triggered epoll, a read, a \
               write, and a wait shared by all that is ready. 9,900 pairs rather than 10,000, because a process often may \
               have no more than 20,000 descriptors.",
        figures: &[figure("ns", "ns/hop")],
        peers: REACTORS_C_AND_RAW,
        members: &[
            member("ring-500-100", "ring of 500, 100 tokens", |name| {
                ring(name, 500, 100, 1, false)
            }),
            member("ring-500-100-wide", "ring of 500, 100 tokens, 64-byte reads", |name| {
                ring(name, 500, 100, 64, false)
            }),
            member("ring-10-1", "ring of 10, 1 token", |name| ring(name, 10, 1, 1, false)),
            member("ring-100-1", "ring of 100, 1 token", |name| {
                ring(name, 100, 1, 1, false)
            }),
            member("ring-1000-1", "ring of 1,000, 1 token", |name| {
                ring(name, 1_000, 1, 1, false)
            }),
            member("ring-9900-1", "ring of 9,900, 1 token", |name| {
                ring(name, 9_900, 1, 1, false)
            }),
            member("ring-100-100", "ring of 100, 100 tokens", |name| {
                ring(name, 100, 100, 1, false)
            }),
            member("ring-1000-100", "ring of 1,000, 100 tokens", |name| {
                ring(name, 1_000, 100, 1, false)
            }),
            member("ring-9900-100", "ring of 9,900, 100 tokens", |name| {
                ring(name, 9_900, 100, 1, false)
            }),
            member("ring-100-1-again", "ring of 100, 1 token, re-register", |name| {
                ring(name, 100, 1, 1, true)
            }),
            member("ring-1000-1-again", "ring of 1,000, 1 token, re-register", |name| {
                ring(name, 1_000, 1, 1, true)
            }),
            member("ring-9900-1-again", "ring of 9,900, 1 token, re-register", |name| {
                ring(name, 9_900, 1, 1, true)
            }),
            member("ring-100-100-again", "ring of 100, 100 tokens, re-register", |name| {
                ring(name, 100, 100, 1, true)
            }),
            member(
                "ring-1000-100-again",
                "ring of 1,000, 100 tokens, re-register",
                |name| ring(name, 1_000, 100, 1, true),
            ),
            member(
                "ring-9900-100-again",
                "ring of 9,900, 100 tokens, re-register",
                |name| ring(name, 9_900, 100, 1, true),
            ),
        ],
        growth: Some(("ring-10-1", "ring-9900-1")),
    },
    Family {
        name: "echo",
        what: "A TCP echo server, a task and a buffer of 1,024 bytes for each connection. A load generator of the suite's \
               own, the same for all, in a process on the other core, sends 64 bytes on each connection, and the next \
               when they have come back. CPU time of the server process (CLOCK_PROCESS_CPUTIME_ID: kernel time, and \
               threads that a peer starts, included) over the requests of one second, after a warm-up.",
        figures: &[figure("us", "us CPU/request")],
        peers: REACTORS_C_AND_RAW,
        members: &[
            member("echo-1", "TCP echo, 1 connection", |name| echo::cell(name, 1)),
            member("echo-64", "TCP echo, 64 connections", |name| echo::cell(name, 64)),
            member("echo-1000", "TCP echo, 1,000 connections", |name| {
                echo::cell(name, 1_000)
            }),
            member("echo-10000", "TCP echo, 10,000 connections", |name| {
                echo::cell(name, 10_000)
            }),
        ],
        growth: None,
    },
    Family {
        name: "udp",
        what: "N pairs of connected UDP sockets in one loop; in each, a datagram of 1,400 bytes goes to and fro between two tasks. \
               Wall time a hop, in batches of 4,096 over all pairs. raw: level-triggered epoll, a read and a write a hop, \
               and a wait shared by all that is ready.",
        figures: &[figure("ns", "ns/hop")],
        peers: &[Evbase, TokioLocalSet, TokioLocalRuntime, Raw],
        members: &[
            member("udp-1", "UDP to and fro, 1 pair", |name| udp::cell(name, 1)),
            member("udp-64", "UDP to and fro, 64 pairs", |name| udp::cell(name, 64)),
        ],
        growth: None,
    },
    Family {
        name: "unix",
        what: "As `udp`, with Unix stream sockets, by those that have them: 1,400 bytes to and fro, read into 2,048.",
        figures: &[figure("ns", "ns/hop")],
        peers: REACTORS_AND_RAW,
        members: &[
            member("unix-1", "Unix stream to and fro, 1 pair", |name| unix::cell(name, 1)),
            member("unix-64", "Unix stream to and fro, 64 pairs", |name| {
                unix::cell(name, 64)
            }),
        ],
        growth: None,
    },
    Family {
        name: "memory-task",
        what: "12,000 spawned tasks that wait for ever, each on a future of two words that keeps its waker: bytes asked of the allocator and not given back, a \
               task, by a counting allocator. What malloc adds, mapped pages (io_uring's rings) and kernel memory are not \
               in it, here and in the next two.",
        figures: &[figure("bytes", "bytes")],
        peers: TASKS,
        members: &[member("memory-task", "memory of an idle task", memory::task)],
        growth: None,
    },
    Family {
        name: "memory-sleeper",
        what: "The same, with tasks that sleep for an hour. libevent and libuv: a timer without a task, their allocations \
               counted as well.",
        figures: &[figure("bytes", "bytes")],
        peers: REACTORS_AND_C,
        members: &[member("memory-sleeper", "memory of a sleeping task", memory::sleeper)],
        growth: None,
    },
    Family {
        name: "memory-connection",
        what: "The same, with 3,000 accepted TCP connections, each with the task of the echo server and a buffer of 64 \
               bytes, waiting for a first request; user-space bytes of the server's side.",
        figures: &[figure("bytes", "bytes")],
        peers: REACTORS,
        members: &[member(
            "memory-connection",
            "memory of an idle connection",
            memory::connection,
        )],
        growth: None,
    },
    Family {
        name: "create",
        what: "Make a runtime, run a future that is ready, destroy the runtime; wall time. libevent, libuv: a turn that \
               doesn't wait. raw: an epoll and an eventfd. smol's reactor is one per process, and is not in it.",
        figures: &[figure("us", "us")],
        peers: &Name::ALL,
        members: &[member("create", "create and destroy a runtime", lifecycle::create)],
        growth: None,
    },
    Family {
        name: "create-100000",
        what: "Make a runtime, spawn 100,000 tasks that wait for ever and keep their wakers, poll each once, destroy the runtime; wall time, and \
               how many of the tasks' futures were never dropped.",
        figures: &[figure("ms", "ms"), figure("leaked", "leaked")],
        peers: TASKS,
        members: &[member(
            "create-100000",
            "create, 100,000 pending tasks, destroy",
            |name| lifecycle::create_with_tasks(name, 100_000),
        )],
        growth: None,
    },
    Family {
        name: "shutdown-latency",
        what: "Fresh runtimes, each with N tasks that sleep for an hour. When home is seen asleep in the kernel, a thread on the \
               other core ends it, and waits until it is gone: p50 and p99 of the wall time from its call to its \
               knowledge, over 500 rounds (20 with 100,000 tasks, fewer after a minute, or with a million tasks leaked), and p50 of the time until home runs code of ours. \
               evbase: `Shutdown::request_now` to `Terminated::wait`, with a task's destructor as the first code (one task instead of none). Where a \
               runtime has no stop from abroad: a waker of the root, which ends; then the runtime, and its tasks, are \
               destroyed at home, which says so. libevent: `event_base_loopbreak`, then `event_base_free`; libuv: \
               `uv_async_send`, then `uv_close` of all and `uv_loop_close`; timers, no tasks. raw: an epoll, an eventfd, and \
               a block to free a task. Tasks that were never dropped are counted.",
        figures: ENDS,
        peers: REACTORS_C_AND_RAW,
        members: &[
            member("shutdown-latency-0", "end a sleeping loop, no task", |name| {
                shutdown::cell(name, 0, By::Request)
            }),
            member(
                "shutdown-latency-1000",
                "end a sleeping loop, 1,000 sleeping tasks",
                |name| shutdown::cell(name, 1_000, By::Request),
            ),
            member(
                "shutdown-latency-100000",
                "end a sleeping loop, 100,000 sleeping tasks",
                |name| shutdown::cell(name, 100_000, By::Request),
            ),
        ],
        growth: None,
    },
    Family {
        name: "drop-latency",
        what: "The same, by a drop of the `Runtime` on the other thread, which no peer has.",
        figures: ENDS,
        peers: &[Evbase],
        members: &[
            member("drop-latency-0", "drop a sleeping loop, no task", |name| {
                shutdown::cell(name, 0, By::Drop)
            }),
            member(
                "drop-latency-1000",
                "drop a sleeping loop, 1,000 sleeping tasks",
                |name| shutdown::cell(name, 1_000, By::Drop),
            ),
            member(
                "drop-latency-100000",
                "drop a sleeping loop, 100,000 sleeping tasks",
                |name| shutdown::cell(name, 100_000, By::Drop),
            ),
        ],
        growth: None,
    },
];

fn ring(name: Name, pairs: usize, tokens: usize, buffer: usize, again: bool) -> Cell {
    let ring = Ring {
        pairs,
        tokens,
        buffer,
        again,
    };
    ring::cell(name, ring)
}

/// The family and the member of that name.
pub fn find(workload: &str) -> Option<(&'static Family, &'static Member)> {
    FAMILIES
        .iter()
        .flat_map(|family| family.members.iter().map(move |member| (family, member)))
        .find(|(_, member)| member.name == workload)
}
