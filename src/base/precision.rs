//! How exact a timer is: the rule, and what is done so that the kernel doesn't add to it.
//!
//! The rule: a timer of less than 32 ms is exact. A longer one may be late by a 128th of its length, but by no more than a
//! bound, so that timers near to each other share a wake-up: it waits for the next point of a [`Grid`]. The bound is the
//! runtime's to choose (`Builder::timer_slack`). By default it is 900 us: the docs promise a millisecond, of which a tenth is
//! left for the wake-up itself.
//!
//! Linux would add two delays of its own:
//! * The slack of the thread, 50 us by default: [`ExactThread`] takes it away, as long as it lives. A loop makes one before the
//!   first wait for which it [`matters`](slack_matters), and drops it when it ends. So a wait costs no more for it (a timerfd,
//!   which is as exact, would need a system call each time), and a loop whose timers are cancelled long before their time leaves
//!   the thread as it is.
//! * `select` and `epoll` may end a wait late by a thousandth of its length, in a niced process by a 200th, by 100 ms at most
//!   (`select_estimate_accuracy` in the kernel's fs/select.c). [`first_part`] makes two waits of a long one, of which the
//!   second is too short to be late.

use std::time::{Duration, Instant};

use super::clock::Clock;

/// In nanoseconds: what is shorter is exact.
const LEAST_LENGTH: u64 = 32_000_000;
/// The part of its length that a timer may be late.
const SHARE: u64 = 128;
/// In nanoseconds: the bound, unless another one is set.
const MOST_LATE: u64 = 900_000;
/// In nanoseconds: how far the coarse clock may be behind, by which lengths are measured. (A tick, with the fewest a second
/// that Linux is built for. If it is further behind, the machine was stopped, and so will be the timers.)
const COARSE: u64 = 10_000_000;

/// The wake-up for a timer is at the first multiple of this many nanoseconds, on the base's clock, at or after its deadline.
///
/// A power of two, of which this is the logarithm; or [`MOST_LATE`](Grid::MOST_LATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid(u8);

impl Grid {
    /// To the nanosecond.
    pub(crate) const EXACT: Grid = Grid(0);

    const MOST_LATE: Grid = Grid(u8::MAX);

    /// The longest grid that is no longer than that.
    pub(super) const fn up_to(nanoseconds: u64) -> Grid {
        match nanoseconds {
            0 => Grid::EXACT,
            MOST_LATE..0x10_0000 => Grid::MOST_LATE,
            _ => Grid(nanoseconds.ilog2() as u8),
        }
    }

    /// The first point at or after a deadline.
    #[inline]
    pub(super) fn round_up(self, deadline: u64) -> u64 {
        let point = match self {
            Grid::EXACT => return deadline,
            Grid::MOST_LATE => deadline.div_ceil(MOST_LATE).checked_mul(MOST_LATE),
            Grid(bits) => {
                let rest = (1 << bits) - 1;
                deadline.checked_add(rest).map(|after| after & !rest)
            }
        };
        // Where time ends, it isn't rounded.
        point.unwrap_or(deadline)
    }
}

/// How late a timer may be, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    nanoseconds: u64,
}

impl Bound {
    pub(crate) const USUAL: Bound = Bound { nanoseconds: MOST_LATE };

