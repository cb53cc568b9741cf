//! A TCP echo server, and one load generator for all: a process of its own, on the other core.

use std::io::{BufRead, BufReader};
use std::mem;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;

use super::{Cell, Numbers, finish};
use crate::measure::{Core, pin, process_cpu, want_descriptors};
use crate::peers::raw::{self, Epoll};
use crate::peers::{Library, Name, Sockets, Stream, with_reactor};

/// The buffer of a connection: of a size that servers use, larger than a request.
const BUFFER: usize = 1024;

pub fn cell(name: Name, connections: usize) -> Cell {
    want_descriptors(connections as u64 + 200)?;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    // std listens with a backlog of 128 on some versions; the connections come all at once.
    // SAFETY: a system call on a listener of ours.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || finish(name, measure(port, connections)));
    match name {
        Name::Raw => raw(listener),
        // SAFETY: a listener, which is not closed as long as the process lives.
        Name::Libevent | Name::Libuv => {
            listener.set_nonblocking(true).expect("a listener");
            unsafe { (Library::of(name).echo)(listener.as_raw_fd()) }
        }
        name => with_reactor!(name, P => P::run(|peer| serve(peer, listener))),
    }
    unreachable!("the server runs until the process ends")
}

/// Starts the load, and takes the CPU time of this process, kernel and all threads included, while it is measured.
#[expect(clippy::zombie_processes, reason = "it ends after this process")]
fn measure(port: u16, connections: usize) -> Cell {
    // The load generator inherits it.
    pin(Core::Counterpart);
    let program = std::env::current_exe().expect("this program");
    let mut load = Command::new(program)
        .args(["--load", &port.to_string(), &connections.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load generator");
    let mut lines = BufReader::new(load.stdout.take().expect("piped")).lines();
    let mut line = || {
        lines
            .next()
            .and_then(Result::ok)
            .ok_or("the load generator ended early")
    };
    assert_eq!(line()?, "begin");
    let start = process_cpu();
    let requests: f64 = line()?.parse().expect("the number of requests");
    let cpu = process_cpu() - start;
    // The load generator keeps its connections until this process ends, so that no peer has to deal with their resets.
    mem::forget(load);
    Ok(Numbers::from([("us", cpu.as_nanos() as f64 / 1e3 / requests)]))
}

async fn serve<P: Sockets>(peer: P, listener: TcpListener) {
    let mut listener = peer.listener(listener);
    loop {
        let stream = peer.accept(&mut listener).await;
        peer.spawn_detached(echo(stream, BUFFER));
    }
}

/// The task of a connection.
pub async fn echo<S: Stream>(mut stream: S, size: usize) {
    let mut buffer = vec![0; size];
    let mut n;
    loop {
        (n, buffer) = stream.read(buffer).await;
        if n == 0 {
            return;
        }
        buffer = stream.write_all(buffer, n).await;
    }
}

fn raw(listener: TcpListener) {
    let listener = listener.as_raw_fd();
    let mut epoll = Epoll::new();
    epoll.add(listener, listener as usize);
    let mut buffers: Vec<Option<Box<[u8; BUFFER]>>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        ready.extend(epoll.wait(None).map(|token| token as i32));
        for fd in ready.drain(..) {
            if fd == listener {
                let connection = raw::accept(listener);
                buffers.resize_with(buffers.len().max(connection as usize + 1), || None);
                buffers[connection as usize] = Some(Box::new([0; BUFFER]));
                epoll.add_edge(connection, connection as usize);
                continue;
            }
            let buffer = buffers[fd as usize].as_mut().expect("a connection");
            let n = raw::read(fd, &mut buffer[..]);
            assert!(n > 0, "the load generator has ended");
            assert_eq!(raw::write(fd, &buffer[..n as usize]), n);
        }
    }
}
