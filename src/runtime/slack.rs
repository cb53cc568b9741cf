//! The timer slack of the home thread: how much later than asked the kernel may wake it (`prctl(2)`, Linux only).
//!
//! A thread has one slack, and may be home to several runtimes. The youngest of those alive that asked for one has its way;
//! the last of them to go puts back what the thread had before.

use std::time::Duration;

/// A wish for a slack; dropping it, on the thread where it was made, ends it.
#[derive(Debug)]
pub(super) struct Slack {
    #[cfg(target_os = "linux")]
    number: u64,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::RefCell;

    /// The wishes of this thread's runtimes.
    pub(super) struct Wishes {
        /// What the thread had before there was one.
        before: libc::c_long,
        /// Each with its number, the youngest last.
        slacks: Vec<(u64, libc::c_long)>,
    }

    thread_local! {
        pub(super) static WISHES: RefCell<Wishes> = const {
            RefCell::new(Wishes { before: 0, slacks: Vec::new() })
        };
    }

    impl Wishes {
        /// Returns the number of the wish; `None` if the kernel doesn't say what to put back.
        pub(super) fn add(&mut self, slack: libc::c_long) -> Option<u64> {
            if self.slacks.is_empty() {
                self.before = current()?;
            }
            let number = self.slacks.last().map_or(0, |(number, _)| number + 1);
            self.slacks.push((number, slack));
            set(slack);
            Some(number)
        }

        pub(super) fn remove(&mut self, number: u64) {
            self.slacks.retain(|(other, _)| *other != number);
            set(self.slacks.last().map_or(self.before, |(_, slack)| *slack));
        }
    }

    fn current() -> Option<libc::c_long> {
        // SAFETY: takes no pointer, and concerns the calling thread only. Not libc's `prctl`, which cuts the answer down to
        // an int.
        let slack = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
        (slack >= 0).then_some(slack)
    }

    fn set(slack: libc::c_long) {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_TIMERSLACK, slack, 0, 0, 0) };
    }
}

impl Slack {
    #[cfg(target_os = "linux")]
    pub(super) fn set(slack: Duration) -> Option<Self> {
        // Zero would mean the thread's default.
        let nanoseconds = slack.as_nanos().clamp(1, libc::c_long::MAX as u128) as libc::c_long;
        let number = linux::WISHES.try_with(|wishes| wishes.borrow_mut().add(nanoseconds));
        number.ok().flatten().map(|number| Self { number })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set(_: Duration) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Slack {
    fn drop(&mut self) {
        // Where the list is gone, the thread is exiting, and its slack with it.
        let _ = linux::WISHES.try_with(|wishes| wishes.borrow_mut().remove(self.number));
    }
}
