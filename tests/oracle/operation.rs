//! What threads, tasks and destructors do, one operation at a time.

use std::hint;
use std::io::{Read, Write};
use std::net::Shutdown as Half;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use evbase::{RunError, Runtime, SpawnErrorKind, Spawner, WaitError};

use crate::fork;
use crate::harness::lock;
use crate::program::{Kept, Op, TaskSpec, Use, WakeHow};
use crate::task::{Probed, check_panic, spawn, spawn_local};
use crate::world::{Joining, Pair, Stop, Waking, World, keep_until_exit};

/// Where an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a thread of the program which is not meant to be home, though it may be, if nobody is.
    Abroad,
    /// On a thread that is meant to be home, outside of the loop.
    Outside,
    InLoop,
    /// Anywhere.
    Destructor,
}

/// Does one operation. Panics of its own making end here.
pub(crate) fn perform(world: &Arc<World>, op: &Op, place: Place) {
    world.operations.fetch_add(1, SeqCst);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| try_perform(world, op, place))) {
        check_panic(world, &*payload);
    }
}

fn try_perform(world: &Arc<World>, op: &Op, place: Place) {
    let in_loop = place == Place::InLoop;
    match *op {
        Op::Spawn { ref spec, how, keep } => {
            let stopped = world.is_stopped();
            let spawned = spawn(world, spec, how);
            let refused = spawned.as_ref().is_none_or(|task| task.record.is_refused());
            world.check(!refused || world.is_stopped(), || {
                "refused by a runtime that isn't stopped".into()
            });
            // Home is welcome in the grace period, whoever that is.
            let is_home = || {
                let here = thread::current().id();
                match &*lock(&world.runtime) {
                    Some(runtime) => runtime.home() == Some(here),
                    // It was dropped; where it was at home may not be known.
                    None => world.home.get().is_none_or(|home| *home == here),
                }
            };
            world.check(refused || !stopped || place != Place::Abroad || is_home(), || {
                "accepted from abroad after the stop".into()
            });
            if let (Some(task), Some(slot)) = (spawned, keep) {
                world.handles.put(slot, task);
            }
        }
        Op::Wake { waker, how } => {
            let waking = match how {
                WakeHow::ByRef => world.wakers.get(waker),
                WakeHow::ByValue | WakeHow::Twice => world.wakers.take(waker),
            };
            if let Some(Waking { waker, record }) = waking {
                let polls = record.polls();
                match how {
                    WakeHow::ByRef => waker.wake_by_ref(),
                    WakeHow::ByValue => waker.wake(),
                    WakeHow::Twice => {
                        let other = waker.clone();
                        waker.wake();
                        other.wake();
                    }
                }
                if place == Place::Abroad {
                    world.until(|| record.polls() > polls || record.is_dropped());
                }
            }
        }
        Op::CloneWaker { from, to } => {
            if let Some(waking) = world.wakers.get(from) {
                world.wakers.put(to, waking);
            }
        }
        Op::DropWaker(slot) => drop(world.wakers.take(slot)),
        Op::Abort(slot) => {
            if let Some(Joining { handle, record }) = world.handles.take(slot) {
                let abort = handle.abort_handle();
                record.abort(in_loop, || abort.abort());
                if place == Place::Abroad {
                    world.until(|| abort.is_finished());
                }
                let told = abort.is_finished();
                world.check(!told || record.is_dropped(), || {
                    format!("task {} is finished, but its future lives", record.id)
                });
                world.handles.put(slot, Joining { handle, record });
            }
        }
        Op::Join(slot) => {
            if let Some(joining) = world.handles.take(slot) {
                join(world, joining, place);
            }
        }
        Op::PollJoin(slot) => {
            if let Some(Joining { mut handle, record }) = world.handles.take(slot) {
                // A waker of another thread's: it may be woken and dropped anywhere.
                let waker = Waker::from(Arc::new(Unparks(thread::current())));
                match Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(result) => record.joined(world, result),
                    Poll::Pending => world.handles.put(slot, Joining { handle, record }),
                }
            }
        }
        Op::Detach(slot) => drop(world.handles.take(slot)),
        Op::Request => {
            world.stop(Stop::Request, in_loop, || world.shutdown.request());
            if place == Place::Abroad {
                world.until_told();
            }
        }
        Op::RequestNow => world.stop(Stop::RequestNow, in_loop, || world.shutdown.request_now()),
        Op::WaitForTermination { micros } => wait_for_termination(world, micros, place),
        Op::DropRuntime { shutdown } => drop_runtime(world, shutdown, in_loop),
        Op::RuntimeIntoTask => {
            world.somebody_will_drop();
            // Not under the lock: a task that is refused drops it here.
            let runtime = lock(&world.runtime).take();
            if let Some(runtime) = runtime {
                let spec = Arc::new(TaskSpec::default());
                let record = world.new_record(&spec);
                let task = Probed::new(world, &spec, &record, ()).of(async move {
                    evbase::yield_now().await;
                    drop(runtime);
                });
                record.spawning(|| drop(world.spawner.spawn(task)));
            }
        }
        Op::UseRuntime(how) => {
            if let Some(runtime) = world.runtime() {
                use_runtime(world, &runtime, how, place);
                // Perhaps the last one: then this drops the runtime.
                drop(runtime);
            }
        }
        Op::NewPair(slot) => match Pair::new(world) {
            Ok(pair) => world.pairs.put(slot, Arc::new(pair)),
            Err(error) => world.wrong(format!("no sockets: {error}")),
        },
        Op::Write { pair, bytes } => {
            if let Some(pair) = world.pairs.get(pair) {
                let written = write(&pair, bytes);
                if place == Place::Abroad {
                    let (read, readers) = (&pair.forth.read, &pair.readers);
                    world.until(|| read.load(SeqCst) >= written || readers.load(SeqCst) == 0);
                }
            }
        }
        Op::ReadBack(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                read_back(world, &pair);
                if place == Place::Abroad {
                    world.until(|| {
                        read_back(world, &pair);
                        pair.writers.load(SeqCst) == 0
                    });
                }
            }
        }
        Op::HalfClose(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                if let Some(socket) = &*lock(&pair.theirs) {
                    pair.touched.store(true, SeqCst);
                    pair.closed.store(true, SeqCst);
                    let _ = socket.shutdown(Half::Write);
                }
            }
        }
        Op::ClosePeer(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                let mut theirs = lock(&pair.theirs);
                pair.touched.store(true, SeqCst);
                pair.closed.store(true, SeqCst);
                drop(theirs.take());
            }
        }
        Op::DropFd(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                let ours = lock(&pair.ours).take();
                drop(ours);
            }
        }
        Op::IntoInner(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                into_inner(world, &pair, place);
            }
        }
        Op::Dup(pair) => {
            if let Some(pair) = world.pairs.get(pair) {
                let ours = lock(&pair.ours).clone();
                let dup = ours.and_then(|ours| ours.as_fd().try_clone_to_owned().ok());
                lock(&world.dups).extend(dup);
            }
        }
        Op::CloseDups => {
            let dups = std::mem::take(&mut *lock(&world.dups));
            drop(dups);
        }
        Op::ResetSleep { sleep, micros } => {
            if let Some(mut slept) = world.sleeps.take(sleep) {
                let deadline = Instant::now() + Duration::from_micros(micros);
                slept.reset(deadline);
                world.check(slept.deadline() == deadline, || "a reset did nothing".into());
                world.sleeps.put(sleep, slept);
            }
        }
        Op::DropSleep(slot) => drop(world.sleeps.take(slot)),
        Op::Keep(kept) => keep(world, kept),
        Op::Metrics => {
            if let Some(runtime) = world.runtime() {
                let metrics = runtime.metrics();
                let ends = metrics.completed + metrics.cancelled + metrics.panicked;
                world.check(ends <= metrics.spawned, || format!("{metrics:?}"));
            }
        }
        Op::Pause(spins) => {
            (0..spins).for_each(|_| hint::spin_loop());
            if spins > 500 {
                thread::yield_now();
            }
        }
        Op::Fork => fork::fork(world),
    }
}

