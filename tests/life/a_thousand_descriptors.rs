//! Descriptors that have the numbers of a runtime that is gone: whoever writes to one of those numbers, closes it, or
//! changes what a queue knows of it, is found out.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{AbortHandle, Builder, JoinHandle, Runtime, Shutdown, Spawner};

use crate::support::alone;

struct Pair {
    ends: [AsyncFd<UnixStream>; 2],
}

fn pairs(count: usize) -> Vec<Pair> {
    let ends = |(one, other)| [AsyncFd::new(one).unwrap(), AsyncFd::new(other).unwrap()];
    (0..count)
        .map(|_| Pair {
            ends: ends(UnixStream::pair().unwrap()),
        })
        .collect()
}

fn ends(pairs: &[Pair]) -> impl Iterator<Item = &AsyncFd<UnixStream>> {
    pairs.iter().flat_map(|pair| &pair.ends)
}

/// Registers them all, and finds them silent.
async fn are_silent(pairs: &[Pair]) {
    for fd in ends(pairs) {
        poll_fn(|cx| {
            assert!(fd.poll_read_ready(cx).is_pending(), "{fd:?} was written to, or closed");
            Poll::Ready(())
        })
        .await;
    }
}

/// A byte goes each way, and the loop hears of it.
async fn are_heard_of(pairs: &[Pair]) {
    for Pair { ends } in pairs {
        for [from, to] in [[&ends[0], &ends[1]], [&ends[1], &ends[0]]] {
            let mut byte = [0; 2];
            from.get_ref().write_all(b"x").unwrap();
            assert_eq!(to.read_with(|mut io| io.read(&mut byte)).await.unwrap(), 1);
        }
    }
}

/// Everything that a runtime gives out, in use.
struct Outliving {
    spawner: Spawner,
    shutdown: Shutdown,
    tasks: Vec<JoinHandle<()>>,
    aborts: Vec<AbortHandle>,
    wakers: Vec<Waker>,
    fds: Vec<AsyncFd<UnixStream>>,
    sleeps: Vec<evbase::time::Sleep>,
    peers: Vec<UnixStream>,
}

impl Outliving {
    fn of(runtime: &Runtime) -> Self {
        let spawner = runtime.spawner();
        let (send, sent) = mpsc::channel();
        let waiting = || {
            let send = send.clone();
            spawner.spawn(poll_fn(move |cx| {
                send.send(cx.waker().clone()).unwrap();
                Poll::<()>::Pending
            }))
        };
        let tasks: Vec<_> = (0..8).map(|_| waiting()).collect();
        let (fds, peers): (Vec<_>, Vec<_>) = (0..8).map(|_| UnixStream::pair().unwrap()).unzip();
        let registered = spawner.spawn(async move {
            let fds: Vec<_> = fds.into_iter().map(|fd| AsyncFd::new(fd).unwrap()).collect();
            let mut sleeps: Vec<_> = (1000..1008)
                .map(|s| evbase::time::sleep(Duration::from_secs(s)))
                .collect();
            poll_fn(|cx| {
                assert!(fds.iter().all(|fd| fd.poll_read_ready(cx).is_pending()));
                assert!(
                    sleeps
                        .iter_mut()
                        .all(|sleep| crate::support::poll_with(sleep, cx.waker()).is_pending())
                );
                Poll::Ready(())
            })
            .await;
            let mut wakers = Vec::new();
            while wakers.len() < 8 {
                evbase::yield_now().await;
                wakers.extend(sent.try_iter());
            }
            (fds, sleeps, wakers)
        });
        let (fds, sleeps, wakers) = registered.wait().unwrap().unwrap();
        Self {
            shutdown: runtime.shutdown_handle(),
            aborts: tasks.iter().map(JoinHandle::abort_handle).collect(),
            wakers,
            tasks,
            fds,
            sleeps,
            spawner,
            peers,
        }
    }

