//! The ways in which a thread is home to a runtime.

use std::cell::RefCell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use evbase::time::sleep;
use evbase::{Builder, RunError, Runtime};

use crate::ledger::Door;
use crate::street::{self, AN_HOUR, Count, DOORS, House, STRAYS};
use crate::support::Random;
use crate::tasks::{Homely, clones_wakers, listen, timers};
use crate::watch::{self, doing, violation};

fn builder(random: &mut Random) -> Builder {
    let builder = match random.below(4) {
        0 => Builder::new().event_interval(1 + random.below(8) as u32),
        _ => Builder::new(),
    };
    match random.below(4) {
        0 => builder.grace(Duration::from_micros(random.below(3000))),
        _ => builder,
    }
}

fn new_runtime(random: &mut Random) -> (Runtime, Door) {
    let runtime = builder(random).build().expect("a runtime");
    let door = Door::new(runtime.spawner(), runtime.shutdown_handle());
    (runtime, door)
}

fn house(
    random: &mut Random,
    door: Door,
    shutdown: evbase::Shutdown,
    runtime: Option<Runtime>,
    may_be_quiet: bool,
) -> Arc<House> {
    let port = Arc::new(OnceLock::new());
    let quiet = may_be_quiet && random.below(3) == 0;
    if !quiet {
        let (tell, server) = (port.clone(), door.clone());
        door.spawn(listen(server, move |port| tell.set(port).expect("one listener")));
    }
    Arc::new(House {
        door,
        shutdown,
        calm: quiet || random.below(2) == 0,
        quiet: quiet.then(Mutex::default),
        port,
        runtime: Mutex::new(runtime),
    })
}

/// Makes a runtime with a thread of its own.
pub(crate) fn start(random: &mut Random) {
    doing("makes room");
    street::make_room(random);
    doing("starts a runtime with a thread");
    let runtime = builder(random).start("home").expect("a runtime");
    let door = Door::new(runtime.spawner(), runtime.shutdown_handle());
    let shutdown = runtime.shutdown_handle();
    let house = house(random, door, shutdown, Some(runtime), true);
    // Dropped here, the runtime included, if there is no room.
    drop(street::move_in(house));
}

/// Is home until somebody else says stop, or this thread has enough of it.
pub(crate) fn drive(random: &mut Random) {
    doing("makes room");
    street::make_room(random);
    doing("makes a runtime");
    let (runtime, door) = new_runtime(random);
    // Binds: those who wait for a task of a runtime that has no home get an error.
    drop(runtime.enter().expect("nobody else has it yet"));
    let way = random.below(3);
    let house = house(random, door.clone(), runtime.shutdown_handle(), None, way == 0);
    let calm = house.calm;
    // From here on, only visitors have the house. Nobody would end it if there were no room.
    if street::move_in(house).is_err() {
        return;
    }
    match way {
        0 => doing("runs"),
        1 => {
            while block_on(random, &runtime, &door) {
                if !calm && random.below(64) == 0 {
                    doing("drops its runtime outside the loop");
                    return drop(runtime);
                }
            }
        }
        _ => {
            doing("turns");
            while turn(random, &runtime) {
                if !calm && random.below(512) == 0 {
                    doing("ends its runtime between two turns");
                    match runtime.shutdown().wait() {
                        Ok(report) => door.ledger.saw_end(report),
                        Err(error) => violation(&format!("wait at home: {error}")),
                    }
                    return;
                }
                doing("turns");
            }
        }
    }
    match runtime.run() {
        Ok(report) => door.ledger.saw_end(report),
        Err(error) => violation(&format!("run: {error}")),
    }
    if random.below(2) == 0 {
        return STRAYS.put((runtime, door));
    }
    drop(runtime);
}

/// False: the runtime was stopped.
fn block_on(random: &mut Random, runtime: &Runtime, door: &Door) -> bool {
    doing("is in block_on");
    if random.below(16) == 0 {
        let root = async { panic!("a root, on purpose") };
        return match catch_unwind(AssertUnwindSafe(|| runtime.block_on(root))) {
            Err(_) => true,
            Ok(Ok(())) => violation("a root that panics gave an output"),
            Ok(Err(error)) => is_running::<()>(Err(error)),
        };
    }
    if random.below(4) == 0 {
        return join_at_home(random, door);
    }
    is_running(runtime.block_on(home_life(random.clone(), door)))
}

