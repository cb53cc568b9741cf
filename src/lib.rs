//! A single-threaded async runtime on its own epoll/kqueue event base, which any thread, and a signal handler, can feed,
//! wake, stop and drop.
//!
//! > **First use binds. Home does the work. Leaving is a message home.**
//!
//! A [`Runtime`] can be made anywhere. The first thread that drives it, or uses it as home ([`Runtime::spawn_local`],
//! [`enter`](Runtime::enter), [`local_spawner`](Runtime::local_spawner), [`embed`](Runtime::embed), [`dump`](Runtime::dump),
//! [hooks](Runtime::before_wait)), becomes its *home*; others spawn by [`Spawner::spawn_with`], also before there is a home.
//! What the runtime owns (its kernel queue, registrations, timers, tasks and their futures) is touched, dropped and freed on
//! that thread only. Whatever another thread does to it (spawn, wake, abort, drop, shut down) is a message through an inbox and
//! a notify descriptor: it never blocks, never deadlocks, and never runs a user's destructor on the wrong thread.
//!
//! So futures need not be `Send`, the handles are (but those of home: [`LocalSpawner`], [`EnterGuard`], [`WaitHook`]; a
//! [`JoinHandle`] if its output is), and nobody has to know the rule that everybody else has to keep by hand: that an event
//! base must be freed on its loop's thread.
//!
//! ```
//! use std::time::Duration;
//!
//! // A loop on a thread of its own; this thread is abroad.
//! let runtime = evbase::Builder::new().grace(Duration::from_secs(1)).start("loop")?;
//! let spawner = runtime.spawner();
//!
//! let greeting = spawner.spawn(async {
//!     evbase::time::sleep(Duration::from_millis(1)).await;
//!     "hello from home"
//! });
//! assert_eq!(greeting.wait()??, "hello from home");
//!
//! // Dropping the runtime would do as well; this also tells when everything is freed.
//! let report = runtime.shutdown().wait()?;
//! assert_eq!(report.completed, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | life in another event loop | [`Runtime::embed`], [`Embedded`]; another loop as a guest: [`Runtime::before_wait`] |
//! | running futures | [`Runtime::block_on`], [`Runtime::run`], [`Runtime::turn`], [`Builder::start`], [`block_on()`] |
//! | spawning, at home | [`spawn_local`], [`Runtime::spawn_local`], [`LocalSpawner`] |
//! | spawning, from anywhere | [`Spawner`], also for futures that are not `Send`: [`Spawner::spawn_with`] |
//! | the end | [`Shutdown`], from any thread or a signal handler; [`Terminated`]; [`Runtime`] on what a drop does |
//! | many tasks at once, tasks that end with their handle | [`JoinSet`], [`AbortOnDrop`] |
//! | watching it | [`Runtime::metrics`], [`Builder::measure`], [`Runtime::dump`], [`Builder::on_stall`], [`Builder::observe`] |
//! | which task this is, values of its own | [`task::id`], [`task_local!`] |
//! | whose turn it is | [`Priority`], [`Builder::event_interval`], [`Builder::event_time`] |
//! | time | [`time`] |
//! | descriptors and sockets | [`io::AsyncFd`], [`net`] |
//! | child processes | [`process`] |
//! | signals | [`signal`]; as the end of a runtime: [`Shutdown::on_signals`] |
//! | blocking work | [`unblock()`] |
//! | the event base alone | [`base`] |
//! | moving from tokio, smol or libevent; what to use beside it | [`guide`] |
//!
//! # Features
//!
//! | feature | default | what it gives |
//! |---|---|---|
//! | `net` | yes | TCP, UDP and Unix sockets, over mio's; needs `unblock` for name look-ups |
//! | `unblock` | yes | [`unblock()`], through the `blocking` crate |
//! | `hyper` | no | HTTP/1 and HTTP/2: hyper's executors, timer and I/O on the loop; needs `net` |
//! | `tokio` | no | tokio's `AsyncRead` and `AsyncWrite` for sockets, a child's pipes and [`io::AsyncFd`]; nothing of its runtime |
//! | `tracing` | no | tasks as spans of the `tracing` crate, as tokio-console reads them |
//!
//! # Platforms
//!
//! Linux (epoll); macOS, FreeBSD, NetBSD, OpenBSD and DragonFly (kqueue) on 64-bit machines. kqueue is type-checked, and has
//! not run on these systems yet.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod base;
mod executor;
#[cfg(any(doc, doctest))]
pub mod guide;
mod home;
#[cfg(feature = "hyper")]
pub mod hyper;
pub mod io;
#[cfg(feature = "net")]
pub mod net;
mod observe;
pub mod process;
mod random;
mod runtime;
pub mod signal;
mod sync;
pub mod task;
pub mod time;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tracing")]
pub mod tracing;
#[cfg(feature = "unblock")]
mod unblock;

pub use base::Histogram;
pub use executor::{AbortHandle, AbortOnDrop, End, JoinError, JoinHandle, Priority, TaskId, TaskState};
pub use home::{Cause, Report, RunError, SpawnError, SpawnErrorKind, Turn, Wait, WaitError, WaitHook};
pub use observe::{Dump, Observer, Stall, TaskDump, TaskInfo, WaitsFor};
pub use runtime::{
    Builder, Embedded, EnterGuard, LocalSpawner, Metrics, Requested, Runtime, Shutdown, SignalGuard, Spawner,
    Terminated, block_on, spawn_local, yield_now,
};
pub use task::JoinSet;
#[cfg(feature = "unblock")]
pub use unblock::unblock;

/// The examples of the README, run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
