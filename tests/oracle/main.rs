//! An oracle: programs of random operations on several threads run against a real runtime, while everybody writes down
//! what happened; then the books have to agree, and what is promised has to hold:
//!
//! - accepted = completed + cancelled + panicked, and each task ended as its join handle and the report say;
//! - each future is polled at home only, never twice at once, never after its end; it is dropped once, at home, and before
//!   anybody sees `Terminated` ready; each output is dropped once;
//! - a wake-up is followed by a poll, an abort by the end of the task, a write by its being read, while a home serves; a stop
//!   by the end of every wait for it, while there is a grace period;
//! - after a stop without grace, and after an abort, nothing is polled but what was about to be;
//! - timers are never early, and those that wait are ready in the order of their deadlines;
//! - what is read is what was written, all of it, and a socket that nobody has touched is never ready, whoever had its number
//!   before;
//! - nobody is stopped by a stop that nobody has asked for; no descriptor, no future and no memory is left in the end; nothing
//!   hangs.
//!
//! A program is made of a seed. A failure prints it, with the command that runs it again; the schedule is another one then,
//! so that a race may take a while to come back: add `EVBASE_ORACLE_SECONDS`. See `harness.rs`.

mod allocations;
#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
mod base;
mod fork;
mod harness;
mod operation;
mod program;
#[path = "../support/mod.rs"]
mod support;
mod task;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, RunError, Runtime, SpawnErrorKind};

use operation::{Place, drop_runtime, perform};
use program::{Ending, HomeKind, HomeOp, Last, Op, Program, TaskSpec};
use task::{Probed, check_panic, spawn_local};
use world::{Counted, Stop, World, is_own_thread};

/// While it lives, the other tests of this process wait: each counts what the whole process has open.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    harness::lock(&LOCK)
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn programs_on_several_threads_keep_the_books() {
    let _alone = one_at_a_time();
    harness::run("oracle", |seed, list| run(&Program::new(seed, false), list));
}

#[test]
#[cfg_attr(evbase_shuffle, ignore = "depends on the usual order")]
fn programs_that_fork_go_on_undisturbed() {
    let _alone = one_at_a_time();
    // A fork copies the locks of whatever other threads there are.
    support::alone_within(Duration::MAX, || {
        harness::run("oracle", |seed, list| run(&Program::new(seed, true), list));
    });
}

/// How often a program is run again that seems to leak.
const AGAIN: isize = 20;

/// Runs a program, and looks for what it has leaked. Returns how many operations it had.
fn run(program: &Program, list: &dyn Fn(String)) -> Result<u64, String> {
    list(program.to_string());
    let before = support::heap_blocks();
    let operations = run_once(program)?;
    if allocations::more_than(before, 0, Duration::from_millis(50)) > 0 {
        // Some things are made once and kept, by the standard library too. A leak comes again.
        let before = support::heap_blocks();
        for _ in 0..AGAIN {
            run_once(program)?;
        }
        let leaked = allocations::more_than(before, AGAIN / 2, support::SOON);
        if leaked > AGAIN / 2 {
            return Err(format!("{leaked} allocations were leaked by {AGAIN} runs of this"));
        }
    }
    Ok(operations)
}

/// Runs a program, and audits its books.
fn run_once(program: &Program) -> Result<u64, String> {
    let descriptors = descriptors();
    let builder = Builder::new()
        .grace(program.grace)
        .event_interval(program.event_interval);
    let runtime = match program.home {
        HomeKind::Started => builder.start("home").unwrap(),
        _ => builder.build().unwrap(),
    };
    let home = runtime.home();
    let world = Arc::new(World::new(program, runtime));
    home.into_iter().for_each(|home| world.home.set(home).unwrap());
    run_threads(&world, program);
    end(&world, program);

    let operations = world.operations.load(SeqCst);
    world.check(Arc::strong_count(&world) == 1, || "a future was leaked".into());
    world.audit()?;
    drop(world);
    let start = Instant::now();
    // A started thread may be about to close its notify fd.
    while self::descriptors() != descriptors {
        if start.elapsed() > support::SOON {
            let now = self::descriptors();
            return Err(format!("{now:?} descriptors are open, and {descriptors:?} were before"));
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(operations)
}

/// How many descriptors are open, where that can be seen, and are ours: libkqueue has some, and closes late.
fn descriptors() -> Option<usize> {
    if cfg!(evbase_libkqueue) {
        return None;
    }
    std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// Runs all threads to their ends, which is also the runtime's.
fn run_threads(world: &Arc<World>, program: &Program) {
    let has_home = program.home != HomeKind::Started;
    let begin = Barrier::new(program.threads.len() + usize::from(has_home) + 1);
    thread::scope(|scope| {
        let home = has_home.then(|| scope.spawn(|| be_home(world, program, &begin)));
        let mut threads: Vec<_> = program
            .threads
            .iter()
            .map(|ops| scope.spawn(|| be_abroad(world, program, ops, &begin)))
            .collect();
        begin.wait();
        let home = match home {
            Some(home) if program.last == Last::Exits => {
                join(world, home);
                None
            }
            home => home,
        };
        while world.active.load(SeqCst) > 0 {
            thread::sleep(Duration::from_micros(30));
        }
        if !program.linger.is_zero() {
            thread::sleep(program.linger);
        }
        match program.ending {
            Ending::Request => perform(world, &Op::Request, Place::Abroad),
            Ending::RequestNow => {}
            Ending::Drop => drop_runtime(world, false, false),
            Ending::Shutdown => drop_runtime(world, true, false),
        }
        world.stop(Stop::RequestNow, false, || world.shutdown.request_now());
        threads.extend(home);
        threads.into_iter().for_each(|thread| join(world, thread));
    });
}

/// Waits for the end of a thread, its thread-locals included.
fn join(world: &World, thread: thread::ScopedJoinHandle<'_, ()>) {
    if let Err(payload) = thread.join() {
        world.wrong(format!("a thread: {}", support::panic_text(&*payload)));
    }
}

/// The life of a foreign thread.
fn be_abroad(world: &Arc<World>, program: &Program, ops: &[Op], begin: &Barrier) {
    struct Done<'a>(&'a World);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.active.fetch_sub(1, SeqCst);
        }
    }
    is_own_thread();
    begin.wait();
    let _done = Done(world);
    for op in ops {
        perform(world, op, Place::Abroad);
    }
    if program.home == HomeKind::Anybody {
        world.thread_exits();
    }
}

