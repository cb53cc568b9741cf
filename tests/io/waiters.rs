//! Who waits for a descriptor: a future leaves when it is dropped, wherever that is; nobody is forgotten, and nothing of
//! those who have gone is kept.

use std::future::Future;
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use evbase::io::{AsyncFd, Interest};
use evbase::{Runtime, spawn_local};

use crate::support::{Drops, watchdog};

/// A task of nobody's: counts its wake-ups, and the wakers that it has given away.
#[derive(Default)]
struct Stranger(AtomicUsize);

impl Wake for Stranger {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Stranger {
    fn new() -> (Arc<Self>, Waker) {
        let stranger = Arc::new(Self::default());
        (stranger.clone(), Waker::from(stranger))
    }

    fn times(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// How many wakers there are beside the test's own.
fn kept(stranger: &Arc<Stranger>) -> usize {
    Arc::strong_count(stranger) - 2
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

type Waits<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Each way for a future to wait for something to read.
fn ways(fd: &AsyncFd<OwnedFd>) -> Vec<Waits<'_>> {
    vec![
        Box::pin(async { drop(fd.readable().await) }),
        Box::pin(async { drop(fd.ready(Interest::READABLE).await) }),
        Box::pin(async {
            drop(
                fd.read_with(|_| Err::<(), _>(std::io::ErrorKind::WouldBlock.into()))
                    .await,
            )
        }),
    ]
}

#[test]
fn a_dropped_future_leaves_no_waker_behind() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let fd = AsyncFd::new(OwnedFd::from(reader)).unwrap();
    let _context = runtime.enter().unwrap();
    let (stays, stays_waker) = Stranger::new();
    let mut staying = pin!(fd.readable());
    assert!(poll(staying.as_mut(), &stays_waker).is_pending());
    let (stranger, waker) = Stranger::new();
    for _ in 0..1_000 {
        for mut future in ways(&fd) {
            assert!(poll(future.as_mut(), &waker).is_pending());
            assert_eq!(kept(&stranger), 1);
            drop(future);
            assert_eq!(kept(&stranger), 0);
        }
    }
    writer.write_all(b"x").unwrap();
    runtime.turn(None).unwrap();
    assert_eq!((stranger.times(), stays.times()), (0, 1));
    assert!(poll(staying, &stays_waker).is_ready());
}

#[test]
fn a_future_that_is_dropped_abroad_leaves_by_a_message() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let fd = AsyncFd::new(OwnedFd::from(reader)).unwrap();
    let _context = runtime.enter().unwrap();
    let (stranger, waker) = Stranger::new();
    let (other, other_waker) = Stranger::new();
    for mut future in ways(&fd) {
        assert!(poll(future.as_mut(), &waker).is_pending());
        let mut next = pin!(fd.readable());
        assert!(poll(next.as_mut(), &other_waker).is_pending());
        thread::scope(|scope| scope.spawn(|| drop(future)).join().unwrap());
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!((kept(&stranger), kept(&other)), (0, 1));
    }
    writer.write_all(b"x").unwrap();
    runtime.turn(None).unwrap();
    assert_eq!((stranger.times(), other.times()), (0, 0));
}

#[test]
fn a_future_that_is_dropped_after_the_event_takes_nobody_else_along() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let fd = AsyncFd::new(OwnedFd::from(reader)).unwrap();
    let _context = runtime.enter().unwrap();
    let (early, early_waker) = Stranger::new();
    let (late, late_waker) = Stranger::new();
    let mut old = ways(&fd);
    for future in &mut old {
        assert!(poll(future.as_mut(), &early_waker).is_pending());
    }
    writer.write_all(b"x").unwrap();
    runtime.turn(None).unwrap();
    assert_eq!((early.times(), kept(&early)), (old.len(), 0));
    // It is read until there is no more, and whoever comes now waits where the others did.
    let mut read_all = pin!(fd.read_with(|fd| std::fs::File::from(fd.try_clone()?).read(&mut [0; 8])));
    assert!(matches!(poll(read_all.as_mut(), &late_waker), Poll::Ready(Ok(1))));
    let mut new = ways(&fd);
    new.swap(0, 2);
    for future in &mut new {
        assert!(poll(future.as_mut(), &late_waker).is_pending());
    }
    let waiting = kept(&late);
    assert_eq!(waiting, new.len());
    drop(old);
    assert_eq!(kept(&late), waiting);
    writer.write_all(b"x").unwrap();
    runtime.turn(None).unwrap();
    assert_eq!((late.times(), kept(&late)), (waiting, 0));
}

#[test]
fn a_descriptor_holds_no_task_that_has_ended() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let fd = Arc::new(AsyncFd::new(OwnedFd::from(reader)).unwrap());
    let log = Drops::new();
    runtime
        .block_on(async {
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let (fd, probe) = (fd.clone(), log.probe());
                    spawn_local(async move {
                        drop(fd.readable().await);
                        drop(probe);
                    })
                })
                .collect();
            let (stranger, waker) = Stranger::new();
            let mut by_poll = Context::from_waker(&waker);
            assert!(fd.poll_read_ready(&mut by_poll).is_pending());
            evbase::yield_now().await;
            assert_eq!(kept(&stranger), 1);
            writer.write_all(b"x").unwrap();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!((stranger.times(), kept(&stranger), log.count()), (1, 0, 3));
        })
        .unwrap();
}

#[test]
fn thirty_two_wakers_of_pollers_are_kept_and_one_more_wakes_them_all() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let fd = AsyncFd::new(OwnedFd::from(reader)).unwrap();
    let _context = runtime.enter().unwrap();
    let strangers: Vec<_> = (0..1_000).map(|_| Stranger::new()).collect();
    for (stranger, waker) in &strangers {
        for _ in 0..3 {
            assert!(fd.poll_read_ready(&mut Context::from_waker(waker)).is_pending());
            assert_eq!(kept(stranger), 1);
        }
        assert!(strangers.iter().map(|(stranger, _)| kept(stranger)).sum::<usize>() <= 32);
    }
    writer.write_all(b"x").unwrap();
    runtime.turn(None).unwrap();
    assert!(
        strangers
            .iter()
            .all(|(stranger, _)| (stranger.times(), kept(stranger)) == (1, 0))
    );
}

#[test]
fn a_descriptor_that_a_message_of_another_object_is_about_to_give_up_is_registered() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (reader, _writer) = pipe().unwrap();
    let reader = Arc::new(reader);
    for _ in 0..100 {
        runtime
            .block_on(async {
                let first = AsyncFd::new(reader.clone()).unwrap();
                assert!(futures::poll!(Box::pin(first.readable())).is_pending());
                // The message waits: home is inside of this poll.
                thread::scope(|scope| scope.spawn(move || drop(first)).join().unwrap());
                let second = AsyncFd::new(reader.clone()).unwrap();
                let polled = futures::poll!(Box::pin(second.readable()));
                assert!(polled.is_pending(), "{polled:?}");
            })
            .unwrap();
    }
}
