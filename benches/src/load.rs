//! The load generator of the echo workloads: a process of its own, the same for all peers. Who starts it has pinned it
//! to the core that the server is not on. It sends 64 bytes on each connection, waits for the answer, and sends the next.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::measure::{budget, want_descriptors};
use crate::peers::raw::{self, Epoll};

const MESSAGE: [u8; 64] = [b'e'; 64];

/// Prints "begin" when everything is warm, and the number of requests answered since then at the end.
pub fn run(port: u16, connections: usize) {
    want_descriptors(connections as u64 + 100).expect("descriptors");
    let streams: Vec<_> = (0..connections)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            stream.set_nodelay(true).expect("nodelay");
            reset_at_close(&stream);
            // One round trip: the server has accepted it, and has done what it does for a first request.
            stream.write_all(&MESSAGE).expect("a request");
            stream.read_exact(&mut [0; MESSAGE.len()]).expect("an answer");
            stream
        })
        .collect();
    let mut epoll = Epoll::new();
    for (i, stream) in streams.iter().enumerate() {
        epoll.add(stream.as_raw_fd(), i);
        send(stream);
    }
    let mut exchange = |time: Duration| {
        let (start, mut answers) = (Instant::now(), 0);
        let mut ready = Vec::new();
        while start.elapsed() < time {
            ready.extend(epoll.wait(None));
            for i in ready.drain(..) {
                let mut answer = [0; MESSAGE.len()];
                let n = raw::read(streams[i].as_raw_fd(), &mut answer);
                assert_eq!(n, MESSAGE.len() as isize, "an answer");
                answers += 1;
                send(&streams[i]);
            }
        }
        answers
    };
    exchange(budget() / 4);
    println!("begin");
    println!("{}", exchange(budget() * 2));
    // Until the server is gone: it shall not see the connections end.
    let _ = std::io::stdin().read(&mut [0]);
}

fn send(stream: &TcpStream) {
    let n = raw::write(stream.as_raw_fd(), &MESSAGE);
    assert_eq!(n, MESSAGE.len() as isize, "a request");
}

/// So that ten thousand closed connections don't hold their ports for a minute.
fn reset_at_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option is ours, and as long as said.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as u32,
        )
    };
    assert_eq!(result, 0, "SO_LINGER");
}
