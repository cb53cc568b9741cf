//! Peers that do what peers do: close one side, reset, never read, come in thousands. And sockets that leave their home.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::io::Interest;
use evbase::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use evbase::time::timeout;
use evbase::{Builder, Runtime};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use socket2::SockRef;

use crate::block_on;
use crate::support::{alone, alone_within, limit_descriptors, poll_here, rounds_alone, until, watchdog};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// One end of TCP on the loop, the other a blocking one of the standard library's.
fn tcp() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (TcpStream::from_std(listener.accept().unwrap().0).unwrap(), theirs)
}

fn unix() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

/// The peer sends, closes its writing side, and still reads all that comes.
async fn half_closed<S: AsyncRead + AsyncWrite + Unpin>(mut ours: S, mut theirs: impl Read + Write + AsFd) {
    theirs.write_all(b"last words").unwrap();
    SockRef::from(&theirs).shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    // The end again and again, and no less.
    for _ in 0..3 {
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
    }
    ours.write_all(b"answer").await.unwrap();
    ours.close().await.unwrap();
    let mut answer = String::new();
    theirs.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_peer_that_closes_one_side_still_gets_its_answer() {
    let _watchdog = watchdog();
    block_on(async {
        for _ in 0..100 {
            let (ours, theirs) = tcp();
            half_closed(ours, theirs).await;
            let (ours, theirs) = unix();
            half_closed(ours, theirs).await;
        }
    });
}

#[test]
fn a_reset_wakes_a_reader_and_a_writer_and_is_an_error_of_both() {
    let _watchdog = watchdog();
    block_on(async {
        for round in 0..100 {
            let (ours, theirs) = tcp();
            SockRef::from(&ours).set_send_buffer_size(10_000).unwrap();
            while ours.try_write(&[0; 10_000]).is_ok() {}
            let (mut reader, mut writer) = (&ours, &ours);
            if round % 2 == 0 {
                assert!(poll_here(pin!(reader.read(&mut [0]))).await.is_pending());
                // The kernel may have moved some on meanwhile.
                while poll_here(pin!(writer.write(&[0; 100_000]))).await.is_ready() {}
            }
            // Unread bytes make it a reset anyway; this one says so.
            SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
            let close = async { drop(theirs) };
            let mut byte = [0];
            let (read, written, ()) = futures::join!(
                reader.read(&mut byte),
                async {
                    loop {
                        match writer.write(&[0; 100_000]).await {
                            Ok(_) => evbase::yield_now().await,
                            Err(error) => return error,
                        }
                    }
                },
                close
            );
            // The first of the two gets the reset; the other finds the connection gone.
            let kinds = [read.map_err(|error| error.kind()), Err(written.kind())];
            assert!(kinds.contains(&Err(ErrorKind::ConnectionReset)), "{kinds:?}");
            assert!(matches!(kinds[0], Err(ErrorKind::ConnectionReset) | Ok(0)), "{kinds:?}");
            assert!(
                matches!(kinds[1], Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
                "{kinds:?}"
            );
            // And it stays ended.
            assert_eq!((&ours).read(&mut [0]).await.unwrap(), 0);
            assert_eq!((&ours).write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            (&ours).close().await.unwrap();
        }
    });
}

/// A peer that never reads makes the writer wait, which may be given up; and hinders nobody else.
async fn never_reads<S: AsyncRead + AsyncWrite + Unpin>(mut ours: S, mut theirs: impl Read + Write + AsFd) {
    let mut sent = 0;
    let write = async {
        loop {
            sent += ours.write(&[7; 100_000]).await.unwrap();
        }
    };
    let waited = timeout(Duration::from_millis(20), write).await;
    assert!(waited.is_err(), "the writer waits");
    assert!(sent > 0);
    // The kernel may have moved some on meanwhile.
    while let Poll::Ready(n) = poll_here(pin!(ours.write(&[7]))).await {
        sent += n.unwrap();
    }
    // Other directions and other sockets work.
    theirs.write_all(b"still here").unwrap();
    ours.read_exact(&mut [0; 10]).await.unwrap();
    // When it reads at last, nothing is missing, and there is room again.
    let mut received = 0;
    while received < sent {
        let mut buffer = vec![0; (sent - received).min(1 << 20)];
        let n = theirs.read(&mut buffer).unwrap();
        assert!(n > 0 && buffer[..n].iter().all(|&byte| byte == 7));
        received += n;
    }
    ours.write_all(b"x").await.unwrap();
    theirs.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_peer_that_never_reads_makes_the_writer_wait_and_loses_nothing() {
    let _watchdog = watchdog();
    block_on(async {
        let (ours, theirs) = tcp();
        never_reads(ours, theirs).await;
        let (ours, theirs) = unix();
        never_reads(ours, theirs).await;
    });
}

#[test]
fn a_connection_closed_under_a_waiting_task_ends_its_wait() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for round in 0..300 {
        let (ours, theirs) = unix();
        let reads = runtime.spawner().spawn(async move { (&ours).read(&mut [0]).await });
        if round % 2 == 0 {
            until(|| runtime.metrics().parks > 0);
        }
        drop(theirs);
        assert_eq!(reads.wait().unwrap().unwrap().unwrap(), 0);
    }
}

#[test]
fn ten_thousand_connections_are_open_at_once_and_closed_cleanly() {
    const MANY: usize = 10_000;
    alone_within(Duration::from_secs(120), || {
        if !allow_descriptors(2 * MANY + 100) {
            eprintln!("skipped: this process may not open {} descriptors", 2 * MANY + 100);
            return;
        }
        let runtime = Runtime::new().unwrap();
        let before = crate::support::held();
        runtime
            .block_on(async {
                let listener = TcpListener::bind(ANY_PORT).await.unwrap();
                let address = listener.local_addr().unwrap();
                let mut clients = Vec::new();
                let mut servers = Vec::new();
                while clients.len() < MANY {
                    // No more at a time than may wait to be accepted.
                    let connect = futures::future::join_all((0..100).map(|_| TcpStream::connect(address)));
                    let accept = async {
                        for _ in 0..100 {
                            let (mut stream, _) = listener.accept().await.unwrap();
                            servers.push(evbase::spawn_local(async move {
                                let mut buffer = [0; 8];
                                let mut served = 0;
                                loop {
                                    match stream.read(&mut buffer).await.unwrap() {
                                        0 => return served,
                                        n => stream.write_all(&buffer[..n]).await.unwrap(),
                                    }
                                    served += 1;
                                }
                            }));
                        }
                    };
                    let (connected, ()) = futures::join!(connect, accept);
                    clients.extend(connected.into_iter().map(Result::unwrap));
                }
                for round in 0..2_u64 {
                    for (n, client) in clients.iter().enumerate() {
                        let sent = (n as u64 + round).to_ne_bytes();
                        assert_eq!(client.try_write(&sent).unwrap(), 8);
                    }
                    for (n, mut client) in clients.iter().enumerate() {
                        let mut answer = [0; 8];
                        client.read_exact(&mut answer).await.unwrap();
                        assert_eq!(u64::from_ne_bytes(answer), n as u64 + round);
                    }
                }
                drop(clients);
                let mut served = 0;
                for server in servers {
                    served += server.await.unwrap();
                }
                assert_eq!(served, 2 * MANY);
            })
            .unwrap();
        assert_eq!(crate::support::held(), before, "all are closed");
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.panicked), (MANY as u64, 0));
    });
}

/// Raises the limits of open descriptors, as far as this process may.
fn allow_descriptors(many: usize) -> bool {
    let wanted = libc::rlimit {
        rlim_cur: many as libc::rlim_t,
        rlim_max: many as libc::rlim_t,
    };
    limit_descriptors(many);
    // What it says is what it was before: what the line above has set.
    // SAFETY: reads the local for its length.
    limit_descriptors(many) >= many || unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0
}

// ---- Away from home ----

#[test]
fn sockets_dropped_abroad_are_closed_at_home() {
    // It counts the descriptors of its process.
    alone(dropped_abroad);
}

fn dropped_abroad() {
    let runtime = Builder::new().start("home").unwrap();
    let (spawner, path) = (
        runtime.spawner(),
        std::env::temp_dir().join(format!("evbase-abroad-{}", std::process::id())),
    );
    let before = crate::support::held();
    for _ in 0..100 {
        let at_home = path.clone();
        let sockets = spawner.spawn(async move {
            let tcp = TcpListener::bind(ANY_PORT).await.unwrap();
            assert!(poll_here(pin!(tcp.accept())).await.is_pending());
            let udp = UdpSocket::bind(ANY_PORT).await.unwrap();
            assert!(poll_here(pin!(udp.readable())).await.is_pending());
            let unix = UnixListener::bind(&at_home).unwrap();
            assert!(poll_here(pin!(unix.accept())).await.is_pending());
            let (one, other) = UnixStream::pair().unwrap();
            assert!(poll_here(pin!(one.readable())).await.is_pending());
            let (datagrams, peer) = UnixDatagram::pair().unwrap();
            assert!(poll_here(pin!(datagrams.readable())).await.is_pending());
            (tcp, udp, unix, one, datagrams, other, peer)
        });
        let (tcp, udp, unix, one, datagrams, other, peer) = sockets.wait().unwrap().unwrap();
        let (tcp_address, udp_address) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        drop((tcp, udp, unix, one, datagrams));
        // Home runs what was sent before this.
        spawner.spawn(async {}).wait().unwrap().unwrap();
        assert!(std::net::TcpStream::connect(tcp_address).is_err());
        drop(std::net::UdpSocket::bind(udp_address).unwrap());
        assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
        assert_eq!(other.try_read(&mut [0]).unwrap(), 0);
        assert!(peer.try_send(b"x").is_err());
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(crate::support::held(), before);
}

#[test]
fn sockets_in_a_second_loop_answer_with_an_error_that_names_both_threads() {
    let _watchdog = watchdog();
    let home = Builder::new().start("home").unwrap();
    let sockets = home.spawner().spawn(async {
        let tcp = TcpListener::bind(ANY_PORT).await.unwrap();
        assert!(poll_here(pin!(tcp.accept())).await.is_pending());
        let (stream, peer) = UnixStream::pair().unwrap();
        assert!(poll_here(pin!(stream.readable())).await.is_pending());
        let (datagrams, other) = UnixDatagram::pair().unwrap();
        assert!(poll_here(pin!(datagrams.readable())).await.is_pending());
        (tcp, stream, datagrams, peer, other)
    });
    let (tcp, stream, datagrams, peer, other) = sockets.wait().unwrap().unwrap();
    block_on(async {
        for error in [
            tcp.accept().await.map(drop).unwrap_err(),
            stream.readable().await.unwrap_err(),
            stream.ready(Interest::WRITABLE).await.map(drop).unwrap_err(),
            (&stream).read(&mut [0]).await.map(drop).unwrap_err(),
            (&stream).write(b"x").await.map(drop).unwrap_err(),
            datagrams.recv(&mut [0]).await.map(drop).unwrap_err(),
            datagrams.send(b"x").await.map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            for thread in [home.home().unwrap(), std::thread::current().id()] {
                assert!(text.contains(&format!("{thread:?}")), "{text}");
            }
        }
    });
    // Nothing was sent by that; and at home all works as before.
    assert!(peer.try_read(&mut [0]).is_err() && other.try_recv(&mut [0]).is_err());
    peer.try_write(b"x").unwrap();
    let reads = home
        .spawner()
        .spawn(async move { (&stream).read(&mut [0; 2]).await.unwrap() });
    assert_eq!(reads.wait().unwrap().unwrap(), 1);
}

#[test]
fn a_socket_in_four_threads_outlives_its_task_and_its_loop_and_is_closed() {
    rounds_alone(500, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let (ours, theirs) = unix();
        let ours = Arc::new(ours);
        let at_home = ours.clone();
        let reads = runtime.spawner().spawn(async move {
            let (mut stream, mut buffer) = (&*at_home, [0; 16]);
            while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
        });
        let abort = reads.abort_handle();
        thread::scope(|scope| {
            scope.spawn(|| (0..50).for_each(|_| drop(ours.try_read(&mut [0; 4]))));
            scope.spawn(|| (0..50).for_each(|_| drop(ours.try_write(b"x"))));
            scope.spawn(|| (0..50).for_each(|_| drop((&theirs).write_all(b"abc"))));
            scope.spawn(|| match round % 3 {
                0 => abort.abort(),
                1 => runtime.shutdown_handle().request_now(),
                // It ends by the end of the stream.
                _ => ours.shutdown(Shutdown::Both).unwrap(),
            });
        });
        if round % 3 == 1 {
            runtime.shutdown_handle().terminated().wait().unwrap();
        } else {
            drop(reads.wait().unwrap());
        }
        // Dropped abroad: at home, if that is still there.
        drop(ours);
        let mut received = Vec::new();
        // Unread bytes make the end a reset.
        match (&theirs).read_to_end(&mut received) {
            Ok(_) => assert!(received.len() <= 50),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    });
}

/// Pieces of all sizes arrive whole and in order, whether they are copied together or gathered by the kernel.
async fn send_pieces(mut ours: impl AsyncWrite + Unpin, mut theirs: impl Read) {
    let bytes: Vec<u8> = (0..200_000_u64).map(|n| (n * n / 7) as u8).collect();
    let shapes: [&[usize]; 9] = [
        &[],
        &[0, 0],
        &[1, 0, 2],
        &[1000, 24],
        &[1000, 25],
        &[1025],
        &[0, 1024, 0],
        &[1; 1500],
        &[5000, 1, 40_000],
    ];
    for shape in shapes {
        let mut rest = &bytes[..];
        let pieces: Vec<IoSlice<'_>> = shape
            .iter()
            .map(|&len| IoSlice::new(rest.split_off(..len).unwrap()))
            .collect();
        let n = ours.write_vectored(&pieces).await.unwrap();
        // The kernel takes 1,024 pieces at most.
        assert_eq!(n, shape.iter().take(1024).sum::<usize>(), "{shape:?}");
        let mut received = vec![0; n];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes[..n], "{shape:?}");
    }
}

#[test]
fn pieces_of_all_sizes_arrive_in_order() {
    let _watchdog = watchdog();
    block_on(async {
        let (ours, theirs) = tcp();
        send_pieces(ours, theirs).await;
        let (ours, theirs) = unix();
        send_pieces(ours, theirs).await;
    });
}

static BROKEN_PIPES: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_a_broken_pipe(_: libc::c_int) {
    BROKEN_PIPES.fetch_add(1, Relaxed);
}

/// What writes until it fails.
async fn fail_to_write<S: AsyncWrite + Unpin>(mut ours: S, write: impl Fn(&S) -> std::io::Result<usize>) {
    while ours.write(b"x").await.is_ok() {}
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    for len in [1, 2000] {
        let pieces = [IoSlice::new(b"x"), IoSlice::new(&[0; 2000][..len])];
        let error = ours.write_vectored(&pieces).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
    assert_eq!(write(&ours).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

/// Programs written in Rust ignore SIGPIPE; others, in which a runtime may be a guest, die of it.
#[test]
fn a_write_to_a_broken_connection_is_an_error_and_no_signal() {
    alone(|| {
        // SAFETY: the handler only counts, atomically.
        unsafe { libc::signal(libc::SIGPIPE, count_a_broken_pipe as *const () as libc::sighandler_t) };
        block_on(async {
            let (ours, theirs) = tcp();
            drop(theirs);
            fail_to_write(ours, |ours| ours.try_write_vectored(&[IoSlice::new(b"x")])).await;
            let (ours, theirs) = unix();
            drop(theirs);
            fail_to_write(ours, |ours| ours.try_write(b"x")).await;
        });
        assert_eq!(BROKEN_PIPES.load(Relaxed), 0);
    });
}
