//! The event base: descriptors, timers and a wake-up from abroad, on one kernel queue.
//!
//! This is the reactor alone. It knows no future, no waker and no task, and it is usable by itself: an
//! [`EventBase`] maps descriptors and deadlines to payloads of yours, and [`EventBase::turn`] waits once and hands
//! out what happened. The rest of the crate is one user of it among others.
//!
//! ```text
//!   register(fd, payload) ─┐                         ┌─> Fired::Source { key, event, payload: &mut S }
//!   arm(deadline, payload) ┼─> EventBase ── turn() ──┤
//!   Notifier::notify() ────┘   (any thread)          └─> Fired::Timer { key, payload: T }
//! ```
//!
//! Everything an [`EventBase`] does, it does through `&mut self`: one thread at a time owns it. Other threads, and
//! signal handlers, hold a [`Notifier`], whose one method ends the wait of the turn that is running, or of the next
//! one. No other thread ever touches the descriptor of the kernel queue.
//!
//! # Example
//!
//! ```
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//! use std::time::{Duration, Instant};
//! use evbase::base::{EventBase, Fired, Interest, Mode};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut base = EventBase::new()?;
//! let (ours, mut theirs) = UnixStream::pair()?;
//! base.register(&ours, Interest::READABLE, Mode::Level, "the socket")?;
//! base.arm(Instant::now() + Duration::from_millis(5), "the timer");
//! theirs.write_all(b"hello")?;
//!
//! let mut seen = Vec::new();
//! while seen.len() < 2 {
//!     base.turn(None, |fired| match fired {
//!         Fired::Source { event, payload, .. } => {
//!             assert!(event.is_readable());
//!             if !seen.contains(payload) {
//!                 seen.push(*payload);
//!             }
//!         }
//!         Fired::Timer { payload, .. } => seen.push(payload),
//!         _ => {}
//!     })?;
//! }
//! assert_eq!(seen, ["the socket", "the timer"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | file | subject |
//! |---|---|
//! | `event_base.rs` | [`EventBase`]: joins the parts below; the turn |
//! | `interest.rs` | [`Interest`], [`Mode`], [`Event`]: what a source is watched for, and what the kernel reports |
//! | `sources.rs` | the table from [`Key`] to payload, and from descriptor to slot |
//! | `slab.rs` | the slab in which sources and timers are kept |
//! | `timers.rs` | the timer wheel, which knows only nanoseconds |
//! | `precision.rs` | how exact a timer is |
//! | `clock.rs` | nanoseconds since the base was made |
//! | `notify.rs` | [`Notifier`] |
//! | `poll.rs` | a look at descriptors beside the queue |
//! | `histogram.rs` | [`Histogram`] |
//! | `fork.rs` | tells the child of a `fork` from its parent, and keeps what each of them has one of |
//! | `sys/` | the backends, and the contract they keep |

mod clock;
mod event_base;
pub(crate) mod fork;
mod histogram;
mod interest;
mod notify;
mod poll;
mod precision;
mod slab;
mod sources;
mod sys;
mod timers;

pub(crate) use self::clock::FOREVER;
pub use self::event_base::{EventBase, Fired, Turned};
pub(crate) use self::histogram::Buckets;
pub use self::histogram::Histogram;
pub use self::interest::{Event, Interest, Mode};
pub use self::notify::Notifier;
#[cfg(feature = "net")]
pub(crate) use self::poll::is_writable;
pub(crate) use self::precision::{Bound, ExactThread, with_own_slack};
pub use self::sources::Key;
pub use self::sys::Backend;
pub(crate) use self::sys::Descriptor;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::sys::Kevent;
#[cfg(target_os = "linux")]
pub(crate) use self::sys::new_descriptor;
pub use self::timers::TimerKey;
