//! [`Watched`]: the executor's watch, which tells the others of this module.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::measured::Measured;
use super::observer::{Observer, SharedObserver};
use super::stall::{Stalls, Watchpoint};
use super::task_info::{TaskInfo, Tasks, plain};
use crate::base::fork;
use crate::executor::{End, Priority, TaskId, Watch, catch_panic};
use crate::sync::thread_cell;

/// What was asked for.
#[derive(Clone, Default)]
pub(crate) struct WatchSettings {
    pub(crate) measure: bool,
    pub(crate) observer: Option<SharedObserver>,
    pub(crate) stalls: Option<Stalls>,
}

impl WatchSettings {
    /// Whether anything was.
    pub(crate) fn is_any(&self) -> bool {
        self.measure || self.observer.is_some() || self.stalls.is_some()
    }
}

/// At home, in a runtime that is watched.
pub(crate) struct Watched {
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
    pub(crate) fn new(
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
    pub(crate) fn tasks(&self) -> Option<MutexGuard<'_, HashMap<TaskId, Arc<TaskInfo>>>> {
        (!self.birth.is_child()).then(|| self.tasks.lock())
    }

    pub(crate) fn info(&self, id: TaskId) -> Option<Arc<TaskInfo>> {
        self.tasks()?.get(&id).cloned()
    }

    /// Names a task.
    pub(crate) fn set_name(&self, id: TaskId, name: String) {
        if let Some(info) = self.tasks().as_mut().and_then(|tasks| tasks.get_mut(&id)) {
            Arc::make_mut(info).name = Some(name);
        }
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
    pub(crate) fn set_idle(&self, idle: bool) {
        if let Some(watchpoint) = &self.watchpoint {
            watchpoint.set_idle(idle);
        }
    }

    /// The kernel is about to be asked; `began` and `ended` give the time.
    pub(crate) fn look_begins(&self) -> Option<Instant> {
        self.pass_ends();
        self.measured.is_some().then(Instant::now)
    }

    /// The kernel was asked; `slept` if home was to wait.
    pub(crate) fn look_ended(&self, began: Option<Instant>, slept: bool) {
        if let (Some(measured), Some(began)) = (&self.measured, began) {
            let now = Instant::now();
            self.pass_began.set(Some(now));
            if slept {
                measured.waited.add(nanos(now - began));
            }
        }
    }

    /// Home leaves its loop, which ends the pass.
    pub(crate) fn loop_ended(&self) {
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
            type_name: plain(type_name),
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
