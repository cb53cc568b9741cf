//! A clock that costs a sixth of the real one, and is some milliseconds behind it.

use std::time::Instant;

/// A time that has passed: on Linux the last tick of the kernel's clock, 1 to 10 ms ago; elsewhere now.
///
/// It is never later than `Instant::now()`, but nothing says how much earlier it may be on a machine that is stopped and
/// goes on. So it may tell that something is still to come, and has to be asked again; not that it has come.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_now() -> Instant {
    use std::sync::OnceLock;
    use std::time::Duration;

    /// The same moment on the clock of `Instant`, and on that of the kernel's ticks.
    static START: OnceLock<(Instant, Duration)> = OnceLock::new();
    // The former first: it must not be the later one.
    let (start, ticks) = START.get_or_init(|| (Instant::now(), clock(libc::CLOCK_MONOTONIC)));
    *start + clock(libc::CLOCK_MONOTONIC_COARSE).saturating_sub(*ticks)
}

#[cfg(target_os = "linux")]
fn clock(clock: libc::clockid_t) -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the local. Both clocks are as old as the oldest kernel that std runs on, so it doesn't fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse_now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_ahead_and_moves_on() {
        let first = coarse_now();
        for _ in 0..10_000 {
            let coarse = coarse_now();
            assert!(coarse <= Instant::now());
        }
        while coarse_now() == first {
            std::hint::spin_loop();
        }
    }
}
