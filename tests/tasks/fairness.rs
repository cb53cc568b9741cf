//! Nobody starves: not the base, not the inbox, not the clock, and no ready task.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::sleep;
use evbase::{Builder, JoinHandle, Runtime, yield_now};

use crate::support::watchdog;

const INTERVALS: [u32; 4] = [1, 2, 64, 1000];

/// A task that is ready all the time, until its end is asked for.
fn busy(end: &Arc<AtomicBool>) -> impl Future<Output = u64> + Send + use<> {
    let end = end.clone();
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        if end.load(SeqCst) {
            return Poll::Ready(polls);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn a_task_that_wakes_itself_starves_no_timer() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        let runtime = Builder::new().event_interval(interval).build().unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let busy = runtime.spawn_local(busy(&end)).unwrap();
        // One is enough, unless somebody else had the processor meanwhile.
        while runtime.metrics().polls < 100 {
            runtime.block_on(sleep(Duration::from_millis(3))).unwrap();
        }
        assert!(!busy.is_finished());
        end.store(true, SeqCst);
        assert!(runtime.block_on(busy).unwrap().unwrap() > 3);
    }
}

#[test]
fn a_task_that_wakes_itself_starves_no_spawn_wake_up_or_abort_from_abroad() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        let runtime = Builder::new().event_interval(interval).start("home").unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let busy = runtime.spawner().spawn(busy(&end));
        for n in 0..100 {
            assert_eq!(runtime.spawner().spawn(async move { n }).wait().unwrap().unwrap(), n);
        }
        let (send, receive) = futures::channel::oneshot::channel();
        let woken = runtime.spawner().spawn(receive);
        send.send(1).unwrap();
        assert_eq!(woken.wait().unwrap().unwrap(), Ok(1));
        busy.abort();
        assert!(busy.wait().unwrap().unwrap_err().is_cancelled());
    }
}

#[test]
fn a_task_that_wakes_itself_does_not_keep_the_runtime_from_stopping() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        for grace in [Duration::ZERO, Duration::from_millis(5)] {
            let runtime = Builder::new()
                .event_interval(interval)
                .grace(grace)
                .start("home")
                .unwrap();
            let busy = runtime.spawner().spawn(busy(&Arc::new(AtomicBool::new(false))));
            let report = runtime.shutdown().wait().unwrap();
            assert_eq!(report.cancelled, 1);
            assert!(busy.wait().unwrap().unwrap_err().is_cancelled());
        }
    }
}

#[test]
fn a_stop_comes_before_the_next_poll_however_long_the_event_interval_is() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(u32::MAX).build().unwrap();
    let shutdown = runtime.shutdown_handle();
    let polls_after_the_stop = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let (shutdown, polls) = (shutdown.clone(), polls_after_the_stop.clone());
        drop(runtime.spawn_local(async move {
            loop {
                if shutdown.is_requested() {
                    polls.set(polls.get() + 1);
                }
                shutdown.request();
                yield_now().await;
            }
        }));
    }
    runtime.run().unwrap();
    assert_eq!(
        polls_after_the_stop.get(),
        0,
        "no task is polled after the poll that was running"
    );
}

#[test]
fn a_task_that_wakes_itself_starves_no_descriptor() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        let runtime = Builder::new().event_interval(interval).build().unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let busy = runtime.spawn_local(busy(&end)).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = thread::spawn(move || {
            for _ in 0..100 {
                writer.write_all(b"!").unwrap();
                thread::yield_now();
            }
        });
        let read = async {
            let reader = AsyncFd::new(reader).unwrap();
            let mut got = 0;
            while got < 100 {
                got += reader.read_with(|mut pipe| pipe.read(&mut [0; 7])).await.unwrap();
            }
            got
        };
        assert_eq!(runtime.block_on(read).unwrap(), 100);
        writing.join().unwrap();
        assert!(!busy.is_finished());
    }
}