    pub(crate) fn new(bound: Duration) -> Bound {
        Bound {
            nanoseconds: u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// The rule, for a timer that is so many nanoseconds away by the coarse clock.
fn grid(left: u64, bound: Bound) -> Grid {
    let length = left.saturating_sub(COARSE);
    if length < LEAST_LENGTH {
        return Grid::EXACT;
    }
    Grid::up_to((length / SHARE).min(bound.nanoseconds))
}

/// A deadline, and how far away it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// On the base's clock.
    deadline: u64,
    /// In nanoseconds, by the coarse clock: some milliseconds may have passed already.
    left: u64,
}

impl Until {
    pub(super) fn new(clock: &Clock, deadline: Instant) -> Until {
        let deadline = clock.at(deadline);
        Until {
            deadline,
            left: deadline.saturating_sub(clock.coarse()),
        }
    }

    pub(super) fn deadline(self) -> u64 {
        self.deadline
    }

    /// How exact a timer for it has to be.
    pub(super) fn grid(self, bound: Bound) -> Grid {
        grid(self.left, bound)
    }

    /// Whether the deadline has come. If the coarse clock is so far behind that it has come in spite of a `false`, a timer armed for
    /// it fires in the next turn.
    pub(super) fn has_come(self, clock: &Clock) -> bool {
        self.left < 2 * COARSE && clock.now() >= self.deadline
    }
}

/// How long the first wait is to be, if so much time is left: shorter by more than the kernel can be late. `None`: one wait is
/// short enough to be exact.
#[cfg_attr(
    any(not(target_os = "linux"), evbase_libkqueue),
    allow(dead_code, reason = "only epoll is late")
)]
pub(super) fn first_part(left: Duration) -> Option<Duration> {
    const MOST: Duration = Duration::from_millis(110);
    if is_short(left) {
        return None;
    }
    Some(left - (left / SHARE as u32).min(MOST))
}

/// Whether one wait of that length ends in time: the last one before a deadline is as short.
fn is_short(left: Duration) -> bool {
    left < Duration::from_nanos(LEAST_LENGTH)
}

/// Whether the next wait for a timer, with so much time left, would be late by the thread's slack: if it is the last one before
/// the deadline; and always, if that is so wide that [`first_part`] doesn't make up for it.
pub(super) fn slack_matters(left: Duration) -> bool {
    // There is no wait if the time has come.
    !left.is_zero() && (is_short(left) || thread_slack::is_wide())
}

/// While one lives on a thread, the thread's timer slack is 1 ns. When the last one is dropped, the slack is what it was before.
///
/// Threads and processes that such a thread makes start with what it has (see `prctl(2)`), but for those made by
/// [`with_own_slack`].
#[derive(Debug)]
pub(crate) struct ExactThread {
    /// It is counted on the thread that made it.
    _not_send: std::marker::PhantomData<*const ()>,
}

#[cfg(not(target_os = "linux"))]
mod thread_slack {
    pub(super) fn is_wide() -> bool {
        false
    }
}

#[cfg(target_os = "linux")]
mod thread_slack {
    use std::cell::Cell;

    /// In nanoseconds: what threads have that nobody has given another one.
    const USUAL: libc::c_long = 50_000;

    thread_local! {
        /// How many [`ExactThread`](super::ExactThread)s this thread has, and its slack before the first one.
        pub(super) static EXACT: Cell<(usize, libc::c_long)> = const { Cell::new((0, 0)) };
        static WIDE: Cell<Option<bool>> = const { Cell::new(None) };
    }

    /// Whether the slack of the calling thread was wider than usual when it first waited for a timer that is far away.
    pub(super) fn is_wide() -> bool {
        let is_wide = WIDE.try_with(|wide| {
            let is_wide = wide.get().unwrap_or_else(|| own().unwrap_or_else(get) > USUAL);
            wide.set(Some(is_wide));
            is_wide
        });
        is_wide.unwrap_or(false)
    }

    /// The slack of the calling thread before it was exact; `None` if it isn't, or had none.
    pub(super) fn own() -> Option<libc::c_long> {
        let exact = EXACT.try_with(Cell::get);
        exact
            .ok()
            .filter(|(count, before)| *count > 0 && *before > 0)
            .map(|(_, before)| before)
    }

    /// The slack of the calling thread, in nanoseconds; negative if the kernel doesn't say.
    pub(super) fn get() -> libc::c_long {
        call(libc::PR_GET_TIMERSLACK, 0)
    }

