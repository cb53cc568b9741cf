//! [`Dump`]: what all tasks of a runtime are waiting for.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::time::Instant;

use super::error::RunError;
use super::home::Home;
use super::runtime::Runtime;
use super::spawner::LocalSpawner;
use crate::base::Interest;
use crate::executor::{Priority, TaskFacts, TaskId, TaskState, task_of};

/// What all tasks of a runtime are doing: made by [`Runtime::dump`] and [`LocalSpawner::dump`].
///
/// Making one polls nothing and runs no user code: it looks whose waker stands in which source and timer. What waits for
/// something else (a channel, another task, a waker of its own as in `join_all`) has an empty list.
///
/// Printed, tasks are grouped by their type and what they wait for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dump {
    /// All tasks that have not ended, and have arrived at home, in the order of their ids. The future of `block_on` is no task.
    pub tasks: Vec<TaskDump>,
    /// How many descriptors are registered.
    pub sources: usize,
    /// How many timers are armed.
    pub timers: usize,
    /// When the runtime will next have something to do by itself.
    pub next_deadline: Option<Instant>,
}

/// A task in a [`Dump`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskDump {
    /// That of [`task::id`](crate::task::id).
    pub id: TaskId,
    /// The type of its future, by [`std::any::type_name`].
    pub type_name: &'static str,
    /// What [`task::set_name`](crate::task::set_name) has said, in a runtime that is watched.
    pub name: Option<String>,
    /// Where it was spawned, in a runtime that is watched.
    pub location: Option<&'static Location<'static>>,
    /// Whether it is ready, or waits.
    pub state: TaskState,
    /// That of its spawner.
    pub priority: Priority,
    /// What has its waker.
    pub waits: Vec<WaitsFor>,
}

/// What a task in a [`Dump`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor {
    /// A descriptor.
    #[non_exhaustive]
    Fd {
        /// Its number.
        fd: RawFd,
        /// For what.
        interest: Interest,
    },
    /// A timer.
    #[non_exhaustive]
    Timer {
        /// When it is due.
        deadline: Instant,
    },
}

/// The type of a future without the wrappers of this crate.
pub(super) fn plain(type_name: &'static str) -> &'static str {
    let inside = |prefix: &str| type_name.strip_prefix(prefix)?.strip_suffix('>');
    let large = concat!(env!("CARGO_PKG_NAME"), "::executor::large::Large<");
    let make = concat!(env!("CARGO_PKG_NAME"), "::runtime::spawner::MakeFuture<");
    if let Some(inner) = inside(large) {
        return plain(inner);
    }
    match inside(make) {
        // The closure, a comma, and the future.
        Some(both) => {
            let mut depth = 0;
            let comma = both.char_indices().find(|&(_, c)| {
                match c {
                    '<' | '(' | '[' | '{' => depth += 1,
                    '>' | ')' | ']' | '}' => depth -= 1,
                    _ => {}
                }
                c == ',' && depth == 0
            });
            comma.map_or(both, |(at, _)| both[at + 1..].trim_start())
        }
        None => type_name,
    }
}

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
        waits.sort_unstable_by_key(|(id, waits)| (*id, Kind::of(waits), waits.number()));
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

/// How many groups, and how many tasks of each, are printed.
const GROUPS: usize = 30;
const EXAMPLES: usize = 3;

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks, {} descriptors, {} timers",
            self.tasks.len(),
            self.sources,
            self.timers
        )?;
        if let Some(deadline) = self.next_deadline {
            write!(f, "; next deadline in {:.1?}", until(deadline))?;
        }
        writeln!(f)?;
        let mut groups: BTreeMap<(TaskState, &str, Vec<Kind>), Vec<&TaskDump>> = BTreeMap::new();
        for task in &self.tasks {
            let mut kinds: Vec<_> = task.waits.iter().map(Kind::of).collect();
            kinds.dedup();
            groups
                .entry((task.state, task.type_name, kinds))
                .or_default()
                .push(task);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, tasks)| std::cmp::Reverse(tasks.len()));
        for ((state, type_name, kinds), tasks) in groups.iter().take(GROUPS) {
            let state = format!("{state:?}").to_lowercase();
            write!(f, "{:>8}  {type_name}\n          {state}", tasks.len())?;
            if !kinds.is_empty() {
                let kinds: Vec<_> = kinds.iter().map(Kind::to_string).collect();
                write!(f, " for {}", kinds.join(", "))?;
            }
            writeln!(f)?;
            for task in tasks.iter().take(EXAMPLES) {
                let mut said = Vec::new();
                said.extend(task.name.as_ref().map(|name| format!("\"{name}\"")));
                said.extend(task.waits.iter().take(EXAMPLES).map(WaitsFor::to_string));
                said.extend(task.location.map(|location| format!("spawned at {location}")));
                if !said.is_empty() {
                    writeln!(f, "          - {}", said.join(", "))?;
                }
            }
            if tasks.len() > EXAMPLES {
                writeln!(f, "          - and {} more", tasks.len() - EXAMPLES)?;
            }
        }
        if groups.len() > GROUPS {
            let rest = groups[GROUPS..].iter().map(|(_, tasks)| tasks.len());
            writeln!(
                f,
                "{:>8}  in {} more groups",
                rest.sum::<usize>(),
                groups.len() - GROUPS
            )?;
        }
        Ok(())
    }
}

fn until(deadline: Instant) -> std::time::Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl WaitsFor {
    /// For a fixed order.
    fn number(&self) -> RawFd {
        match self {
            Self::Fd { fd, .. } => *fd,
            Self::Timer { .. } => 0,
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fd { fd, interest } => write!(f, "descriptor {fd} ({})", Kind::of_interest(*interest)),
            Self::Timer { deadline } => write!(f, "timer in {:.1?}", until(*deadline)),
        }
    }
}

/// What is waited for, whichever it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Reading,
    Writing,
    Timer,
}

impl Kind {
    fn of(waits: &WaitsFor) -> Self {
        match waits {
            WaitsFor::Fd { interest, .. } => Self::of_interest(*interest),
            WaitsFor::Timer { .. } => Self::Timer,
        }
    }

    fn of_interest(interest: Interest) -> Self {
        match interest.is_writable() {
            true => Self::Writing,
            false => Self::Reading,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reading => "reading",
            Self::Writing => "writing",
            Self::Timer => "a timer",
        })
    }
}