/// At the inbox, at the clock, and at the kernel; not sooner or later, but within so many polls.
#[test]
fn what_comes_while_tasks_are_ready_is_seen_within_the_event_interval() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        let runtime = Builder::new().event_interval(interval).build().unwrap();
        let spawner = runtime.spawner();
        let seen = Arc::new(AtomicBool::new(false));
        // How many more polls the root gets before what has come is seen.
        let polls_until_seen = async || {
            let mut polls = 0;
            while !seen.swap(false, SeqCst) {
                yield_now().await;
                polls += 1;
            }
            polls
        };
        let most = interval + 2;
        runtime
            .block_on(async {
                for offset in [0, 1, 7] {
                    for _ in 0..offset {
                        yield_now().await;
                    }
                    let (see, spawner) = (seen.clone(), spawner.clone());
                    let task = async move { see.store(true, SeqCst) };
                    thread::spawn(move || drop(spawner.spawn(task))).join().unwrap();
                    let polls = polls_until_seen().await;
                    assert!(polls <= most, "a task from abroad: {polls} polls, interval {interval}");

                    let (see, deadline) = (seen.clone(), Instant::now() + Duration::from_millis(2));
                    let armed = Rc::new(Cell::new(false));
                    let arms = armed.clone();
                    drop(evbase::spawn_local(async move {
                        let mut sleep = pin!(evbase::time::sleep_until(deadline));
                        poll_fn(|cx| {
                            let polled = sleep.as_mut().poll(cx);
                            arms.set(true);
                            polled
                        })
                        .await;
                        see.store(true, SeqCst);
                    }));
                    while !armed.get() {
                        yield_now().await;
                    }
                    while Instant::now() < deadline {}
                    let polls = polls_until_seen().await;
                    assert!(polls <= most, "a timer: {polls} polls, interval {interval}");

                    let (reader, mut writer) = io::pipe().unwrap();
                    let (see, fd) = (seen.clone(), AsyncFd::new(reader).unwrap());
                    let registered = Rc::new(Cell::new(false));
                    let registers = registered.clone();
                    drop(evbase::spawn_local(async move {
                        let mut readable = pin!(fd.readable());
                        poll_fn(|cx| {
                            let polled = readable.as_mut().poll(cx);
                            registers.set(true);
                            polled
                        })
                        .await
                        .unwrap()
                        .retain_ready();
                        see.store(true, SeqCst);
                    }));
                    while !registered.get() {
                        yield_now().await;
                    }
                    writer.write_all(b"!").unwrap();
                    let polls = polls_until_seen().await;
                    assert!(polls <= most, "a descriptor: {polls} polls, interval {interval}");
                }
            })
            .unwrap();
    }
}

#[test]
fn ready_tasks_take_turns() {
    let _watchdog = watchdog();
    for interval in INTERVALS {
        let runtime = Builder::new().event_interval(interval).build().unwrap();
        let counts: Rc<[Cell<u32>; 7]> = Rc::default();
        for n in 0..counts.len() {
            let counts = counts.clone();
            drop(runtime.spawn_local(async move {
                loop {
                    counts[n].set(counts[n].get() + 1);
                    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    assert!(most.get() - least.get() <= 1, "{counts:?}");
                    yield_now().await;
                }
            }));
        }
        runtime
            .block_on(async {
                for n in 0..500 {
                    assert!(counts[0].get().abs_diff(n) <= 1, "the root takes its turn as well");
                    yield_now().await;
                }
            })
            .unwrap();
        assert_eq!(runtime.metrics().alive(), 7, "none of them panicked");
    }
}

#[test]
fn a_storm_of_new_tasks_overtakes_no_ready_task_for_ever() {
    let _watchdog = watchdog();
    fn breed(end: Rc<Cell<bool>>) {
        if !end.get() {
            drop(evbase::spawn_local(async move { breed(end) }));
        }
    }
    let runtime = Runtime::new().unwrap();
    let end = Rc::new(Cell::new(false));
    runtime
        .block_on(async {
            for _ in 0..3 {
                breed(end.clone());
            }
            for _ in 0..1000 {
                yield_now().await;
            }
            sleep(Duration::from_millis(1)).await;
            end.set(true);
        })
        .unwrap();
}