struct Unparks(thread::Thread);

impl std::task::Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks, perhaps until the end; which comes when all threads are done, or do this.
fn blocking<R>(world: &World, place: Place, block: impl FnOnce() -> R) -> R {
    if place != Place::Abroad {
        return block();
    }
    world.active.fetch_sub(1, SeqCst);
    let result = block();
    world.active.fetch_add(1, SeqCst);
    result
}

fn join(world: &World, Joining { handle, record }: Joining, place: Place) {
    let was_finished = handle.is_finished();
    // Then it has to come to its end while the runtime runs.
    let result = if world.serves && record.is_finite {
        handle.wait()
    } else {
        blocking(world, place, || handle.wait())
    };
    match result {
        Ok(result) => {
            world.check(was_finished || place != Place::InLoop, || {
                "a blocking wait inside the loop".into()
            });
            record.joined(world, result);
        }
        Err(WaitError::InsideLoop) if place == Place::InLoop => {}
        Err(WaitError::Unbound) if !world.serves => {}
        Err(error) => world.wrong(format!("a join {place:?}: {error}")),
    }
}

fn wait_for_termination(world: &World, micros: Option<u64>, place: Place) {
    let terminated = world.shutdown.terminated();
    let result = match micros {
        Some(micros) => terminated.wait_timeout(Duration::from_micros(micros)),
        None => blocking(world, place, || terminated.wait().map(Some)),
    };
    match result {
        Ok(Some(report)) => world.saw(report),
        Ok(None) => {}
        Err(WaitError::InsideLoop) if place == Place::InLoop => {}
        Err(WaitError::Unbound) if !world.serves => {}
        Err(error) => world.wrong(format!("a wait for the end {place:?}: {error}")),
    }
}

