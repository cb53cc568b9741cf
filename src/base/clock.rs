//! The clock of a base: nanoseconds since it was made. It can be paused: then it moves only when it is told to.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Instant,
    /// The same moment, or one shortly after it, on the clock of the kernel's ticks.
    #[cfg(target_os = "linux")]
    ticks: u64,
    /// The time of a paused clock.
    paused: Option<u64>,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            // The first of the two: `coarse` must not be ahead.
            epoch: Instant::now(),
            #[cfg(target_os = "linux")]
            ticks: read(libc::CLOCK_MONOTONIC),
            paused: None,
        }
    }

    /// From here on it stands still, but for `advance`.
    pub(super) fn pause(&mut self) {
        self.paused = Some(self.now());
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Moves a paused clock; never back.
    pub(super) fn advance(&mut self, to: u64) {
        self.paused = self.paused.map(|now| now.max(to));
    }

    /// A point in time, where what is before the epoch is 0, and after 584 years time ends.
    pub(super) fn at(&self, time: Instant) -> u64 {
        let since_epoch = time.saturating_duration_since(self.epoch);
        let seconds = since_epoch.as_secs().saturating_mul(1_000_000_000);
        seconds.saturating_add(u64::from(since_epoch.subsec_nanos()))
    }

    pub(super) fn now(&self) -> u64 {
        match self.paused {
            None => self.at(Instant::now()),
            Some(now) => now,
        }
    }

    /// The time of the kernel's last tick, on Linux: 1 to 10 ms ago, at a sixth of the cost of `now`. Elsewhere, `now`.
    ///
    /// It is never ahead of `now`, but may be far behind on a machine that was stopped. So a deadline that it has passed has
    /// come; one that it hasn't passed may have come, too.
    pub(super) fn coarse(&self) -> u64 {
        #[cfg(target_os = "linux")]
        if self.paused.is_none() {
            return read(libc::CLOCK_MONOTONIC_COARSE).saturating_sub(self.ticks);
        }
        self.now()
    }

    pub(super) fn instant(&self, nanoseconds: u64) -> Option<Instant> {
        self.epoch.checked_add(Duration::from_nanos(nanoseconds))
    }
}

/// As good as for ever, but small enough to be added to an `Instant`: some thirty years.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(target_os = "linux")]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the local. Both clocks are older than the oldest kernel that std runs on: it doesn't fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_one_is_never_ahead_and_moves_on() {
        let clock = Clock::new();
        while clock.coarse() < 20_000_000 {
            let coarse = clock.coarse();
            assert!(coarse <= clock.now());
        }
    }

    #[test]
    fn time_begins_with_the_base_and_ends_after_centuries() {
        let clock = Clock::new();
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(clock.instant(clock.at(later)), Some(later));
        assert_eq!(clock.at(clock.epoch - Duration::from_millis(1)), 0);
        if let Some(end) = later.checked_add(Duration::from_secs(600 * 365 * 24 * 60 * 60)) {
            assert_eq!(clock.at(end), u64::MAX);
        }
    }
}