/// The life of a thread that is meant to be home.
fn be_home(world: &Arc<World>, program: &Program, begin: &Barrier) {
    is_own_thread();
    if program.home == HomeKind::BindsFirst {
        let runtime = world.runtime().unwrap();
        drop(runtime.enter().unwrap());
        world.home.set(thread::current().id()).unwrap();
    }
    let comes_to_an_end = program.home_comes_to_an_end().then(|| Counted::new(&world.active));
    begin.wait();
    for op in &program.home_operations {
        let done = catch_unwind(AssertUnwindSafe(|| do_at_home(world, op)));
        if let Err(payload) = done {
            check_panic(world, &*payload);
        }
    }
    if let Some(counted) = comes_to_an_end {
        if program.last == Last::DropsTheRuntime {
            drop_runtime(world, true, false);
        }
        world.thread_exits();
        return drop(counted);
    }
    // Somebody may have dropped it.
    let runtime = world.runtime();
    match (program.last, runtime) {
        (Last::Run, Some(runtime)) => match runtime.run() {
            Ok(report) => world.saw(report),
            Err(error) => world.check(!world.serves, || format!("a run: {error}")),
        },
        (Last::BlockOnForEver, Some(runtime)) => {
            let error = runtime.block_on(std::future::pending::<()>()).err();
            let stopped = matches!(error, Some(RunError::Stopped));
            world.check(stopped || !world.serves, || format!("a block_on: {error:?}"));
        }
        _ => match world.shutdown.terminated().wait() {
            Ok(report) => world.saw(report),
            Err(error) => world.check(!world.serves, || format!("a wait at home: {error}")),
        },
    }
    world.thread_exits();
}

fn do_at_home(world: &Arc<World>, op: &HomeOp) {
    let runtime = match op {
        HomeOp::Do(op) => return perform(world, op, Place::Outside),
        HomeOp::PollTerminated => {
            let mut terminated = world.shutdown.terminated();
            let polled = Pin::new(&mut terminated).poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(report) = polled {
                world.saw(report);
            }
            return;
        }
        _ => world.runtime(),
    };
    world.operations.fetch_add(1, SeqCst);
    let Some(runtime) = runtime else { return };
    match op {
        HomeOp::Turn { micros } => match runtime.turn(Some(Duration::from_micros(*micros))) {
            Ok(turn) if turn.closed => must_be_closed(world),
            Ok(_) => {}
            Err(error) => check_at_home(world, &error),
        },
        HomeOp::BlockOn(spec) => block_on(world, &runtime, spec),
        HomeOp::SpawnLocal { spec, keep } => match spawn_local(world, spec, |future| runtime.spawn_local(future)) {
            Ok(task) => {
                if let Some(slot) = keep {
                    world.handles.put(*slot, task);
                }
            }
            Err(SpawnErrorKind::Stopped) => must_be_closed(world),
            Err(kind) => world.check(!world.serves, || format!("spawn_local at home: {kind}")),
        },
        HomeOp::Do(_) | HomeOp::PollTerminated => {}
    }
}

fn block_on(world: &Arc<World>, runtime: &Runtime, spec: &Arc<TaskSpec>) {
    let record = world.new_record(&Arc::new(TaskSpec::default()));
    record.is_of_a_root();
    let root = Probed::new(world, spec, &record, Rc::new(()));
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(root)));
    world.check(record.is_dropped(), || "a root outlives its block_on".into());
    match result {
        Ok(Ok(output)) => record.joined(world, Ok(output)),
        Ok(Err(error)) => check_at_home(world, &error),
        Err(payload) => check_panic(world, &*payload),
    }
}

/// Why a runtime can't be driven at home.
fn check_at_home(world: &World, error: &RunError) {
    match error {
        RunError::Stopped => must_be_closed(world),
        error => world.check(!world.serves, || format!("at home: {error}")),
    }
}

fn must_be_closed(world: &World) {
    let polled = Pin::new(&mut world.shutdown.terminated()).poll(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(report) => world.saw(report),
        Poll::Pending => world.wrong("stopped, but not closed"),
    }
}

/// All threads are gone: what is left must be closed now, and answer so.
fn end(world: &Arc<World>, program: &Program) {
    if !program.slots_outlive {
        world.clear_slots();
    }
    match world.shutdown.terminated().wait() {
        Ok(report) => {
            world.saw(report);
            if let Some(runtime) = world.runtime() {
                let metrics = runtime.metrics();
                let ends = report.completed + report.cancelled + report.panicked;
                world.check(metrics.spawned == ends, || format!("{metrics:?}, {report:?}"));
            }
        }
        Err(error) => world.wrong(format!("the last wait: {error}")),
    }
    let late = world.spawner.try_spawn(async {}).map_err(|error| error.kind());
    world.check(late.err() == Some(SpawnErrorKind::Stopped), || {
        "a task was accepted after the end".into()
    });
    drop_runtime(world, false, false);
    world.clear_slots();
}
