//! A dump says what each task waits for.

use std::cell::Cell;
use std::future::pending;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::{Sleep, sleep, sleep_until, timeout};
use evbase::{
    Builder, Dump, LocalSpawner, Priority, RunError, Runtime, TaskDump, TaskState, WaitsFor, spawn_local, task,
    yield_now,
};

use crate::support::{once_undisturbed, poll_here, watched};

async fn reads(fd: Rc<AsyncFd<UnixStream>>) {
    let _ = fd.readable().await;
}

async fn sleeps_until(deadline: Instant) {
    sleep_until(deadline).await;
}

async fn is_named() {
    task::set_name("the one");
    pending::<()>().await;
}

async fn waits_for_neither() {
    pending::<()>().await;
}

async fn once_polled(mut nap: Sleep) -> Sleep {
    assert!(poll_here(&mut nap).await.is_pending());
    nap
}

#[track_caller]
fn of<'a>(dump: &'a Dump, function: &str) -> &'a TaskDump {
    let mut found = dump.tasks.iter().filter(|task| task.type_name.contains(function));
    let task = found.next().unwrap_or_else(|| panic!("no {function} in {dump}"));
    assert!(found.next().is_none());
    task
}

#[test]
fn it_names_who_waits_for_a_descriptor_a_timer_or_neither() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        let fd = Rc::new(AsyncFd::new(ours).unwrap());
        let deadline = Instant::now() + Duration::from_secs(1000);
        drop(runtime.spawn_local(reads(fd.clone())).unwrap());
        drop(runtime.spawn_local(sleeps_until(deadline)).unwrap());
        drop(runtime.spawn_local(waits_for_neither()).unwrap());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let ready = runtime.spawn_local(yield_now()).unwrap();
        let dump = runtime.dump().unwrap();
        assert_eq!((dump.tasks.len(), dump.sources, dump.timers), (4, 1, 1));
        assert!(dump.next_deadline.unwrap() >= deadline);

        let task = of(&dump, "dumps::reads");
        assert_eq!(task.state, TaskState::Waiting);
        assert!(matches!(task.waits[..], [WaitsFor::Fd { fd, interest }] if fd == number && interest.is_readable()));
        let task = of(&dump, "dumps::sleeps_until");
        assert!(matches!(task.waits[..], [WaitsFor::Timer { deadline: due }] if due == deadline));
        let task = of(&dump, "dumps::waits_for_neither");
        assert!(task.waits.is_empty());
        let task = dump.tasks.iter().find(|task| task.id == ready.id()).unwrap();
        assert_eq!((task.state, task.priority), (TaskState::Ready, Priority::Normal));
        let said = dump.to_string();
        for expected in [
            "4 tasks",
            "dumps::reads",
            &format!("descriptor {number} (reading)"),
            "a timer",
            "ready",
        ] {
            assert!(said.contains(expected), "{expected} in {said}");
        }
    });
}

#[test]
fn a_task_can_wait_for_several_things_and_dump_itself() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = Rc::new(AsyncFd::new(ours).unwrap());
        let both = runtime
            .local_spawner()
            .unwrap()
            .with_priority(Priority::Low)
            .spawn_local(async move { drop(timeout(Duration::from_secs(1000), fd.readable()).await) })
            .unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let dumps = runtime
            .spawn_local(async { LocalSpawner::current().dump().unwrap() })
            .unwrap();
        let itself = dumps.id();
        let dump = runtime.block_on(dumps).unwrap().unwrap();
        let task = dump.tasks.iter().find(|task| task.id == both.id()).unwrap();
        assert_eq!((task.waits.len(), task.priority), (2, Priority::Low));
        let task = dump.tasks.iter().find(|task| task.id == itself).unwrap();
        assert_eq!(task.state, TaskState::Running);
    });
}

