//! A fork in the middle of a program: the child finds that nothing of its parent's is its own, and the parent notices
//! nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Runtime, SpawnErrorKind, WaitError};

use crate::harness::lock;
use crate::program::SLOTS;
use crate::world::{Pair, World};

/// How long a child may take.
const LIMIT: Duration = Duration::from_secs(20);

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this is a child, where nothing can be written down any more.
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Relaxed)
}

/// Forks, and waits for the child.
pub(crate) fn fork(world: &World) {
    // What the child uses is taken first: its parent's locks may be held by threads that it hasn't.
    let mut spawner = Some(world.spawner.clone());
    let shutdown = world.shutdown.clone();
    let wakers: Vec<_> = (0..SLOTS).filter_map(|slot| world.wakers.get(slot)).collect();
    let mut handles: Vec<_> = (0..SLOTS).map(|slot| world.handles.take(slot)).collect();
    let pairs: Vec<Arc<Pair>> = (0..SLOTS).filter_map(|slot| world.pairs.get(slot)).collect();
    let mut sockets: Vec<_> = pairs.iter().map(|pair| lock(&pair.ours).take()).collect();
    let mut sleeps: Vec<_> = (0..SLOTS).map(|slot| world.sleeps.take(slot)).collect();

    let child = || {
        IS_CHILD.store(true, Relaxed);
        let spawner = spawner.take().unwrap();
        let refused = spawner.try_spawn(async {}).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(SpawnErrorKind::Forked));
        for waking in &wakers {
            waking.waker.wake_by_ref();
        }
        for joining in handles.iter_mut().filter_map(Option::take) {
            joining.handle.abort();
            if !joining.handle.is_finished() {
                assert_eq!(joining.handle.wait().err(), Some(WaitError::Forked));
            }
        }
        // Closes the child's copies.
        sockets.clear();
        sleeps.clear();
        shutdown.request_now();
        assert_eq!(
            shutdown.terminated().wait_timeout(Duration::ZERO),
            Err(WaitError::Forked)
        );
        works();
    };
    // SAFETY: the child runs `child` on its only thread, uses no lock of the program's, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = i32::from(catch_unwind(AssertUnwindSafe(child)).is_err());
        // SAFETY: ends the child, and runs nothing of its parent's.
        unsafe { libc::_exit(code) };
    }
    if pid < 0 {
        return world.wrong("no fork");
    }
    let status = wait_for(pid);
    world.check(status == Some(0), || format!("the child's status: {status:?}"));

    for (slot, joining) in handles.into_iter().enumerate() {
        joining.into_iter().for_each(|joining| world.handles.put(slot, joining));
    }
    for (pair, socket) in pairs.iter().zip(sockets) {
        let mut ours = lock(&pair.ours);
        if ours.is_none() {
            *ours = socket;
        }
    }
    for (slot, sleep) in sleeps.into_iter().enumerate() {
        sleep.into_iter().for_each(|sleep| world.sleeps.put(slot, sleep));
    }
}

/// A runtime that is made in the child works.
fn works() {
    let runtime = Runtime::new().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = AsyncFd::new(ours).unwrap();
    let read = runtime.block_on(async {
        let task = evbase::spawn_local(async move {
            let mut byte = [0];
            ours.read_with(|mut socket| socket.read(&mut byte)).await.unwrap()
        });
        evbase::time::sleep(Duration::from_micros(50)).await;
        theirs.write_all(b"!").unwrap();
        task.await.unwrap()
    });
    assert_eq!(read.unwrap(), 1);
}

/// The status of a child that has ended; `None` of one that has to be killed.
fn wait_for(pid: libc::pid_t) -> Option<i32> {
    let start = Instant::now();
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if start.elapsed() < LIMIT => thread::sleep(Duration::from_micros(50)),
            0 => {
                // SAFETY: our child, which nobody has waited for.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, &mut status, 0);
                }
                return None;
            }
            _ => return Some(status),
        }
    }
}
