//! What a descriptor is made of is user code: its `as_fd` and its destructor may use the runtime, and panic.

use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::{Builder, Cause, Runtime, Spawner};

use crate::support::{OnDrop, parked, rounds, watched};

/// A descriptor whose destructor does something first.
struct Busy {
    _before: OnDrop<Box<dyn FnMut() + Send + Sync>>,
    stream: UnixStream,
}

impl AsFd for Busy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Busy {
    /// Registered with the runtime, whose home is this thread or runs.
    fn registered(runtime: &Runtime, before: impl FnMut() + Send + Sync + 'static) -> (AsyncFd<Self>, UnixStream) {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let busy = Self {
            _before: OnDrop(Box::new(before)),
            stream,
        };
        let fd = AsyncFd::new(busy).unwrap();
        // In an array: a descriptor is a future's output here, not a future.
        let polled = runtime.spawner().spawn(async move {
            assert!(poll_fn(|cx| Poll::Ready(fd.poll_read_ready(cx).is_pending())).await);
            [fd]
        });
        let [fd] = polled.wait().unwrap().unwrap();
        (fd, theirs)
    }
}

fn is_closed(peer: &UnixStream) {
    assert_eq!({ peer }.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_destructor_of_what_an_async_fd_holds_may_use_the_runtime_where_it_runs() {
    rounds(100, |round| {
        let started = round % 2 == 0;
        let runtime = if started {
            parked(Builder::new())
        } else {
            Runtime::new().unwrap()
        };
        if !started {
            runtime.block_on(async {}).unwrap();
        }
        let home = runtime.home().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (tell, spawner) = (told.clone(), runtime.spawner());
        // Another descriptor goes with it: that one is dropped, and deregistered, inside of this destructor.
        let (inner, inner_peer) = Busy::registered(&runtime, || {});
        let mut inner = Some(inner);
        let (fd, peer) = Busy::registered(&runtime, move || {
            drop(inner.take());
            let spawned = spawner.try_spawn(async {}).is_ok();
            let _ = Spawner::try_current();
            tell.lock().unwrap().push((thread::current().id(), spawned));
        });
        let in_closing = round % 4 > 1;
        if in_closing {
            let held = runtime.spawner().spawn(async move {
                let _held = fd;
                pending::<()>().await;
            });
            runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
            drop(held);
        } else {
            drop(fd);
            if !started {
                assert_eq!(told.lock().unwrap().len(), 1, "at home it is dropped at once");
            }
        }
        runtime.shutdown().wait().unwrap();
        is_closed(&peer);
        is_closed(&inner_peer);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, home);
        if in_closing {
            assert!(!told[0].1, "a runtime that closes takes no task");
        }
    });
}

#[test]
fn the_destructor_of_what_an_async_fd_holds_may_panic_on_its_way_home() {
    crate::support::quiet_panics();
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let (fd, peer) = Busy::registered(&runtime, || panic!("on purpose"));
        // Abroad it is no panic: the destructor runs at home, which goes on.
        drop(fd);
        is_closed(&peer);
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.panicked, report.cause), (0, Cause::Dropped));
    });
}

type Hook = Box<dyn FnMut() + Send>;

/// A descriptor whose `as_fd` runs something, once.
struct Hooked {
    fd: std::io::PipeReader,
    hook: Mutex<Option<Hook>>,
}

impl Hooked {
    fn new() -> (AsyncFd<Self>, std::io::PipeWriter) {
        let (fd, writer) = std::io::pipe().unwrap();
        let hook = Mutex::new(None);
        (AsyncFd::new(Self { fd, hook }).unwrap(), writer)
    }
}

impl AsFd for Hooked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut hook) = hook {
            hook();
        }
        self.fd.as_fd()
    }
}

fn would_block<T>(_: &T) -> std::io::Result<()> {
    Err(std::io::ErrorKind::WouldBlock.into())
}

/// It ran under the borrow of the base.
#[test]
fn as_fd_may_use_the_runtime() {
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(poll_fn(|cx| {
            let mut sleep = Box::pin(evbase::time::sleep(Duration::from_secs(9)));
            assert!(sleep.as_mut().poll(cx).is_pending());
            let mut sleep = Some(sleep);
            let (fd, _writer) = Hooked::new();
            *fd.get_ref().hook.lock().unwrap() = Some(Box::new(move || drop(sleep.take())));
            assert!(pin!(fd.read_with(would_block)).poll(cx).is_pending());
            Poll::Ready(())
        }))
        .unwrap();
}

/// It left a registration with a made-up key, that of the first source of the base.
#[test]
fn a_panic_in_as_fd_hits_no_other_source() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let victim = async {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let victim = AsyncFd::new(reader).unwrap();
            poll_fn(|cx| {
                assert!(victim.poll_read_ready(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let (fd, _writer) = Hooked::new();
            *fd.get_ref().hook.lock().unwrap() = Some(Box::new(|| panic!("as_fd, on purpose")));
            let failed = evbase::spawn_local(async move { fd.read_with(would_block).await }).await;
            assert!(failed.unwrap_err().is_panic());
            writer.write_all(b"x").unwrap();
            assert!(victim.readable().await.is_ok());
        };
        runtime.block_on(victim).unwrap();
    });
}
