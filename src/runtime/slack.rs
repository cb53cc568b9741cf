//! The timer slack of the home thread: how much later than asked the kernel may wake it (`prctl(2)`, Linux only).

use std::time::Duration;

/// A changed slack; dropping it, on the thread where it was set, puts the old one back.
#[derive(Debug)]
pub(super) struct Slack {
    #[cfg(target_os = "linux")]
    before: libc::c_ulong,
}

impl Slack {
    #[cfg(target_os = "linux")]
    pub(super) fn set(slack: Duration) -> Option<Self> {
        // Zero would mean the thread's default.
        let nanoseconds = slack.as_nanos().clamp(1, libc::c_ulong::MAX as u128) as libc::c_ulong;
        // SAFETY: neither call takes a pointer; both concern the calling thread only.
        let before = unsafe {
            let before = libc::prctl(libc::PR_GET_TIMERSLACK);
            libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds);
            before
        };
        // A kernel that doesn't say what it was keeps what it has.
        Some(Self {
            before: before.try_into().ok()?,
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set(_: Duration) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Slack {
    fn drop(&mut self) {
        // SAFETY: as in `set`; the home that holds this stays on its thread.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, self.before) };
    }
}
