//! Blocking waits for a task.

use super::error::WaitError;
use super::home::Goal;
use super::{RunError, park, registry, shutdown};
use crate::executor::{JoinError, JoinHandle};

impl<T> JoinHandle<T> {
    /// Blocks until the task has ended: for threads without a loop. On the home thread of the task's runtime, outside of
    /// any loop, this drives the runtime meanwhile.
    ///
    /// # Errors
    ///
    /// The outer one, which detaches the task: [`WaitError::InsideLoop`] inside any evbase loop of this thread;
    /// [`WaitError::Unbound`] if no thread has driven the runtime yet; [`WaitError::Forked`] in the child of a fork;
    /// [`WaitError::ThreadExiting`] on a home thread that is exiting. The inner one is the task's own.
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
        if !self.is_finished()
            && let Some(shared) = self.runtime_id().and_then(registry::find)
            && let Some(home) = shutdown::home_to_drive(&shared, |_| false)?
        {
            let goal = Goal {
                until: Some(&|| self.is_finished()),
                ..Goal::default()
            };
            match home.drive(goal) {
                Ok(_) | Err(RunError::Stopped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(park::block_on(&mut self, None)?.expect("evbase: a wait without a deadline timed out"))
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
