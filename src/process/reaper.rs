//! What becomes of a child whose `Child` was dropped: the loop reaps it.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::{io, mem};

use parking_lot::Mutex;

use super::exit::{ExitFd, Process, Watch};
use crate::home::{Shared, context};
use crate::io::{AsyncFd, Interest};

/// Has a loop reap the process when it ends: the one that watches it, or else the one that runs here. Without one it is an orphan.
pub(super) fn leave(mut process: Process, watch: Option<Watch>) {
    if !matches!(process.try_wait(), Ok(None)) {
        return;
    }
    let Some((fd, owner)) = watched(watch).or_else(|| watch_here(&mut process)) else {
        return;
    };
    let reaper = Arc::new(Reaper(Mutex::new(Some(Dropped { fd, process }))));
    // A message also if this is home, which may be outside of its loop. If home has closed, the process is dropped: an orphan.
    owner.send_home(move |_| reaper.look());
}

/// The descriptor and its runtime, which has not closed.
fn watched(watch: Option<Watch>) -> Option<(AsyncFd<ExitFd>, Arc<Shared>)> {
    let Watch::Fd(fd) = watch? else {
        return None;
    };
    let owner = fd.owner().filter(|owner| owner.report().is_none())?.clone();
    Some((fd, owner))
}

fn watch_here(process: &mut Process) -> Option<(AsyncFd<ExitFd>, Arc<Shared>)> {
    let home = context::current()?;
    match Watch::new(process) {
        Ok(Some(Watch::Fd(fd))) => Some((fd, home.shared().clone())),
        _ => None,
    }
}

/// Looks at the process when it is woken: at home, by an event of the descriptor or by the end of the base.
struct Reaper(Mutex<Option<Dropped>>);

struct Dropped {
    /// Before the process, which may be dropped as an orphan.
    fd: AsyncFd<ExitFd>,
    process: Process,
}

impl Reaper {
    fn look(self: &Arc<Self>) {
        // Not looked at under the lock.
        let taken = mem::take(&mut *self.0.lock());
        let waker = Waker::from(self.clone());
        if let Some(mut dropped) = taken {
            if dropped.still_runs(&mut Context::from_waker(&waker)) {
                *self.0.lock() = Some(dropped);
            }
        }
    }
}

impl Wake for Reaper {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Dropped {
    /// If it does, the waker is used when it has ended. False as well if the loop can't wait for it (any more).
    fn still_runs(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { fd, process } = self;
        loop {
            let reaped = fd.try_io(Interest::READABLE, |fd| {
                process.reap(fd)?.ok_or(io::ErrorKind::WouldBlock.into())
            });
            if !reaped.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return false;
            }
            match fd.poll_read_ready(cx) {
                Poll::Pending => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
            }
        }
    }
}
