//! Random operations on an embedded runtime, at home and abroad, beside a model of what they give it to do: the descriptor is
//! readable at once if that is something, and a host that turns only then misses nothing, and is not woken in vain.

use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::time::sleep_until;
use evbase::{Builder, Embedded, JoinHandle, RunError, Runtime, WaitHook, yield_now};

use crate::scenarios::is_readable;
use crate::support::{Random, Worker, readable_within, rounds};

/// What a task waits for.
enum Cause {
    Wake(Arc<Signal>),
    Fd(UnixStream),
    Timer(Instant),
    /// It has been given, or needs none.
    Given,
}

/// Set by whoever wakes the task.
#[derive(Default)]
struct Signal {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    /// Returns whether a task has polled it: then this has woken it.
    fn give(&self) -> bool {
        self.set.store(true, SeqCst);
        let waker = self.waker.lock().unwrap().take();
        waker.map(Waker::wake).is_some()
    }

    async fn given(self: Arc<Self>) {
        poll_fn(|cx| {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            match self.set.load(SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

struct Storm {
    random: Random,
    runtime: Runtime,
    embedded: Vec<Embedded>,
    hooks: Vec<WaitHook>,
    tasks: Vec<(JoinHandle<()>, Cause)>,
    abroad: Worker,
    /// Turns that found nothing to do, and operations that may cause one.
    vain: usize,
    excuses: usize,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let interval = [1, 2, 64][random.below(3) as usize];
        let grace = [Duration::ZERO, Duration::from_millis(1)][random.below(2) as usize];
        let builder = Builder::new().event_interval(interval).grace(grace);
        let runtime = builder.build().unwrap();
        let embedded = vec![runtime.embed().unwrap()];
        let (hooks, tasks, abroad) = (Vec::new(), Vec::new(), Worker::new());
        Self {
            random,
            runtime,
            embedded,
            hooks,
            tasks,
            abroad,
            vain: 0,
            excuses: 0,
        }
    }

    fn is_readable(&self) -> bool {
        is_readable(&self.embedded[0])
    }

    fn some(&mut self, n: usize) -> usize {
        self.random.below(n as u64) as usize
    }

    /// Spawns a task, at home or abroad.
    fn spawn(&mut self) {
        let at_home = self.some(2) == 0;
        let handle_and_cause = match self.some(4) {
            0 => {
                let signal = Arc::new(Signal::default());
                (self.spawn_as(at_home, signal.clone().given()), Cause::Wake(signal))
            }
            1 => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let reads = async move {
                    let fd = AsyncFd::new(ours).unwrap();
                    fd.readable().await.unwrap().clear_ready();
                };
                (self.spawn_as(at_home, reads), Cause::Fd(theirs))
            }
            2 => {
                let deadline = Instant::now() + Duration::from_micros(self.random.below(3000));
                (self.spawn_as(at_home, sleep_until(deadline)), Cause::Timer(deadline))
            }
            _ => (self.spawn_as(at_home, yield_now()), Cause::Given),
        };
        self.tasks.push(handle_and_cause);
        assert!(self.is_readable(), "a task was spawned");
    }

    fn spawn_as(&self, at_home: bool, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match at_home {
            true => self.runtime.spawn_local(future).unwrap(),
            false => {
                let spawner = self.runtime.spawner();
                self.abroad.run(move || spawner.spawn(future))
            }
        }
    }

    /// Gives a task what it waits for.
    fn give(&mut self) {
        let (at, abroad) = (self.some(self.tasks.len().max(1)), self.some(2) == 0);
        let Some((_, cause)) = self.tasks.get_mut(at) else {
            return;
        };
        match std::mem::replace(cause, Cause::Given) {
            Cause::Wake(signal) => {
                let woken = match abroad {
                    true => self.abroad.run(move || signal.give()),
                    false => {
                        let _guard = self.runtime.enter().unwrap();
                        signal.give()
                    }
                };
                assert!(!woken || self.is_readable(), "a task was woken");
            }
            Cause::Fd(mut theirs) => {
                let _ = theirs.write_all(b"x");
                // Closing it would be another event.
                self.tasks[at].1 = Cause::Fd(theirs);
            }
            timer => self.tasks[at].1 = timer,
        }
    }

    fn abort(&mut self) {
        let at = self.some(self.tasks.len().max(1));
        let abroad = self.some(2) == 0;
        let Some((handle, cause)) = self.tasks.get_mut(at) else {
            return;
        };
        if handle.is_finished() {
            return;
        }
        *cause = Cause::Given;
        // Its timer may be the one that the alarm is set for; its descriptor may have an event.
        self.excuses += 1;
        let abort = handle.abort_handle();
        match abroad {
            true => self.abroad.run(move || abort.abort()),
            false => handle.abort(),
        }
        assert!(self.is_readable(), "a task was aborted");
    }

    /// What drives otherwise, and who else is embedded.
    fn disturb(&mut self) {
        match self.some(6) {
            0 => self.runtime.block_on(yield_now()).unwrap(),
            1 => drop(self.runtime.turn(Some(Duration::ZERO)).unwrap()),
            2 => {
                // The first one may go: the descriptor is the same.
                self.embedded.push(self.runtime.embed().unwrap());
                let gone = self.embedded.remove(0);
                self.abroad.run(move || drop(gone));
            }
            3 => {
                let hook = match self.some(2) {
                    0 => self.runtime.before_wait(|wait| wait.at_most(Duration::from_millis(50))),
                    _ => self.runtime.after_wait(|| {}),
                };
                self.hooks.push(hook.unwrap());
                assert!(self.is_readable(), "the hook has to run before the host waits");
            }
            4 => drop(self.hooks.pop()),
            _ => {
                let spawner = self.runtime.spawner();
                let late = async move { drop(spawner.spawn(yield_now())) };
                self.runtime.block_on(late).unwrap();
            }
        }
        // A sleep or a turn that was interrupted so, a bound of a hook that is gone.
        self.excuses += 2;
    }

    /// Turns while the descriptor is readable, and looks whether all is done that can be.
    fn serve(&mut self) {
        let mut turns = 0;
        while self.is_readable() {
            let turn = self.embedded[0].turn().unwrap();
            turns += 1;
            self.vain += usize::from((turn.events, turn.timers, turn.polls) == (0, 0, 0));
            assert!(turns < 2000, "{turn:?} again and again");
        }
        let now = Instant::now();
        let deadline = self.embedded[0].next_deadline().unwrap();
        for (handle, cause) in &self.tasks {
            let is_due = match cause {
                Cause::Given => true,
                // Ten milliseconds for a machine that is busy: the alarm is the kernel's.
                Cause::Timer(at) => *at + Duration::from_millis(10) < now && deadline.is_none_or(|next| next < now),
                Cause::Wake(_) | Cause::Fd(_) => false,
            };
            assert!(handle.is_finished() || !is_due || self.is_readable(), "forgotten");
        }
        self.tasks.retain(|(handle, _)| !handle.is_finished());
    }

    /// Gives everybody what they wait for, and waits for it as a host does.
    fn settle(&mut self) {
        for at in 0..self.tasks.len() {
            match &mut self.tasks[at].1 {
                Cause::Wake(signal) => drop(signal.give()),
                // One that was aborted has no reader.
                Cause::Fd(theirs) => drop(theirs.write_all(b"x")),
                Cause::Timer(_) | Cause::Given => {}
            }
        }
        while self.tasks.iter().any(|(handle, _)| !handle.is_finished()) {
            assert!(
                readable_within(&self.embedded[0], Duration::from_secs(10)),
                "a host that is never woken"
            );
            self.embedded[0].turn().unwrap();
        }
        self.serve();
    }

    /// A stop, in one way or another, and the turns of the host up to the end.
    fn end(mut self) {
        let shutdown = self.runtime.shutdown_handle();
        let terminated = shutdown.terminated();
        match self.some(3) {
            0 => self.abroad.run(move || shutdown.request()),
            1 => shutdown.request_now(),
            _ => {
                let runtime = self.runtime;
                self.abroad.run(move || drop(runtime));
            }
        }
        loop {
            assert!(
                readable_within(&self.embedded[0], Duration::from_secs(10)),
                "a stop that nobody hears"
            );
            if self.embedded[0].turn().unwrap().closed {
                break;
            }
        }
        assert!(matches!(self.embedded[0].turn(), Err(RunError::Stopped)));
        assert!(!is_readable(&self.embedded[0]));
        assert!(self.tasks.iter().all(|(handle, _)| handle.is_finished()));
        terminated.wait().unwrap();
    }
}

#[test]
fn whatever_happens_between_turns_the_descriptor_is_readable_exactly_when_there_is_something_to_do() {
    rounds(500, |round| {
        let mut storm = Storm::new(round as u64);
        for _ in 0..60 {
            match storm.some(12) {
                0..=3 => storm.spawn(),
                4..=6 => storm.give(),
                7 => storm.abort(),
                8 => storm.disturb(),
                _ => storm.serve(),
            }
        }
        if round % 2 == 0 {
            storm.settle();
            let (vain, excuses) = (storm.vain, storm.excuses);
            assert!(
                vain <= excuses + 1,
                "round {round}: {vain} turns in vain, {excuses} excuses"
            );
        }
        storm.end();
    });
}
