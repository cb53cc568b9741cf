//! What may happen between two turns, what a turn says, and what it costs.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::sleep;
use evbase::{Builder, Embedded, RunError, Runtime, time, yield_now};

use crate::scenarios::is_readable;
use crate::support::{Random, alone, fork, limit_descriptors, open_descriptors, turn_when_readable};
use crate::watched;

#[test]
fn handles_go_anywhere_and_turns_are_homes() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Embedded>();
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = Arc::new(runtime.embed().unwrap());
        let abroad = embedded.clone();
        let answers = thread::spawn(move || (abroad.turn().unwrap_err(), abroad.next_deadline().unwrap_err()));
        let (turn, deadline) = answers.join().unwrap();
        assert!(matches!(turn, RunError::NotHome { home } if home == thread::current().id()));
        assert!(matches!(deadline, RunError::NotHome { .. }));
        let inner = embedded.clone();
        let nested = runtime.block_on(async move { inner.turn() }).unwrap();
        assert!(matches!(nested, Err(RunError::Nested)));
        let foreign = Builder::new().start("home").unwrap();
        assert!(matches!(foreign.embed(), Err(RunError::NotHome { .. })));
    });
}

#[test]
fn a_turn_works_inside_the_loop_of_another_runtime_and_inside_its_own_context() {
    watched(|| {
        let (guest, host) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let embedded = guest.embed().unwrap();
        let task = guest.spawn_local(async { 42 }).unwrap();
        let turn = host.block_on(async { embedded.turn().unwrap() }).unwrap();
        assert_eq!(turn.polls, 1);
        assert!(task.is_finished());
        let _guard = guest.enter().unwrap();
        let task = evbase::spawn_local(async { 42 });
        assert!(is_readable(&embedded));
        assert_eq!(embedded.turn().unwrap().polls, 1);
        assert!(task.is_finished());
    });
}

#[test]
fn any_number_may_be_made_and_none_keeps_the_runtime_alive() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let (one, other) = (runtime.embed().unwrap(), runtime.embed().unwrap());
        drop(one);
        runtime.spawn_local(async {}).unwrap();
        assert!(is_readable(&other));
        other.turn().unwrap();
        assert!(!is_readable(&other));
        drop(runtime);
        assert!(matches!(other.turn(), Err(RunError::Stopped)));
        assert!(!is_readable(&other));
        // Nobody polls any more: home is as it was without.
        let runtime = Runtime::new().unwrap();
        drop(runtime.embed().unwrap());
        let task = runtime.spawn_local(sleep(Duration::from_millis(1))).unwrap();
        runtime.block_on(task).unwrap().unwrap();
    });
}

#[test]
fn a_runtime_can_be_embedded_from_its_own_task() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.block_on(async { runtime.embed().unwrap() }).unwrap();
        assert!(!is_readable(&embedded));
        let spawner = runtime.spawner();
        thread::spawn(move || drop(spawner.spawn(async {}))).join().unwrap();
        assert!(is_readable(&embedded));
        assert_eq!(embedded.turn().unwrap().polls, 1);
    });
}

#[test]
fn what_was_left_before_is_seen_by_the_host() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let task = runtime.spawn_local(async {}).unwrap();
        let embedded = runtime.embed().unwrap();
        assert!(is_readable(&embedded));
        embedded.turn().unwrap();
        assert!(task.is_finished());
        let stopped = Runtime::new().unwrap();
        stopped.shutdown_handle().request();
        let embedded = stopped.embed().unwrap();
        assert!(is_readable(&embedded));
        assert!(embedded.turn().unwrap().closed);
    });
}

#[test]
fn a_turn_says_whether_work_is_left() {
    watched(|| {
        let runtime = Builder::new().event_interval(4).build().unwrap();
        let embedded = runtime.embed().unwrap();
        for _ in 0..6 {
            runtime.spawn_local(async {}).unwrap();
        }
        let turn = embedded.turn().unwrap();
        assert_eq!((turn.polls, turn.more), (4, true));
        assert!(is_readable(&embedded));
        let turn = embedded.turn().unwrap();
        assert_eq!((turn.polls, turn.more), (2, false));
        assert!(!is_readable(&embedded));
        // The same without a host.
        drop(embedded);
        for _ in 0..6 {
            runtime.spawn_local(async {}).unwrap();
        }
        assert!(runtime.turn(None).unwrap().more);
        assert!(!runtime.turn(None).unwrap().more);
    });
}

