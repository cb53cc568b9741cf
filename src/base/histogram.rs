//! Histograms of durations, by powers of two.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets a histogram has.
const BUCKETS: usize = 24;

/// How often a duration was in which range: 24 buckets, of which the `i`-th counts what is shorter than 2^`i` microseconds, and not in
/// one before. The last one has no bound: it counts all of some four seconds and more.
///
/// Printed, it is a picture:
///
/// ```text
///     < 64us     12 ####
///    < 128us    103 ########################################
///    < 256us      1 #
/// ```
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let runtime = evbase::Builder::new().measure().build()?;
/// runtime.spawn_local(async { std::thread::sleep(Duration::from_millis(3)) })?;
/// runtime.turn(None)?;
/// let polls = runtime.metrics().poll_times;
/// let slow: u64 = (0..24).filter(|i| polls.bound(*i) > Duration::from_millis(3)).map(|i| polls.count(i)).sum();
/// assert_eq!((slow, polls.total()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// How many durations are in the bucket.
    ///
    /// # Panics
    ///
    /// If there is no such bucket.
    pub fn count(&self, bucket: usize) -> u64 {
        self.counts[bucket]
    }

    /// What all durations of the bucket are below: 2^`bucket` microseconds; [`Duration::MAX`] for the last one.
    ///
    /// # Panics
    ///
    /// If there is no such bucket.
    pub fn bound(&self, bucket: usize) -> Duration {
        assert!(bucket < BUCKETS, "evbase: a histogram has {BUCKETS} buckets");
        match bucket {
            LAST => Duration::MAX,
            bucket => Duration::from_micros(1 << bucket),
        }
    }

    /// How many durations there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

const LAST: usize = BUCKETS - 1;

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The length of the longest bar.
        const WIDTH: u64 = 40;
        let most = self.counts.iter().copied().max().unwrap_or(0);
        let first = self.counts.iter().position(|&count| count > 0).unwrap_or(0);
        let last = self.counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        for bucket in first..=last {
            let bound = match bucket {
                LAST => "more".to_owned(),
                bucket => format!("< {:?}", Duration::from_micros(1 << bucket)),
            };
            let count = self.counts[bucket];
            let bar = (count * WIDTH).checked_div(most).unwrap_or(0).max(u64::from(count > 0));
            let bar = "#".repeat(bar as usize);
            writeln!(f, "{bound:>14} {count:>10} {bar}")?;
        }
        Ok(())
    }
}

/// A histogram with one writer, and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Buckets([AtomicU64; BUCKETS]);

impl Buckets {
    /// The one writer only.
    pub(crate) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        let count = &self.0[bucket.min(LAST)];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            counts: self.0.each_ref().map(|count| count.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_below_the_bound_of_its_bucket_and_of_none_before() {
        for nanos in [
            0,
            1,
            999,
            1000,
            1001,
            1_999,
            2_000,
            1_000_000,
            20_000_000,
            4_194_303_999,
            4_194_304_000,
            u64::MAX,
        ] {
            let duration = Duration::from_nanos(nanos);
            let buckets = Buckets::default();
            buckets.record(duration);
            let histogram = buckets.snapshot();
            let bucket = (0..BUCKETS).find(|&bucket| histogram.count(bucket) == 1).unwrap();
            assert!(duration < histogram.bound(bucket), "{duration:?} in {bucket}");
            assert!(
                bucket == 0 || duration >= histogram.bound(bucket - 1),
                "{duration:?} in {bucket}"
            );
            assert_eq!(histogram.total(), 1);
        }
    }

    #[test]
    fn a_picture_has_a_bar_for_each_bucket_that_counts() {
        let buckets = Buckets::default();
        (0..100).for_each(|_| buckets.record(Duration::from_micros(3)));
        buckets.record(Duration::from_micros(9));
        let picture = buckets.snapshot().to_string();
        let bars: Vec<_> = picture.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [40, 0, 1]);
        assert!(picture.contains("< 4µs"), "{picture}");
    }
}