/// Takes the runtime from its slot, and drops it, unless somebody uses it: then that one does.
pub(crate) fn drop_runtime(world: &World, shutdown: bool, in_loop: bool) {
    world.somebody_will_drop();
    let runtime = lock(&world.runtime).take();
    if let Some(runtime) = runtime.and_then(Arc::into_inner) {
        world.stop(Stop::Drop, in_loop, || {
            if shutdown {
                drop(runtime.shutdown());
            } else {
                drop(runtime);
            }
        });
    }
}

fn use_runtime(world: &Arc<World>, runtime: &Runtime, how: Use, place: Place) {
    let result = match how {
        Use::Turn => runtime.turn(Some(Duration::ZERO)).map(drop),
        Use::BlockOn => runtime.block_on(async {}),
        Use::Enter => runtime.enter().map(|_guard| drop(Spawner::current())),
        Use::SpawnLocal => {
            let spec = Arc::new(TaskSpec::default());
            let spawned = spawn_local(world, &spec, |future| runtime.spawn_local(future));
            spawned.map(drop).map_err(|kind| match kind {
                SpawnErrorKind::NotHome { home } => RunError::NotHome { home },
                SpawnErrorKind::Stopped => RunError::Stopped,
                _ => RunError::Forked,
            })
        }
    };
    let is_right = match (&result, place) {
        (Err(RunError::Stopped), _) => world.is_stopped(),
        (Err(RunError::NotHome { home }), _) => {
            *home != thread::current().id() && world.home.get().is_none_or(|known| known == home)
        }
        (Err(RunError::Nested), _) => place == Place::InLoop && matches!(how, Use::Turn | Use::BlockOn),
        (Err(_), _) => false,
        (Ok(()), Place::InLoop) => matches!(how, Use::Enter | Use::SpawnLocal),
        (Ok(()), Place::Abroad) => !world.serves,
        (Ok(()), Place::Outside | Place::Destructor) => true,
    };
    world.check(is_right, || format!("{how:?} {place:?}: {result:?}"));
}

/// Writes to their end. Returns how much was written so far.
fn write(pair: &Pair, bytes: usize) -> u64 {
    let theirs = lock(&pair.theirs);
    let at = pair.forth.written.load(SeqCst);
    let Some(mut socket) = theirs.as_ref() else { return at };
    pair.touched.store(true, SeqCst);
    // It may be full, or closed.
    let written = socket.write(&pair.bytes(at, bytes)).unwrap_or(0) as u64;
    pair.forth.written.store(at + written, SeqCst);
    at + written
}

/// Reads what has come to their end.
fn read_back(world: &World, pair: &Pair) {
    let theirs = lock(&pair.theirs);
    let Some(mut socket) = theirs.as_ref() else { return };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = socket.read(&mut buffer) {
        pair.came(world, &pair.back, &buffer[..n]);
    }
}

fn into_inner(world: &World, pair: &Pair, place: Place) {
    let Some(ours) = lock(&pair.ours).take() else { return };
    let kept = match Arc::try_unwrap(ours) {
        Err(shared) => shared,
        Ok(ours) => match ours.into_inner() {
            Ok(socket) => return drop(socket),
            Err(error) => {
                world.check(place != Place::InLoop, || format!("into_inner at home: {error}"));
                Arc::new(error.into_inner())
            }
        },
    };
    let between = lock(&pair.ours).replace(kept);
    drop(between);
}

fn keep(world: &World, kept: Kept) {
    match kept {
        Kept::Waker(slot) => keep_until_exit(world.wakers.take(slot)),
        Kept::Handle(slot) => keep_until_exit(world.handles.take(slot)),
        Kept::Sleep(slot) => keep_until_exit(world.sleeps.take(slot)),
        Kept::Fd(slot) => {
            if let Some(pair) = world.pairs.get(slot) {
                let ours = lock(&pair.ours).take();
                keep_until_exit(ours);
            }
        }
    }
}
