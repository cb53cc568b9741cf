//! What is measured of a runtime that was built with [`measure`](crate::Builder::measure).

use std::sync::Arc;

use crate::base::Buckets;
use crate::executor::Count;

/// What `measure` counts.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// In nanoseconds.
    pub(crate) busy: Count,
    pub(crate) waited: Count,
    pub(crate) poll_times: Buckets,
    pub(crate) pass_times: Buckets,
    pub(crate) timer_lag: Arc<Buckets>,
}
