//! An observer is told of each task, in order, at home.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use evbase::{
    AbortHandle, Builder, End, EnterGuard, Observer, Priority, Runtime, Shutdown, TaskId, TaskInfo, spawn_local, task,
    yield_now,
};

use crate::support::{rounds, watched};

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Spawned,
    Before,
    After,
    Ended(End),
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Event, TaskInfo, ThreadId)>>>);

impl Log {
    fn add(&self, event: Event, task: &TaskInfo) {
        self.0
            .lock()
            .unwrap()
            .push((event, task.clone(), thread::current().id()));
    }

    fn of(&self, id: TaskId) -> Vec<Event> {
        let log = self.0.lock().unwrap();
        log.iter()
            .filter(|(_, task, _)| task.id == id)
            .map(|(event, ..)| event.clone())
            .collect()
    }
}

impl Observer for Log {
    fn spawned(&mut self, task: &TaskInfo) {
        self.add(Event::Spawned, task);
    }

    fn before_poll(&mut self, task: &TaskInfo) {
        self.add(Event::Before, task);
    }

    fn after_poll(&mut self, task: &TaskInfo) {
        self.add(Event::After, task);
    }

    fn ended(&mut self, task: &TaskInfo, end: End) {
        self.add(Event::Ended(end), task);
    }
}

#[test]
fn it_is_told_of_each_step_of_a_task() {
    watched(|| {
        let log = Log::default();
        let runtime = Builder::new().observe(log.clone()).build().unwrap();
        let ids = runtime
            .block_on(async {
                let yields = spawn_local(async {
                    task::set_name("yields");
                    yield_now().await;
                });
                let panics = spawn_local(async { std::panic::resume_unwind(Box::new("on purpose")) });
                let never = spawn_local(pending::<()>());
                let ids = [yields.id(), panics.id(), never.id()];
                yields.await.unwrap();
                let _: Result<(), _> = panics.await;
                never.abort();
                never.await.unwrap_err();
                ids
            })
            .unwrap();
        use Event::{After, Before, Ended, Spawned};
        assert_eq!(
            log.of(ids[0]),
            [Spawned, Before, After, Before, After, Ended(End::Completed)]
        );
        assert_eq!(log.of(ids[1]), [Spawned, Before, After, Ended(End::Panicked)]);
        assert_eq!(log.of(ids[2]), [Spawned, Before, After, Ended(End::Cancelled)]);
        let log = log.0.lock().unwrap();
        assert!(
            log.iter()
                .all(|(_, task, on)| task.location.file() == file!() && *on == thread::current().id())
        );
        let (_, last, _) = log.iter().rfind(|(_, task, _)| task.id == ids[0]).unwrap();
        assert_eq!(
            (last.name.as_deref(), last.priority),
            (Some("yields"), Priority::Normal)
        );
        assert!(last.to_string().contains("yields"), "{last}");
    });
}

#[test]
fn what_was_spawned_has_ended_once_when_the_runtime_is_closed() {
    rounds(100, |round| {
        let log = Log::default();
        let runtime = Builder::new().observe(log.clone()).start("home").unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let spawner = runtime.spawner();
                thread::spawn(move || {
                    for n in 0..50 {
                        match n % 5 {
                            0 => drop(spawner.spawn(async {})),
                            1 => spawner.spawn(pending::<()>()).abort(),
                            2 => drop(spawner.spawn(async { std::panic::resume_unwind(Box::new(())) })),
                            3 => drop(spawner.spawn_with(|| async { spawn_local(pending::<()>()).await })),
                            _ => drop(spawner.spawn(pending::<()>())),
                        }
                    }
                })
            })
            .collect();
        if round % 2 == 0 {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            runtime.shutdown().wait().unwrap();
        } else {
            runtime.shutdown().wait().unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        let mut alive: HashMap<TaskId, usize> = HashMap::new();
        for (event, task, _) in log.0.lock().unwrap().iter() {
            match event {
                Event::Spawned => assert_eq!(alive.insert(task.id, 0), None),
                Event::Ended(_) => assert_eq!(alive.remove(&task.id), Some(0)),
                Event::Before => *alive.get_mut(&task.id).unwrap() += 1,
                Event::After => *alive.get_mut(&task.id).unwrap() -= 1,
            }
        }
        assert!(alive.is_empty(), "{} have not ended", alive.len());
    });
}

