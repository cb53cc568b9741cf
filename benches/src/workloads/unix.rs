//! Pairs of Unix stream sockets, in one loop, that send each other bytes to and fro.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::udp::{LEN, in_batches, raw};
use super::{Cell, one};
use crate::peers::{Name, Sockets, Stream, with_reactor};

/// Room for more than is sent, so that a short read tells that nothing is left.
const ROOM: usize = 2048;

pub fn cell(name: Name, pairs: usize) -> Cell {
    let sockets: Vec<_> = (0..pairs).map(|_| UnixStream::pair().expect("a pair")).collect();
    let set_nonblocking = || {
        for socket in sockets.iter().flat_map(|(client, server)| [client, server]) {
            socket.set_nonblocking(true).expect("a socket");
        }
    };
    let ns = match name {
        Name::Raw => {
            set_nonblocking();
            raw(&sockets)
        }
        name => with_reactor!(name, P => {
            if <P as Sockets>::NONBLOCKING {
                set_nonblocking();
            }
            P::run(|peer| in_tasks(peer, sockets))
        }),
    };
    one("ns", ns)
}

async fn in_tasks<P: Sockets>(peer: P, sockets: Vec<(UnixStream, UnixStream)>) -> f64 {
    let mut clients = Vec::new();
    for (client, server) in sockets {
        let mut server = peer.unix(server);
        peer.spawn_detached(async move {
            let mut buffer = vec![0; ROOM];
            loop {
                let (n, read) = server.read(buffer).await;
                if n == 0 {
                    return;
                }
                buffer = server.write_all(read, n).await;
            }
        });
        // Each batch's task takes it, and gives it back.
        clients.push(Rc::new(RefCell::new(Some((peer.unix(client), vec![0; ROOM])))));
    }
    in_batches(&peer, &clients, |place, round_trips| async move {
        let (mut client, mut buffer) = place.take().expect("a client");
        for _ in 0..round_trips {
            buffer = client.write_all(buffer, LEN).await;
            let mut received = 0;
            while received < LEN {
                let n;
                (n, buffer) = client.read(buffer).await;
                received += n;
            }
        }
        place.replace(Some((client, buffer)));
    })
    .await
}