#[test]
fn names_and_lines_are_those_of_a_runtime_that_is_watched() {
    watched(|| {
        for is_watched in [true, false] {
            let builder = if is_watched {
                Builder::new().measure()
            } else {
                Builder::new()
            };
            let runtime = builder.build().unwrap();
            let (line, named) = (line!(), runtime.spawn_local(is_named()).unwrap());
            let spawner = runtime.spawner();
            let abroad = std::thread::spawn(move || {
                // A future that is made at home, and one that is boxed for its size.
                drop(spawner.spawn_with(waits_for_neither));
                let large = [0_u8; 100_000];
                drop(spawner.spawn(async move {
                    pending::<()>().await;
                    assert_eq!(large.len(), 100_000);
                }));
            });
            abroad.join().unwrap();
            runtime.turn(Some(Duration::ZERO)).unwrap();
            let dump = runtime.dump().unwrap();
            let task = dump.tasks.iter().find(|task| task.id == named.id()).unwrap();
            assert_eq!(task.location.map(|at| at.line()), is_watched.then_some(line));
            assert_eq!(
                dump.tasks.iter().any(|task| task.name.as_deref() == Some("the one")),
                is_watched
            );
            if is_watched {
                assert!(
                    dump.tasks.iter().all(|task| task.location.unwrap().file() == file!()),
                    "{dump:?}"
                );
            }
            assert_eq!(
                of(&dump, "waits_for_neither").type_name.matches("evbase").count(),
                0,
                "{dump}"
            );
            assert!(
                dump.tasks.iter().all(|task| !task.type_name.contains("Large<")),
                "{dump}"
            );
        }
    });
}

fn a_hundred_thousand_tasks() -> Runtime {
    let runtime = Runtime::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(1000);
    for n in 0..50_000 {
        let sleeps = sleeps_until(deadline + Duration::from_nanos(n));
        drop(runtime.spawn_local(sleeps).unwrap());
        drop(runtime.spawn_local(waits_for_neither()).unwrap());
    }
    while runtime.turn(Some(Duration::ZERO)).unwrap().more {}
    runtime
}

#[test]
fn a_hundred_thousand_tasks_make_a_readable_dump() {
    watched(|| {
        let dump = a_hundred_thousand_tasks().dump().unwrap();
        assert_eq!((dump.tasks.len(), dump.timers), (100_000, 50_000));
        let said = dump.to_string();
        assert!(said.lines().count() < 20, "{said}");
        assert!(said.contains("and 49997 more"), "{said}");
    });
}

#[test]
fn a_dump_takes_about_as_long_as_a_close() {
    // A sanitizer makes memory dear, of which a dump takes more.
    if std::env::var_os("EVBASE_SANITIZER").is_some() {
        return;
    }
    once_undisturbed(|| {
        let runtime = a_hundred_thousand_tasks();
        let start = Instant::now();
        let dump = runtime.dump().unwrap();
        let dumped = start.elapsed();
        drop(dump);
        let start = Instant::now();
        drop(runtime);
        let closed = start.elapsed();
        println!("a dump of 100,000 tasks: {dumped:?}; their close: {closed:?}");
        // It is quicker, in a release build; this has to hold in any.
        match dumped <= 2 * closed {
            true => Ok(()),
            false => Err(format!("{dumped:?}, {closed:?}")),
        }
    });
}

#[test]
fn a_waker_that_an_ended_task_left_somewhere_is_nobodys() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let far = Instant::now() + Duration::from_secs(1000);
        let _nap = runtime
            .block_on(runtime.spawn_local(once_polled(sleep_until(far))).unwrap())
            .unwrap()
            .unwrap();
        // The first of these has the place in the table that the other one had.
        for _ in 0..10 {
            drop(runtime.spawn_local(waits_for_neither()).unwrap());
        }
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let dump = runtime.dump().unwrap();
        assert_eq!((dump.tasks.len(), dump.timers), (10, 1));
        assert!(dump.tasks.iter().all(|task| task.waits.is_empty()), "{dump:?}");
    });
}

