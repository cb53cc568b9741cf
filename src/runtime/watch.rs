//! Watching a runtime: what is measured, who is told of tasks, and what is remembered of these.
//!
//! Nobody pays for it who did not ask: a runtime has a `Watched` only if it was built with `measure`, `observe` or `on_stall`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::context;
use super::stall::{Stalls, Watchpoint};
use crate::base::{Buckets, fork};
use crate::executor::{Count, End, Priority, TaskId, Watch, catch_panic};
use crate::sync::thread_cell;

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
pub(super) type SharedObserver = Arc<Mutex<dyn Observer + Send>>;

/// What was asked for.
#[derive(Clone, Default)]
pub(super) struct WatchSettings {
    pub(super) measure: bool,
    pub(super) observer: Option<SharedObserver>,
    pub(super) stalls: Option<Stalls>,
}

impl WatchSettings {
    /// Whether anything was.
    pub(super) fn is_any(&self) -> bool {
        self.measure || self.observer.is_some() || self.stalls.is_some()
    }
}

/// What `measure` counts.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// In nanoseconds.
    pub(super) busy: Count,
    pub(super) waited: Count,
    pub(super) poll_times: Buckets,
    pub(super) pass_times: Buckets,
    pub(super) timer_lag: Arc<Buckets>,
}

/// What is known of the tasks that have not ended: written at home, read by the thread that looks for stalls.
pub(super) type Tasks = Mutex<HashMap<TaskId, Arc<TaskInfo>>>;

/// At home, in a runtime that is watched.
pub(super) struct Watched {
    tasks: Arc<Tasks>,
    observer: Option<SharedObserver>,
    measured: Option<Arc<Measured>>,
    watchpoint: Option<Arc<Watchpoint>>,
    /// Where tasks come from that have not been accepted yet.
    locations: RefCell<HashMap<TaskId, &'static Location<'static>>>,
    poll_began: Cell<Option<Instant>>,
    /// When the last look at the kernel has ended.
    pass_began: Cell<Option<Instant>>,
    birth: fork::Birth,
}

// An observer runs on this thread: what it does is told to nobody.
thread_cell!(OBSERVING: bool = false);

impl Watched {
    pub(super) fn new(
        observer: Option<SharedObserver>,
        measured: Option<Arc<Measured>>,
        watchpoint: Option<Arc<Watchpoint>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            tasks: watchpoint
                .as_ref()
                .map_or_else(Arc::default, |watchpoint| watchpoint.tasks().clone()),
            observer,
            measured,
            watchpoint,
            locations: RefCell::default(),
            poll_began: Cell::new(None),
            pass_began: Cell::new(None),
            birth: fork::Birth::here(),
        })
    }

    /// In the child of a fork `None`: the parent's watching thread may have held the lock at the fork.
    fn tasks(&self) -> Option<MutexGuard<'_, HashMap<TaskId, Arc<TaskInfo>>>> {
        (!self.birth.is_child()).then(|| self.tasks.lock())
    }

    pub(super) fn info(&self, id: TaskId) -> Option<Arc<TaskInfo>> {
        self.tasks()?.get(&id).cloned()
    }

    fn observe(&self, what: impl FnOnce(&mut dyn Observer)) {
        let Some(observer) = &self.observer else {
            return;
        };
        // On some platforms the cell is gone while the thread exits: then nobody is told.
        if OBSERVING.try_with(|observing| observing.replace(true)).unwrap_or(true) {
            return;
        }
        catch_panic::run(|| what(&mut *observer.lock()));
        let _ = OBSERVING.try_with(|observing| observing.set(false));
    }

    /// Calls `code` with what is known of the task.
    fn observe_task(&self, id: TaskId, what: impl FnOnce(&mut dyn Observer, &TaskInfo)) {
        if self.observer.is_none() {
            return;
        }
        if let Some(info) = self.info(id) {
            self.observe(|observer| what(observer, &info));
        }
    }

    /// Home goes to sleep, or leaves its loop; or it is awake again, and in its loop.
    pub(super) fn set_idle(&self, idle: bool) {
        if let Some(watchpoint) = &self.watchpoint {
            watchpoint.set_idle(idle);
        }
    }

    /// The kernel is about to be asked; `began` and `ended` give the time.
    pub(super) fn look_begins(&self) -> Option<Instant> {
        self.pass_ends();
        self.measured.is_some().then(Instant::now)
    }

    /// The kernel was asked; `slept` if home was to wait.
    pub(super) fn look_ended(&self, began: Option<Instant>, slept: bool) {
        if let (Some(measured), Some(began)) = (&self.measured, began) {
            let now = Instant::now();
            self.pass_began.set(Some(now));
            if slept {
                measured.waited.add(nanos(now - began));
            }
        }
    }

    /// Home leaves its loop, which ends the pass.
    pub(super) fn loop_ended(&self) {
        self.pass_ends();
        self.set_idle(true);
    }

    fn pass_ends(&self) {
        if let (Some(measured), Some(began)) = (&self.measured, self.pass_began.take()) {
            measured.pass_times.record(began.elapsed());
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Watch for Watched {
    fn comes_from(&self, id: TaskId, location: &'static Location<'static>) {
        self.locations.borrow_mut().insert(id, location);
    }

    fn spawned(&self, id: TaskId, type_name: &'static str, priority: Priority) {
        let location = self.locations.borrow_mut().remove(&id).unwrap_or(Location::caller());
        let info = Arc::new(TaskInfo {
            id,
            type_name: super::dump::plain(type_name),
            name: None,
            location,
            priority,
        });
        if let Some(mut tasks) = self.tasks() {
            tasks.insert(id, info.clone());
        }
        self.observe(|observer| observer.spawned(&info));
    }

    fn before_poll(&self, id: Option<TaskId>) {
        if let Some(id) = id {
            self.observe_task(id, |observer, task| observer.before_poll(task));
        }
        if let Some(watchpoint) = &self.watchpoint {
            watchpoint.begin(id);
        }
        if self.measured.is_some() {
            self.poll_began.set(Some(Instant::now()));
        }
    }

    fn after_poll(&self, id: Option<TaskId>) {
        if let (Some(measured), Some(began)) = (&self.measured, self.poll_began.take()) {
            let lasted = began.elapsed();
            measured.poll_times.record(lasted);
            measured.busy.add(nanos(lasted));
        }
        if let Some(watchpoint) = &self.watchpoint {
            watchpoint.begin(None);
        }
        if let Some(id) = id {
            self.observe_task(id, |observer, task| observer.after_poll(task));
        }
    }

    fn ended(&self, id: TaskId, end: End) {
        let info = self.tasks().and_then(|mut tasks| tasks.remove(&id));
        if let Some(info) = info {
            self.observe(|observer| observer.ended(&info, end));
        }
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
        if let Some(info) = watched.tasks().as_mut().and_then(|tasks| tasks.get_mut(&id)) {
            Arc::make_mut(info).name = Some(name);
        }
    }
}
