//! [`Interval`]: ticks periodically.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::after;
use super::sleep::{Sleep, sleep_until};
use crate::home::now;

/// Ticks at once, and then every `period`.
///
/// # Panics
///
/// If the period is zero.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let runtime = evbase::Runtime::new()?;
/// let start = Instant::now();
/// runtime.block_on(async {
///     let mut interval = evbase::time::interval(Duration::from_millis(2));
///     for _ in 0..3 {
///         interval.tick().await;
///     }
/// })?;
/// assert!(start.elapsed() >= Duration::from_millis(4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(now(), period)
}

/// Ticks at `start`, and then every `period`.
///
/// # Panics
///
/// If the period is zero.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let runtime = evbase::Runtime::new()?;
/// let (start, period) = (Instant::now() + Duration::from_millis(3), Duration::from_millis(2));
/// runtime.block_on(async {
///     let mut interval = evbase::time::interval_at(start, period);
///     assert_eq!(interval.tick().await, start);
///     assert_eq!(interval.tick().await, start + period);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "evbase: the period of an interval can't be zero");
    Interval {
        sleep: sleep_until(start),
        period,
        missed_tick_behavior: MissedTickBehavior::default(),
    }
}

/// What an [`Interval`] does when nobody asked for a tick until the next one was due as well.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use evbase::time::{MissedTickBehavior, interval_at};
///
/// let runtime = evbase::Runtime::new()?;
/// let period = Duration::from_millis(10);
/// // The ticks of the last 35 ms have been missed.
/// let start = Instant::now() - Duration::from_millis(35);
/// runtime.block_on(async {
///     let mut interval = interval_at(start, period);
///     interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
///     assert_eq!(interval.tick().await, start);
///     // Still a multiple of the period after the start, but none that has passed.
///     let next = interval.tick().await - start;
///     assert!(next >= 4 * period && next.as_nanos() % period.as_nanos() == 0);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissedTickBehavior {
    /// The missed ticks come at once, one after the other, until the interval has caught up.
    #[default]
    Burst,
    /// The next tick comes a period after the late one was taken; all later ones move along.
    Delay,
    /// The missed ticks are left out; the next one comes when it would have without the delay.
    Skip,
}

/// Ticks periodically: by [`tick`](Interval::tick), or as a `Stream` of the [`Instant`]s for which the ticks were planned.
/// The stream never ends.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use futures::StreamExt;
///
/// let runtime = evbase::Runtime::new()?;
/// let ticks = evbase::time::interval(Duration::from_millis(1));
/// let planned: Vec<_> = runtime.block_on(ticks.take(3).collect())?;
/// assert_eq!(planned[2] - planned[0], Duration::from_millis(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Like [`Sleep`], it belongs to the loop that polls it, and panics outside of a runtime.
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
    missed_tick_behavior: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and gives the point in time for which it was planned. Cancel-safe: a dropped future has
    /// taken no tick.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a runtime, as a [`Sleep`].
    pub fn tick(&mut self) -> Tick<'_> {
        Tick { interval: self }
    }

    /// As [`tick`](Interval::tick), for futures written by hand.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, as a [`Sleep`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{future::poll_fn, time::Duration};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let mut ticks = evbase::time::interval(Duration::from_millis(2));
    /// let first = runtime.block_on(poll_fn(|cx| ticks.poll_tick(cx)))?;
    /// assert!(first.elapsed() < Duration::from_secs(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let planned = self.sleep.deadline();
        let next = after(planned, self.period);
        let now = now();
        self.sleep.reset(match self.missed_tick_behavior {
            MissedTickBehavior::Delay if now >= next => after(now, self.period),
            MissedTickBehavior::Skip if now >= next => {
                let since = (now - planned).as_nanos();
                let into_period = since % self.period.as_nanos();
                // Less than the period, which is a Duration.
                let rest = self.period - duration_from_nanos(into_period);
                after(now, rest)
            }
            _ => next,
        });
        Poll::Ready(planned)
    }

    /// What happens to ticks that nobody asked for in time.
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed_tick_behavior
    }

    /// Says what happens to ticks that nobody asks for in time: [`MissedTickBehavior::Burst`] by default.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed_tick_behavior = behavior;
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Plans the next tick for a period from now. The ones after it follow each a period later, as after the other resets.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut heartbeat = evbase::time::interval(Duration::from_millis(5));
    ///     heartbeat.tick().await;
    ///     // Something else was sent, which is as good as a heartbeat.
    ///     let sent = Instant::now();
    ///     heartbeat.reset();
    ///     heartbeat.tick().await;
    ///     assert!(sent.elapsed() >= Duration::from_millis(5));
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// Plans the next tick for now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let hour = Duration::from_secs(3600);
    ///     let mut polling = evbase::time::interval(hour);
    ///     polling.tick().await;
    ///     // Somebody can't wait. The ones after it come an hour later each.
    ///     polling.reset_immediately();
    ///     assert!(polling.tick().await <= Instant::now());
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset_immediately(&mut self) {
        self.reset_at(now());
    }

    /// Plans the next tick for that long from now.
    pub fn reset_after(&mut self, delay: Duration) {
        self.reset_at(after(now(), delay));
    }

    /// Plans the next tick for a point in time; one in the past is due at once.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.sleep.reset(deadline);
    }
}

fn duration_from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    Duration::new((nanos / PER_SECOND) as u64, (nanos % PER_SECOND) as u32)
}

impl Stream for Interval {
    type Item = Instant;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.get_mut().poll_tick(cx).map(Some)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

/// The future of [`Interval::tick`].
///
/// # Panics
///
/// Polled outside of a runtime, as a [`Sleep`](super::Sleep).
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Tick<'a> {
    interval: &'a mut Interval,
}

impl Future for Tick<'_> {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        self.interval.poll_tick(cx)
    }
}
