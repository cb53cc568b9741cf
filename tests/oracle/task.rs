//! The futures of a program: what they do step by step, and the probe around them.

use std::any::Any;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::{self, Sleep};
use evbase::{JoinHandle, LocalSpawner, SpawnError, SpawnErrorKind};
use futures::AsyncReadExt;

use crate::harness::lock;
use crate::operation::{Place, perform};
use crate::program::{How, OnDrop, ReadHow, Step, TaskSpec, Then};
use crate::world::{Counted, Ended, Joining, OnPurpose, Output, Pair, Record, Socket, Waking, World};

/// Reports where, and how often, the future around it is dropped.
struct Probe {
    world: Arc<World>,
    spec: Arc<TaskSpec>,
    record: Arc<Record>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        struct Gone<'a>(&'a Probe);
        impl Drop for Gone<'_> {
            fn drop(&mut self) {
                self.0.record.is_gone(&self.0.world);
            }
        }
        let world = &self.world;
        self.record.dropped(world);
        let _gone = Gone(self);
        for what in &self.spec.on_drop {
            match what {
                OnDrop::SpawnLocal(spec) => {
                    if let Some(here) = LocalSpawner::try_current() {
                        let record = world.new_record(spec);
                        let future = Probed::new(world, spec, &record, Rc::new(()));
                        record.spawning(|| drop(here.spawn_local(future)));
                    }
                }
                OnDrop::Do(op) => perform(world, op, Place::Destructor),
                OnDrop::Panic if thread::panicking() => {}
                OnDrop::Panic => resume_unwind(Box::new(OnPurpose(self.record.id))),
            }
        }
    }
}

/// A future with a probe. With an `Rc` for a marker it is not `Send`.
pub(crate) struct Probed<M> {
    // Dropped before the probe, which is the last to go.
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    _marker: M,
    probe: Probe,
}

/// Makes a future large.
pub(crate) type Large = [u64; 600];

impl<M> Probed<M> {
    pub(crate) fn new(world: &Arc<World>, spec: &Arc<TaskSpec>, record: &Arc<Record>, marker: M) -> Self {
        Self::from_probe(
            Probe {
                world: world.clone(),
                spec: spec.clone(),
                record: record.clone(),
            },
            marker,
        )
    }

    fn from_probe(probe: Probe, marker: M) -> Self {
        let future = Box::pin(steps(probe.world.clone(), probe.spec.clone(), probe.record.clone()));
        Self {
            future,
            _marker: marker,
            probe,
        }
    }

    /// Does something else than what the spec says.
    pub(crate) fn of(mut self, future: impl Future<Output = ()> + Send + 'static) -> Self {
        self.future = Box::pin(future);
        self
    }
}

impl<M: Unpin> Future for Probed<M> {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        let this = &mut *self;
        let Probe { world, record, .. } = &this.probe;
        record.begin_poll(world);
        match catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                record.end_poll(Ended::Not);
                Poll::Pending
            }
            Ok(Poll::Ready(())) => {
                record.end_poll(Ended::Returned);
                Poll::Ready(Output::new(record))
            }
            Err(payload) => {
                record.end_poll(Ended::Panicked);
                check_panic(world, &*payload);
                resume_unwind(payload)
            }
        }
    }
}

/// A panic that the program knows nothing of is wrong.
pub(crate) fn check_panic(world: &World, payload: &(dyn Any + Send)) {
    if !payload.is::<OnPurpose>() {
        world.wrong(format!("a panic: {}", crate::support::panic_text(payload)));
    }
}

// ---- Spawning ----

/// Spawns from anywhere. `None`: refused.
pub(crate) fn spawn(world: &Arc<World>, spec: &Arc<TaskSpec>, how: How) -> Option<Joining> {
    let spawner = &world.spawner;
    let record = world.new_record(spec);
    let make = || {
        let probe = Probe {
            world: world.clone(),
            spec: spec.clone(),
            record: record.clone(),
        };
        move || {
            if probe.spec.closure_panics {
                probe.record.end(Ended::Panicked);
                resume_unwind(Box::new(OnPurpose(probe.record.id)));
            }
            Probed::from_probe(probe, Rc::new(()))
        }
    };
    let handle = record.spawning(|| match how {
        How::Spawn => Some(spawner.spawn(Probed::new(world, spec, &record, ()))),
        How::SpawnLarge => {
            let large: Large = [7; 600];
            Some(spawner.spawn(Probed::new(world, spec, &record, large)))
        }
        How::SpawnWith => Some(spawner.spawn_with(make())),
        How::TrySpawn => accepted(world, spawner.try_spawn(Probed::new(world, spec, &record, ()))),
        How::TrySpawnWith => accepted(world, spawner.try_spawn_with(make())),
    });
    joining(world, record, handle)
}