    /// Uses and drops all of it; each descriptor of its own that closes leaves a number to one more pair.
    fn use_up(self, more: &mut Vec<Pair>) {
        let Self { tasks, wakers, .. } = self;
        assert_eq!((tasks.len(), wakers.len()), (8, 8));
        for waker in wakers {
            let again = waker.clone();
            waker.wake_by_ref();
            waker.wake();
            drop(again);
        }
        self.aborts.iter().for_each(AbortHandle::abort);
        for task in tasks {
            task.abort();
            assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        }
        assert!(self.spawner.try_spawn(async {}).is_err());
        self.shutdown.request();
        self.shutdown.request_now();
        for (n, mut sleep) in self.sleeps.into_iter().enumerate() {
            sleep.reset(Instant::now() + Duration::from_secs(n as u64));
        }
        for (fd, peer) in self.fds.into_iter().zip(self.peers) {
            let polled = fd
                .poll_read_ready(&mut Context::from_waker(Waker::noop()))
                .map_err(drop);
            assert!(matches!(polled, Poll::Ready(Err(()))));
            drop((fd, peer));
            more.extend(pairs(1));
        }
    }
}

fn reuse_the_numbers_of(runtime: impl Fn() -> Runtime, use_up: impl Fn(Outliving, &mut Vec<Pair>)) {
    let other = Runtime::new().unwrap();
    let before = numbers();
    let runtime = runtime();
    let own: Vec<_> = numbers()
        .into_iter()
        .filter(|number| !before.contains(number))
        .collect();
    let outliving = Outliving::of(&runtime);
    let end = runtime.shutdown_handle();
    drop(runtime);
    end.terminated().wait().unwrap();
    drop(end);
    let is_open = numbers();
    let free: Vec<_> = own.into_iter().filter(|number| !is_open.contains(number)).collect();
    assert!(!free.is_empty(), "the kernel queue is closed");
    let mut pairs = pairs(500);
    let is_open = numbers();
    assert!(
        free.iter().all(|number| is_open.contains(number)),
        "the numbers are used again"
    );
    other.block_on(are_silent(&pairs)).unwrap();
    use_up(outliving, &mut pairs);
    assert_eq!(pairs.len(), 508);
    other.turn(Some(Duration::ZERO)).unwrap();
    other.block_on(are_silent(&pairs)).unwrap();
    other.block_on(are_heard_of(&pairs)).unwrap();
    drop((pairs, other));
    let left = numbers();
    assert!(left.iter().all(|number| before.contains(number)), "{left:?}");
}

fn numbers() -> Vec<i32> {
    // SAFETY: F_GETFD takes no pointer, and answers EBADF for a number that is not open.
    (0..2048)
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1)
        .collect()
}

fn more_than_a_thousand() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the local for their length.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_cur.max(2048).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

#[test]
fn that_reuse_the_numbers_of_a_runtime_whose_home_is_here_are_left_alone_by_what_outlives_it() {
    alone(|| {
        more_than_a_thousand();
        reuse_the_numbers_of(|| Runtime::new().unwrap().also_bound(), Outliving::use_up);
    });
}

#[test]
fn that_reuse_the_numbers_of_a_runtime_whose_home_is_gone_are_left_alone_by_what_outlives_it() {
    alone(|| {
        more_than_a_thousand();
        reuse_the_numbers_of(|| Builder::new().start("home").unwrap(), Outliving::use_up);
    });
}

#[test]
fn that_reuse_the_numbers_of_a_runtime_are_left_alone_by_what_is_used_on_a_third_thread() {
    alone(|| {
        more_than_a_thousand();
        let elsewhere = |outliving: Outliving, pairs: &mut Vec<Pair>| {
            thread::scope(|scope| scope.spawn(|| outliving.use_up(pairs)).join().unwrap());
        };
        reuse_the_numbers_of(|| Runtime::new().unwrap().also_bound(), elsewhere);
        reuse_the_numbers_of(|| Builder::new().start("home").unwrap(), elsewhere);
    });
}

trait AlsoBound {
    fn also_bound(self) -> Self;
}

impl AlsoBound for Runtime {
    fn also_bound(self) -> Self {
        self.block_on(async {}).unwrap();
        self
    }
}
