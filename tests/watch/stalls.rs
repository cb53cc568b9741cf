//! A stall is reported while it lasts, by name.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use evbase::{Builder, Runtime, Stall, task};

use crate::support::{SOON, Tid, alone, hold, mark, once_undisturbed, rounds, traced, until, until_parked, watched};

const LIMIT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

fn builder() -> (Builder, Receiver<Stall>) {
    builder_with(LIMIT)
}

fn builder_with(limit: Duration) -> (Builder, Receiver<Stall>) {
    let (send, stalls) = mpsc::channel();
    let builder = Builder::new().on_stall(limit, move |stall| {
        let _ = send.send(stall.clone());
    });
    (builder, stalls)
}

/// All calls about one stall, the last one included.
fn one_stall(stalls: &Receiver<Stall>) -> Vec<Stall> {
    let mut calls = vec![stalls.recv_timeout(SOON).unwrap()];
    while calls.last().unwrap().ongoing {
        calls.push(stalls.recv_timeout(SOON).unwrap());
    }
    calls
}

#[test]
fn a_poll_that_blocks_is_named_while_it_lasts() {
    watched(|| {
        let (builder, stalls) = builder();
        let runtime = builder.start("home").unwrap();
        let (release, released) = mpsc::channel::<()>();
        let line = line!() + 1;
        let task = runtime.spawner().spawn(async move {
            task::set_name("blocks");
            released.recv().unwrap();
        });
        let first = stalls.recv_timeout(SOON).unwrap();
        assert!(!task.is_finished(), "while it lasts");
        assert!(first.ongoing && first.lasted >= LIMIT);
        assert_eq!(Some(first.home), runtime.home());
        let info = first.task.as_ref().unwrap();
        assert_eq!((info.id, info.location.line()), (task.id(), line));
        assert_eq!(info.name.as_deref(), Some("blocks"));
        assert!(info.type_name.contains("a_poll_that_blocks"), "{info}");
        assert!(first.to_string().contains("has been busy"), "{first}");
        thread::sleep(LIMIT * 4);
        release.send(()).unwrap();
        let rest = one_stall(&stalls);
        let last = rest.last().unwrap();
        assert_eq!(last.task.as_ref().unwrap().id, task.id());
        assert!(last.lasted >= LIMIT * 4);
    });
}