#[test]
fn a_full_buffer_of_events_leaves_an_edge() {
    watched(|| {
        let runtime = Builder::new().event_interval(10_000).build().unwrap();
        let embedded = runtime.embed().unwrap();
        let done = Rc::new(Cell::new(0));
        let mut theirs = Vec::new();
        for _ in 0..200 {
            let (ours, other) = UnixStream::pair().unwrap();
            theirs.push(other);
            let done = done.clone();
            runtime
                .spawn_local(async move {
                    let fd = AsyncFd::new(ours).unwrap();
                    fd.readable().await.unwrap().clear_ready();
                    done.set(done.get() + 1);
                })
                .unwrap();
        }
        embedded.turn().unwrap();
        assert_eq!(done.get(), 0);
        theirs.clear();
        // An edge-triggered host: it turns once for each edge, and edges are what is counted.
        let host = Runtime::new().unwrap();
        let watched = AsyncFd::new(std::os::fd::AsFd::as_fd(&embedded).try_clone_to_owned().unwrap()).unwrap();
        let mut turns = 0;
        host.block_on(async {
            while done.get() < 200 {
                watched.readable().await.unwrap().clear_ready();
                turns += 1;
                embedded.turn().unwrap();
            }
        })
        .unwrap();
        assert!((2..=5).contains(&turns), "{turns}");
    });
}

#[test]
fn a_cancelled_timer_costs_one_turn_at_most_and_a_reset_one_is_seen() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let task = runtime.spawn_local(sleep(Duration::from_millis(10))).unwrap();
        embedded.turn().unwrap();
        task.abort();
        let mut turns = 0;
        // For longer than the timer.
        for _ in 0..30 {
            if is_readable(&embedded) {
                embedded.turn().unwrap();
                turns += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!((1..=2).contains(&turns), "{turns}");
        assert_eq!(embedded.next_deadline().unwrap(), None);
        // Armed between two turns, by a poll in the context.
        let mut nap = Box::pin(sleep(Duration::from_millis(2)));
        {
            let _guard = runtime.enter().unwrap();
            assert!(nap.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(is_readable(&embedded), "the alarm has to be set");
        embedded.turn().unwrap();
        assert!(embedded.next_deadline().unwrap().is_some());
    });
}

#[test]
fn a_storm_with_turns_at_random_loses_nothing_and_writes_once_a_turn() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let received = Rc::new(Cell::new(0));
        let sent = Arc::new(AtomicUsize::new(0));
        let (give, given) = std::sync::mpsc::channel::<Waker>();
        let task = {
            let (received, sent) = (received.clone(), sent.clone());
            runtime.spawn_local(poll_fn(move |cx| {
                let _ = give.send(cx.waker().clone());
                received.set(sent.load(SeqCst));
                Poll::<()>::Pending
            }))
        };
        let task = task.unwrap();
        embedded.turn().unwrap();
        let waker = given.recv().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (writes_before, mut turns) = (notify_writes(), 0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (sent, waker, spawner) = (sent.clone(), waker.clone(), runtime.spawner());
                thread::spawn(move || {
                    for n in 0..25_000 {
                        sent.fetch_add(1, SeqCst);
                        waker.wake_by_ref();
                        if n % 64 == 0 {
                            drop(spawner.spawn(async {}));
                        }
                    }
                })
            })
            .collect();
        let watch = {
            let over = over.clone();
            thread::spawn(move || {
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                over.store(true, SeqCst);
            })
        };
        let mut random = Random::new(7);
        while !over.load(SeqCst) || is_readable(&embedded) {
            // A turn now and then, whether it is asked for or not.
            if random.below(3) == 0 || is_readable(&embedded) {
                embedded.turn().unwrap();
                turns += 1;
            }
            (0..random.below(2000)).for_each(|_| std::hint::spin_loop());
        }
        watch.join().unwrap();
        assert_eq!(received.get(), 100_000);
        let writes = notify_writes() - writes_before;
        assert!(writes <= turns + 1, "{writes} writes for {turns} turns");
        task.abort();
    });
}

