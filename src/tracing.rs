//! Tasks as spans of the `tracing` crate: [`Spans`], an [`Observer`].

use std::collections::HashMap;
use std::fmt;

use tracing::{Level, Span, span};

use crate::{End, Observer, TaskId, TaskInfo};

/// Makes a span of each task: for [`Builder::observe`](crate::Builder::observe).
///
/// The span is made when the task is spawned, is entered and exited with each poll, and closed when the task ends. So whatever a task
/// traces is inside of its span. It has the level `TRACE`, the target `tokio::task` and the name `runtime.spawn`, by which
/// `tokio-console` knows tasks, and the fields `kind`, `task.name`, `task.id`, `fn` (the type of the future), and `loc.file`, `loc.line`,
/// `loc.col` (where it was spawned). A task that is given a name later says so in its field when it is polled next.
///
/// # Examples
///
/// ```
/// let runtime = evbase::Builder::new().observe(evbase::tracing::Spans::new()).build()?;
/// runtime.block_on(async { evbase::spawn_local(async { tracing::info!("in the span of its task") }).await })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Spans {
    spans: HashMap<TaskId, Task>,
}

struct Task {
    span: Span,
    named: bool,
}

impl Spans {
    /// Of the subscriber that is the current one where a task is spawned.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").finish_non_exhaustive()
    }
}

impl Observer for Spans {
    fn spawned(&mut self, task: &TaskInfo) {
        let span = span!(
            target: "tokio::task",
            parent: None,
            Level::TRACE,
            "runtime.spawn",
            kind = "task",
            task.name = tracing::field::Empty,
            task.id = %task.id,
            "fn" = task.type_name,
            loc.file = task.location.file(),
            loc.line = task.location.line(),
            loc.col = task.location.column(),
        );
        self.spans.insert(task.id, Task { span, named: false });
    }

    fn before_poll(&mut self, task: &TaskInfo) {
        let Some(known) = self.spans.get_mut(&task.id) else {
            return;
        };
        if let (Some(name), false) = (&task.name, known.named) {
            known.span.record("task.name", name.as_str());
            known.named = true;
        }
        // Not `Span::enter`, whose guard would have to be kept until the poll has ended.
        known.span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }

    fn after_poll(&mut self, task: &TaskInfo) {
        if let Some(known) = self.spans.get(&task.id) {
            known.span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        }
    }

    fn ended(&mut self, task: &TaskInfo, _: End) {
        self.spans.remove(&task.id);
    }
}
