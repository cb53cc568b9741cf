//! Memory of what waits.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::echo::echo;
use super::waits::Waits;
use super::{Cell, one};
use crate::measure::want_descriptors;
use crate::memory;
use crate::peers::{Library, Name, Peer, Sockets, Timers, with_reactor, with_tasks};

/// Well between two powers of two: tables that double have room to spare, as they have on average.
const TASKS: usize = 12_000;
const CONNECTIONS: usize = 3_000;
const BUFFER: usize = 64;

pub fn task(name: Name) -> Cell {
    memory::start();
    one("bytes", with_tasks!(name, P => P::run(tasks)))
}

async fn tasks<P: Peer>(peer: P) -> f64 {
    let before = memory::live();
    for _ in 0..TASKS {
        peer.spawn_detached(Waits::new());
    }
    Waits::all_polled().await;
    each(before, TASKS)
}

pub fn sleeper(name: Name) -> Cell {
    memory::start();
    let bytes = match name {
        Name::Libevent | Name::Libuv => {
            let library = Library::of(name);
            library.count_memory();
            let hours = vec![3_600_000_000; TASKS];
            let before = memory::live();
            // SAFETY: the array is as long as said.
            unsafe { (library.timers_new)(hours.as_ptr(), TASKS as i32) };
            each(before, TASKS)
        }
        name => with_reactor!(name, P => P::run(sleepers)),
    };
    one("bytes", bytes)
}

async fn sleepers<P: Timers>(peer: P) -> f64 {
    let before = memory::live();
    for _ in 0..TASKS {
        let sleeper = peer.clone();
        peer.spawn_detached(async move {
            sleeper.sleep(Duration::from_secs(3600)).await;
        });
    }
    settle(&peer).await;
    each(before, TASKS)
}

pub fn connection(name: Name) -> Cell {
    want_descriptors(2 * CONNECTIONS as u64 + 100)?;
    memory::start();
    one("bytes", with_reactor!(name, P => P::run(connections)))
}

async fn connections<P: Sockets>(peer: P) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("bound");
    let mut listener = peer.listener(listener);
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let before = memory::live();
    for _ in 0..CONNECTIONS {
        // The kernel completes it; a stream of std's is a descriptor, without memory of ours.
        clients.push(TcpStream::connect(address).expect("connect"));
        let stream = peer.accept(&mut listener).await;
        peer.spawn_detached(echo(stream, BUFFER));
    }
    settle(&peer).await;
    each(before, CONNECTIONS)
}

/// By then, all tasks have been polled, and wait.
async fn settle(peer: &impl Timers) {
    peer.sleep(Duration::from_millis(100)).await;
}

fn each(before: usize, number: usize) -> f64 {
    (memory::live() as f64 - before as f64) / number as f64
}