#[test]
fn whatever_happens_between_two_turns_costs_one_write() {
    if cfg!(evbase_pipe_notify) {
        return;
    }
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let fd = AsyncFd::new(ours).unwrap();
            let before = notify_writes();
            let tasks: Vec<_> = (0..10)
                .map(|_| {
                    let wakers = wakers.clone();
                    let task = poll_fn(move |cx| {
                        wakers.borrow_mut().push(cx.waker().clone());
                        Poll::<()>::Pending
                    });
                    runtime.spawn_local(task).unwrap()
                })
                .collect();
            {
                let _guard = runtime.enter().unwrap();
                let mut nap = Box::pin(sleep(Duration::from_secs(100)));
                assert!(nap.as_mut().poll(&mut cx).is_pending());
                nap.as_mut().reset(Instant::now() + Duration::from_secs(50));
                assert!(pin!(fd.readable()).poll(&mut cx).is_pending());
            }
            let spawner = runtime.spawner();
            thread::spawn(move || (0..10).for_each(|_| drop(spawner.spawn(async {}))))
                .join()
                .unwrap();
            assert_eq!(notify_writes() - before, 1);
            embedded.turn().unwrap();
            assert!(!is_readable(&embedded));
            for waker in wakers.take() {
                waker.wake_by_ref();
                waker.wake();
            }
            tasks.iter().for_each(|task| task.abort());
            assert_eq!(notify_writes() - before, 2);
            embedded.turn().unwrap();
            assert!(!is_readable(&embedded));
            // The kernel's own doing.
            theirs.write_all(b"x").unwrap();
            assert!(
                is_readable(&embedded),
                "the descriptor was registered between two turns"
            );
            embedded.turn().unwrap();
            assert_eq!(notify_writes() - before, 2);
        }
    });
}

/// How often the notify descriptor of the one runtime of this process was written to: nobody reads it.
/// (A socket is emptied, and can't be asked.)
fn notify_writes() -> u64 {
    if cfg!(evbase_pipe_notify) {
        return 0;
    }
    let counts = open_descriptors().into_iter().filter_map(|fd| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:"))?;
        Some(u64::from_str_radix(count.trim(), 16).unwrap())
    });
    let counts: Vec<_> = counts.collect();
    assert_eq!(counts.len(), 1, "one eventfd");
    counts[0]
}

#[test]
fn a_handler_of_a_signal_between_turns_is_heard() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let guard = runtime.shutdown_handle().on_signals(&[libc::SIGUSR1]).unwrap();
        assert!(!is_readable(&embedded));
        // SAFETY: a handler is installed.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert!(is_readable(&embedded));
        assert!(embedded.turn().unwrap().closed);
        drop(guard);
    });
}

#[test]
fn in_the_child_of_a_fork_it_answers_forked_and_disturbs_nobody() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let task = runtime.spawn_local(sleep(Duration::from_millis(300))).unwrap();
        embedded.turn().unwrap();
        let local = runtime.local_spawner().unwrap();
        let mut embedded = Some(embedded);
        let mut runtime = Some(runtime);
        let code = fork(|| {
            let embedded = embedded.take().unwrap();
            assert!(matches!(embedded.turn(), Err(RunError::Forked)));
            assert!(matches!(embedded.next_deadline(), Err(RunError::Forked)));
            let runtime = runtime.take().unwrap();
            assert!(matches!(runtime.embed(), Err(RunError::Forked)));
            assert!(matches!(runtime.before_wait(|_| {}), Err(RunError::Forked)));
            assert!(matches!(local.after_wait(|| {}), Err(RunError::Forked)));
            assert!(matches!(runtime.dump(), Err(RunError::Forked)));
            assert!(matches!(local.dump(), Err(RunError::Forked)));
            drop(runtime.spawn_local(async {}));
            drop(embedded);
            drop(runtime);
        });
        assert_eq!(code, 0);
        let embedded = embedded.unwrap();
        assert!(!is_readable(&embedded));
        while !task.is_finished() {
            turn_when_readable(&embedded);
        }
        drop(runtime);
    });
}

#[test]
fn a_fork_in_a_turn_leaves_the_parents_alarm_alone() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let far = runtime.spawn_local(sleep(Duration::from_millis(50))).unwrap();
        embedded.turn().unwrap();
        let code = Rc::new(Cell::new(None));
        let forks = {
            let code = code.clone();
            runtime.spawn_local(async move {
                // The child's timers and its end must not reach the timerfd, which is the parent's, too.
                code.set(Some(fork(|| {
                    let mut nap = Box::pin(sleep(Duration::from_secs(100)));
                    let _ = nap.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                })));
            })
        };
        embedded.turn().unwrap();
        assert!(forks.unwrap().is_finished());
        assert_eq!(code.get(), Some(0));
        let start = Instant::now();
        while !far.is_finished() {
            assert!(start.elapsed() < Duration::from_secs(10));
            if is_readable(&embedded) {
                embedded.turn().unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn after_the_end_it_is_not_readable_though_a_child_of_a_fork_lives_on() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let start = Instant::now();
        runtime.spawn_local(sleep(Duration::from_millis(40))).unwrap();
        embedded.turn().unwrap();
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // The child has a copy of the other end, and would wait for ever if this test fails.
        there.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let forks = thread::spawn(move || {
            fork(|| {
                there.write_all(b"x").unwrap();
                let _ = there.read(&mut [0]);
            })
        });
        here.read_exact(&mut [0]).unwrap();
        drop(runtime);
        while start.elapsed() < Duration::from_millis(80) {
            assert!(!is_readable(&embedded));
            thread::sleep(Duration::from_millis(1));
        }
        here.write_all(b"x").unwrap();
        assert_eq!(forks.join().unwrap(), 0);
    });
}

