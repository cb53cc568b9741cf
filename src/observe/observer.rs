//! [`Observer`]: who is told of tasks.

use std::sync::Arc;

use parking_lot::Mutex;

use super::task_info::TaskInfo;
use crate::executor::End;

/// Is told of the tasks of a runtime, at home: see [`Builder::observe`](crate::Builder::observe).
///
/// All methods do nothing unless they are implemented. What an observer does itself (if it spawns, for instance) is told to
/// nobody. A panic of one of its methods is caught and dropped.
pub trait Observer {
    /// A task was accepted.
    fn spawned(&mut self, task: &TaskInfo) {
        let _ = task;
    }

    /// A task is polled now. (Futures of `block_on` are no tasks.)
    fn before_poll(&mut self, task: &TaskInfo) {
        let _ = task;
    }

    /// A task was polled.
    fn after_poll(&mut self, task: &TaskInfo) {
        let _ = task;
    }

    /// A task has ended, and its future is gone. Each task that was `spawned` ends once.
    fn ended(&mut self, task: &TaskInfo, end: End) {
        let _ = (task, end);
    }
}

/// The observer of one builder and its clones.
pub(crate) type SharedObserver = Arc<Mutex<dyn Observer + Send>>;
