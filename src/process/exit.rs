//! The end of a child: how it is noticed, and that its status is taken once.

use std::future::poll_fn;
use std::io;
use std::process::ExitStatus;

use super::orphans;
use crate::base::fork::{self, Birth};
use crate::base::with_own_slack;
use crate::home::coop;
use crate::io::AsyncFd;
use crate::signal::Signals;

// Each exports `ExitFd`, a descriptor that is readable when a child has ended:
// * `open(pid: u32) -> io::Result<Option<ExitFd>>`, for a child that nobody has reaped. `None`: it is ending right now, and waiting
//   for it takes no time.
// * `reap(&self, child: &mut std::process::Child) -> io::Result<Option<ExitStatus>>` doesn't wait for a child that has not ended.
cfg_if::cfg_if! {
    if #[cfg(target_os = "linux")] {
        mod pidfd;
        pub(super) use pidfd::ExitFd;
    } else {
        mod kqueue;
        pub(super) use kqueue::ExitFd;
    }
}

/// A process that this one has started. Its number is used only while nobody has reaped it: until then it is no other process's.
///
/// Dropped, it leaves no zombie.
#[derive(Debug)]
pub(super) struct Process {
    child: std::process::Child,
    life: Life,
    birth: Birth,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    /// It runs, or is a zombie.
    Unreaped,
    Reaped(ExitStatus),
    /// Somebody else has reaped it, or the kernel, since SIGCHLD is ignored.
    Lost,
}

impl Process {
    pub(super) fn spawn(command: &mut std::process::Command) -> io::Result<Self> {
        fork::watch()?;
        Ok(Self {
            child: with_own_slack(|| command.spawn())?,
            life: Life::Unreaped,
            birth: Birth::here(),
        })
    }

    /// Its pipes are there until somebody takes them.
    pub(super) fn std_mut(&mut self) -> &mut std::process::Child {
        &mut self.child
    }

    /// Its number, while nobody has reaped it.
    pub(super) fn id(&self) -> Option<u32> {
        matches!(self.life, Life::Unreaped).then(|| self.child.id())
    }

    /// Its status, if it has ended; the same again afterwards.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.look(std::process::Child::try_wait)
    }

    /// As `try_wait`, after `fd` has been reported; doesn't wait if that was spurious.
    pub(super) fn reap(&mut self, fd: &ExitFd) -> io::Result<Option<ExitStatus>> {
        self.look(|child| fd.reap(child))
    }

    fn look(
        &mut self,
        wait: impl FnOnce(&mut std::process::Child) -> io::Result<Option<ExitStatus>>,
    ) -> io::Result<Option<ExitStatus>> {
        self.check_birth()?;
        match self.life {
            Life::Unreaped => {}
            Life::Reaped(status) => return Ok(Some(status)),
            Life::Lost => return Err(io::Error::from_raw_os_error(libc::ECHILD)),
        }
        let waited = wait(&mut self.child);
        match &waited {
            Ok(Some(status)) => self.life = Life::Reaped(*status),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.life = Life::Lost,
            _ => {}
        }
        waited
    }

    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.check_birth()?;
        match self.life {
            Life::Unreaped => self.child.kill(),
            Life::Reaped(_) | Life::Lost => Ok(()),
        }
    }

    /// In the child of a fork this is the parent's child, and its number may be anybody's.
    fn check_birth(&self) -> io::Result<()> {
        if self.birth.is_child() {
            return Err(io::Error::other(
                "this process was started before fork(), and is a child of the parent process, which has to wait for it",
            ));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.try_wait() {
            orphans::adopt(self.child.id());
        }
    }
}

/// How a loop notices the end of a child. Made when somebody has to wait: most children have ended before.
#[derive(Debug)]
pub(super) enum Watch {
    Fd(AsyncFd<ExitFd>),
    /// There is no such descriptor to be had: each SIGCHLD may be this child's.
    Signals(Signals),
}

impl Watch {
    /// `None` if the process has ended meanwhile.
    pub(super) fn new(process: &mut Process) -> io::Result<Option<Self>> {
        let Some(id) = process.id() else {
            return Ok(None);
        };
        match ExitFd::open(id) {
            Ok(Some(fd)) => Ok(Some(Self::Fd(AsyncFd::from_nonblocking(fd, false)))),
            Ok(None) => {
                process.look(|child| child.wait().map(Some))?;
                Ok(None)
            }
            Err(_) => Signals::new(&[libc::SIGCHLD]).map(Self::Signals).map(Some),
        }
    }
}

/// Waits for the end of the process. Cancel-safe. `watch` is kept for the next call, which may be in another loop.
pub(super) async fn wait(process: &mut Process, watch: &mut Option<Watch>) -> io::Result<ExitStatus> {
    loop {
        if let Some(ended) = process.try_wait().transpose() {
            if ended.is_ok() {
                *watch = None;
            }
            coop::unit().await;
            return ended;
        }
        match watch {
            // Then it looks again: the end may have come before.
            None => *watch = Watch::new(process)?,
            Some(Watch::Fd(fd)) => {
                let reaped = fd.read_with(|fd| process.reap(fd)?.ok_or(io::ErrorKind::WouldBlock.into()));
                match reaped.await {
                    Ok(_) => {}
                    // This loop makes its own.
                    Err(_) if fd.is_elsewhere() => *watch = None,
                    Err(error) => return Err(error),
                }
            }
            Some(Watch::Signals(signals)) => {
                poll_fn(|cx| signals.poll_signal(cx)).await?;
            }
        }
    }
}
