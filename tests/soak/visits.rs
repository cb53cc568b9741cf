//! What a thread does to the runtimes of others.

use std::future::pending;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use evbase::io::AsyncFd;
use evbase::time::{sleep, timeout};
use evbase::{JoinError, JoinHandle};
use futures::StreamExt;
use futures::channel::mpsc;

use crate::homes;
use crate::ledger::Door;
use crate::street::{self, ABORTS, AN_HOUR, Count, DOORS, HANDLES, House, SLEEPS, SOCKETS, STRAYS, WAKERS};
use crate::support::Random;
use crate::tasks::{Bell, Homely, address, arm, came_back, clones_wakers, echo, echo_back, message, timers};
use crate::watch::{doing, violation};

/// How a task ended.
enum End<T> {
    Output(T),
    /// Only where somebody aborted it, or the house is not calm.
    Cancelled,
    Panicked,
}

/// Waits for a task of that house, from outside.
fn join<T: Send>(handle: JoinHandle<T>) -> End<T> {
    match handle.wait() {
        Ok(Ok(output)) => End::Output(output),
        Ok(Err(error)) if error.is_cancelled() => End::Cancelled,
        Ok(Err(_)) => End::Panicked,
        Err(error) => violation(&format!("JoinHandle::wait: {error}")),
    }
}

/// The same for a task that nobody has aborted: in a calm house, it must have come to its end.
fn output<T: Send>(house: &House, handle: JoinHandle<T>) -> Option<T> {
    match join(handle) {
        End::Output(output) => Some(output),
        End::Cancelled if !house.calm => None,
        End::Cancelled => violation("a task was cancelled, and nobody has asked for it"),
        End::Panicked => violation("a task panicked that should not"),
    }
}

/// One thing, done to one of the houses. None: there is none.
pub(crate) fn visit(random: &mut Random) -> bool {
    if random.below(8) == 0 {
        with_pots(random);
    }
    let Some(house) = street::any_or_quiet(random) else {
        return false;
    };
    if let Some(quiet) = &house.quiet {
        let Ok(_alone) = quiet.try_lock() else { return true };
        match random.below(5) {
            0 => quick(random, &house),
            1 => not_send(random, &house),
            2 => aborted(random, &house),
            3 => rung(random, &house),
            _ => panics(&house),
        }
        Count::Quiet.add(1);
    } else {
        busy_visit(random, &house);
    }
    if random.below(48) == 0 {
        doing("ends a runtime");
        street::move_out(random, house);
    }
    doing("leaves a house");
    true
}

fn busy_visit(random: &mut Random, house: &Arc<House>) {
    match random.below(14) {
        0 => quick(random, house),
        1 => not_send(random, house),
        2 => aborted(random, house),
        3 => rung(random, house),
        4 => ping_pong(random, house),
        5 => panics(house),
        6 => echo_inside(random, house),
        7 => echo_across(random, house),
        8 => connect(random, house),
        9 => connect_blocking(random, house),
        10 => timed(random, house),
        11 => leave_things(random, house),
        12 => outputs_travel(random, house),
        _ => await_others(random, house),
    }
}

fn quick(random: &mut Random, house: &House) {
    doing("joins quick tasks");
    let handles: Vec<_> = (0..=random.below(8))
        .map(|number| {
            let task = async move {
                clones_wakers().await;
                number
            };
            match number % 2 {
                0 => house.door.try_spawn(task),
                _ => Some(house.door.spawn(task)),
            }
        })
        .collect();
    for (number, handle) in handles.into_iter().enumerate() {
        let Some(handle) = handle else {
            if house.calm {
                violation("a task was refused, and nobody has asked for a stop");
            }
            continue;
        };
        if random.below(4) == 0 {
            drop(handle);
        } else if output(house, handle).is_some_and(|output| output != number as u64) {
            violation("a task gave the output of another one");
        }
    }
}

fn not_send(random: &mut Random, house: &House) {
    doing("joins a task that is not Send");
    let number = random.next();
    let handle = house.door.spawn_with(move || {
        let homely = Homely::new(number);
        async move {
            evbase::yield_now().await;
            homely.value()
        }
    });
    if output(house, handle).is_some_and(|output| output != number) {
        violation("a task gave the output of another one");
    }
}

fn aborted(random: &mut Random, house: &House) {
    doing("joins a task that was aborted");
    let handle = match random.below(3) {
        0 => house.door.spawn(pending::<()>()),
        1 => house.door.spawn_bad(pending::<()>()),
        _ => house.door.spawn_with(|| {
            let homely = Homely::new(0);
            async move {
                pending::<()>().await;
                drop(homely);
            }
        }),
    };
    if random.below(2) == 0 {
        ABORTS.put(handle.abort_handle());
    }
    handle.abort();
    Count::Aborts.add(1);
    match join(handle) {
        End::Output(()) => violation("a task that never ends has ended"),
        End::Cancelled | End::Panicked => {}
    }
}

