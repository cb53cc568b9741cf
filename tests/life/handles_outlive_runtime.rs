//! What outlives a runtime answers with an error, or does nothing; on its home thread, and abroad.

use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, Runtime, SpawnErrorKind};

use crate::support::{DropProbe, Drops, parked, poll_once, rounds, until, waker_of};

#[test]
fn a_waker_that_outlives_the_runtime_does_nothing() {
    rounds(300, |_| {
        let runtime = parked(Builder::new());
        let waker = waker_of(&runtime);
        runtime.shutdown().wait().unwrap();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let waker = waker.clone();
                thread::spawn(move || {
                    waker.wake_by_ref();
                    waker.wake();
                })
            })
            .collect();
        waker.wake_by_ref();
        drop(waker);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn wakers_that_are_used_while_the_runtime_closes_are_safe() {
    rounds(200, |_| {
        let runtime = parked(Builder::new());
        let wakers: Vec<_> = (0..8).map(|_| waker_of(&runtime)).collect();
        let user = thread::spawn(move || {
            for _ in 0..20 {
                wakers.iter().for_each(Waker::wake_by_ref);
            }
        });
        let report = runtime.shutdown().wait().unwrap();
        user.join().unwrap();
        assert_eq!(report.cancelled, 8);
    });
}

#[test]
fn the_waker_of_a_root_outlives_its_block_on_and_its_runtime() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let waker = runtime.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone()))).unwrap();
        waker.wake_by_ref();
        thread::spawn({
            let waker = waker.clone();
            move || waker.wake()
        })
        .join()
        .unwrap();
        assert_eq!(runtime.block_on(async { 1 }).unwrap(), 1);
        drop(runtime);
        waker.wake_by_ref();
        thread::spawn(move || waker.wake()).join().unwrap();
    });
}

#[test]
fn an_output_that_nobody_took_outlives_the_runtime_with_its_handle() {
    rounds(200, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let drops = Drops::new();
        let (taken, dropped) = (drops.probe(), drops.probe());
        let take = runtime.spawner().spawn(async move { taken });
        let drop_it = runtime.spawner().spawn(async move { dropped });
        until(|| take.is_finished() && drop_it.is_finished());
        runtime.shutdown().wait().unwrap();
        assert_eq!(drops.count(), 0);
        drop(take.wait().unwrap().unwrap());
        drop(drop_it);
        drops.assert_on(thread::current().id(), 2);
    });
}

#[test]
fn spawners_and_ends_of_a_closed_runtime_answer() {
    rounds(300, |_| {
        let runtime = Runtime::new().unwrap();
        let local = runtime.local_spawner().unwrap();
        let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
        let task = runtime.spawn_local(pending::<()>()).unwrap();
        let abort = task.abort_handle();
        drop(runtime);
        assert_eq!(local.spawn_local(async {}).unwrap_err().kind(), SpawnErrorKind::Stopped);
        assert_eq!(spawner.try_spawn(async {}).unwrap_err().kind(), SpawnErrorKind::Stopped);
        abort.abort();
        assert!(abort.is_finished());
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        shutdown.request_now();
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Dropped);
        drop(local);
    });
}

#[test]
fn a_descriptor_of_a_closed_runtime_says_so_and_can_be_taken_back() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        runtime
            .block_on(async { assert!(poll_fn(|cx| Poll::Ready(fd.poll_read_ready(cx).is_pending())).await) })
            .unwrap();
        drop(runtime);
        let use_it = move || {
            // Outside any loop: an error, no panic, no hang.
            let outside = fd.poll_read_ready(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(outside, Poll::Ready(Err(_))));
            let other = Runtime::new().unwrap();
            let error = other
                .block_on(async { fd.readable().await.map(drop).unwrap_err() })
                .unwrap();
            assert!(error.to_string().contains("closed"), "{error}");
            // What it holds is as good as before.
            theirs.write_all(b"y").unwrap();
            let mut byte = [0];
            let mut back = fd.into_inner().unwrap();
            back.read_exact(&mut byte).unwrap();
            let again = AsyncFd::new(back).unwrap();
            theirs.write_all(b"z").unwrap();
            other
                .block_on(async { again.readable().await.unwrap().retain_ready() })
                .unwrap();
        };
        if round % 2 == 0 {
            use_it();
        } else {
            thread::spawn(use_it).join().unwrap();
        }
    });
}

#[test]
fn a_sleep_outlives_its_runtime_and_moves_to_another() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let deadline = Instant::now() + Duration::from_micros(300);
        let mut sleep = evbase::time::sleep_until(deadline);
        runtime.block_on(async { poll_once(&mut sleep).is_pending() }).unwrap();
        drop(runtime);
        let finish = move || {
            Runtime::new().unwrap().block_on(sleep).unwrap();
            assert!(Instant::now() >= deadline);
        };
        if round % 2 == 0 {
            finish();
        } else {
            thread::spawn(finish).join().unwrap();
        }
    });
}

#[test]
fn what_is_registered_abroad_and_dropped_after_the_end_is_freed() {
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fd = Arc::new(AsyncFd::new(ours).unwrap());
        let polled = fd.clone();
        let task = runtime
            .spawner()
            .spawn(async move { poll_fn(|cx| Poll::Ready(polled.poll_read_ready(cx).is_pending())).await });
        assert!(task.wait().unwrap().unwrap());
        runtime.shutdown().wait().unwrap();
        drop(fd);
        // Its peer is gone.
        assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn an_async_fd_that_is_dropped_abroad_is_closed_at_home() {
    struct Probed(UnixStream, #[allow(dead_code)] DropProbe);
    impl std::os::fd::AsFd for Probed {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let home = runtime.home().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let drops = Drops::new();
        let fd = Arc::new(AsyncFd::new(Probed(ours, drops.probe())).unwrap());
        let polled = fd.clone();
        let task = runtime
            .spawner()
            .spawn(async move { poll_fn(|cx| Poll::Ready(polled.poll_read_ready(cx).is_pending())).await });
        assert!(task.wait().unwrap().unwrap());
        drop(Arc::into_inner(fd).unwrap());
        assert_eq!((&theirs).read(&mut [0]).unwrap(), 0);
        until(|| drops.count() == 1);
        drops.assert_on(home, 1);
    });
}
