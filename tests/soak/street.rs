//! Where the threads meet: runtimes that are driven, and pots of things that anybody may take and do something to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::time::Sleep;
use evbase::{AbortHandle, JoinHandle, Runtime, Shutdown};

use crate::ledger::Door;
use crate::support::Random;
use crate::watch::{self, violation};

/// A runtime that some thread drives.
pub(crate) struct House {
    pub(crate) door: Door,
    pub(crate) shutdown: Shutdown,
    /// Nobody stops it while somebody is in it: what visitors wait for has to come. The others are stopped at any time.
    pub(crate) calm: bool,
    /// For a calm house in which nothing ever happens by itself, no timer and no socket: it takes one visitor at a time, so
    /// that a wake-up of its home that is lost stays lost.
    pub(crate) quiet: Option<Mutex<()>>,
    /// Of its echo server, once there is one.
    pub(crate) port: Arc<OnceLock<u16>>,
    /// The runtime, if its home is a thread that evbase made; else home has it.
    pub(crate) runtime: Mutex<Option<Runtime>>,
}

const HOUSES: usize = 24;

static STREET: [Mutex<Option<Arc<House>>>; HOUSES] = [const { Mutex::new(None) }; HOUSES];

/// If the street is full, one of the houses has to go. Waits for its end, perhaps: not to be called by who is home to
/// another one, where that might be what it waits for.
pub(crate) fn make_room(random: &mut Random) {
    if STREET.iter().all(|slot| slot.lock().unwrap().is_some()) {
        let slot = random.below(HOUSES as u64) as usize;
        let house = STREET[slot].lock().unwrap().take();
        house.into_iter().for_each(|house| retire(random, house));
    }
}

/// Makes a house known, or gives it back if the street is full.
pub(crate) fn move_in(house: Arc<House>) -> Result<(), Arc<House>> {
    for slot in &STREET {
        let mut slot = slot.lock().unwrap();
        if slot.is_none() {
            *slot = Some(house);
            return Ok(());
        }
    }
    Err(house)
}

/// One of the houses that are not quiet.
pub(crate) fn any(random: &mut Random) -> Option<Arc<House>> {
    any_or_quiet(random).filter(|house| house.quiet.is_none())
}

/// One of the houses.
pub(crate) fn any_or_quiet(random: &mut Random) -> Option<Arc<House>> {
    STREET[random.below(HOUSES as u64) as usize].lock().unwrap().clone()
}

/// Makes that house unknown, and sees to its end.
pub(crate) fn move_out(random: &mut Random, house: Arc<House>) {
    for slot in &STREET {
        let mut slot = slot.lock().unwrap();
        if slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, &house)) {
            slot.take();
        }
    }
    retire(random, house);
}

pub(crate) fn all_move_out(random: &mut Random) {
    for slot in &STREET {
        let house = slot.lock().unwrap().take();
        house.into_iter().for_each(|house| retire(random, house));
    }
}

fn retire(random: &mut Random, house: Arc<House>) {
    // A calm house ends when the last visitor leaves it.
    if !house.calm {
        house.stop(random);
    }
}

impl House {
    /// Ends the runtime, in one of many ways.
    pub(crate) fn stop(&self, random: &mut Random) {
        let runtime = self.runtime.lock().unwrap().take();
        match random.below(8) {
            0 | 1 => self.shutdown.request(),
            2 => self.shutdown.request_now(),
            3 => {
                let other = self.shutdown.clone();
                let thread = thread::spawn(move || other.request_now());
                self.shutdown.request();
                thread.join().unwrap();
            }
            // The runtime itself is dropped below.
            _ if runtime.is_some() => {}
            _ => self.shutdown.request(),
        }
        let Some(runtime) = runtime else {
            return self.wait(random);
        };
        Count::ForeignDrops.add(1);
        match random.below(5) {
            0 => drop(runtime),
            1 => match runtime.shutdown().wait() {
                Ok(report) => self.door.ledger.saw_end(report),
                Err(error) => violation(&format!("Runtime::shutdown().wait(): {error}")),
            },
            2 => thread::spawn(|| drop(runtime)).join().unwrap(),
            // In a task of its own.
            3 => drop(self.door.spawn(async {
                evbase::yield_now().await;
                drop(runtime);
            })),
            // In the loop of another one.
            _ => match any(random) {
                Some(other) => drop(other.door.spawn(async { drop(runtime) })),
                None => drop(runtime),
            },
        }
        self.wait(random);
    }

