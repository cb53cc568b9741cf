//! A task that finds everything ready yields all the same, so that others and the stop get their turn.

use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::io::IoSlice;
use std::pin::Pin;
use std::process::Stdio;
use std::rc::Rc;
#[cfg(feature = "unblock")]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};
use std::time::{Duration, Instant};

use evbase::process::Command;
use evbase::time::{interval, interval_at, sleep, sleep_until, timeout};
use evbase::{Builder, JoinSet, Runtime, spawn_local, yield_now};
use futures::{AsyncWriteExt, StreamExt};

#[cfg(feature = "unblock")]
use crate::support::until;
use crate::support::watchdog;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Whether it has been said that it is enough.
type Enough = Rc<Cell<bool>>;
type Hog = fn(Enough) -> Pin<Box<dyn Future<Output = ()>>>;

/// Each of these finds what it waits for at once, and goes on until it is told that it is enough.
fn hogs() -> Vec<(&'static str, Hog)> {
    vec![
        ("an interval that is always late", |enough| {
            Box::pin(async move {
                let mut late = interval_at(Instant::now() - Duration::from_secs(3600), MS / 1000);
                while !enough.get() {
                    late.tick().await;
                }
            })
        }),
        ("the stream of such an interval", |enough| {
            Box::pin(async move {
                let mut late = interval_at(Instant::now() - Duration::from_secs(3600), MS / 1000);
                while !enough.get() {
                    late.next().await;
                }
            })
        }),
        ("an interval that is reset to now", |enough| {
            Box::pin(async move {
                let mut now = interval(MS);
                while !enough.get() {
                    now.reset_immediately();
                    now.tick().await;
                }
            })
        }),
        ("sleeps of no time", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    sleep(Duration::ZERO).await;
                }
            })
        }),
        ("one sleep that is over", |enough| {
            Box::pin(async move {
                let mut over = sleep_until(Instant::now());
                while !enough.get() {
                    (&mut over).await;
                }
            })
        }),
        ("limits of no time", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    timeout(Duration::ZERO, pending::<()>()).await.unwrap_err();
                }
            })
        }),
        #[cfg(feature = "net")]
        ("names that are addresses", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    drop(evbase::net::lookup_host("127.0.0.1:1").await.unwrap());
                }
            })
        }),
        #[cfg(feature = "net")]
        ("sockets that are bound", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    drop(evbase::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
                }
            })
        }),
        #[cfg(feature = "net")]
        ("datagrams that have no address to go to", |enough| {
            Box::pin(async move {
                let socket = evbase::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                while !enough.get() {
                    socket.send_to(b"x", "nowhere").await.unwrap_err();
                    socket.send_to(b"x", &[][..]).await.unwrap_err();
                }
            })
        }),
        #[cfg(feature = "net")]
        ("paths where nobody listens", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    evbase::net::UnixStream::connect("/nobody").await.unwrap_err();
                }
            })
        }),
        ("programs that are not there", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    Command::new("/nobody").status().await.unwrap_err();
                }
            })
        }),
        ("a limited sleep of no time", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    timeout(MS, sleep(Duration::ZERO)).await.ok();
                }
            })
        }),
        ("limits of what is ready at once", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    timeout(HOUR, ready(())).await.unwrap();
                }
            })
        }),
        ("limits of a channel that is always full", |enough| {
            Box::pin(async move {
                let (sender, mut receiver) = futures::channel::mpsc::unbounded();
                while !enough.get() {
                    sender.unbounded_send(()).unwrap();
                    timeout(HOUR, receiver.next()).await.unwrap();
                }
            })
        }),
        ("the next of an empty set", |enough| {
            Box::pin(async move {
                let mut tasks = JoinSet::<()>::new();
                while !enough.get() {
                    assert!(tasks.join_next().await.is_none());
                }
            })
        }),
        ("all of an empty set", |enough| {
            Box::pin(async move {
                while !enough.get() {
                    JoinSet::<()>::new().join_all().await;
                }
            })
        }),
        ("the shutdown of an empty set", |enough| {
            Box::pin(async move {
                let mut tasks = JoinSet::<()>::new();
                while !enough.get() {
                    tasks.shutdown().await;
                }
            })
        }),
        ("a child that somebody else has reaped", |enough| {
            Box::pin(async move {
                let mut child = Command::new("true").spawn().unwrap();
                let pid = child.id().unwrap().cast_signed();
                // SAFETY: no status is asked for.
                assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
                while !enough.get() {
                    child.wait().await.unwrap_err();
                }
            })
        }),
        ("a pipe to a child that was closed", |enough| {
            Box::pin(async move {
                let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
                let mut stdin = child.stdin.take().unwrap();
                stdin.close().await.unwrap();
                while !enough.get() {
                    stdin.write(b"x").await.unwrap_err();
                    stdin.write_vectored(&[IoSlice::new(b"x")]).await.unwrap_err();
                }
            })
        }),
    ]
}

#[test]
fn who_finds_everything_ready_starves_no_other_task() {
    let _watchdog = watchdog();
    for (what, hog) in hogs() {
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                let enough = Enough::default();
                let hog = spawn_local(hog(enough.clone()));
                let other = spawn_local(async move {
                    for _ in 0..10 {
                        yield_now().await;
                    }
                    sleep(MS).await;
                    enough.set(true);
                });
                other.await.unwrap();
                hog.await.unwrap();
            })
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn a_stop_is_seen_while_somebody_finds_everything_ready() {
    let _watchdog = watchdog();
    for (what, hog) in hogs() {
        let runtime = Builder::new().start("home").unwrap();
        let started = runtime.spawner().spawn_with(move || {
            let hog = hog(Enough::default());
            drop(spawn_local(hog));
            async {}
        });
        started.wait().unwrap().unwrap();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.cancelled, 1, "{what}");
    }
}

#[cfg(feature = "unblock")]
#[test]
fn a_chain_of_blocking_work_that_is_done_yields_after_a_budget() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let work = || {
        let done = done.clone();
        evbase::unblock(move || done.fetch_add(1, SeqCst))
    };
    let works: Vec<_> = (0..1_000).map(|_| work()).collect();
    until(|| done.load(SeqCst) == 1_000);
    runtime
        .block_on(async {
            for work in works {
                work.await;
            }
        })
        .unwrap();
    // The last ones may have been on their way still.
    let yields = runtime.metrics().forced_yields;
    assert!((5..=10).contains(&yields), "{yields}");
}

#[test]
fn a_limit_ends_a_future_that_uses_up_every_budget() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let hog = async {
        loop {
            sleep(Duration::ZERO).await;
        }
    };
    let limited: Result<(), _> = runtime.block_on(timeout(MS, hog)).unwrap();
    assert!(limited.is_err());
}

#[test]
fn a_sleep_that_has_yielded_is_ready_at_the_next_poll() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            // Some of these find no budget left, in the poll in which their timers have fired.
            let sleeps: Vec<_> = (0..1_000).map(|_| sleep(MS)).collect();
            futures::future::join_all(sleeps).await;
        })
        .unwrap();
}
