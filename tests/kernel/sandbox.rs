//! Under a real seccomp filter that forbids system calls, as old sandboxes of containers do: without `epoll_pwait2`
//! everything works, in milliseconds; without another call there is a clear error, and a clean end.

use std::future::pending;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use evbase::base::EventBase;
use evbase::net::{TcpListener, TcpStream};
use evbase::time::{sleep, timeout};
use evbase::{Builder, Cause, RunError, Runtime};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Drops, alone, forbid, open_descriptors, tid_of, until_parked};

const EXACT_WAIT: &[libc::c_long] = &[libc::SYS_epoll_pwait2];

/// What `epoll_wait` is to the kernel.
#[cfg(target_arch = "x86_64")]
const WAIT: &[libc::c_long] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
#[cfg(not(target_arch = "x86_64"))]
const WAIT: &[libc::c_long] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

/// Sleeps that are not early, and as exact as milliseconds are.
async fn sleeps() {
    for micros in [1, 500, 1000, 1500, 2300] {
        let (start, duration) = (Instant::now(), Duration::from_micros(micros));
        sleep(duration).await;
        assert!(start.elapsed() >= duration);
    }
    assert!(timeout(Duration::from_micros(10), pending::<()>()).await.is_err());
    let start = Instant::now();
    futures::join!(sleep(Duration::from_millis(3)), sleep(Duration::from_micros(1700)));
    assert!(start.elapsed() >= Duration::from_millis(3));
}

async fn greeting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.close().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

/// A runtime that has waited exactly goes on when that is forbidden, also in the midst of a wait; new ones work.
fn works_without_exact_waits(errno: i32) {
    let before = open_descriptors();
    let here = Runtime::new().unwrap();
    here.block_on(sleep(Duration::from_micros(300))).unwrap();
    let elsewhere = Builder::new().grace(Duration::from_secs(3600)).start("home").unwrap();
    let start = Instant::now();
    let under_way = elsewhere.spawner().spawn(sleep(Duration::from_millis(50)));
    until_parked(tid_of(&elsewhere));

    forbid(EXACT_WAIT, errno);

    under_way.wait().unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
    elsewhere.spawner().spawn(sleeps()).wait().unwrap().unwrap();
    elsewhere.spawner().spawn(greeting()).wait().unwrap().unwrap();
    here.block_on(sleeps()).unwrap();
    here.block_on(greeting()).unwrap();
    let turn = here.turn(Some(Duration::from_nanos(1))).unwrap();
    assert!(!turn.closed);
    // A grace period that ends by itself.
    let in_grace = elsewhere.spawner().spawn_with(|| async {
        evbase::Shutdown::current().requested().await;
        sleep(Duration::from_millis(2)).await;
    });
    assert_eq!(elsewhere.shutdown().wait().unwrap().cancelled, 0);
    in_grace.wait().unwrap().unwrap();
    assert_eq!(here.shutdown().wait().unwrap().cause, Cause::Dropped);

    let mut base = EventBase::<(), u8>::new().unwrap();
    let start = Instant::now();
    base.arm(start + Duration::from_micros(1100), 1);
    while base.turn(None, |_| {}).unwrap().timers == 0 {}
    assert!(start.elapsed() >= Duration::from_micros(1100));
    drop(base);
    crate::support::until(|| open_descriptors() == before);
}

#[test]
fn without_epoll_pwait2_in_the_kernel_everything_works() {
    alone(|| {
        works_without_exact_waits(libc::ENOSYS);
    });
}

#[test]
fn with_epoll_pwait2_forbidden_everything_works() {
    alone(|| {
        works_without_exact_waits(libc::EPERM);
    });
}

#[test]
fn without_an_eventfd_there_is_a_socket_pair_and_it_wakes() {
    alone(|| {
        forbid(&[libc::SYS_eventfd2], libc::ENOSYS);
        let mut base = EventBase::<()>::new().unwrap();
        assert!(format!("{base:?}").contains("socket pair"), "{base:?}");
        let notifier = base.notifier();
        // More than a socket holds.
        for _ in 0..100_000 {
            notifier.notify().unwrap();
        }
        assert!(base.turn(None, |_| {}).unwrap().notified);
        let runtime = Builder::new().start("home").unwrap();
        for n in 0..200 {
            assert_eq!(runtime.spawner().spawn(async move { n }).wait().unwrap().unwrap(), n);
        }
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 200);
    });
}

#[test]
fn a_forbidden_eventfd_or_queue_is_an_error_that_says_so_and_loses_no_descriptor() {
    alone(|| {
        // Filters add up; each of these is met before those that were set earlier.
        for call in [libc::SYS_epoll_ctl, libc::SYS_epoll_create1, libc::SYS_eventfd2] {
            forbid(&[call], libc::EACCES);
            let before = open_descriptors();
            for _ in 0..10 {
                let error = Runtime::new().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
                let error = Builder::new().start("home").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
                let error = EventBase::<()>::new().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            }
            assert_eq!(open_descriptors(), before);
        }
    });
}

#[test]
fn a_home_that_may_not_wait_at_all_says_so_and_closes() {
    alone(|| {
        let before = open_descriptors();
        let drops = Drops::new();
        let here = Runtime::new().unwrap();
        let elsewhere = Builder::new().start("home").unwrap();
        let home = elsewhere.home().unwrap();
        let probe = drops.probe();
        let task = elsewhere.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        until_parked(tid_of(&elsewhere));

        forbid(WAIT, libc::EPERM);

        let forbidden =
            |error: RunError| matches!(error, RunError::Io(error) if error.raw_os_error() == Some(libc::EPERM));
        let probe = drops.probe();
        let kept = here.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        });
        for _ in 0..3 {
            assert!(here.block_on(sleep(Duration::from_secs(3600))).is_err_and(forbidden));
            assert!(here.block_on(pending::<()>()).is_err_and(forbidden));
            assert!(here.turn(None).is_err_and(forbidden));
        }
        // What needs no wait still works.
        assert_eq!(here.block_on(async { 7 }).unwrap(), 7);
        assert_eq!(drops.count(), 0);
        assert_eq!(here.shutdown().wait().unwrap().cancelled, 1);
        assert_eq!(drops.threads(), [thread::current().id()]);
        assert!(kept.unwrap().wait().unwrap().unwrap_err().is_cancelled());

        // It was asleep already; what comes now ends that wait, and the next one fails.
        let last = elsewhere.spawner().spawn(async {});
        last.wait().unwrap().unwrap();
        let terminated = elsewhere.shutdown_handle().terminated();
        assert_eq!(terminated.wait().unwrap().cause, Cause::HomeExited);
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
        assert_eq!(drops.threads(), [thread::current().id(), home]);
        drop(elsewhere);
        crate::support::until(|| open_descriptors() == before);
    });
}

#[test]
fn a_forbidden_accept_is_told_and_everything_else_goes_on() {
    alone(|| {
        forbid(&[libc::SYS_accept4, libc::SYS_accept], libc::EPERM);
        let runtime = Runtime::new().unwrap();
        let work = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            for _ in 0..3 {
                let error = listener.accept().await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                sleep(Duration::from_micros(100)).await;
            }
        };
        runtime.block_on(work).unwrap();
        runtime.shutdown().wait().unwrap();
    });
}