    fn wait(&self, random: &mut Random) {
        if random.below(2) == 0 {
            watch::doing("waits for the end of a runtime");
            match self.shutdown.terminated().wait() {
                Ok(report) => self.door.ledger.saw_end(report),
                Err(error) => violation(&format!("Terminated::wait: {error}")),
            }
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if self.calm {
            self.stop(&mut Random::new(Arc::as_ptr(&self.door.ledger) as u64));
        }
    }
}

/// Things that anybody may put in or take out. The oldest falls out of a full one.
pub(crate) struct Pot<T>(Mutex<VecDeque<T>>);

impl<T> Pot<T> {
    const SIZE: usize = 64;

    pub(crate) const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// What falls out is dropped here, on this thread.
    pub(crate) fn put(&self, thing: T) {
        let mut things = self.0.lock().unwrap();
        things.push_back(thing);
        let too_many = (things.len() > Self::SIZE).then(|| things.pop_front());
        drop(things);
        drop(too_many);
    }

    pub(crate) fn take(&self, random: &mut Random) -> Option<T> {
        let mut things = self.0.lock().unwrap();
        let place = random.below(things.len().max(1) as u64) as usize;
        things.swap_remove_back(place)
    }

    fn clear(&self) {
        let things = std::mem::take(&mut *self.0.lock().unwrap());
        drop(things);
    }
}

/// Runtimes that nobody drives: unbound, or outside of their loop, or of a thread that has exited.
pub(crate) static STRAYS: Pot<(Runtime, Door)> = Pot::new();
pub(crate) static WAKERS: Pot<Waker> = Pot::new();
pub(crate) static HANDLES: Pot<JoinHandle<u64>> = Pot::new();
pub(crate) static ABORTS: Pot<AbortHandle> = Pot::new();
/// The last says whether it is calm: then nobody may stop it by this.
pub(crate) static DOORS: Pot<(Door, Shutdown, bool)> = Pot::new();
pub(crate) static SOCKETS: Pot<AsyncFd<std::os::unix::net::UnixStream>> = Pot::new();
pub(crate) static SLEEPS: Pot<Sleep> = Pot::new();

/// Drops what is in the pots, here.
pub(crate) fn clear_pots() {
    STRAYS.clear();
    WAKERS.clear();
    HANDLES.clear();
    ABORTS.clear();
    DOORS.clear();
    SOCKETS.clear();
    SLEEPS.clear();
}

/// What is counted to show that it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Echoes,
    Bytes,
    Connections,
    Timers,
    Aborts,
    Panics,
    ForeignDrops,
    ThreadsExited,
    Quiet,
    NoPort,
}

impl Count {
    pub(crate) const ALL: [Self; 10] = [
        Self::Echoes,
        Self::Bytes,
        Self::Connections,
        Self::Timers,
        Self::Aborts,
        Self::Panics,
        Self::ForeignDrops,
        Self::ThreadsExited,
        Self::Quiet,
        Self::NoPort,
    ];

    fn cell(self) -> &'static AtomicU64 {
        static COUNTS: [AtomicU64; Count::ALL.len()] = [const { AtomicU64::new(0) }; Count::ALL.len()];
        &COUNTS[self as usize]
    }

    pub(crate) fn add(self, number: u64) {
        self.cell().fetch_add(number, Relaxed);
    }

    pub(crate) fn get(self) -> u64 {
        self.cell().load(Relaxed)
    }
}

/// Long enough for everything that a visit leaves behind.
pub(crate) const AN_HOUR: Duration = Duration::from_secs(3600);
