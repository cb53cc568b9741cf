//! What a runtime counts.

use std::time::Duration;

use crate::base::{Buckets, Histogram};
use crate::executor::Count;
use crate::home::Shared;
use crate::observe::Measured;

/// What a runtime has done so far: a snapshot, taken from any thread by [`Runtime::metrics`](crate::Runtime::metrics).
///
/// Each figure is exact, but they are read one after the other, while home goes on.
///
/// # Examples
///
/// ```
/// use evbase::Metrics;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.spawn_local(async {})?;
/// runtime.block_on(evbase::yield_now())?;
/// let Metrics { spawned, completed, polls, .. } = runtime.metrics();
/// assert_eq!((spawned, completed, polls), (1, 1, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Tasks accepted; those on their way through the inbox are not counted yet.
    pub spawned: u64,
    /// Tasks whose future gave an output.
    pub completed: u64,
    /// Tasks that were aborted, or dropped when the runtime closed.
    pub cancelled: u64,
    /// Tasks whose future panicked.
    pub panicked: u64,
    /// Ready tasks that were run (polled, or dropped if aborted), and polls of the futures given to `block_on`.
    pub polls: u64,
    /// Passes of the loop.
    pub turns: u64,
    /// Passes in which the loop went to sleep in the kernel, or would have.
    pub parks: u64,
    /// Events of descriptors.
    pub events: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Messages of other threads that were delivered: new tasks, wake-ups, aborts, and what else crosses threads.
    pub messages: u64,
    /// Looks at the kernel that found the notify descriptor used.
    pub notified: u64,
    /// Polls that ended because the task had used its budget: a future of this crate that is ready spends one of 128 units a poll, and
    /// with none left is pending once, so that others get their turn.
    pub forced_yields: u64,
    /// Ready tasks after the last pass.
    pub ready: u64,
    /// Descriptors that were registered at the last pass.
    pub sources: u64,
    /// Timers that were armed at the last pass.
    pub timers_armed: u64,
    /// The time inside of polls. This one and those below are zero without [`Builder::measure`](crate::Builder::measure).
    pub busy: Duration,
    /// The time inside of waits in the kernel.
    pub waited: Duration,
    /// How long polls took.
    pub poll_times: Histogram,
    /// How long it took from the end of one look at the kernel to the next.
    pub pass_times: Histogram,
    /// How long after their deadlines timers fired.
    pub timer_lag: Histogram,
}

impl Metrics {
    pub(super) fn of(shared: &Shared) -> Self {
        let tasks = shared.inbox().counts();
        let counters = &shared.counters;
        let measured = shared.measured.as_deref();
        let histogram = |of: fn(&Measured) -> &Buckets| {
            measured.map_or_else(Histogram::default, |measured| of(measured).snapshot())
        };
        // `accepted` last: so it is never less than the sum of the others.
        let [completed, cancelled, panicked] = [&tasks.completed, &tasks.cancelled, &tasks.panicked].map(Count::get);
        Self {
            spawned: tasks.accepted.get(),
            completed,
            cancelled,
            panicked,
            polls: tasks.polls.get(),
            turns: counters.turns.get(),
            parks: counters.parks.get(),
            events: counters.events.get(),
            timers: counters.timers.get(),
            messages: tasks.messages.get(),
            notified: counters.notified.get(),
            forced_yields: tasks.forced_yields.get(),
            ready: counters.ready.get(),
            sources: counters.sources.get(),
            timers_armed: counters.armed.get(),
            busy: measured.map_or(Duration::ZERO, |measured| Duration::from_nanos(measured.busy.get())),
            waited: measured.map_or(Duration::ZERO, |measured| Duration::from_nanos(measured.waited.get())),
            poll_times: histogram(|measured| &measured.poll_times),
            pass_times: histogram(|measured| &measured.pass_times),
            timer_lag: histogram(|measured| &measured.timer_lag),
        }
    }

    /// Tasks whose future is alive. Exact at home; abroad, home may have accepted more between the reads of the counters.
    pub fn alive(&self) -> u64 {
        self.spawned - self.completed - self.cancelled - self.panicked
    }
}
