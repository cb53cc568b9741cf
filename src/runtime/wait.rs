//! Blocking waits for a task.

use std::sync::Arc;

use super::error::WaitError;
use super::home::Goal;
use super::{RunError, Shared, park, registry, shutdown};
use crate::executor::{JoinError, JoinHandle};

impl<T> JoinHandle<T> {
    /// Blocks until the task has ended: for threads without a loop. On the home thread of the task's runtime, outside of
    /// any loop, this drives the runtime meanwhile.
    ///
    /// # Errors
    ///
    /// The outer one, which detaches the task: [`WaitError::InsideLoop`] inside any evbase loop of this thread;
    /// [`WaitError::Unbound`] if no thread has driven the runtime yet; [`WaitError::Forked`] in the child of a fork;
    /// [`WaitError::ThreadExiting`] on a home thread that is exiting; [`WaitError::Io`] on a home thread if the operating
    /// system refuses to wait. The inner one is the task's own.
    ///
    /// # Panics
    ///
    /// If the handle has given its output already.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let handle = runtime.spawner().spawn(async { 42 });
    /// assert_eq!(handle.wait()??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(mut self) -> Result<Result<T, JoinError>, WaitError> {
        if !self.is_finished() {
            match self.runtime_id().and_then(registry::find) {
                Some(shared) => self.drive_meanwhile(&shared)?,
                // The runtime has closed since, and the task with it; or is the parent's, which was dropped in this child.
                None if !self.is_finished() => return Err(WaitError::Forked),
                None => {}
            }
        }
        Ok(park::block_on(&mut self, None)?.expect("evbase: a wait without a deadline timed out"))
    }

    /// Runs the runtime until the task has ended, if its home is here.
    fn drive_meanwhile(&self, shared: &Arc<Shared>) -> Result<(), WaitError> {
        let Some(home) = shutdown::home_to_drive(shared, |_| false)? else {
            return Ok(());
        };
        let goal = Goal {
            until: Some(&|| self.is_finished()),
            ..Goal::default()
        };
        match home.drive(goal) {
            Ok(_) | Err(RunError::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<RunError> for WaitError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Forked => Self::Forked,
            RunError::ThreadExiting => Self::ThreadExiting,
            RunError::Nested => Self::InsideLoop,
            RunError::Io(error) => Self::Io(error.kind()),
            RunError::Stopped | RunError::NotHome { .. } => {
                unreachable!("evbase: waits look at both before they drive")
            }
        }
    }
}
