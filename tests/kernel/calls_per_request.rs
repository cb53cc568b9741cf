//! What a request costs in system calls once its connection is there: one read, one write, and a share of a wait. No read
//! that only says EAGAIN, no `epoll_ctl`, no write interest before a write has blocked, nothing for the notify descriptor.
//! Counted by `strace`, in a process of the test's own; skipped where there is none.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use evbase::io::{AsyncFd, Ready};
use evbase::net::TcpListener;
use evbase::{Builder, Runtime};
use futures::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Trace, mark, parked, tid_of, traced, until_parked};

const REQUESTS: usize = 20;

/// The calls at home by kind: reads, writes, waits, and all others.
fn assert_one_read_and_write_a_request(trace: &Trace, requests: usize) {
    let calls = trace.calls_at_home();
    let is = |names: &[&str]| {
        let starts = |line: &str, name: &&str| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|call| call.starts_with(name))
        };
        calls
            .iter()
            .filter(|line| names.iter().any(|name| starts(line, name)))
            .count()
    };
    let resumed = is(&["<..."]);
    let reads = is(&["read(", "readv(", "recvfrom(", "recvmsg("]);
    let writes = is(&["write(", "writev(", "sendto(", "sendmsg("]);
    let waits = is(&["epoll_"]) - is(&["epoll_ctl("]);
    assert_eq!((reads, writes), (requests, requests), "{calls:#?}");
    assert!(waits <= requests, "{waits} {calls:#?}");
    assert_eq!(calls.len(), reads + writes + waits + resumed, "{calls:#?}");
    assert!(!calls.iter().any(|line| line.contains("EAGAIN")), "{calls:#?}");
}

/// Sends the requests and takes the answers, one at a time, between two marks.
fn ask_and_take(runtime: &Runtime, mut asks: impl Write, mut answers: impl Read) {
    let tid = tid_of(runtime);
    let mut ask = || {
        asks.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        answers.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        until_parked(tid);
    };
    // The connection is there, and has been waited for.
    ask();
    mark(tid);
    (0..REQUESTS).for_each(|_| ask());
    mark(tid);
}

#[test]
fn a_request_by_tcp_costs_one_read_and_one_write() {
    assert_a_request_costs_one_read_and_one_write(|| TcpListener::bind("127.0.0.1:0"));
}

#[test]
fn so_it_does_by_a_listener_that_the_standard_library_has_made() {
    assert_a_request_costs_one_read_and_one_write(|| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
}

fn assert_a_request_costs_one_read_and_one_write<F>(listener: impl FnOnce() -> F)
where
    F: Future<Output = io::Result<TcpListener>> + Send + 'static,
{
    let trace = traced("all", || {
        let runtime = parked(Builder::new());
        let listener = runtime.spawner().spawn(listener()).wait().unwrap().unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        drop(runtime.spawner().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 64];
            loop {
                let n = stream.read(&mut buffer).await.unwrap();
                if n == 0 {
                    return;
                }
                stream.write_all(&buffer[..n]).await.unwrap();
            }
        }));
        let client = std::net::TcpStream::connect(address).unwrap();
        client.set_nodelay(true).unwrap();
        ask_and_take(&runtime, &client, &client);
    });
    if let Some(trace) = trace {
        assert_one_read_and_write_a_request(&trace, REQUESTS);
    }
}

#[test]
fn who_knows_that_a_read_took_all_says_so_and_pays_one_read_and_one_write_a_hop() {
    const HOPS: usize = 5;
    let trace = traced("all", || {
        let runtime = parked(Builder::new());
        let (first, mut from) = UnixStream::pair().unwrap();
        for _ in 0..HOPS {
            let (to, next) = UnixStream::pair().unwrap();
            let (source, sink) = (AsyncFd::new(from).unwrap(), AsyncFd::new(to).unwrap());
            drop(runtime.spawner().spawn(async move {
                let mut buffer = [0; 64];
                loop {
                    let mut guard = source.readable().await.unwrap();
                    let n = match source.get_ref().read(&mut buffer) {
                        Ok(0) => return,
                        Ok(n) => n,
                        Err(error) => panic!("{error}"),
                    };
                    // Shorter than asked for, by a stream: that was all.
                    guard.clear_ready_matching(Ready::READABLE);
                    (&sink).write_all(&buffer[..n]).await.unwrap();
                }
            }));
            from = next;
        }
        ask_and_take(&runtime, first, from);
    });
    if let Some(trace) = trace {
        assert_one_read_and_write_a_request(&trace, REQUESTS * HOPS);
    }
}
