//! Signals, as a stream: [`Signals`]; and Ctrl-C: [`ctrl_c`].
//!
//! ```text
//!   the handler                                         the loop
//!   pending[signal] = true                              rung = false
//!   unless rung: rung = true, write(2) ── descriptor ─> take what is pending; else wait for the descriptor
//! ```
//!
//! A signal is noted before `rung` is looked at, and looked for after `rung` was cleared: a handler that doesn't write, since
//! it finds `rung` set, has its signal found by the poll that clears it. So each poll is woken by one write at most, however
//! many signals come, and none is lost. No thread is started.
//!
//! To end a runtime by a signal, see [`Shutdown::on_signals`](crate::Shutdown::on_signals).

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::os::raw::c_int;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::base::Notifier;
use crate::home::{Direction, context, coop};
use crate::io::AsyncFd;
use crate::runtime::Handlers;

/// A stream of the signals that come to this process: it gives their numbers, and never ends.
///
/// A signal counts from [`new`](Signals::new) on, whether or not somebody waits. As in the kernel, one that comes again before it
/// was taken is given once. Signals of different numbers are all given, in no particular order. Any number of `Signals`, and of
/// handlers of others that were there before, may be for the same signal: each gets it.
///
/// It can be made, moved and dropped on any thread, and polled in any loop of evbase's, also in another one than before. It starts
/// no thread: the handler does no more than note the signal and, if need be, write to a descriptor, which the loop watches.
///
/// Cancel-safe: what no poll has given is given by a later one.
///
/// # What stays
///
/// Dropping it ends the stream only. The signals don't get their default disposition back: a handler that does nothing stays in
/// its place (the registry behind it, signal-hook's, can't take it out safely), so that SIGINT, for one, has no effect on the
/// process from then on. Programs that are executed by this one begin with the default disposition.
///
/// In the child of a `fork`, make a new one; dropping the copy of the parent's disturbs nobody.
///
/// # Panics
///
/// Polled outside of a runtime or while that closes, in the child of a fork, or if the kernel refuses to watch its descriptor (out
/// of memory, or out of descriptors when it moves to another loop).
///
/// # Examples
///
/// ```
/// use evbase::signal::Signals;
/// use futures::StreamExt;
///
/// let runtime = evbase::Runtime::new()?;
/// let mut signals = Signals::new(&[libc::SIGHUP, libc::SIGUSR1])?;
/// # // SAFETY: it takes no pointer.
/// # unsafe { libc::raise(libc::SIGHUP) };
/// runtime.block_on(async {
///     // Somebody says `kill -HUP`.
///     match signals.next().await {
///         Some(libc::SIGHUP) => println!("reading the configuration again"),
///         other => panic!("{other:?}"),
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Signals {
    /// Before what the handlers use, so that they end first.
    handlers: Handlers,
    arrivals: Arc<Arrivals>,
    /// Where the next search begins: no signal hides another one.
    next: usize,
    /// The descriptor that is written to. Another loop gets another duplicate.
    rings: AsyncFd<File>,
}

/// What the handlers and the stream share.
#[derive(Debug)]
struct Arrivals {
    signals: Box<[Arrival]>,
    /// The descriptor was written to since the last poll.
    rung: AtomicBool,
    notifier: Notifier,
}

#[derive(Debug)]
struct Arrival {
    signal: c_int,
    pending: AtomicBool,
}

impl Arrivals {
    /// Called by the handler of a signal; async-signal-safe.
    fn note(&self, at: usize) {
        self.signals[at].pending.swap(true, AcqRel);
        if !self.rung.swap(true, AcqRel) && self.notifier.notify().is_err() {
            // The next signal shall try again.
            self.rung.store(false, Relaxed);
        }
    }
}

impl Signals {
    /// Handles these signals from here on. On any thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for `SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE` and `SIGSEGV`, which can't be handled like this, and
    /// for numbers that are no signal; no signal is handled then. Else what the operating system says when it has no descriptor
    /// left.
    pub fn new(signals: &[c_int]) -> io::Result<Self> {
        let notifier = Notifier::new()?;
        let rings = AsyncFd::from_nonblocking(notifier.reader()?, false);
        let arrival = |&signal| Arrival {
            signal,
            pending: AtomicBool::new(false),
        };
        let arrivals = Arc::new(Arrivals {
            signals: signals.iter().map(arrival).collect(),
            rung: AtomicBool::new(false),
            notifier,
        });
        let action = |at| {
            let arrivals = arrivals.clone();
            move || arrivals.note(at)
        };
        // SAFETY: the action is two atomic swaps and `notify`, which is async-signal-safe. It borrows what it uses.
        let handlers = unsafe { Handlers::new(signals, action) }?;
        Ok(Self {
            handlers,
            arrivals,
            next: 0,
            rings,
        })
    }

    /// The next signal. An error where `Signals` panics.
    pub(crate) fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<c_int>> {
        if self.handlers.is_forked() {
            return Poll::Ready(Err(io::Error::other(
                "signals that were asked for before fork() go to the parent process; ask for them anew in the child",
            )));
        }
        if context::current().is_none() {
            return Poll::Ready(Err(io::Error::other(
                "signals were waited for outside of a runtime: await them in block_on or in a task",
            )));
        }
        loop {
            // From here on a signal writes again.
            self.arrivals.rung.swap(false, AcqRel);
            if let Some(at) = self.find() {
                ready!(coop::spend(cx));
                let arrival = &self.arrivals.signals[at];
                arrival.pending.swap(false, AcqRel);
                self.next = at + 1;
                return Poll::Ready(Ok(arrival.signal));
            }
            match ready!(
                self.rings
                    .poll_io(Direction::Read, cx, |mut file| file.read(&mut [0; 64]))
            ) {
                Ok(_) => {}
                Err(_) if self.rings.is_elsewhere() => {
                    self.rings = AsyncFd::from_nonblocking(self.arrivals.notifier.reader()?, false);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn find(&self) -> Option<usize> {
        let (before, after) = (0..self.next, self.next..self.arrivals.signals.len());
        after
            .chain(before)
            .find(|&at| self.arrivals.signals[at].pending.load(Acquire))
    }
}

impl Stream for Signals {
    type Item = c_int;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<c_int>> {
        match ready!(self.poll_signal(cx)) {
            Ok(signal) => Poll::Ready(Some(signal)),
            Err(error) => panic!("evbase: {error}"),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

/// Waits for a Ctrl-C (SIGINT) that comes after this call.
///
/// It counts from the call on, not from the first poll: one that comes in between isn't lost. Each call waits for a new one.
/// Awaited in any loop of evbase's; on any thread.
///
/// From the first call on, Ctrl-C no longer ends the process, also when no such future is alive any more: see [`Signals`] for what
/// stays. Call it again for the next one.
///
/// Cancel-safe.
///
/// # Errors
///
/// When it is awaited: outside of a runtime; in the child of a fork; what the operating system says when it has no descriptor
/// left.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let ctrl_c = evbase::signal::ctrl_c();
/// #   // SAFETY: it takes no pointer.
/// #   unsafe { libc::raise(libc::SIGINT) };
///     // Somebody presses Ctrl-C.
///     ctrl_c.await?;
///     println!("closing");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn ctrl_c() -> impl Future<Output = io::Result<()>> + Send {
    let signals = Signals::new(&[libc::SIGINT]);
    async move {
        let mut signals = signals?;
        poll_fn(|cx| signals.poll_signal(cx)).await.map(drop)
    }
}
