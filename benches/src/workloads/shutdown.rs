//! Another thread ends a runtime that sleeps, with so many tasks asleep in it, and waits until it is gone.

use std::fs;
use std::future::poll_fn;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use evbase::Builder;

use super::Cell;
use crate::measure::{Core, budget, pin, quantile};
use crate::peers::raw::{Epoll, Eventfd};
use crate::peers::{Library, Name, Timers, with_reactor};

/// So long does the other thread spin when home has been seen asleep.
const PAUSE: Duration = Duration::from_micros(50);

const A_MINUTE: Duration = Duration::from_secs(60);
const A_MILLION: usize = 1_000_000;

const AN_HOUR: Duration = Duration::from_secs(3600);

/// How a runtime is ended.
#[derive(Clone, Copy)]
pub enum By {
    /// `Shutdown::request_now`; the peers' own way.
    Request,
    /// A drop of the `Runtime`; evbase only.
    Drop,
}

pub fn cell(name: Name, tasks: usize, by: By) -> Cell {
    pin(Core::Counterpart);
    let rounds = match tasks {
        0..10_000 => 500,
        // Each takes a tenth of a second, and with some peers half a second.
        _ => 20,
    };
    // Quick runs have a tenth of the usual budget.
    let rounds = rounds.min(budget().as_millis() as usize);
    let (mut ends, mut wakes, mut leaked) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    for _ in 0..rounds {
        // Who takes for ever, or leaks, has fewer rounds.
        if began.elapsed() > A_MINUTE || leaked > A_MILLION {
            break;
        }
        let round = Arc::new(Round::default());
        let (start, end) = match name {
            Name::Evbase => evbase(&round, tasks, by),
            name => peer(name, &round, tasks),
        };
        let awake = *round.awake.get().expect("home was awake");
        ends.push((end - start).as_nanos() as f64 / 1e3);
        wakes.push((awake - start).as_nanos() as f64 / 1e3);
        if !matches!(name, Name::Libevent | Name::Libuv) {
            leaked += tasks.saturating_sub(round.dropped.load(SeqCst));
        }
    }
    Ok(vec![
        ("p50", quantile(&mut ends, 0.5)),
        ("p99", quantile(&mut ends, 0.99)),
        ("awake", quantile(&mut wakes, 0.5)),
        ("leaked", leaked as f64),
    ])
}

/// What the two threads of a round share.
#[derive(Default)]
struct Round {
    /// Of home's thread, when everything is spawned.
    tid: AtomicI32,
    stop: AtomicBool,
    stopped: AtomicWaker,
    gone: AtomicBool,
    awake: OnceLock<Instant>,
    dropped: AtomicUsize,
}

impl Round {
    fn is_awake(&self) {
        self.awake.get_or_init(Instant::now);
    }

    /// At home: everything is spawned. What is ready is polled before home sleeps.
    fn is_set_up(&self) {
        // SAFETY: it takes nothing.
        self.tid.store(unsafe { libc::gettid() }, SeqCst);
    }

    /// Abroad: returns when home sleeps in the kernel.
    fn until_asleep(&self) {
        while self.tid.load(SeqCst) == 0 {
            thread::yield_now();
        }
        let stat = format!("/proc/self/task/{}/stat", self.tid.load(SeqCst));
        let sleeps = |line: String| line.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        let mut since = Instant::now();
        while since.elapsed() < PAUSE {
            if !fs::read_to_string(&stat).is_ok_and(sleeps) {
                since = Instant::now();
            }
        }
    }
}