fn rung(random: &mut Random, house: &House) {
    doing("wakes a task, and joins it");
    let bells: Vec<_> = (0..=random.below(4)).map(|_| Bell::new()).collect();
    let tasks: Vec<_> = bells
        .iter()
        .map(|bell| house.door.spawn(bell.clone().heard()))
        .collect();
    for bell in &bells {
        match random.below(3) {
            // As likely as not, it has not listened yet.
            0 => bell.ring(),
            1 => {
                // Wakes for nothing come first, from wherever.
                if let Some(waker) = bell.waker() {
                    waker.wake_by_ref();
                    WAKERS.put(waker);
                }
                bell.ring();
            }
            _ => {
                let other = bell.clone();
                let abroad = street::any(random);
                match abroad {
                    // By a task of another runtime; if that one doesn't take it, or stops, by this thread.
                    Some(abroad) => drop(abroad.door.spawn(async move { other.ring() })),
                    None => drop(other),
                }
                bell.ring();
            }
        }
    }
    for task in tasks {
        output(house, task);
    }
}

fn ping_pong(random: &mut Random, house: &House) {
    let Some(other) = street::any(random) else { return };
    doing("joins two tasks of two runtimes that wake each other");
    let ((to_a, mut at_a), (to_b, mut at_b)) = (mpsc::unbounded(), mpsc::unbounded());
    let rounds = 1 + random.below(30);
    let a = house.door.spawn(async move {
        for round in 0..rounds {
            if to_b.unbounded_send(round).is_err() {
                break;
            }
            match at_a.next().await {
                Some(answer) if answer != round => violation("an answer to something else"),
                Some(_) => {}
                None => break,
            }
        }
    });
    let b = other.door.spawn(async move {
        while let Some(ball) = at_b.next().await {
            if to_a.unbounded_send(ball).is_err() {
                break;
            }
        }
    });
    // Either ends when the other has gone.
    output(house, a);
    output(&other, b);
}

fn panics(house: &House) {
    doing("joins a task that panics");
    Count::Panics.add(1);
    let panics = |()| -> u64 { panic!("a task, on purpose") };
    match join(house.door.spawn(async move { panics(()) })) {
        End::Panicked => {}
        End::Cancelled if !house.calm => {}
        End::Cancelled => violation("a task was cancelled, and nobody has asked for it"),
        End::Output(_) => violation("a task that panics gave an output"),
    }
}

/// A socket pair for the loop.
fn sockets() -> [AsyncFd<UnixStream>; 2] {
    let (a, b) = UnixStream::pair().expect("a socket pair");
    [a, b].map(|socket| AsyncFd::new(socket).expect("a socket can be polled"))
}

fn echo_inside(random: &mut Random, house: &House) {
    doing("joins an echo within a runtime");
    let [mut near, far] = sockets();
    let server = house.door.spawn(echo_back(far));
    let seed = random.clone();
    random.next();
    let client = house.door.spawn(async move { echo(&mut near, seed).await });
    done(house, house, client);
    done(house, house, server);
}

fn echo_across(random: &mut Random, house: &House) {
    let Some(other) = street::any(random) else { return };
    doing("joins an echo between two runtimes");
    let [mut near, far] = sockets();
    let server = other.door.spawn(echo_back(far));
    let seed = random.clone();
    random.next();
    let client = house.door.spawn(async move { echo(&mut near, seed).await });
    done(house, &other, client);
    done(&other, house, server);
}

/// A task of `house` that talked to one of `other`.
fn done(house: &House, other: &House, handle: JoinHandle<io::Result<()>>) {
    match output(house, handle) {
        Some(Err(error)) if house.calm && other.calm => violation(&format!("an echo: {error}")),
        _ => {}
    }
}

/// From a task of one runtime to the echo server of another one.
fn connect(random: &mut Random, house: &House) {
    let Some(other) = street::any(random) else { return };
    let Some(&port) = other.port.get() else { return };
    doing("joins a task with a TCP connection");
    let seed = random.clone();
    random.next();
    let client = house.door.spawn(async move {
        let mut stream = evbase::net::TcpStream::connect(address(port)).await?;
        reset_at_close(&stream);
        echo(&mut stream, seed).await
    });
    connected(house.calm && other.calm, output(house, client));
}

/// From this thread, without a runtime.
fn connect_blocking(random: &mut Random, house: &House) {
    let Some(&port) = house.port.get() else { return };
    doing("talks over TCP, blocking");
    let message = message(1 + random.below(2000) as usize);
    let talk = || {
        let mut stream = TcpStream::connect(address(port))?;
        reset_at_close(&stream);
        stream.write_all(&message)?;
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer)?;
        came_back(&message, &answer);
        Ok(())
    };
    connected(house.calm, Some(talk()));
}

