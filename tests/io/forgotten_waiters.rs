//! Who waits for a descriptor, and for how long it is remembered.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use evbase::Runtime;
use evbase::io::AsyncFd;

use crate::support::{Drops, rounds};

fn pair() -> (AsyncFd<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (AsyncFd::new(ours).unwrap(), theirs)
}

/// A waker that does nothing. Who holds it is counted by its `Arc`.
struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

/// The first waker stayed after it was woken, and held an ended task's memory for the life of the descriptor.
#[test]
fn a_descriptor_holds_no_waker_after_its_event() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let _context = runtime.enter().unwrap();
        let (fd, mut peer) = pair();
        let waiters: [Arc<Nothing>; 3] = std::array::from_fn(|_| Arc::new(Nothing));
        let wakers = waiters.each_ref().map(|waiter| Waker::from(waiter.clone()));
        let mut futures: Vec<_> = (0..2).map(|_| Box::pin(fd.readable())).collect();
        for (future, waker) in futures.iter_mut().zip(&wakers) {
            assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        assert!(fd.poll_read_ready(&mut Context::from_waker(&wakers[2])).is_pending());
        if round % 2 == 0 {
            // Who gives up is forgotten at once, by the descriptor that stays.
            futures.clear();
            assert_eq!(Arc::strong_count(&waiters[0]), 2, "the test's own, and its waker's");
        }
        peer.write_all(b"x").unwrap();
        while runtime.turn(Some(Duration::from_secs(20))).unwrap().events == 0 {}
        drop(wakers);
        for waiter in &waiters {
            assert_eq!(Arc::strong_count(waiter), 1, "woken, and kept");
        }
    });
}

#[test]
fn a_task_that_waited_for_a_descriptor_is_freed_while_the_descriptor_stays() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let (fd, mut peer) = pair();
        let fd = Arc::new(fd);
        let drops = Drops::new();
        let (waits, probe) = (fd.clone(), drops.local_probe());
        let task = runtime.spawn_local(async move {
            let _probe = probe;
            waits.read_with(|mut io| io.read(&mut [0])).await.unwrap()
        });
        runtime.turn(Some(Duration::ZERO)).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(runtime.block_on(task.unwrap()).unwrap().unwrap(), 1);
        drops.assert_on(thread::current().id(), 1);
        assert_eq!(Arc::strong_count(&fd), 1);
    });
}

#[test]
fn a_guard_says_no_more_what_was_cleared_through_it() {
    let runtime = Runtime::new().unwrap();
    let (fd, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    runtime
        .block_on(async {
            let mut guard = fd.readable().await.unwrap();
            assert!(guard.ready().is_readable());
            guard.clear_ready();
            assert!(!guard.ready().is_readable());
        })
        .unwrap();
    runtime
        .block_on(async {
            let mut guard = fd.writable().await.unwrap();
            let blocked = guard.try_io(|_| Err::<(), _>(ErrorKind::WouldBlock.into()));
            assert!(blocked.is_err());
            assert!(!guard.ready().is_writable());
        })
        .unwrap();
}

/// One of several objects for one descriptor.
struct Shared(Arc<UnixStream>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The older one, dropped abroad, was still on its way home.
#[test]
fn a_descriptor_can_be_used_again_at_once_when_its_last_object_was_dropped_abroad() {
    rounds(1000, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        let older = AsyncFd::new(Shared(ours.clone())).unwrap();
        let used_again = async {
            poll_fn(|cx| {
                assert!(older.poll_read_ready(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            // Home stays in this poll: what the drop sends hasn't arrived when the younger one is polled.
            thread::spawn(move || drop(older)).join().unwrap();
            let younger = AsyncFd::new(Shared(ours)).unwrap();
            {
                let mut readable = pin!(younger.readable());
                poll_fn(|cx| match readable.as_mut().poll(cx) {
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    _ => Poll::Ready(()),
                })
                .await;
            }
            // And what arrives then is not the end of the younger one.
            evbase::yield_now().await;
            theirs.write_all(b"x").unwrap();
            let read = younger.read_with(|io| (&*io.0).read(&mut [0])).await;
            assert_eq!(read.unwrap(), 1);
        };
        runtime.block_on(used_again).unwrap();
    });
}