/// What each task holds. In evbase nothing but destructors runs after `request_now`: the first one says that home is awake.
struct Witness(Arc<Round>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.is_awake();
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

fn evbase(round: &Arc<Round>, tasks: usize, by: By) -> (Instant, Instant) {
    let runtime = Builder::new().start("home").expect("a runtime");
    let shared = round.clone();
    runtime.spawner().spawn_with(move || async move {
        pin(Core::Loop);
        spawn(crate::peers::Evbase, tasks, &shared);
        if tasks == 0 {
            // One is needed nevertheless, to tell.
            spawn(crate::peers::Evbase, 1, &shared);
        }
        shared.is_set_up();
    });
    let shutdown = runtime.shutdown_handle();
    let ended = shutdown.terminated();
    round.until_asleep();
    let start = Instant::now();
    match by {
        By::Request => shutdown.request_now(),
        By::Drop => drop(runtime),
    }
    ended.wait().expect("home is another thread");
    (start, Instant::now())
}

fn spawn<P: Timers>(peer: P, tasks: usize, round: &Arc<Round>) {
    for _ in 0..tasks {
        let (sleep, witness) = (peer.sleep(AN_HOUR), Witness(round.clone()));
        peer.spawn_detached(async {
            let _witness = witness;
            sleep.await;
        });
    }
}

/// The others are told by a message to the root, which ends, and are then destroyed at home.
fn peer(name: Name, round: &Arc<Round>, tasks: usize) -> (Instant, Instant) {
    let stop: Box<dyn Fn() + Send> = match name {
        Name::Libevent | Name::Libuv => return in_c(Library::of(name), round, tasks),
        Name::Raw => return raw(round, tasks),
        _ => {
            let round = round.clone();
            Box::new(move || {
                round.stop.store(true, SeqCst);
                round.stopped.wake();
            })
        }
    };
    let home = round.clone();
    ended_by(round, stop, move || {
        with_reactor!(name, P => P::run(|peer| {
            let round = home.clone();
            async move {
                spawn(peer, tasks, &round);
                round.is_set_up();
                poll_fn(|cx| {
                    round.stopped.register(cx.waker());
                    match round.stop.load(SeqCst) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
                round.is_awake();
            }
        }));
    })
}

/// Runs `home` on a thread of its own, which says when it is done, and ends it by `stop` when it sleeps.
fn ended_by(round: &Arc<Round>, stop: impl Fn(), home: impl FnOnce() + Send + 'static) -> (Instant, Instant) {
    let (abroad, shared) = (thread::current(), round.clone());
    let thread = thread::spawn(move || {
        pin(Core::Loop);
        home();
        shared.gone.store(true, SeqCst);
        abroad.unpark();
    });
    round.until_asleep();
    let start = Instant::now();
    stop();
    while !round.gone.load(SeqCst) {
        thread::park();
    }
    let end = Instant::now();
    thread.join().expect("home");
    (start, end)
}

/// The limit: an epoll, an eventfd, and a block of memory to free for each task.
fn raw(round: &Arc<Round>, tasks: usize) -> (Instant, Instant) {
    let (bell, home) = (Arc::new(Eventfd::new()), round.clone());
    let rings = bell.clone();
    ended_by(
        round,
        move || rings.ring(),
        move || {
            let mut epoll = Epoll::new();
            epoll.add_edge(bell.fd(), 0);
            let witness = || black_box(Box::new((Witness(home.clone()), [0_u64; 12])));
            let blocks: Vec<_> = (0..tasks).map(|_| witness()).collect();
            home.is_set_up();
            assert_eq!(epoll.wait(None).count(), 1);
            home.is_awake();
            drop((blocks, epoll));
        },
    )
}

/// libevent: `event_base_loopbreak`, then `event_base_free` at home. libuv: `uv_async_send`, whose callback stops the loop;
/// then every handle is closed, and the loop, at home.
fn in_c(library: &'static Library, round: &Arc<Round>, tasks: usize) -> (Instant, Instant) {
    let us = vec![AN_HOUR.as_micros() as u64; tasks];
    // SAFETY: the array is as long as said. Home alone uses it from now on, but for the call that ends the loop, which
    // may come from any thread, and comes before home has freed it.
    unsafe {
        let ends = (library.ends_new)(us.as_ptr(), tasks as i32) as usize;
        let home = round.clone();
        ended_by(
            round,
            move || (library.ends_stop)(ends as *mut _),
            move || {
                home.is_set_up();
                (library.ends_run)(ends as *mut _);
                home.is_awake();
                (library.ends_free)(ends as *mut _);
            },
        )
    }
}
