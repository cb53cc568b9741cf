//! What a runtime counts.

use super::shared::Shared;
use crate::executor::Count;

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
}

impl Metrics {
    pub(super) fn of(shared: &Shared) -> Self {
        let tasks = shared.inbox().counts();
        let counters = &shared.counters;
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
        }
    }

    /// Tasks whose future is alive. Exact at home; abroad, home may have accepted more between the reads of the counters.
    pub fn alive(&self) -> u64 {
        self.spawned - self.completed - self.cancelled - self.panicked
    }
}