#[test]
fn without_descriptors_embedding_is_a_clear_error_and_the_runtime_goes_on() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {}).unwrap();
        limit_descriptors(256);
        let mut files: Vec<OwnedFd> = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file.into());
        }
        for _ in 0..3 {
            match runtime.embed() {
                Err(RunError::Io(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
                other => panic!("{other:?}"),
            }
            runtime.block_on(sleep(Duration::from_millis(1))).unwrap();
        }
        files.pop();
        let embedded = runtime.embed().unwrap();
        runtime.spawn_local(async {}).unwrap();
        assert_eq!(embedded.turn().unwrap().polls, 1);
    });
}

#[test]
fn a_waker_of_a_foreign_executor_in_another_runtime_is_no_matter() {
    watched(|| {
        // A task of the host awaits a task of the guest, and the other way round.
        let (guest, host) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let embedded = Rc::new(guest.embed().unwrap());
        let watched = AsyncFd::new(std::os::fd::AsFd::as_fd(&*embedded).try_clone_to_owned().unwrap()).unwrap();
        host.spawn_local({
            let embedded = embedded.clone();
            async move {
                loop {
                    watched.readable().await.unwrap().clear_ready();
                    if embedded.turn().is_err() {
                        break;
                    }
                }
            }
        })
        .unwrap();
        let there = host
            .spawn_local(async {
                yield_now().await;
                sleep(Duration::from_millis(2)).await;
                20
            })
            .unwrap();
        let here = guest
            .spawn_local(async move {
                sleep(Duration::from_millis(1)).await;
                there.await.unwrap() + 22
            })
            .unwrap();
        assert_eq!(host.block_on(here).unwrap().unwrap(), 42);
    });
}

#[test]
fn a_stop_reaches_an_embedded_home_in_a_wait_of_its_thread() {
    watched(|| {
        for n in 0..200 {
            let runtime = Runtime::new().unwrap();
            let embedded = runtime.embed().unwrap();
            let other = Builder::new().start("other").unwrap();
            let shutdown = runtime.shutdown_handle();
            // The other runtime's task ends only when this one has closed; this thread waits for it, outside of any loop.
            let terminated = shutdown.terminated();
            let task = other.spawner().spawn(async move {
                if n % 2 == 0 {
                    yield_now().await;
                }
                shutdown.request();
                terminated.await
            });
            let report = task.wait().unwrap().unwrap();
            assert_eq!(report.cause, evbase::Cause::Requested);
            assert!(matches!(embedded.turn(), Err(RunError::Stopped)));
            assert!(!is_readable(&embedded));
        }
    });
}

#[test]
fn messages_between_turns_cost_one_turn_whatever_they_are() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let task = runtime.spawn_local(pending::<()>()).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = runtime.block_on(async {
            let fd = AsyncFd::new(ours).unwrap();
            fd.writable().await.unwrap().retain_ready();
            fd
        });
        let fd = fd.unwrap();
        assert!(!is_readable(&embedded));
        let mut turns = 0;
        thread::scope(|scope| {
            scope.spawn(|| task.abort()).join().unwrap();
            scope.spawn(|| drop(fd)).join().unwrap();
        });
        while is_readable(&embedded) {
            embedded.turn().unwrap();
            turns += 1;
        }
        assert_eq!(turns, 1);
        assert!(task.is_finished());
    });
}

#[test]
fn the_next_deadline_is_that_of_a_timer_or_the_end_of_the_grace_period() {
    watched(|| {
        let grace = Duration::from_secs(100);
        let runtime = Builder::new().grace(grace).build().unwrap();
        let embedded = runtime.embed().unwrap();
        drop(runtime.spawn_local(pending::<()>()).unwrap());
        embedded.turn().unwrap();
        assert_eq!(embedded.next_deadline().unwrap(), None);
        let before = Instant::now();
        runtime.shutdown_handle().request();
        assert!(!embedded.turn().unwrap().closed);
        let end = embedded.next_deadline().unwrap().unwrap();
        assert!(end >= before + grace && end <= Instant::now() + grace);
        // A timer that comes first.
        let timer = Instant::now() + Duration::from_secs(50);
        drop(runtime.spawn_local(evbase::time::sleep_until(timer)).unwrap());
        embedded.turn().unwrap();
        let next = embedded.next_deadline().unwrap().unwrap();
        assert!(next >= timer && next < end);
        runtime.shutdown_handle().request_now();
        assert!(embedded.turn().unwrap().closed);
    });
}