fn connected(calm: bool, result: Option<io::Result<()>>) {
    match result {
        Some(Ok(())) => Count::Connections.add(1),
        // All are taken by connections that closed within the last minute.
        Some(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => Count::NoPort.add(1),
        Some(Err(error)) if calm => violation(&format!("TCP: {error}")),
        _ => {}
    }
}

/// So that closed connections don't hold their ports for a minute.
fn reset_at_close(stream: &impl AsFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option is ours, and as long as said.
    let result = unsafe {
        libc::setsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER");
}

fn timed(random: &mut Random, house: &House) {
    doing("joins a task with timers");
    let seed = random.clone();
    random.next();
    output(house, house.door.spawn(timers(seed)));
}

/// Things that are there until the runtime closes, or somebody takes them from a pot.
fn leave_things(random: &mut Random, house: &House) {
    doing("leaves things in a house");
    homes::furnish(random, &house.door);
    DOORS.put((house.door.clone(), house.shutdown.clone(), house.calm));
    HANDLES.put(house.door.spawn(async {
        sleep(Duration::from_millis(5)).await;
        7
    }));
    let bell = Bell::new();
    let handle = house.door.spawn(bell.clone().heard());
    ABORTS.put(handle.abort_handle());
    if let Some(waker) = bell.waker() {
        WAKERS.put(waker);
    }
    let [near, far] = sockets();
    house.door.spawn(echo_back(far));
    SOCKETS.put(near);
    let stopped = house.shutdown.requested();
    house.door.spawn(stopped);
}

/// Sockets and timers that were used at home come here as outputs.
fn outputs_travel(random: &mut Random, house: &House) {
    doing("joins tasks that give sockets and timers away");
    let [near, far] = sockets();
    let used = house.door.spawn(async move {
        let wait = timeout(Duration::from_micros(100), near.readable()).await;
        drop(wait);
        near
    });
    if let Some(socket) = output(house, used) {
        // It is registered there: dropped here, it travels home.
        match random.below(3) {
            0 => drop(socket),
            1 => SOCKETS.put(socket),
            _ => match socket.into_inner() {
                Ok(_) => {}
                Err(error) => drop(error.into_inner()),
            },
        }
    }
    drop(far);
    let armed = house.door.spawn(async {
        let mut sleep = sleep(Duration::from_millis(2));
        arm(&mut sleep).await;
        [sleep]
    });
    if let Some([sleep]) = output(house, armed) {
        SLEEPS.put(sleep);
    }
    if let Some(sleep) = SLEEPS.take(random) {
        // It moves here, from wherever it was armed.
        output(house, house.door.spawn(sleep));
    }
}

/// A task of this runtime awaits tasks, and the end, of others. Nobody waits for it.
fn await_others(random: &mut Random, house: &House) {
    doing("lets a task await others");
    if let Some(handle) = HANDLES.take(random) {
        house.door.spawn(async move {
            let output: Result<u64, JoinError> = handle.await;
            if output.is_ok_and(|output| output != 7) {
                violation("a task gave the output of another one");
            }
        });
    }
    if let Some((door, shutdown, _)) = DOORS.take(random) {
        let ends = shutdown.terminated();
        house.door.spawn(async move { door.ledger.saw_end(ends.await) });
    }
}

/// Things that others have left.
fn with_pots(random: &mut Random) {
    doing("takes things out of the pots");
    if let Some(waker) = WAKERS.take(random) {
        match random.below(4) {
            0 => waker.wake(),
            1 => {
                waker.wake_by_ref();
                WAKERS.put(waker.clone());
            }
            2 => drop(waker),
            _ => drop((waker.clone(), waker)),
        }
    }
    if let Some(abort) = ABORTS.take(random) {
        Count::Aborts.add(1);
        abort.abort();
        let _ = abort.is_finished();
    }
    if let Some(handle) = HANDLES.take(random) {
        match random.below(3) {
            0 => handle.abort(),
            1 if handle.is_finished() => match join(handle) {
                End::Output(7) | End::Cancelled => {}
                _ => violation("a task gave the output of another one"),
            },
            _ => HANDLES.put(handle),
        }
    }
    if let Some((door, shutdown, calm)) = DOORS.take(random) {
        // Of a runtime in whatever state.
        leave_in(random, &door);
        match random.below(4) {
            0 if !calm => shutdown.request(),
            1 if !calm => shutdown.request_now(),
            _ => DOORS.put((door, shutdown, calm)),
        }
    }
    if let Some((runtime, door)) = STRAYS.take(random) {
        leave_in(random, &door);
        if random.below(4) == 0 {
            return STRAYS.put((runtime, door));
        }
        Count::ForeignDrops.add(1);
        match random.below(3) {
            0 => drop(runtime),
            1 => drop(runtime.shutdown()),
            _ => match street::any(random) {
                Some(house) => drop(house.door.spawn(async { drop(runtime) })),
                None => drop(runtime),
            },
        }
    }
    if let Some(socket) = SOCKETS.take(random) {
        match street::any(random) {
            // In the wrong loop, or in none yet, or in one that is gone: whatever it answers, it answers.
            Some(house) if random.below(2) == 0 => drop(house.door.spawn(async move {
                let _ = timeout(Duration::from_millis(1), socket.readable()).await;
            })),
            _ => drop(socket),
        }
    }
}

fn leave_in(random: &mut Random, door: &Door) {
    homes::furnish(random, door);
    let keep: Arc<()> = Arc::default();
    drop(door.spawn(async move {
        sleep(AN_HOUR).await;
        drop(keep);
    }));
}
