//! Makes a [`Dump`] of a runtime, at home; and names the tasks that are in it.

use super::context;
use super::error::RunError;
use super::home::Home;
use super::runtime::Runtime;
use super::spawner::LocalSpawner;
use crate::executor::{TaskFacts, TaskId, task_of};
use crate::observe::{Dump, TaskDump, WaitsFor, plain};

impl Home {
    fn dump(&self) -> Dump {
        // Sorted by task, below.
        let mut waits: Vec<(TaskId, WaitsFor)> = Vec::new();
        let mut note = |waker, what| waits.extend(task_of(waker).map(|id| (id, what)));
        let (mut sources, mut timers) = (0, 0);
        if let Some(base) = &*self.base() {
            for (fd, readiness) in base.all_sources() {
                readiness.each_waiting(|interest, waker| note(waker, WaitsFor::Fd { fd, interest }));
            }
            for (deadline, waker) in base.all_timers() {
                note(waker, WaitsFor::Timer { deadline });
            }
            (sources, timers) = (base.sources(), base.timers());
        }
        let mut tasks = Vec::with_capacity(self.executor().tasks());
        self.executor().each_task(|task| tasks.push(task));
        waits.sort_unstable_by_key(|(id, waits)| (*id, waits.order()));
        tasks.sort_unstable_by_key(|task| task.id);
        let mut waits = waits.into_iter().peekable();
        let dump_of = |task: TaskFacts| {
            let info = self.watched().and_then(|watched| watched.info(task.id));
            // One that has ended since, and left its waker somewhere.
            while waits.next_if(|(id, _)| *id < task.id).is_some() {}
            let its = std::iter::from_fn(|| waits.next_if(|(id, _)| *id == task.id));
            TaskDump {
                id: task.id,
                type_name: plain(task.type_name),
                name: info.as_ref().and_then(|info| info.name.clone()),
                location: info.map(|info| info.location),
                state: task.state,
                priority: task.priority,
                waits: its.map(|(_, waits)| waits).collect(),
            }
        };
        Dump {
            tasks: tasks.into_iter().map(dump_of).collect(),
            sources,
            timers,
            next_deadline: self.next_deadline(),
        }
    }
}

impl Runtime {
    /// Says what all tasks are doing, and what they wait for: see [`Dump`]. At home only, also in a task.
    ///
    /// # Errors
    ///
    /// [`RunError::NotHome`] on another thread; [`RunError::Stopped`] when the runtime is closed; `Forked` and `ThreadExiting`. A
    /// runtime without a home gets this thread for one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.spawn_local(evbase::time::sleep(Duration::from_secs(3600)))?;
    /// runtime.turn(None)?;
    /// let dump = runtime.dump()?;
    /// assert_eq!((dump.tasks.len(), dump.timers), (1, 1));
    /// assert!(dump.tasks[0].type_name.ends_with("Sleep"));
    /// assert!(matches!(dump.tasks[0].waits[..], [evbase::WaitsFor::Timer { .. }]));
    /// println!("{dump}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dump(&self) -> Result<Dump, RunError> {
        Home::bind(self.shared()).map(|home| home.dump())
    }
}

impl LocalSpawner {
    /// As [`Runtime::dump`], for instance from a task.
    ///
    /// # Errors
    ///
    /// As for [`Runtime::dump`].
    pub fn dump(&self) -> Result<Dump, RunError> {
        Home::of_bound(self.home().shared()).map(|home| home.dump())
    }
}

/// For `task::set_name`: names the running task, if its runtime is watched.
pub(crate) fn set_task_name(id: TaskId, name: impl FnOnce() -> String) {
    let home = context::find(|home| home.watched().is_some_and(|watched| watched.info(id).is_some()));
    let Some(home) = home else {
        return;
    };
    let name = name();
    if let Some(watched) = home.watched() {
        watched.set_name(id, name);
    }
}
