//! What is known of a task in a runtime that is watched.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::executor::{Priority, TaskId};

/// What is known of a task in a runtime that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// That of [`task::id`](crate::task::id).
    pub id: TaskId,
    /// The type of its future, by [`std::any::type_name`].
    pub type_name: &'static str,
    /// What [`task::set_name`](crate::task::set_name) has said.
    pub name: Option<String>,
    /// Where it was spawned; of a task that came through `futures`' traits, somewhere in these.
    pub location: &'static Location<'static>,
    /// That of its spawner.
    pub priority: Priority,
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "\"{name}\" ")?;
        }
        write!(f, "{} (spawned at {})", self.type_name, self.location)
    }
}

/// What is known of the tasks that have not ended: written at home, read by the thread that looks for stalls.
pub(crate) type Tasks = Mutex<HashMap<TaskId, Arc<TaskInfo>>>;

/// The type of a future without the wrappers of this crate.
pub(crate) fn plain(type_name: &'static str) -> &'static str {
    const CRATE: &str = concat!(env!("CARGO_PKG_NAME"), "::");
    // Most are not of this crate: they cost one short comparison.
    let Some(ours) = type_name.strip_prefix(CRATE) else {
        return type_name;
    };
    let inside = |prefix: &str| ours.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(inner) = inside("executor::large::Large<") {
        return plain(inner);
    }
    match inside("runtime::spawner::MakeFuture<") {
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