#[test]
fn a_task_of_another_runtime_is_none_of_this_ones() {
    watched(|| {
        let ours = Rc::new(Runtime::new().unwrap());
        let theirs = Runtime::new().unwrap();
        drop(ours.spawn_local(waits_for_neither()).unwrap());
        ours.turn(Some(Duration::ZERO)).unwrap();
        let inner = ours.clone();
        let task = theirs.spawn_local(async move {
            // The timer is of the innermost context, the waker of the outer loop's task.
            let _inner = inner.enter().unwrap();
            let nap = sleep_until(Instant::now() + Duration::from_secs(1000));
            (once_polled(nap).await, inner.dump().unwrap())
        });
        let (_nap, dump) = theirs.block_on(task.unwrap()).unwrap().unwrap();
        assert_eq!((dump.tasks.len(), dump.timers), (1, 1));
        assert!(dump.tasks[0].waits.is_empty(), "{dump:?}");
    });
}

#[test]
fn equal_runs_have_equal_dumps() {
    let run = || {
        let runtime = Builder::new().paused().shuffle(7).build().unwrap();
        let start = runtime.block_on(async { evbase::time::now() }).unwrap();
        let mut tasks = Vec::new();
        for n in 0..1000 {
            let nap = Duration::from_millis(n % 7 * 100);
            tasks.push(runtime.spawn_local(sleeps_until(start + nap)).unwrap());
            drop(runtime.spawn_local(waits_for_neither()).unwrap());
        }
        tasks.iter().step_by(3).for_each(evbase::JoinHandle::abort);
        runtime
            .block_on(sleep_until(start + Duration::from_millis(350)))
            .unwrap();
        // These have the places in the table of those that have ended.
        for _ in 0..300 {
            drop(runtime.spawn_local(is_named()).unwrap());
        }
        let tasks = runtime.dump().unwrap().tasks;
        let of_each = |task: TaskDump| (task.type_name, task.state, task.waits.len());
        tasks.into_iter().map(of_each).collect::<Vec<_>>()
    };
    watched(|| {
        let first = run();
        assert!(first.len() > 1300, "{}", first.len());
        // Somewhere else in memory.
        let _other = a_hundred_thousand_tasks();
        assert_eq!(first, run());
    });
}

#[test]
fn it_is_homes_and_of_what_lives() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        assert!(matches!(runtime.dump(), Err(RunError::NotHome { .. })));
        let runtime = Runtime::new().unwrap();
        let spawner = runtime.local_spawner().unwrap();
        assert!(spawner.dump().unwrap().tasks.is_empty());
        runtime.shutdown_handle().request();
        runtime.run().unwrap();
        assert!(matches!(runtime.dump(), Err(RunError::Stopped)));
        assert!(matches!(spawner.dump(), Err(RunError::Stopped)));
    });
}

#[test]
fn it_runs_no_user_code() {
    watched(|| {
        // A waker that counts whatever is done with it.
        let done = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let waker = crate::support::waker_fn({
            let done = done.clone();
            move || {
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        let runtime = Runtime::new().unwrap();
        let _guard = runtime.enter().unwrap();
        let mut nap = sleep_until(Instant::now() + Duration::from_secs(1000));
        assert!(crate::support::poll_with(&mut nap, &waker).is_pending());
        let polls = Rc::new(Cell::new(0));
        let counts = polls.clone();
        drop(evbase::spawn_local(async move {
            counts.set(counts.get() + 1);
        }));
        let dump = runtime.dump().unwrap();
        assert_eq!((dump.tasks.len(), dump.timers, polls.get()), (1, 1, 0));
        assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), 0);
    });
}

#[test]
fn what_is_left_of_a_timer_is_told_in_the_time_of_the_runtime() {
    let runtime = Builder::new().paused().build().unwrap();
    let text = runtime.block_on(async {
        let naps = [3600, 7200].map(|seconds| spawn_local(sleep(Duration::from_secs(seconds))));
        sleep(Duration::from_secs(3000)).await;
        let dump = LocalSpawner::current().dump().unwrap().to_string();
        drop(naps);
        dump
    });
    let text = text.unwrap();
    assert!(text.contains("next deadline in 600.0s"), "{text}");
    assert!(
        text.contains("timer in 600.0s") && text.contains("timer in 4200.0s"),
        "{text}"
    );
}
