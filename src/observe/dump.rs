//! [`Dump`]: what all tasks of a runtime are waiting for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::ptr;
use std::time::{Duration, Instant};

use crate::base::Interest;
use crate::executor::{Priority, TaskId, TaskState};

/// What all tasks of a runtime are doing: made by [`Runtime::dump`](crate::Runtime::dump) and
/// [`LocalSpawner::dump`](crate::LocalSpawner::dump).
///
/// Making one polls nothing and runs no user code: it looks whose waker stands in which source and timer. What waits for
/// something else (a channel, another task, a waker of its own as in `join_all`) has an empty list.
///
/// Printed, tasks are grouped by their type and what they wait for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dump {
    /// All tasks that have not ended, and have arrived at home, in no particular order, but in the same one in equal runs (see
    /// [`Builder::shuffle`](crate::Builder::shuffle)). The future of `block_on` is no task.
    pub tasks: Vec<TaskDump>,
    /// How many descriptors are registered.
    pub sources: usize,
    /// How many timers are armed.
    pub timers: usize,
    /// When the runtime will next have something to do by itself.
    pub next_deadline: Option<Instant>,
    /// When it was made, by the runtime's clock, which may be a virtual one.
    pub(crate) made: Instant,
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
    Fd {
        /// Its number.
        fd: RawFd,
        /// For what.
        interest: Interest,
    },
    /// A timer.
    Timer {
        /// When it is due.
        deadline: Instant,
    },
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
            write!(f, "; next deadline in {:.1?}", left(deadline, self.made))?;
        }
        writeln!(f)?;
        // A type's name is mostly at one address: to compare addresses is quicker, and names are compared once a group.
        let mut by_address: BTreeMap<(TaskState, *const str, Kinds), Group<'_>> = BTreeMap::new();
        for task in &self.tasks {
            let key = (task.state, ptr::from_ref(task.type_name), Kinds::of(&task.waits));
            match by_address.get_mut(&key) {
                Some(group) => group.add(task),
                None => by_address.entry(key).or_default().add(task),
            }
        }
        let mut groups: BTreeMap<(TaskState, &str, Kinds), Group<'_>> = BTreeMap::new();
        for ((state, _, kinds), group) in by_address {
            let type_name = group.examples[0].type_name;
            groups.entry((state, type_name, kinds)).or_default().add_all(group);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, group)| Reverse(group.tasks));
        for ((state, type_name, kinds), group) in groups.iter().take(GROUPS) {
            let state = format!("{state:?}").to_lowercase();
            write!(f, "{:>8}  {type_name}\n          {state}", group.tasks)?;
            if *kinds != Kinds::default() {
                write!(f, " for {kinds}")?;
            }
            writeln!(f)?;
            for task in &group.examples {
                let mut said = Vec::new();
                said.extend(task.name.as_ref().map(|name| format!("\"{name}\"")));
                let waits = task.waits.iter().take(EXAMPLES);
                said.extend(waits.map(|waits| waits.text(self.made)));
                said.extend(task.location.map(|location| format!("spawned at {location}")));
                if !said.is_empty() {
                    writeln!(f, "          - {}", said.join(", "))?;
                }
            }
            if group.tasks > EXAMPLES {
                writeln!(f, "          - and {} more", group.tasks - EXAMPLES)?;
            }
        }
        if groups.len() > GROUPS {
            let rest = groups[GROUPS..].iter().map(|(_, group)| group.tasks);
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

/// Tasks of one type that wait for the same kinds of things.
#[derive(Default)]
struct Group<'a> {
    tasks: usize,
    /// The first ones.
    examples: Vec<&'a TaskDump>,
}

impl<'a> Group<'a> {
    fn add(&mut self, task: &'a TaskDump) {
        self.tasks += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(task);
        }
    }

    fn add_all(&mut self, others: Self) {
        self.tasks += others.tasks;
        let room = EXAMPLES - self.examples.len();
        self.examples.extend(others.examples.into_iter().take(room));
    }
}

fn left(deadline: Instant, now: Instant) -> Duration {
    deadline.saturating_duration_since(now)
}

impl WaitsFor {
    /// In which order those of a task are listed.
    pub(crate) fn order(&self) -> impl Ord + use<> {
        let number = match self {
            Self::Fd { fd, .. } => *fd,
            Self::Timer { .. } => 0,
        };
        (Kind::of(self), number)
    }

    fn text(&self, now: Instant) -> String {
        match self {
            Self::Fd { fd, interest } => format!("descriptor {fd} ({})", Kind::of_interest(*interest)),
            Self::Timer { deadline } => format!("timer in {:.1?}", left(*deadline, now)),
        }
    }
}

/// What is left of a timer is told in real time; the [`Dump`] as a whole tells it in the time of its runtime.
impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Instant::now()))
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

/// What a task waits for, whichever and how many they are: a bit for each kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Kinds(u8);

impl Kinds {
    fn of(waits: &[WaitsFor]) -> Self {
        Self(waits.iter().fold(0, |bits, waits| bits | 1 << Kind::of(waits) as u8))
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [Kind::Reading, Kind::Writing, Kind::Timer];
        let kinds = all.into_iter().filter(|kind| self.0 & 1 << *kind as u8 != 0);
        f.write_str(&kinds.map(|kind| kind.to_string()).collect::<Vec<_>>().join(", "))
    }
}