#[test]
fn one_that_spawns_or_panics_itself_harms_nobody() {
    struct Odd;
    impl Observer for Odd {
        fn before_poll(&mut self, _: &TaskInfo) {
            drop(evbase::Spawner::current().spawn(async {}));
        }

        fn ended(&mut self, _: &TaskInfo, _: End) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    watched(|| {
        let runtime = Builder::new().observe(Odd).build().unwrap();
        for _ in 0..10 {
            let task = runtime.spawn_local(async { 42 }).unwrap();
            assert_eq!(runtime.block_on(task).unwrap().unwrap(), 42);
        }
        drop(runtime);
    });
}

/// Aborts a task at one of the steps that it is told of.
struct Aborts {
    at: Event,
    /// `None` once it has.
    task: Arc<Mutex<Option<AbortHandle>>>,
}

impl Aborts {
    fn told(&self, step: Event) {
        if step == self.at {
            if let Some(task) = self.task.lock().unwrap().take() {
                task.abort();
            }
        }
    }
}

impl Observer for Aborts {
    fn spawned(&mut self, _: &TaskInfo) {
        self.told(Event::Spawned);
    }

    fn before_poll(&mut self, _: &TaskInfo) {
        self.told(Event::Before);
    }

    fn after_poll(&mut self, _: &TaskInfo) {
        self.told(Event::After);
    }

    fn ended(&mut self, _: &TaskInfo, end: End) {
        self.told(Event::Ended(end));
    }
}

/// A task from abroad that was aborted by who was told of its arrival stood in the ready queue twice, the second time after its
/// memory had gone. One that was aborted before a poll was never dropped, unless something woke it.
#[test]
fn one_that_aborts_what_it_is_told_of_ends_that_task_once() {
    rounds(100, |round| {
        let at = [
            Event::Spawned,
            Event::Before,
            Event::After,
            Event::Ended(End::Completed),
        ][round % 4]
            .clone();
        let (ends, aborted) = (at == Event::Ended(End::Completed), Arc::default());
        let observer = Aborts {
            at,
            task: Arc::clone(&aborted),
        };
        let runtime = Builder::new().observe(observer).build().unwrap();
        let task = runtime.spawner().spawn_with(move || async move {
            if !ends {
                pending::<()>().await;
            }
        });
        *aborted.lock().unwrap() = Some(task.abort_handle());
        match round / 4 % 3 {
            // The observer has the last reference.
            0 => drop(task),
            1 => assert_eq!(runtime.block_on(task).unwrap().is_ok(), ends),
            // It arrives when the runtime closes.
            _ => {
                let report = runtime.shutdown().wait().unwrap();
                assert_eq!((report.completed, report.cancelled), (0, 1));
                return;
            }
        }
        while runtime.metrics().alive() > 0 || runtime.metrics().spawned == 0 {
            runtime.turn(None).unwrap();
        }
        // Others have its memory now.
        for _ in 0..3 {
            let other = runtime.spawn_local(async { 42 }).unwrap();
            assert_eq!(runtime.block_on(other).unwrap().unwrap(), 42);
        }
        let report = runtime.shutdown().wait().unwrap();
        let own = u64::from(ends);
        assert_eq!((report.completed, report.cancelled), (3 + own, 1 - own));
    });
}

#[test]
fn the_runtimes_of_a_cloned_builder_share_it() {
    watched(|| {
        let log = Log::default();
        let builder = Builder::new().observe(log.clone());
        let runtimes: Vec<_> = (0..3).map(|_| builder.clone().start("home").unwrap()).collect();
        let tasks: Vec<_> = runtimes
            .iter()
            .map(|runtime| runtime.spawner().spawn(async {}))
            .collect();
        tasks.into_iter().for_each(|task| task.wait().unwrap().unwrap());
        drop(
            runtimes
                .into_iter()
                .map(|runtime| runtime.shutdown().wait().unwrap())
                .collect::<Vec<_>>(),
        );
        let log = log.0.lock().unwrap();
        assert_eq!(log.iter().filter(|(event, ..)| *event == Event::Spawned).count(), 3);
        assert_eq!(
            log.iter()
                .filter(|(event, ..)| *event == Event::Ended(End::Completed))
                .count(),
            3
        );
    });
}

/// Ends the runtime, and leaves its context, when it is told of a task.
struct EndsIt(Shutdown);

thread_local! {
    static ENTERED: RefCell<Option<EnterGuard<'static>>> = const { RefCell::new(None) };
}

impl Observer for EndsIt {
    fn spawned(&mut self, _: &TaskInfo) {
        drop(ENTERED.take());
        self.0.request();
        // This is home, outside of the loop: it closes here, and would be gone.
        self.0.terminated().wait().unwrap();
    }
}

#[test]
fn one_that_ends_the_runtime_when_it_is_told_of_a_task_ends_that_task() {
    rounds(100, |_| {
        // The observer needs the handle of a runtime that isn't there yet.
        let late: Arc<Mutex<Option<EndsIt>>> = Arc::default();
        struct Late(Arc<Mutex<Option<EndsIt>>>);
        impl Observer for Late {
            fn spawned(&mut self, task: &TaskInfo) {
                let ends_it = self.0.lock().unwrap().take();
                if let Some(mut ends_it) = ends_it {
                    ends_it.spawned(task);
                }
            }
        }
        let runtime = Builder::new().observe(Late(late.clone())).build().unwrap();
        *late.lock().unwrap() = Some(EndsIt(runtime.shutdown_handle()));
        let boxed = Box::into_raw(Box::new(runtime));
        // SAFETY: it is freed below, when the guard, which alone needs it to be static, is gone.
        let runtime: &'static Runtime = unsafe { &*boxed };
        ENTERED.set(Some(runtime.enter().unwrap()));
        let task = runtime.spawner().spawn(async {});
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        assert!(ENTERED.take().is_none());
        // SAFETY: as above; and it was made by `into_raw`.
        drop(unsafe { Box::from_raw(boxed) });
    });
}