/// Waits for a task outside the loop, which drives the loop meanwhile.
fn join_at_home(random: &mut Random, door: &Door) -> bool {
    doing("joins a task at home");
    let seed = random.clone();
    random.next();
    match door.spawn(timers(seed)).wait() {
        Ok(Ok(())) => true,
        // It was refused, or dropped at the end.
        Ok(Err(error)) if error.is_cancelled() => false,
        Ok(Err(_)) => violation("a task panicked that should not"),
        Err(error) => violation(&format!("JoinHandle::wait at home: {error}")),
    }
}

fn turn(random: &mut Random, runtime: &Runtime) -> bool {
    let timeout = Duration::from_micros(random.below(2000));
    is_running(runtime.turn(Some(timeout)).map(|turn| turn.closed)) && !runtime.shutdown_handle().is_requested()
}

fn is_running<T>(result: Result<T, RunError>) -> bool {
    match result {
        Ok(_) => true,
        Err(RunError::Stopped) => false,
        Err(error) => violation(&format!("a loop: {error}")),
    }
}

/// What a root does: local tasks, timers, a yield.
async fn home_life(mut random: Random, door: &Door) {
    let mut handles = Vec::new();
    for number in 0..random.below(8) {
        let homely = Homely::new(number);
        let child = random.clone();
        handles.push(door.spawn_local(async move {
            clones_wakers().await;
            if number % 3 == 0 {
                timers(child).await;
            }
            homely.value()
        }));
        random.next();
    }
    for (number, handle) in handles.into_iter().enumerate() {
        match handle.await {
            Ok(output) if output != number as u64 => violation("a task gave the output of another one"),
            Ok(_) => {}
            Err(error) if error.is_panic() => violation("a task panicked that should not"),
            Err(_) => {}
        }
    }
    evbase::yield_now().await;
    sleep(Duration::from_micros(random.below(1000))).await;
}

/// A few tasks in a runtime that hardly anybody drives.
pub(crate) fn furnish(random: &mut Random, door: &Door) {
    for _ in 0..random.below(4) {
        match random.below(4) {
            0 => drop(door.spawn(pending::<()>())),
            1 => drop(door.spawn(async { sleep(AN_HOUR).await })),
            2 => drop(door.spawn_bad(pending::<()>())),
            _ => drop(door.spawn_with(|| {
                let homely = Homely::new(1);
                async move {
                    pending::<()>().await;
                    homely.value()
                }
            })),
        }
    }
}

/// Makes a runtime, binds it or not, and leaves it to whoever takes it.
pub(crate) fn stray(random: &mut Random) {
    doing("leaves a runtime to the others");
    let (runtime, door) = new_runtime(random);
    furnish(random, &door);
    if random.below(3) > 0 {
        // This thread is home, outside the loop.
        for _ in 0..random.below(4) {
            turn(random, &runtime);
        }
        let context = runtime.enter().expect("nobody else has it yet");
        drop(door.spawn_local(pending::<()>()));
        drop(context);
    }
    if random.below(4) == 0 {
        runtime.shutdown_handle().request();
    }
    STRAYS.put((runtime, door));
}

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// A thread that is home, and exits: with its runtime in a thread-local, or while others have it.
pub(crate) fn exit_at_home(random: &mut Random) {
    doing("waits for a thread that exits at home");
    let (seat, mut child) = (watch::seat(), random.clone());
    random.next();
    let thread = thread::Builder::new().name("exits".into()).spawn(move || {
        watch::sit(seat);
        let random = &mut child;
        // Sometimes the thread-local is older than the runtime's own, and so is destroyed later.
        if random.below(2) == 0 {
            RUNTIME.with(|runtime| drop(runtime.borrow_mut()));
        }
        let (runtime, door) = new_runtime(random);
        // Binds: if somebody asks it to stop before, whoever waits for its end is home.
        drop(runtime.enter().expect("nobody else has it yet"));
        DOORS.put((door.clone(), runtime.shutdown_handle(), false));
        furnish(random, &door);
        for _ in 0..=random.below(4) {
            turn(random, &runtime);
        }
        if let Ok(context) = runtime.enter() {
            drop(door.spawn_local(pending::<()>()));
            drop(context);
        }
        match random.below(3) {
            0 => STRAYS.put((runtime, door)),
            _ => RUNTIME.set(Some(runtime)),
        }
    });
    thread.unwrap().join().unwrap();
    Count::ThreadsExited.add(1);
}

/// Closes what this thread is still home to, and others have dropped.
pub(crate) fn sweep() {
    drop(Runtime::new().expect("a runtime"));
}