#[test]
fn a_storm_of_spawns_from_abroad_starves_no_task_at_home() {
    let _watchdog = watchdog();
    const THREADS: usize = 3;
    const EACH: usize = 10_000;
    // So many storms' tasks may run between two turns of a task at home: a few portions of what has come from abroad, not
    // all of it.
    const MOST_BETWEEN: usize = 1024;
    let runtime = Runtime::new().unwrap();
    let polled = Arc::new(AtomicUsize::new(0));
    let storm = || {
        for _ in 0..EACH {
            let polled = polled.clone();
            drop(runtime.spawner().spawn(async move {
                polled.fetch_add(1, SeqCst);
            }));
        }
    };
    let most = runtime.block_on(async {
        // Home is kept in this poll until all of them are on their way: what is asked doesn't depend on who is faster.
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(storm))));
        let (mut most, mut before) = (0, polled.load(SeqCst));
        while before < THREADS * EACH {
            yield_now().await;
            let now = polled.load(SeqCst);
            most = most.max(now - before);
            before = now;
        }
        most
    });
    let most = most.unwrap();
    assert!(most <= MOST_BETWEEN, "{most} ran between two turns");
}

/// Counts how often it is polled among the other ready tasks. The first wait for a descriptor gives it many turns: what
/// is counted begins after that.
fn count_turns(runtime: &Runtime) -> Rc<Cell<u64>> {
    let turns = Rc::new(Cell::new(0));
    let count = turns.clone();
    drop(runtime.spawn_local(async move {
        loop {
            count.set(count.get() + 1);
            yield_now().await;
        }
    }));
    turns
}

/// How many operations an object that is always ready may do in a row. The number is the implementation's; that there is
/// one, of a sensible size, is the promise.
const LARGEST_BUDGET: u64 = 1024;