#[test]
fn a_hold_that_goes_at_home_between_two_turns_lets_time_jump() {
    watched(|| {
        let runtime = Builder::new().paused().build().unwrap();
        let embedded = runtime.embed().unwrap();
        let held = Rc::new(Cell::new(None));
        let holder = held.clone();
        let task = runtime
            .spawn_local(async move {
                holder.set(Some(time::hold()));
                sleep(Duration::from_secs(3600)).await;
            })
            .unwrap();
        while is_readable(&embedded) {
            embedded.turn().unwrap();
        }
        assert!(!task.is_finished());
        drop(held.take());
        while !task.is_finished() {
            assert!(is_readable(&embedded), "the host hears of it");
            embedded.turn().unwrap();
        }
    });
}

#[test]
fn time_does_not_jump_over_what_a_turn_has_brought_about() {
    watched(|| {
        let runtime = Builder::new().paused().build().unwrap();
        let embedded = runtime.embed().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let far = runtime.spawn_local(sleep(Duration::from_secs(3600))).unwrap();
        let reader = runtime
            .spawn_local(async move {
                let start = time::now();
                let fd = AsyncFd::new(ours).unwrap();
                let n = fd.read_with(|mut socket| socket.read(&mut [0; 8])).await.unwrap();
                (n, time::now() - start)
            })
            .unwrap();
        let writer = runtime
            .spawn_local(async move {
                yield_now().await;
                theirs.write_all(b"hello").unwrap();
                theirs
            })
            .unwrap();
        while !reader.is_finished() {
            assert!(is_readable(&embedded));
            embedded.turn().unwrap();
        }
        let read = runtime.block_on(reader).unwrap().unwrap();
        assert_eq!(read, (5, Duration::ZERO));
        drop((far, writer));
    });
}

#[test]
fn virtual_time_jumps_to_the_end_of_the_grace_period_between_two_turns() {
    watched(|| {
        let hour = Duration::from_secs(3600);
        let runtime = Builder::new().paused().grace(hour).build().unwrap();
        let embedded = runtime.embed().unwrap();
        let task = runtime.spawn_local(pending::<()>()).unwrap();
        embedded.turn().unwrap();
        runtime.shutdown_handle().request();
        while !turn_when_readable(&embedded).closed {}
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    });
}

#[cfg(feature = "unblock")]
#[test]
fn virtual_time_does_not_jump_over_blocking_work_between_two_turns() {
    watched(|| {
        let runtime = Builder::new().paused().build().unwrap();
        let embedded = runtime.embed().unwrap();
        let work = evbase::unblock(|| thread::sleep(Duration::from_millis(20)));
        let limited = async { evbase::time::timeout(Duration::from_secs(3600), work).await };
        let task = runtime.spawn_local(limited).unwrap();
        let mut turns = 0;
        while !task.is_finished() {
            turn_when_readable(&embedded);
            turns += 1;
        }
        assert!(turns < 20, "{turns}");
        assert_eq!(task.wait().unwrap().unwrap(), Ok(()));
    });
}

#[test]
fn after_the_exit_of_home_it_answers_stopped_and_is_not_readable() {
    watched(|| {
        let home = thread::spawn(|| {
            let runtime = Runtime::new().unwrap();
            let embedded = runtime.embed().unwrap();
            drop(runtime.spawn_local(pending::<()>()).unwrap());
            (runtime, embedded)
        });
        let (runtime, embedded) = home.join().unwrap();
        assert!(!is_readable(&embedded));
        assert!(matches!(embedded.turn(), Err(RunError::Stopped)));
        assert!(matches!(embedded.next_deadline(), Err(RunError::Stopped)));
        drop(runtime);
        assert!(!is_readable(&embedded));
    });
}

#[test]
fn what_comes_in_ages_leaves_the_descriptor_alone() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let ages = Instant::now().checked_add(Duration::from_secs(1 << 62));
        let task = runtime.spawn_local(async move {
            if let Some(ages) = ages {
                evbase::time::sleep_until(ages).await;
            }
            sleep(Duration::MAX).await;
        });
        let task = task.unwrap();
        for _ in 0..3 {
            embedded.turn().unwrap();
        }
        assert!(!is_readable(&embedded) && !task.is_finished());
        assert!(
            embedded
                .next_deadline()
                .unwrap()
                .is_some_and(|next| next > Instant::now())
        );
    });
}
