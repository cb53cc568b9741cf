//! Pairs of UDP sockets, in one loop, that send each other a datagram to and fro.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Instant;

use super::{Cell, one};
use crate::measure::Batches;
use crate::peers::raw::{self, Epoll};
use crate::peers::{Datagram, Datagrams, Evbase, LocalRuntime, LocalSet, Name, Peer};

/// As much as fits into a packet of most networks.
pub(super) const LEN: usize = 1400;
/// Hops in a batch, of all pairs together.
const HOPS: usize = 4096;

pub fn cell(name: Name, pairs: usize) -> Cell {
    let sockets = (0..pairs).map(|_| pair()).collect();
    let ns = match name {
        Name::Evbase => by_tasks::<Evbase>(sockets),
        Name::TokioLocalSet => by_tasks::<LocalSet>(sockets),
        Name::TokioLocalRuntime => by_tasks::<LocalRuntime>(sockets),
        Name::Raw => raw(&sockets),
        name => unreachable!("{} doesn't run this workload", name.text()),
    };
    one("ns", ns)
}

fn pair() -> (UdpSocket, UdpSocket) {
    let bind = || UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (client, server) = (bind(), bind());
    client.connect(server.local_addr().expect("bound")).expect("connects");
    server.connect(client.local_addr().expect("bound")).expect("connects");
    for socket in [&client, &server] {
        socket.set_nonblocking(true).expect("a socket");
    }
    (client, server)
}

fn by_tasks<P: Datagrams>(sockets: Vec<(UdpSocket, UdpSocket)>) -> f64 {
    P::run(|peer| async move {
        let mut clients = Vec::new();
        for (client, server) in sockets {
            let server = peer.udp(server);
            peer.spawn_detached(async move {
                let mut buffer = [0; 2048];
                loop {
                    let n = server.recv(&mut buffer).await;
                    server.send(&buffer[..n]).await;
                }
            });
            clients.push(Rc::new(peer.udp(client)));
        }
        in_batches(&peer, &clients, |client, round_trips| async move {
            let mut buffer = [0; 2048];
            for _ in 0..round_trips {
                client.send(&buffer[..LEN]).await;
                assert_eq!(client.recv(&mut buffer).await, LEN);
            }
        })
        .await
    })
}

/// Runs `work`, which is told how many round trips to make, in a task for each client. The median of the nanoseconds a hop.
pub(super) async fn in_batches<P: Peer, C: Clone, F: Future<Output = ()> + 'static>(
    peer: &P,
    clients: &[C],
    work: impl Fn(C, usize) -> F,
) -> f64 {
    let round_trips = HOPS / 2 / clients.len();
    let mut batches = Batches::new();
    while batches.more() {
        let start = Instant::now();
        let tasks: Vec<_> = (clients.iter().cloned())
            .map(|client| peer.spawn(work(client, round_trips)))
            .collect();
        for task in tasks {
            task.await;
        }
        batches.add(start, HOPS);
    }
    batches.median()
}

/// Also of streams, whose reads and writes of so few bytes are whole ones here.
pub(super) fn raw<S: AsRawFd>(sockets: &[(S, S)]) -> f64 {
    let mut epoll = Epoll::new();
    let mut buffer = [0; 2048];
    for (client, server) in sockets {
        for socket in [client, server] {
            epoll.add(socket.as_raw_fd(), socket.as_raw_fd() as usize);
        }
        assert_eq!(raw::write(client.as_raw_fd(), &buffer[..LEN]), LEN as isize);
    }
    let (mut batches, mut hops, mut ready) = (Batches::new(), 0, Vec::new());
    let mut start = Instant::now();
    while batches.more() {
        ready.extend(epoll.wait(None).map(|token| token as i32));
        for fd in ready.drain(..) {
            assert_eq!(raw::read(fd, &mut buffer), LEN as isize);
            assert_eq!(raw::write(fd, &buffer[..LEN]), LEN as isize);
            hops += 1;
        }
        if hops >= HOPS {
            batches.add(start, hops);
            (start, hops) = (Instant::now(), 0);
        }
    }
    batches.median()
}