#[cfg(target_os = "linux")]
fn eventfd(initial: u32, flags: libc::c_int) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is fresh, and owned by the file from here on.
    unsafe {
        let fd = libc::eventfd(initial, libc::EFD_CLOEXEC | flags);
        assert!(fd >= 0);
        std::fs::File::from_raw_fd(fd)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_that_is_always_readable_yields_after_a_budget() {
    let _watchdog = watchdog();
    const READS: u32 = 20_000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let fd = AsyncFd::new(eventfd(READS, libc::EFD_SEMAPHORE)).unwrap();
    runtime
        .block_on(async {
            fd.readable().await.unwrap().retain_ready();
            turns.set(0);
            for _ in 0..READS {
                fd.read_with(|mut file| file.read(&mut [0; 8])).await.unwrap();
            }
        })
        .unwrap();
    assert!(
        turns.get() >= u64::from(READS) / LARGEST_BUDGET,
        "only {} turns for others",
        turns.get()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_that_is_always_writable_yields_after_a_budget() {
    let _watchdog = watchdog();
    const WRITES: u32 = 20_000;
    for waited_for_room in [false, true] {
        let runtime = Runtime::new().unwrap();
        let turns = count_turns(&runtime);
        let fd = AsyncFd::new(eventfd(0, 0)).unwrap();
        runtime
            .block_on(async {
                if waited_for_room {
                    fd.writable().await.unwrap().retain_ready();
                }
                turns.set(0);
                for _ in 0..WRITES {
                    fd.write_with(|mut file| file.write(&1_u64.to_ne_bytes()))
                        .await
                        .unwrap();
                }
            })
            .unwrap();
        assert!(
            turns.get() >= u64::from(WRITES) / LARGEST_BUDGET,
            "only {} turns for others",
            turns.get()
        );
    }
}

#[test]
fn waiting_for_readiness_that_is_always_there_yields_after_a_budget() {
    let _watchdog = watchdog();
    const WAITS: u64 = 20_000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = AsyncFd::new(left).unwrap();
    runtime
        .block_on(async {
            fd.writable().await.unwrap().retain_ready();
            turns.set(0);
            for _ in 0..WAITS {
                drop(fd.writable().await.unwrap());
            }
        })
        .unwrap();
    assert!(
        turns.get() >= WAITS / LARGEST_BUDGET,
        "only {} turns for others",
        turns.get()
    );
}

#[test]
fn a_socket_that_is_kept_full_yields_to_other_tasks() {
    let _watchdog = watchdog();
    const ROUNDS: u64 = 20_000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let (left, mut right) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = AsyncFd::new(left).unwrap();
    runtime
        .block_on(async {
            // Refilled before each read, behind the loop's back: it never blocks.
            right.write_all(b"a").unwrap();
            fd.readable().await.unwrap().retain_ready();
            turns.set(0);
            for _ in 0..ROUNDS {
                right.write_all(b"b").unwrap();
                assert_eq!(fd.read_with(|mut socket| socket.read(&mut [0; 1])).await.unwrap(), 1);
            }
        })
        .unwrap();
    assert!(
        turns.get() >= ROUNDS / LARGEST_BUDGET,
        "only {} turns for others",
        turns.get()
    );
}

#[test]
fn the_budget_is_the_tasks_not_the_descriptors() {
    let _watchdog = watchdog();
    const EACH: usize = 3000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let pairs: Vec<_> = (0..10)
        .map(|_| std::os::unix::net::UnixStream::pair().unwrap())
        .collect();
    let fds: Vec<_> = pairs
        .iter()
        .map(|(left, _)| AsyncFd::new(left.try_clone().unwrap()).unwrap())
        .collect();
    runtime
        .block_on(async {
            for fd in &fds {
                fd.writable().await.unwrap().retain_ready();
            }
            turns.set(0);
            for n in 0..EACH * fds.len() {
                drop(fds[n % fds.len()].writable().await.unwrap());
            }
        })
        .unwrap();
    assert!(turns.get() >= (EACH * fds.len()) as u64 / LARGEST_BUDGET);
}

#[test]
fn an_exhausted_budget_is_no_lost_wake_up() {
    let _watchdog = watchdog();
    // Polled by hand: when it says `Pending`, it was woken, or will be.
    let runtime = Runtime::new().unwrap();
    let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = AsyncFd::new(left).unwrap();
    let mut pendings = 0;
    runtime
        .block_on(async {
            for _ in 0..5000 {
                let mut writable = pin!(fd.writable());
                poll_fn(|cx| {
                    let polled = writable.as_mut().poll(cx);
                    pendings += u32::from(polled.is_pending());
                    polled
                })
                .await
                .unwrap()
                .retain_ready();
            }
        })
        .unwrap();
    assert!(pendings >= 2);
}

/// Handles of tasks that have ended.
fn finished(runtime: &Runtime, tasks: u64) -> Vec<JoinHandle<u64>> {
    let handles: Vec<_> = (0..tasks)
        .map(|n| runtime.spawn_local(async move { n }).unwrap())
        .collect();
    runtime
        .block_on(async {
            while !handles.iter().all(JoinHandle::is_finished) {
                yield_now().await;
            }
        })
        .unwrap();
    handles
}

#[test]
fn a_task_that_awaits_finished_tasks_yields_after_a_budget() {
    let _watchdog = watchdog();
    const TASKS: u64 = 20_000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let handles = finished(&runtime, TASKS);
    let joiner = runtime.spawn_local({
        let turns = turns.clone();
        async move {
            let before = turns.get();
            for (n, handle) in handles.into_iter().enumerate() {
                assert_eq!(handle.await.unwrap(), n as u64);
            }
            turns.get() - before
        }
    });
    let turns = runtime.block_on(joiner.unwrap()).unwrap().unwrap();
    assert!(turns >= TASKS / LARGEST_BUDGET, "only {turns} turns for others");
}

#[test]
fn a_task_that_awaits_refused_tasks_for_ever_starves_nobody() {
    let _watchdog = watchdog();
    let closed = Runtime::new().unwrap();
    let nowhere = closed.spawner();
    drop(closed);
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    let for_ever = runtime.spawn_local(async move {
        loop {
            assert!(nowhere.spawn(async {}).await.unwrap_err().is_cancelled());
        }
    });
    let for_ever: JoinHandle<()> = for_ever.unwrap();
    runtime
        .block_on(async {
            while turns.get() < 1000 {
                yield_now().await;
            }
        })
        .unwrap();
    assert!(!for_ever.is_finished());
}

#[test]
fn another_executor_inside_of_a_task_goes_on_after_the_budget() {
    let _watchdog = watchdog();
    const TASKS: u64 = 5000;
    let runtime = Runtime::new().unwrap();
    let handles = finished(&runtime, TASKS);
    let sum = runtime.block_on(async {
        // It polls again and again, and can't let ours go on.
        futures::executor::block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.unwrap();
            }
            sum
        })
    });
    assert_eq!(sum.unwrap(), TASKS * (TASKS - 1) / 2);
}

