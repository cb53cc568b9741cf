//! Makes a [`Dump`] of a runtime, at home; and names the tasks that are in it.

use super::runtime::Runtime;
use super::spawner::LocalSpawner;
use crate::executor::TaskId;
use crate::home::{Home, RunError, context};
use crate::observe::{Dump, TaskDump, WaitsFor, plain};

impl Home {
    /// One pass over the tasks and one over the sources and timers, which find their tasks by slot: a program of any size is dumped
    /// as fast as it is closed.
    fn dump(&self) -> Dump {
        let executor = self.executor();
        let infos = self.watched().and_then(|watched| watched.tasks());
        let mut tasks = Vec::with_capacity(executor.tasks());
        // Where in `tasks` the task of a slot is.
        let mut places: Vec<u32> = Vec::with_capacity(executor.tasks());
        executor.each_task(|task| {
            places.resize(task.slot as usize, 0);
            places.push(tasks.len() as u32);
            let info = infos.as_ref().and_then(|infos| infos.get(&task.id));
            tasks.push(TaskDump {
                id: task.id,
                type_name: plain(task.type_name),
                name: info.and_then(|info| info.name.clone()),
                location: info.map(|info| info.location),
                state: task.state,
                priority: task.priority,
                waits: Vec::new(),
            });
        });
        drop(infos);
        // Those that wait for more than one thing.
        let mut several = Vec::new();
        let mut note = |waker, what| {
            // A stranger's waker, or one that a task has left somewhere when it ended, is of none of these tasks.
            let Some(slot) = executor.slot_of(waker) else {
                return;
            };
            let place = places[slot as usize] as usize;
            let waits = &mut tasks[place].waits;
            match waits.len() {
                0 => waits.reserve_exact(1),
                1 => several.push(place),
                _ => {}
            }
            waits.push(what);
        };
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
        for place in several {
            tasks[place].waits.sort_by_key(WaitsFor::order);
        }
        Dump {
            tasks,
            sources,
            timers,
            next_deadline: self.next_deadline(),
            made: self.now(),
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
    /// As [`Runtime::dump`], for instance from a task: at home, which a `LocalSpawner` never leaves.
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