#[test]
fn a_poll_that_blocks_for_five_times_the_limit_is_reported_at_one_two_and_four_times_and_at_its_end() {
    // So long that the watching thread's own wake-ups are punctual against the half of it.
    const LIMIT: Duration = Duration::from_millis(60);
    once_undisturbed(|| {
        let (builder, stalls) = builder_with(LIMIT);
        let runtime = builder.build().unwrap();
        let task = runtime.spawn_local(async { thread::sleep(LIMIT * 5) }).unwrap();
        runtime.block_on(task).unwrap().unwrap();
        let calls = one_stall(&stalls);
        let (last, ongoing) = calls.split_last().unwrap();
        assert!(last.lasted >= LIMIT * 5 && ongoing.iter().all(|stall| stall.ongoing));
        // However late the thread is: never early, and never twice for the same multiple.
        for (call, stall) in ongoing.iter().enumerate() {
            assert!(stall.lasted >= LIMIT * (1 << call), "{calls:?}");
        }
        let times = |stall: &Stall| stall.lasted.as_secs_f64() / LIMIT.as_secs_f64();
        let times: Vec<_> = calls.iter().map(times).collect();
        let due = [1.0, 2.0, 4.0, 5.0];
        let punctual = times
            .iter()
            .zip(due)
            .all(|(call, due)| (due..=due + 0.5).contains(call));
        match punctual && times.len() == due.len() {
            true => Ok(()),
            false => Err(format!("{times:?}")),
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_number_of_the_thread_is_the_kernels() {
    watched(|| {
        let (builder, stalls) = builder();
        let runtime = builder.start("home").unwrap();
        let tid = runtime.spawner().spawn(async {
            thread::sleep(LIMIT * 3);
            Tid::here()
        });
        let stall = stalls.recv_timeout(SOON).unwrap();
        let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", stall.os_thread)).unwrap();
        assert_eq!(name.trim(), "home");
        tid.wait().unwrap().unwrap();
    });
}

#[test]
fn what_is_no_task_is_reported_without_one() {
    watched(|| {
        let (builder, stalls) = builder();
        let runtime = builder.build().unwrap();
        runtime.block_on(async { thread::sleep(LIMIT * 3) }).unwrap();
        assert!(one_stall(&stalls).iter().all(|stall| stall.task.is_none()));
        let hook = runtime.after_wait(|| thread::sleep(LIMIT * 3)).unwrap();
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(one_stall(&stalls).iter().all(|stall| stall.task.is_none()));
        drop(hook);
    });
}

#[test]
fn neither_a_wait_nor_a_home_outside_its_loop_nor_many_short_polls_are_one() {
    watched(|| {
        let (builder, stalls) = builder();
        let runtime = builder.build().unwrap();
        runtime.block_on(evbase::time::sleep(LIMIT * 20)).unwrap();
        thread::sleep(LIMIT * 20);
        let start = Instant::now();
        runtime
            .block_on(async {
                while start.elapsed() < LIMIT * 20 {
                    evbase::yield_now().await;
                }
            })
            .unwrap();
        drop(runtime);
        // A machine that stops a thread for so long makes a stall of its own.
        for stall in stalls.try_iter() {
            assert!(stall.lasted < LIMIT * 10, "{stall}");
        }
    });
}

#[test]
fn a_stall_at_the_end_of_a_runtime_is_told_to_the_end() {
    rounds(5, |_| {
        let (builder, stalls) = builder();
        let runtime = builder.start("home").unwrap();
        drop(runtime.spawner().spawn(async { thread::sleep(LIMIT * 4) }));
        let first = stalls.recv_timeout(SOON).unwrap();
        assert!(first.ongoing);
        drop(runtime);
        assert!(!one_stall(&stalls).last().unwrap().ongoing);
    });
}

#[test]
fn a_report_that_panics_is_called_again() {
    watched(|| {
        let (send, calls) = mpsc::channel();
        let runtime = Builder::new()
            .on_stall(LIMIT, move |_| {
                let _ = send.send(());
                std::panic::resume_unwind(Box::new("on purpose"));
            })
            .build()
            .unwrap();
        for _ in 0..2 {
            runtime.block_on(async { thread::sleep(LIMIT * 3) }).unwrap();
            calls.recv_timeout(SOON).unwrap();
        }
    });
}

#[test]
fn clones_of_a_builder_share_the_report() {
    watched(|| {
        let (builder, stalls) = builder();
        let homes = ["one", "other"].map(|name| builder.clone().start(name).unwrap());
        let releases = [0, 1].map(|n| hold(&homes[n]));
        let told = |home: &Runtime| stalls.iter().any(|stall| Some(stall.home) == home.home());
        // Whichever comes first, each is told again and again.
        assert!(homes.iter().all(told));
        releases.iter().for_each(|release| release.open());
    });
}

/// The watching threads of this process, as directories.
fn watchers() -> Vec<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let is_watcher = |task: &PathBuf| {
        let name = std::fs::read_to_string(task.join("comm"));
        name.is_ok_and(|name| name.trim() == "evbase-watch")
    };
    tasks.filter(is_watcher).collect()
}

#[test]
fn the_thread_is_there_only_while_somebody_asks() {
    alone(|| {
        assert!(watchers().is_empty());
        let plain = Runtime::new().unwrap();
        assert!(watchers().is_empty());
        for limit in [LIMIT, HOUR, Duration::MAX] {
            let builder = || builder_with(limit).0;
            let two = [builder().build().unwrap(), builder().build().unwrap()];
            // It names itself when it begins.
            until(|| watchers().len() == 1);
            // So long that it looks at a busy home, however long it may sleep then.
            two[0].block_on(async { thread::sleep(LIMIT) }).unwrap();
            drop(two);
            until(|| watchers().is_empty());
        }
        drop(plain);
        assert!(Builder::new().on_stall(Duration::ZERO, |_| {}).build().is_err());
    });
}

#[test]
fn a_home_that_is_busy_with_a_long_limit_hides_no_stall_of_another() {
    alone(|| {
        for (limit, is_older) in [
            (HOUR, true),
            (HOUR, false),
            (Duration::MAX, true),
            (Duration::MAX, false),
        ] {
            let long = builder_with(limit).0.start("long").unwrap();
            let (builder, stalls) = builder();
            let start = || builder.clone().start("short").unwrap();
            let older = is_older.then(start);
            let release = hold(&long);
            // Until the thread sleeps, for as long as that limit has it.
            thread::sleep(LIMIT * 2);
            let short = older.unwrap_or_else(start);
            let release_short = hold(&short);
            let stall = stalls.recv_timeout(SOON).unwrap();
            assert!(stall.ongoing && Some(stall.home) == short.home());
            release_short.open();
            release.open();
            drop((long, short));
            until(|| watchers().is_empty());
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_home_that_wakes_up_often_wakes_the_thread_once_a_pause_at_most() {
    alone(|| {
        let runtime = builder().0.build().unwrap();
        until(|| watchers().len() == 1);
        let status = watchers()[0].join("status");
        let sleeps = || -> u64 {
            let status = std::fs::read_to_string(&status).unwrap();
            let sleeps = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sleeps.unwrap().trim().parse().unwrap()
        };
        let (before, start) = (sleeps(), Instant::now());
        // So short that the thread, once woken, would find home idle again.
        for _ in 0..2000 {
            runtime.turn(Some(Duration::from_micros(100))).unwrap();
        }
        let sleeps = sleeps() - before;
        // It sleeps for half the limit; and after that, if it finds nobody busy, until home wakes it.
        let pauses = start.elapsed().as_millis() / (LIMIT / 2).as_millis();
        assert!(
            u128::from(sleeps) <= 2 * pauses + 10,
            "{sleeps} sleeps in {pauses} pauses"
        );
    });
}

#[test]
fn an_idle_process_makes_no_call() {
    if crate::support::is_under_sanitizer("thread") {
        // Its own thread asks for the time.
        return;
    }
    let trace = traced("all", || {
        let (builder, _stalls) = builder();
        let runtime = builder.start("home").unwrap();
        let tid = runtime.spawner().spawn(async { Tid::here() }).wait().unwrap().unwrap();
        until_parked(tid);
        // The thread has gone to sleep by then.
        thread::sleep(LIMIT * 10);
        mark(tid);
        thread::sleep(Duration::from_secs(2));
        mark(tid);
        drop(runtime);
    });
    if let Some(trace) = trace {
        let calls: Vec<_> = trace
            .lines()
            .iter()
            .filter(|line| !line.contains("nanosleep"))
            .cloned()
            .collect();
        assert!(calls.is_empty(), "{calls:#?}");
    }
}

#[test]
fn in_the_child_of_a_fork_there_is_a_new_thread() {
    alone(|| {
        let (parents, _stalls) = builder();
        let parents = parents.build().unwrap();
        parents.block_on(async {}).unwrap();
        let code = crate::support::fork(|| {
            let (builder, stalls) = builder();
            let runtime = builder.build().unwrap();
            runtime.block_on(async { thread::sleep(LIMIT * 3) }).unwrap();
            one_stall(&stalls);
        });
        assert_eq!(code, 0);
    });
}

#[test]
fn a_task_that_forks_goes_on_in_the_child_as_far_as_it_can() {
    alone(|| {
        for _ in 0..20 {
            let (builder, _stalls) = builder();
            let runtime = builder.build().unwrap();
            let code = runtime
                .block_on(async {
                    let forks = evbase::spawn_local(async { crate::support::fork(|| task::set_name("in the child")) });
                    forks.await.unwrap()
                })
                .unwrap();
            assert_eq!(code, 0);
        }
    });
}
