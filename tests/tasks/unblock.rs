//! Blocking work away from the loop.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime, unblock};

use crate::support::{
    Drops, Wakes, alone, fork, is_under_sanitizer, limit_address_space, limit_address_space_to, panic_text, panics,
    poll_once, poll_with, until, watchdog,
};

#[test]
fn the_result_comes_back_and_the_work_runs_on_another_thread() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let worker = runtime.block_on(unblock(|| thread::current().id())).unwrap();
    assert_ne!(worker, thread::current().id());
    let sum: u64 = runtime
        .block_on(async {
            let works: Vec<_> = (0..100).map(|n| unblock(move || n)).collect();
            futures::future::join_all(works).await.into_iter().sum()
        })
        .unwrap();
    assert_eq!(sum, 4950);
}

#[test]
fn the_loop_goes_on_while_the_work_blocks() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (release, released) = mpsc::channel::<()>();
    runtime
        .block_on(async {
            let work = unblock(move || released.recv());
            evbase::time::sleep(Duration::from_millis(2)).await;
            evbase::spawn_local(async {}).await.unwrap();
            release.send(()).unwrap();
            work.await.unwrap();
        })
        .unwrap();
}

#[test]
fn works_run_at_the_same_time() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let barrier = Arc::new(Barrier::new(4));
    let works = (0..4).map(|_| {
        let barrier = barrier.clone();
        unblock(move || barrier.wait().is_leader())
    });
    let leaders = runtime.block_on(futures::future::join_all(works)).unwrap();
    assert_eq!(leaders.into_iter().filter(|&leads| leads).count(), 1);
}

#[test]
fn a_panic_of_the_work_is_one_of_whoever_awaits_it() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    assert_eq!(
        panics(|| runtime.block_on(unblock(|| panic!("in the pool")))),
        "in the pool"
    );
    let error = runtime
        .block_on(async { evbase::spawn_local(unblock(|| panic!("in the pool"))).await })
        .unwrap();
    assert_eq!(panic_text(&*error.unwrap_err().into_panic()), "in the pool");
    assert_eq!(runtime.block_on(unblock(|| 1)).unwrap(), 1);
}

#[test]
fn it_works_in_any_executor() {
    let _watchdog = watchdog();
    assert_eq!(futures::executor::block_on(unblock(|| 7)), 7);
}

#[test]
fn the_work_begins_at_the_call_and_its_result_is_dropped_when_nobody_wants_it() {
    let _watchdog = watchdog();
    let log = Drops::new();
    let (probe, (begin, begun)) = (log.probe(), mpsc::channel());
    let work = unblock(move || {
        begin.send(()).unwrap();
        probe
    });
    begun.recv().unwrap();
    drop(work);
    until(|| log.count() == 1);
}

#[test]
fn works_that_nobody_awaits_are_done_all_the_same() {
    let _watchdog = watchdog();
    let log = Drops::new();
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..200 {
        let (done, probe) = (done.clone(), log.probe());
        drop(unblock(move || {
            done.fetch_add(1, SeqCst);
            probe
        }));
    }
    until(|| done.load(SeqCst) == 200 && log.count() == 200);
}

#[test]
fn a_result_that_is_there_when_its_future_goes_is_dropped_with_it() {
    let _watchdog = watchdog();
    let log = Drops::new();
    for _ in 0..100 {
        let probe = log.probe();
        let mut work = unblock(move || probe);
        let (wakes, waker) = Wakes::new();
        // If it is not ready by now, it wakes when it is.
        if let Poll::Ready(probe) = poll_with(&mut work, &waker) {
            drop(probe);
            continue;
        }
        until(|| wakes.count() == 1);
        drop(work);
    }
    until(|| log.count() == 100);
}

#[test]
fn a_panic_that_nobody_awaits_harms_nobody() {
    let _watchdog = watchdog();
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let begun = begun.clone();
        drop(unblock(move || {
            begun.fetch_add(1, SeqCst);
            panic!("on purpose");
        }));
    }
    until(|| begun.load(SeqCst) == 20);
    assert_eq!(futures::executor::block_on(unblock(|| 7)), 7);
}

#[test]
fn spawned_it_has_a_join_handle_whose_abort_ends_the_waiting_and_not_the_work() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let spawner = runtime.spawner();
    assert_eq!(spawner.spawn(unblock(|| 7)).wait().unwrap().unwrap(), 7);
    let panicked = spawner.spawn(unblock(|| panic!("on purpose"))).wait().unwrap();
    let _: () = match panicked {
        Err(error) => assert!(error.is_panic()),
        Ok(never) => never,
    };
    let (release, released) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel();
    let task = spawner.spawn(unblock(move || {
        released.recv().unwrap();
        end.send(()).unwrap();
    }));
    task.abort();
    assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    release.send(()).unwrap();
    ended.recv().unwrap();
}

#[test]
fn the_child_of_a_fork_is_told_that_the_threads_are_its_parents() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(unblock(|| {})).unwrap();
        let (release, released) = mpsc::channel::<()>();
        let mut of_the_parent = unblock(move || released.recv());
        let code = fork(|| {
            let said = panics(|| unblock(|| {}));
            assert!(said.contains("forked") && said.contains("exec"), "{said}");
            let said = panics(|| poll_once(&mut of_the_parent));
            assert!(said.contains("parent"), "{said}");
            drop(of_the_parent);
            #[cfg(feature = "net")]
            {
                let connected = evbase::block_on(evbase::net::TcpStream::connect("localhost:1"));
                let error = connected.unwrap().unwrap_err();
                assert!(error.to_string().contains("forked"), "{error}");
            }
        });
        assert_eq!(code, 0);
        release.send(()).unwrap();
    });
}

#[test]
fn the_child_of_a_fork_has_a_pool_of_its_own_if_its_parent_has_none() {
    alone(|| {
        let code = fork(|| assert_eq!(futures::executor::block_on(unblock(|| 7)), 7));
        assert_eq!(code, 0);
        assert_eq!(futures::executor::block_on(unblock(|| 8)), 8);
    });
}

/// The `blocking` crate would try for ever, with its lock held.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_can_make_no_thread_is_told_so_and_may_try_again() {
    if is_under_sanitizer("address") || is_under_sanitizer("thread") {
        // They take all of the address space.
        return;
    }
    alone(|| {
        // When it sleeps, it has its memory. Before that, it takes a large piece, and gives most of it back.
        until(|| {
            let threads = std::fs::read_dir("/proc/self/task").unwrap();
            let mut stats = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
            stats.any(|stat| stat.contains("(watchdog) S"))
        });
        let before = limit_address_space(1 << 20);
        let said = panics(|| unblock(|| {}));
        limit_address_space_to(before);
        assert!(said.contains("unblock"), "{said}");
        assert_eq!(futures::executor::block_on(unblock(|| 7)), 7);
    });
}