#[test]
fn an_event_interval_of_one_works_and_of_zero_is_an_error() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(1).build().unwrap();
    assert_eq!(
        runtime
            .block_on(async { evbase::spawn_local(async { 1 }).await.unwrap() })
            .unwrap(),
        1
    );
    for error in [
        Builder::new().event_interval(0).build().unwrap_err(),
        Builder::new().event_interval(0).start("home").unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("interval"), "{error}");
    }
}

#[test]
fn a_turn_polls_no_more_tasks_than_the_event_interval() {
    let _watchdog = watchdog();
    let runtime = Builder::new().event_interval(5).build().unwrap();
    let end = Arc::new(AtomicBool::new(false));
    for _ in 0..20 {
        drop(runtime.spawn_local(busy(&end)));
    }
    for _ in 0..10 {
        assert_eq!(runtime.turn(None).unwrap().polls, 5);
    }
}

/// Work that is ready at every poll starves neither a task from abroad, nor a timer, nor the stop. In a process of its own:
/// else its hang is everybody's.
fn starves_nobody<F: Future<Output = ()> + Send + 'static>(work: impl Fn() -> F) {
    crate::support::alone(|| {
        for _ in crate::support::in_seconds(0..4, 10) {
            let runtime = Builder::new().start("home").unwrap();
            let is_polled = Arc::new(AtomicBool::new(false));
            let (polled, work) = (is_polled.clone(), work());
            drop(runtime.spawner().spawn(async move {
                polled.store(true, SeqCst);
                work.await;
            }));
            crate::support::until(|| is_polled.load(SeqCst));
            assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
            runtime
                .spawner()
                .spawn(sleep(Duration::from_millis(1)))
                .wait()
                .unwrap()
                .unwrap();
            runtime.shutdown().wait().unwrap();
        }
    });
}

#[test]
fn an_interval_that_is_always_late_starves_nobody() {
    starves_nobody(|| async {
        let mut ticks = evbase::time::interval(Duration::from_millis(1));
        loop {
            ticks.tick().await;
            // Works for longer than a period. In a burst, the next tick is due at once.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(2) {}
        }
    });
}

#[test]
fn sleeps_of_no_duration_in_a_loop_starve_nobody() {
    starves_nobody(|| async {
        loop {
            sleep(Duration::ZERO).await;
        }
    });
}

#[test]
fn timeouts_of_what_is_ready_in_a_loop_starve_nobody() {
    starves_nobody(|| async {
        loop {
            let _ = evbase::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
        }
    });
}

/// The tasks of a batch that are over are awaited one after the other, without a pause of their own.
#[test]
fn a_chain_of_finished_join_handles_yields_after_a_budget() {
    let _watchdog = watchdog();
    const MANY: usize = 20_000;
    let runtime = Runtime::new().unwrap();
    let turns = count_turns(&runtime);
    runtime
        .block_on(async {
            let tasks: Vec<_> = (0..MANY).map(|_| evbase::spawn_local(async {})).collect();
            while !tasks.iter().all(|task| task.is_finished()) {
                yield_now().await;
            }
            let before = turns.get();
            for task in tasks {
                task.await.unwrap();
            }
            let others = turns.get() - before;
            assert!(others >= MANY as u64 / LARGEST_BUDGET, "the others had {others} turns");
        })
        .unwrap();
}

#[test]
fn after_the_event_time_home_looks_at_the_kernel_however_few_polls_there_were() {
    let _watchdog = watchdog();
    let looks = |builder: Builder| {
        let runtime = builder.event_interval(1000).build().unwrap();
        let polls = Rc::new(Cell::new(0));
        for _ in 0..20 {
            let polls = polls.clone();
            runtime
                .spawn_local(async move {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_millis(1) {}
                    polls.set(polls.get() + 1);
                })
                .unwrap();
        }
        let mut turns = 0;
        while polls.get() < 20 {
            runtime.turn(None).unwrap();
            turns += 1;
        }
        turns
    };
    assert_eq!(looks(Builder::new()), 1);
    assert_eq!(looks(Builder::new().event_time(Duration::from_secs(1000))), 1);
    // Each poll takes longer than that.
    assert_eq!(looks(Builder::new().event_time(Duration::from_micros(100))), 20);
    assert_eq!(
        looks(Builder::new().event_time(Duration::ZERO)),
        20,
        "one poll at least"
    );
    let some = looks(Builder::new().event_time(Duration::from_micros(4500)));
    assert!((4..=20).contains(&some), "{some}");
}