/// Spawns a future that is not `Send`, by whatever can.
pub(crate) fn spawn_local(
    world: &Arc<World>,
    spec: &Arc<TaskSpec>,
    spawn: impl FnOnce(Probed<Rc<()>>) -> Result<JoinHandle<Output>, SpawnError<Probed<Rc<()>>>>,
) -> Result<Joining, SpawnErrorKind> {
    let record = world.new_record(spec);
    let future = Probed::new(world, spec, &record, Rc::new(()));
    let mut kind = SpawnErrorKind::Stopped;
    let handle = record.spawning(|| match spawn(future) {
        Ok(handle) => Some(handle),
        Err(error) => {
            kind = error.kind();
            // The future comes back, and is dropped here.
            drop(error.into_inner());
            None
        }
    });
    joining(world, record, handle).ok_or(kind)
}

fn accepted<X>(world: &World, spawned: Result<JoinHandle<Output>, SpawnError<X>>) -> Option<JoinHandle<Output>> {
    match spawned {
        Ok(handle) => Some(handle),
        Err(error) => {
            world.check(error.kind() == SpawnErrorKind::Stopped, || format!("refused: {error}"));
            let value = error.into_inner();
            // Its destructor may panic, which is not the spawner's business.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
            None
        }
    }
}

fn joining(world: &World, record: Arc<Record>, handle: Option<JoinHandle<Output>>) -> Option<Joining> {
    let is_refused = record.is_refused();
    let id = record.id;
    match handle {
        None => {
            world.check(is_refused, || format!("task {id} was refused, but not dropped"));
            None
        }
        Some(handle) => {
            if is_refused {
                world.check(handle.is_finished(), || format!("task {id}: refused, not finished"));
            }
            Some(Joining { handle, record })
        }
    }
}

// ---- Steps ----

async fn steps(world: Arc<World>, spec: Arc<TaskSpec>, record: Arc<Record>) {
    for step in &spec.steps {
        world.operations.fetch_add(1, SeqCst);
        do_step(&world, step, &record).await;
    }
}