    pub(super) fn set(slack: libc::c_long) {
        call(libc::PR_SET_TIMERSLACK, slack);
    }

    /// Not libc's `prctl`, which cuts the answer down to an int.
    fn call(get_or_set: libc::c_int, slack: libc::c_long) -> libc::c_long {
        // SAFETY: neither takes a pointer, and both concern the calling thread only.
        unsafe { libc::syscall(libc::SYS_prctl, get_or_set, slack, 0, 0, 0) }
    }
}

impl ExactThread {
    #[cfg(target_os = "linux")]
    pub(crate) fn begin() -> ExactThread {
        // On a thread that is exiting, the count may be gone: then the slack stays as it is.
        let _ = thread_slack::EXACT.try_with(|exact| {
            let (count, mut before) = exact.get();
            if count == 0 {
                before = thread_slack::get();
                // Zero is a real-time thread, which has no slack.
                if before > 0 {
                    thread_slack::set(1);
                }
            }
            exact.set((count + 1, before));
        });
        ExactThread {
            _not_send: std::marker::PhantomData,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn begin() -> ExactThread {
        ExactThread {
            _not_send: std::marker::PhantomData,
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for ExactThread {
    fn drop(&mut self) {
        let _ = thread_slack::EXACT.try_with(|exact| {
            let (count, before) = exact.get();
            let left = count.saturating_sub(1);
            if left == 0 && before > 0 {
                thread_slack::set(before);
            }
            exact.set((left, before));
        });
    }
}

/// Makes a thread or a process, which starts with the slack that this thread had before it was exact.
#[cfg(target_os = "linux")]
pub(crate) fn with_own_slack<R>(make: impl FnOnce() -> R) -> R {
    /// The thread is exact again, also if there was a panic.
    struct Again;

    impl Drop for Again {
        fn drop(&mut self) {
            thread_slack::set(1);
        }
    }

    let _again = thread_slack::own().map(|own| {
        thread_slack::set(own);
        Again
    });
    make()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn with_own_slack<R>(make: impl FnOnce() -> R) -> R {
    make()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of a grid's points.
    fn step(grid: Grid) -> u64 {
        grid.round_up(1)
    }

    #[test]
    fn a_short_timer_is_exact_and_a_long_one_late_by_a_part_of_its_length_or_less_than_a_millisecond() {
        for left in [0, 1, 200_000, 20_000_000, 31_999_999] {
            for behind in [0, 4_000_000, COARSE] {
                assert_eq!(grid(left + behind, Bound::USUAL), Grid::EXACT, "{left}");
            }
        }
        for length in [
            32_000_000,
            33_600_000,
            100_000_000,
            115_200_000,
            999_999_999,
            3_600_000_000_000,
            u64::MAX / 2,
        ] {
            for behind in [0, 4_000_000, COARSE] {
                let late = step(grid(length + behind, Bound::USUAL));
                assert!(late <= length / 128 && late <= 900_000, "{length}: {late}");
            }
            assert!(
                step(grid(length + COARSE, Bound::USUAL)) > 130_000,
                "{length}: they share a wake-up"
            );
        }
        assert_eq!(step(grid(u64::MAX, Bound::USUAL)), 900_000);
    }

    #[test]
    fn a_bound_takes_the_place_of_the_usual_one_and_zero_makes_every_timer_exact() {
        let grid_within = |left, bound| grid(left, Bound::new(Duration::from_nanos(bound)));
        for left in [0, 50_000_000, 3_600_000_000_000, u64::MAX] {
            assert_eq!(grid_within(left, 0), Grid::EXACT);
            assert_eq!(grid_within(left, 1), Grid::EXACT);
        }
        assert_eq!(step(grid_within(u64::MAX, 50_000)), 32_768);
        assert_eq!(step(grid_within(u64::MAX, 1_000_000)), 900_000);
        assert_eq!(step(grid_within(u64::MAX, 10_000_000)), 1 << 23);
        // A wide bound still leaves short timers exact, and takes no more than the 128th of any.
        assert_eq!(grid_within(30_000_000, u64::MAX), Grid::EXACT);
        assert!(step(grid_within(1_000_000_000, u64::MAX)) <= 1_000_000_000 / 128);
        assert!(step(grid(u64::MAX, Bound::new(Duration::MAX))) <= u64::MAX / 128);
    }

    #[test]
    fn a_grid_is_the_longest_that_fits() {
        assert_eq!(
            [0, 1, 2, 3, 899_999].map(|most| step(Grid::up_to(most))),
            [1, 1, 2, 2, 524_288]
        );
        let most = [900_000, 0xf_ffff, 0x10_0000, u64::MAX];
        assert_eq!(
            most.map(|most| step(Grid::up_to(most))),
            [900_000, 900_000, 1 << 20, 1 << 63]
        );
    }

    #[test]
    fn a_deadline_is_never_rounded_down_not_even_where_time_ends() {
        for grid in [
            Grid::EXACT,
            Grid::up_to(1 << 16),
            Grid::MOST_LATE,
            Grid::up_to(u64::MAX),
        ] {
            for deadline in [
                0,
                1,
                65_535,
                65_536,
                65_537,
                899_999,
                900_000,
                1 << 63,
                u64::MAX - 1,
                u64::MAX,
            ] {
                let point = grid.round_up(deadline);
                assert!(
                    point >= deadline && point - deadline < step(grid),
                    "{grid:?} {deadline}"
                );
                assert!(point == deadline || point % step(grid) == 0);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_timers_of_a_second_share_some_thousand_wake_ups() {
        let mut points: Vec<u64> = (0..100_000)
            .map(|n| n * 10_000)
            .filter(|deadline| grid(deadline + COARSE, Bound::USUAL) != Grid::EXACT)
            .map(|deadline| grid(deadline + COARSE, Bound::USUAL).round_up(deadline))
            .collect();
        assert_eq!(points.len(), 100_000 - 3_200);
        points.sort_unstable();
        points.dedup();
        assert!(points.len() < 1_400, "{}", points.len());
    }

    #[test]
    fn two_waits_end_after_the_time_and_the_first_one_before_it_however_late_the_kernel_is() {
        for left in [0, 1, 31].map(Duration::from_millis) {
            assert_eq!(first_part(left), None);
        }
        let second = Duration::from_secs(1);
        for left in [
            second / 31,
            second / 10,
            second * 2,
            second * 20,
            second * 86_400,
            Duration::MAX,
        ] {
            let (mut rest, mut waits) = (left, 1);
            while let Some(first) = first_part(rest) {
                let late = (first / 200).min(Duration::from_millis(100));
                assert!(first.saturating_add(late) < rest);
                rest -= first;
                waits += 1;
            }
            assert!(waits <= 4, "{left:?}: {waits}");
            assert!(rest / 200 <= Duration::from_micros(160));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_is_exact_while_any_wants_it_and_then_what_it_was() {
        let on_a_thread_with = |own: libc::c_long| {
            let thread = std::thread::spawn(move || {
                thread_slack::set(own);
                let before = thread_slack::get();
                let (one, other) = (ExactThread::begin(), ExactThread::begin());
                let during = thread_slack::get();
                drop(one);
                let still = thread_slack::get();
                drop(other);
                let after = thread_slack::get();
                let again = ExactThread::begin();
                let once_more = thread_slack::get();
                drop(again);
                assert_eq!((during, still, once_more), (1, 1, 1));
                assert_eq!((after, thread_slack::get()), (before, before));
                before
            });
            thread.join().unwrap()
        };
        assert_eq!(on_a_thread_with(1234), 1234);
        assert_eq!(on_a_thread_with(libc::c_long::MAX), libc::c_long::MAX);
        assert!(on_a_thread_with(0) > 0);
    }
}
