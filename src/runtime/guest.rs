//! What a home knows of embedded runtimes, its own and those on its thread: for `embedded.rs`.

use std::cell::Cell;

use crate::executor::Stops;

/// What a home knows of being a guest on its thread, and of the guests there.
///
/// The host may be a task in the loop of another runtime. A stop that finds that loop asleep rings the bell only; and whoever
/// closed the guest there and then would leave its host waiting for a descriptor that is never readable again.
#[derive(Default)]
pub(super) struct Guest {
    /// The stops of which this home's host was told.
    pub(super) told: Cell<Stops>,
    /// The last turn was made inside the loop of another runtime.
    pub(super) turned_inside: Cell<bool>,
    /// In the loop of this home: how many polls there had been when it would have slept, but for guests that nobody had turned.
    pub(super) idle_at: Cell<Option<u64>>,
}