async fn do_step(world: &Arc<World>, step: &Step, record: &Arc<Record>) {
    match step {
        Step::Yield => evbase::yield_now().await,
        Step::Sleep { micros } => {
            let mut sleep = time::sleep(Duration::from_micros(*micros));
            sleep_well(world, &mut sleep, Some(record)).await;
        }
        Step::SleepReset { micros, then } => {
            let mut sleep = time::sleep(Duration::from_micros(*micros));
            let _ = futures::poll!(&mut sleep);
            sleep.reset(Instant::now() + Duration::from_micros(*then));
            sleep_well(world, &mut sleep, None).await;
        }
        Step::WaitForWakes { slot, polls } => {
            let mut left = *polls;
            let mut told = false;
            poll_fn(|cx| {
                if !std::mem::replace(&mut told, true) {
                    let (waker, record) = (cx.waker().clone(), record.clone());
                    world.wakers.put(*slot, Waking { waker, record });
                    return Poll::Pending;
                }
                left -= 1;
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        Step::Await(slot) => {
            if let Some(Joining { handle, record }) = world.handles.take(*slot) {
                record.joined(world, handle.await);
            }
        }
        Step::Child { spec, keep } => {
            let child = spawn_local(world, spec, |future| Ok(evbase::spawn_local(future)));
            match child {
                Ok(child) => {
                    let is_refused = child.record.is_refused();
                    world.check(!is_refused, || "a running task could not spawn".into());
                    if let Some(slot) = keep {
                        world.handles.put(*slot, child);
                    }
                }
                Err(kind) => world.wrong(format!("a running task could not spawn: {kind}")),
            }
        }
        Step::Read { pair, bytes, how, then } => {
            if let Some(pair) = world.pairs.get(*pair) {
                read(world, &pair, *bytes, *how, *then).await;
            }
        }
        Step::WriteBack { pair, bytes } => {
            if let Some(pair) = world.pairs.get(*pair) {
                write_back(&pair, *bytes).await;
            }
        }
        Step::GiveSleep { slot, micros } => {
            let mut sleep = time::sleep(Duration::from_micros(*micros));
            let _ = futures::poll!(&mut sleep);
            world.sleeps.put(*slot, sleep);
        }
        Step::AwaitSleep(slot) => {
            if let Some(mut sleep) = world.sleeps.take(*slot) {
                sleep_well(world, &mut sleep, None).await;
            }
        }
        Step::Requested => {
            let waiting = Counted::new(&world.await_request);
            world.shutdown.requested().await;
            drop(waiting);
            world.check(world.is_stopped(), || "`requested` was ready too soon".into());
        }
        Step::Panic => resume_unwind(Box::new(OnPurpose(record.id))),
        Step::Do(op) => perform(world, op, Place::InLoop),
    }
}

/// Sleeps, and sees that it isn't too short; writes down when, if asked to.
async fn sleep_well(world: &World, sleep: &mut Sleep, record: Option<&Record>) {
    let deadline = sleep.deadline();
    poll_fn(|cx| {
        let polled = Pin::new(&mut *sleep).poll(cx);
        match (polled, record) {
            (Poll::Pending, Some(record)) => record.sleeps_until(deadline),
            (Poll::Ready(()), Some(record)) => record.has_slept(world),
            _ => {}
        }
        polled
    })
    .await;
    let now = Instant::now();
    world.check(now >= deadline, || {
        format!("a timer was {:?} early", deadline.duration_since(now))
    });
}

async fn read(world: &World, pair: &Pair, bytes: usize, how: ReadHow, then: Then) {
    let ours = match then {
        Then::Keep => lock(&pair.ours).clone(),
        Then::Drop => lock(&pair.ours).take(),
    };
    let Some(ours) = ours else { return };
    let _reading = Counted::new(&pair.readers);
    ours.get_ref().is_registered.store(true, SeqCst);
    let mut left = bytes;
    while left > 0 {
        let mut buffer = [0; 48];
        let size = left.min(buffer.len());
        let buffer = &mut buffer[..size];
        let result = match how {
            ReadHow::ReadWith => {
                ours.read_with(|mut socket| {
                    let n = socket.read(buffer)?;
                    pair.came(world, &pair.forth, &buffer[..n]);
                    Ok(n)
                })
                .await
            }
            ReadHow::Guard => read_by_guard(world, pair, &ours, buffer).await,
            ReadHow::LateGuard => read_by_late_guard(world, pair, &ours, buffer).await,
            ReadHow::AsyncRead => {
                let mut socket = &*ours;
                let result = socket.read(buffer).await;
                if let Ok(n) = result {
                    pair.came(world, &pair.forth, &buffer[..n]);
                }
                result
            }
        };
        match result {
            Ok(0) => {
                // Whoever closes it does that, and says so, under the lock under which is written.
                let theirs = lock(&pair.theirs);
                let (read, written) = (pair.forth.read.load(SeqCst), pair.forth.written.load(SeqCst));
                world.check(pair.closed.load(SeqCst), || "the end of an open stream".into());
                world.check(read == written, || {
                    format!("{read} bytes were read until the end, but {written} were written")
                });
                drop(theirs);
                break;
            }
            Ok(n) => left -= n,
            // The peer was closed before it had read all.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && pair.closed.load(SeqCst) => break,
            Err(error) => {
                world.wrong(format!("a read: {error}"));
                break;
            }
        }
    }
}

async fn read_by_guard(world: &World, pair: &Pair, ours: &AsyncFd<Socket>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = ours.readable().await?;
        let result = guard.try_io(|ours| {
            let n = ours.get_ref().read(buffer)?;
            pair.came(world, &pair.forth, &buffer[..n]);
            Ok(n)
        });
        match result {
            Ok(result) => return result,
            Err(_) => world.check(pair.touched.load(SeqCst), || {
                "a socket that nobody has touched was ready".into()
            }),
        }
    }
}

/// What comes between a `WouldBlock` and the guard's hearing of it is not forgotten.
async fn read_by_late_guard(
    world: &World,
    pair: &Pair,
    ours: &AsyncFd<Socket>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        let mut guard = ours.readable().await?;
        match ours.get_ref().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                evbase::yield_now().await;
                evbase::yield_now().await;
                guard.clear_ready();
            }
            result => {
                if let Ok(n) = result {
                    pair.came(world, &pair.forth, &buffer[..n]);
                }
                return result;
            }
        }
    }
}

async fn write_back(pair: &Pair, bytes: usize) {
    let Some(ours) = lock(&pair.ours).clone() else { return };
    let _writing = Counted::new(&pair.writers);
    ours.get_ref().is_registered.store(true, SeqCst);
    let mut left = bytes;
    while left > 0 {
        let result = ours
            .write_with(|mut socket| {
                let at = pair.back.written.load(SeqCst);
                let n = socket.write(&pair.bytes(at, left.min(10_000)))?;
                pair.back.written.fetch_add(n as u64, SeqCst);
                Ok(n)
            })
            .await;
        match result {
            Ok(n) => left -= n,
            // Nobody reads it any more.
            Err(_) => break,
        }
    }
}
