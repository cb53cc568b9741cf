//! TCP over the loop: connections are made, refused, split, shut down and closed as a user of sockets expects; and no
//! short read ever hides what came behind it.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use evbase::io::Interest;
use evbase::net::{TcpListener, TcpStream};
use evbase::time::timeout;
use evbase::{Builder, Runtime};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};

use crate::block_on;
use crate::support::{Random, alone, poll_here, until, watchdog};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (client, accepted) = futures::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (server, peer) = accepted.unwrap();
    let client = client.unwrap();
    assert_eq!(client.local_addr().unwrap(), peer);
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    (client, server)
}

/// One end on the loop, the other a blocking one of the standard library's.
fn with_std() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (TcpStream::from_std(ours).unwrap(), theirs)
}

fn send_urgent(socket: &std::net::TcpStream, byte: u8) {
    // SAFETY: the byte outlives the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// How many bytes have come and were not read.
fn unread(socket: &impl AsRawFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut count) };
    assert_eq!(result, 0);
    count as usize
}

// ---- Connections ----

#[test]
fn what_is_sent_comes_back() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        let echo = evbase::spawn_local(async move {
            let mut buffer = [0; 1000];
            loop {
                match server.read(&mut buffer).await.unwrap() {
                    0 => return server.close().await.unwrap(),
                    n => server.write_all(&buffer[..n]).await.unwrap(),
                }
            }
        });
        for size in [1, 999, 1000, 1001, 20_000] {
            let sent: Vec<u8> = (0..size).map(|n| n as u8).collect();
            client.write_all(&sent).await.unwrap();
            let mut received = vec![0; size];
            client.read_exact(&mut received).await.unwrap();
            assert!(sent == received);
        }
        client.close().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        echo.await.unwrap();
    });
}

#[test]
fn megabytes_go_both_ways_at_once_through_borrowed_halves() {
    let _watchdog = watchdog();
    const TOTAL: usize = 8 << 20;
    async fn exchange(mut stream: TcpStream, seed: u64) -> (u64, u64) {
        // Not `stream.split()`: with `AsyncReadExt` in scope, that is the one of futures.
        let (mut reader, mut writer) = TcpStream::split(&mut stream);
        let write = async {
            let (mut random, mut sum, mut sent) = (Random::new(seed), 0_u64, 0);
            let mut bytes = vec![0; 100_000];
            while sent < TOTAL {
                let len = (1 + random.below(100_000) as usize).min(TOTAL - sent);
                bytes[..len].iter_mut().for_each(|byte| *byte = random.next() as u8);
                writer.write_all(&bytes[..len]).await.unwrap();
                sum = bytes[..len]
                    .iter()
                    .fold(sum, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte));
                sent += len;
            }
            writer.close().await.unwrap();
            sum
        };
        let read = async {
            let (mut random, mut sum, mut received) = (Random::new(seed + 1), 0_u64, 0);
            let mut buffer = vec![0; 64_000];
            loop {
                let most = 1 + random.below(64_000) as usize;
                let n = reader.read(&mut buffer[..most]).await.unwrap();
                if n == 0 {
                    assert_eq!(received, TOTAL);
                    return sum;
                }
                sum = buffer[..n]
                    .iter()
                    .fold(sum, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte));
                received += n;
            }
        };
        futures::join!(write, read)
    }
    block_on(async {
        let (client, server) = connected().await;
        let (client, server) = futures::join!(exchange(client, 1), exchange(server, 10));
        assert_eq!((client.0, client.1), (server.1, server.0));
    });
}

#[test]
fn two_runtimes_talk_to_each_other() {
    let _watchdog = watchdog();
    let server = Builder::new().start("server").unwrap();
    let address = server
        .spawner()
        .spawn(async {
            let listener = TcpListener::bind(ANY_PORT).await.unwrap();
            let address = listener.local_addr().unwrap();
            drop(evbase::Spawner::current().spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    drop(evbase::spawn_local(async move {
                        let mut line = [0; 4];
                        while stream.read_exact(&mut line).await.is_ok() {
                            stream.write_all(&line).await.unwrap();
                        }
                    }));
                }
            }));
            address
        })
        .wait()
        .unwrap()
        .unwrap();
    block_on(async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for n in 0..500_u32 {
            stream.write_all(&n.to_ne_bytes()).await.unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(u32::from_ne_bytes(answer), n);
        }
    });
    server.shutdown().wait().unwrap();
}

#[test]
fn a_connection_that_is_refused_is_an_error() {
    let _watchdog = watchdog();
    let free = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    block_on(async {
        for _ in 0..20 {
            let error = TcpStream::connect(free).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn a_connection_to_nobody_can_be_given_up() {
    let _watchdog = watchdog();
    block_on(async {
        // An address for documentation (RFC 5737): nobody answers, or there is no way there.
        let attempt = timeout(Duration::from_millis(50), TcpStream::connect("192.0.2.1:9")).await;
        assert!(!matches!(attempt, Ok(Ok(_))), "somebody is there");
        // Dropped after its first poll.
        assert!(!matches!(
            poll_here(pin!(TcpStream::connect("192.0.2.1:9"))).await,
            std::task::Poll::Ready(Ok(_))
        ));
        let error = TcpStream::connect(&[][..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_connection_that_nobody_accepts_is_made_by_the_kernel_and_closed_with_the_listener() {
    let _watchdog = watchdog();
    block_on(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(listener);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn names_are_looked_up_and_the_addresses_tried_in_turn() {
    let _watchdog = watchdog();
    block_on(async {
        let listener = TcpListener::bind(("localhost", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(TcpStream::connect(format!("localhost:{port}")).await.unwrap());
        drop(TcpStream::connect(format!("localhost:{port}").as_str()).await.unwrap());
        drop(TcpStream::connect(("localhost", port)).await.unwrap());
        drop(TcpStream::connect(("localhost".to_owned(), port)).await.unwrap());
        let here = listener.local_addr().unwrap();
        drop(TcpStream::connect((here.ip(), port)).await.unwrap());
        drop(TcpStream::connect((here.ip().to_string(), port)).await.unwrap());
        drop(TcpStream::connect(here.to_string()).await.unwrap());
        // The first one refuses.
        let refuses = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
        let stream = TcpStream::connect(&[refuses, here][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
    });
}

#[test]
fn bad_texts_and_unknown_names_are_errors_that_name_them() {
    let _watchdog = watchdog();
    block_on(async {
        for text in [
            "",
            "no port",
            "localhost:",
            "localhost:99999",
            ":80",
            "127.0.0.1",
            "localhost:http",
        ] {
            let error = TcpStream::connect(text).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
            assert!(TcpListener::bind(text).await.is_err());
        }
        // RFC 2606: there is no such name.
        let error = TcpStream::connect("nobody.invalid:80").await.unwrap_err();
        assert!(error.to_string().contains("nobody.invalid"), "{error}");
    });
}

#[test]
fn binding_a_port_that_is_taken_is_an_error() {
    let _watchdog = watchdog();
    block_on(async {
        let first = TcpListener::bind(ANY_PORT).await.unwrap();
        let error = TcpListener::bind(first.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let port = first.local_addr().unwrap().port();
        drop(first);
        // And free again at once.
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    });
}

#[test]
fn five_hundred_connections_are_served_at_once() {
    let _watchdog = watchdog();
    const MANY: usize = 500;
    alone(|| {
        crate::support::limit_descriptors(4096);
        let runtime = Runtime::new().unwrap();
        runtime
            .block_on(async {
                let listener = TcpListener::bind(ANY_PORT).await.unwrap();
                let address = listener.local_addr().unwrap();
                let serve = async {
                    let mut tasks = Vec::new();
                    for _ in 0..MANY {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        tasks.push(evbase::spawn_local(async move {
                            let mut line = [0; 8];
                            stream.read_exact(&mut line).await.unwrap();
                            stream.write_all(&line).await.unwrap();
                            assert_eq!(stream.read(&mut line).await.unwrap(), 0);
                        }));
                    }
                    for task in tasks {
                        task.await.unwrap();
                    }
                };
                let clients = futures::future::join_all((0..MANY as u64).map(|n| async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.write_all(&n.to_ne_bytes()).await.unwrap();
                    let mut answer = [0; 8];
                    stream.read_exact(&mut answer).await.unwrap();
                    assert_eq!(u64::from_ne_bytes(answer), n);
                    stream
                }));
                // All clients stay until the last one has its answer.
                let close = async { drop(clients.await) };
                futures::join!(serve, close);
            })
            .unwrap();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.panicked), (MANY as u64, 0));
    });
}

#[test]
fn too_many_open_files_leave_the_listener_usable() {
    alone(|| {
        block_on(async {
            let listener = TcpListener::bind(ANY_PORT).await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            let (first, _) = listener.accept().await.unwrap();
            // Some numbers are left, and those below the highest one may have holes.
            crate::support::limit_descriptors(5 + *crate::support::open_descriptors().last().unwrap() as usize);
            let mut fill = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                fill.push(file);
            }
            assert!(!fill.is_empty());
            for _ in 0..10 {
                let error = listener.accept().await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
            }
            // The loop goes on meanwhile.
            evbase::time::sleep(Duration::from_millis(1)).await;
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            second.write_all(b"2").await.unwrap();
            assert!(listener.accept().await.is_err());
            drop(fill);
            let (mut third, _) = listener.accept().await.unwrap();
            third.write_all(b"3").await.unwrap();
            for (client, answer) in clients[1..].iter_mut().zip(*b"23") {
                let mut buffer = [0];
                client.read_exact(&mut buffer).await.unwrap();
                assert_eq!(buffer, [answer]);
            }
            assert!(poll_here(pin!(listener.accept())).await.is_pending());
        });
    });
}

#[test]
fn incoming_is_a_stream_of_connections_without_end() {
    let _watchdog = watchdog();
    block_on(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async {
            let mut clients = Vec::new();
            for _ in 0..10 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            clients
        };
        let accept = listener.incoming().take(10).collect::<Vec<_>>();
        let (clients, accepted) = futures::join!(connect, accept);
        let ports = |streams: Vec<SocketAddr>| streams.iter().map(SocketAddr::port).collect::<Vec<_>>();
        assert_eq!(
            ports(clients.iter().map(|client| client.local_addr().unwrap()).collect()),
            ports(
                accepted
                    .iter()
                    .map(|stream| stream.as_ref().unwrap().peer_addr().unwrap())
                    .collect()
            )
        );
        assert!(poll_here(listener.incoming().next()).await.is_pending());
    });
}

#[test]
fn an_accept_that_is_dropped_takes_no_connection() {
    let _watchdog = watchdog();
    block_on(async {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        assert!(poll_here(pin!(listener.accept())).await.is_pending());
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop(listener.accept());
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    });
}

#[test]
fn outside_of_any_loop_sockets_answer_with_an_error_and_work_afterwards() {
    let _watchdog = watchdog();
    use futures::executor::block_on as elsewhere;
    // To bind, nothing has to be waited for.
    let listener = elsewhere(TcpListener::bind(ANY_PORT)).unwrap();
    let address = listener.local_addr().unwrap();
    let (stream, mut theirs) = with_std();
    for error in [
        elsewhere(TcpStream::connect(address)).map(drop).unwrap_err(),
        elsewhere(listener.accept()).map(drop).unwrap_err(),
        elsewhere(listener.incoming().next()).unwrap().map(drop).unwrap_err(),
        elsewhere((&stream).read(&mut [0])).map(drop).unwrap_err(),
        elsewhere((&stream).write(b"x")).map(drop).unwrap_err(),
        elsewhere(stream.peek(&mut [0])).map(drop).unwrap_err(),
        elsewhere(stream.readable()).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("outside") && text.contains("block_on"), "{text}");
    }
    theirs.write_all(b"y").unwrap();
    block_on(async {
        let (client, accepted) = futures::join!(TcpStream::connect(address), listener.accept());
        client.unwrap();
        accepted.unwrap();
        assert_eq!((&stream).read(&mut [0]).await.unwrap(), 1);
    });
}

// ---- Halves ----

#[test]
fn dropping_the_owned_write_half_shuts_writing_down_and_reading_goes_on() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(b"bye").await.unwrap();
        drop(writer);
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
        server.write_all(b"and you").await.unwrap();
        drop(server);
        text.clear();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "and you");
    });
}

#[test]
fn dropping_the_owned_read_half_keeps_the_connection() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let (reader, mut writer) = client.into_split();
        assert!(reader.as_ref().peer_addr().is_ok());
        drop(reader);
        writer.write_all(b"x").await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(server.read(&mut [0; 2]).await.unwrap(), 1);
        assert_eq!(server.read(&mut [0; 2]).await.unwrap(), 0);
    });
}

#[test]
fn a_forgotten_write_half_shuts_nothing_down() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let (mut reader, writer) = client.into_split();
        writer.forget();
        server.write_all(b"x").await.unwrap();
        reader.read_exact(&mut [0]).await.unwrap();
        assert!(poll_here(pin!(server.read(&mut [0]))).await.is_pending());
        drop(reader);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn halves_of_one_connection_are_reunited_and_others_come_back() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let (reader, writer) = client.into_split();
        let mut client = reader.reunite(writer).unwrap();
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        let (reader, writer) = client.into_split();
        let (other_reader, other_writer) = server.into_split();
        let error = reader.reunite(other_writer).unwrap_err();
        assert!(!error.to_string().is_empty());
        let (reader, other_writer) = (error.0, error.1);
        let mut client = writer.reunite(reader).unwrap();
        let mut server = other_writer.reunite(other_reader).unwrap();
        server.write_all(b"y").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        assert!(
            poll_here(pin!(client.read(&mut [0]))).await.is_pending(),
            "nothing was shut down"
        );
    });
}

#[test]
fn owned_halves_work_in_two_tasks() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (stream, mut peer) = with_std();
    let (mut reader, mut writer) = stream.into_split();
    let reads = runtime.spawner().spawn(async move {
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    });
    let writes = runtime.spawner().spawn(async move {
        for _ in 0..1000 {
            writer.write_all(&[1; 1000]).await.unwrap();
        }
    });
    let mut received = Vec::new();
    peer.write_all(b"hello").unwrap();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 1_000_000);
    drop(peer);
    assert_eq!(reads.wait().unwrap().unwrap(), "hello");
    writes.wait().unwrap().unwrap();
}

// ---- Reading and writing ----

#[test]
fn peek_takes_nothing() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        let mut buffer = [0; 8];
        assert!(poll_here(pin!(server.peek(&mut buffer))).await.is_pending());
        client.write_all(b"abc").await.unwrap();
        for _ in 0..3 {
            assert_eq!(server.peek(&mut buffer).await.unwrap(), 3);
        }
        assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
        assert!(poll_here(pin!(server.peek(&mut buffer))).await.is_pending());
        drop(client);
        assert_eq!(server.peek(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn vectored_reads_and_writes_move_all_pieces() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let n = (&client)
            .write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cdef")])
            .await
            .unwrap();
        assert_eq!(n, 6);
        let (mut first, mut second) = ([0; 4], [0; 4]);
        let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(server.read_vectored(&mut pieces).await.unwrap(), 6);
        assert_eq!((&first, &second[..2]), (b"abcd", &b"ef"[..]));
        // A full buffer is no short read.
        (&client).write_all(b"0123456789").await.unwrap();
        let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(server.read_vectored(&mut pieces).await.unwrap(), 8);
        assert_eq!(server.read(&mut first).await.unwrap(), 2);
    });
}

#[test]
fn readable_and_writable_and_ready_tell_of_a_connection() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, server) = connected().await;
        server.writable().await.unwrap();
        assert!(poll_here(pin!(server.readable())).await.is_pending());
        client.write_all(b"x").await.unwrap();
        server.readable().await.unwrap();
        assert!(server.ready(Interest::READABLE).await.unwrap().is_readable());
        client.close().await.unwrap();
        (&server).read_exact(&mut [0]).await.unwrap();
        assert_eq!((&server).read(&mut [0]).await.unwrap(), 0);
        // What is known already may be told first.
        while !server.ready(Interest::READABLE).await.unwrap().is_read_closed() {
            evbase::yield_now().await;
        }
    });
}

#[test]
fn closing_shuts_writing_down_and_twice_is_fine() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        client.close().await.unwrap();
        client.close().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        server.write_all(b"y").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        server.shutdown(Shutdown::Both).unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.close().await.unwrap();
    });
}

#[test]
fn options_are_kept() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, _server) = connected().await;
        for on in [true, false] {
            client.set_nodelay(on).unwrap();
            assert_eq!(client.nodelay().unwrap(), on);
            client.set_keepalive(on).unwrap();
            assert_eq!(client.keepalive().unwrap(), on);
        }
        client.set_ttl(42).unwrap();
        assert_eq!(client.ttl().unwrap(), 42);
        assert!(client.take_error().unwrap().is_none());
    });
}

#[test]
fn sockets_of_the_standard_library_go_in_and_come_out() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let address = listener.local_addr().unwrap();
    let mut theirs = std::net::TcpStream::connect(address).unwrap();
    let (ours, listener) = runtime
        .block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let (mut ours, _) = listener.accept().await.unwrap();
            ours.write_all(b"async").await.unwrap();
            assert!(poll_here(pin!(ours.read(&mut [0]))).await.is_pending());
            (ours.into_std().unwrap(), listener.into_std().unwrap())
        })
        .unwrap();
    ours.set_nonblocking(false).unwrap();
    (&ours).write_all(b" and not").unwrap();
    let mut buffer = [0; 13];
    theirs.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"async and not");
    assert_eq!(listener.local_addr().unwrap(), address);
    // And in again, in another loop.
    let mut again = TcpStream::try_from(ours).unwrap();
    block_on(async {
        theirs.write_all(b"x").unwrap();
        again.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn into_std_abroad_is_an_error_that_names_both_threads() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (stream, mut peer) = with_std();
    let task = runtime.spawner().spawn(async move {
        assert!(poll_here(pin!(stream.readable())).await.is_pending());
        stream
    });
    let text = task.wait().unwrap().unwrap().into_std().unwrap_err().to_string();
    for thread in [runtime.home().unwrap(), thread::current().id()] {
        assert!(text.contains(&format!("{thread:?}")), "{text}");
    }
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it was closed at home");
}

#[test]
fn a_stream_dropped_abroad_closes_the_connection() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for _ in 0..100 {
        let (stream, mut peer) = with_std();
        let task = runtime.spawner().spawn(async move {
            assert!(poll_here(pin!(stream.readable())).await.is_pending());
            stream
        });
        drop(task.wait().unwrap().unwrap());
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

// ---- The rule of the short read ----

#[test]
fn a_short_read_hides_no_end_that_comes_together_with_data() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let mut random = Random::new(1);
    for round in 0..500_u32 {
        let (mut stream, mut peer) = with_std();
        let begun = random.below(3);
        let reads = runtime.spawner().spawn(async move {
            let mut received = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => return received,
                    n => received.extend_from_slice(&buffer[..n]),
                }
            }
        });
        for _ in 0..begun {
            peer.write_all(b"first").unwrap();
        }
        if round % 3 == 0 {
            until(|| runtime.metrics().parks > 0);
        }
        // Data and end in one segment, or in two that come together.
        peer.write_all(&round.to_ne_bytes()).unwrap();
        if round % 2 == 0 {
            peer.shutdown(Shutdown::Write).unwrap();
        } else {
            drop(peer);
        }
        let received = reads.wait().unwrap().unwrap();
        assert_eq!(received.len(), 5 * begun as usize + 4);
        assert!(received.ends_with(&round.to_ne_bytes()));
    }
}

#[test]
fn urgent_data_that_was_taken_hides_nothing_behind_it() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut stream, mut peer) = with_std();
        peer.set_nodelay(true).unwrap();
        peer.write_all(b"abc").unwrap();
        send_urgent(&peer, b'!');
        peer.write_all(b"def").unwrap();
        take_urgent!(stream);
        let (mut received, mut buffer) = (Vec::new(), [0; 100]);
        while received.len() < 6 {
            let n = stream.read(&mut buffer).await.unwrap();
            received.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(received, b"abcdef");
    });
}

/// A server that logs the error and tries again.
#[test]
fn errors_that_come_at_once_let_others_run() {
    let _watchdog = watchdog();
    // Another loop has polled it first, and is closed.
    let listener = block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(timeout(Duration::ZERO, listener.accept()).await.is_err());
        listener
    });
    let runtime = Builder::new().start("home").unwrap();
    let ended = runtime.spawner().spawn(async move {
        loop {
            listener.accept().await.unwrap_err();
        }
    });
    assert!(runtime.spawner().spawn(async {}).wait().unwrap().is_ok());
    runtime.shutdown().wait().unwrap();
    let ended: Result<(), _> = ended.wait().unwrap();
    assert!(ended.unwrap_err().is_cancelled());
}

#[test]
fn a_short_read_at_urgent_data_hides_nothing_behind_it() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let mut random = Random::new(2);
    for round in 0..500_u32 {
        let (mut stream, mut peer) = with_std();
        peer.set_nodelay(true).unwrap();
        let most = [1, 3, 64, 4096][random.below(4) as usize];
        let reads = runtime.spawner().spawn(async move {
            let mut received = Vec::new();
            let mut buffer = vec![0; most];
            // Without an end of the stream to help: until all are there.
            while received.len() < 9 {
                let n = stream.read(&mut buffer).await.unwrap();
                assert_ne!(n, 0);
                received.extend_from_slice(&buffer[..n]);
            }
            received
        });
        if random.below(2) == 0 {
            thread::yield_now();
        }
        peer.write_all(b"abc").unwrap();
        send_urgent(&peer, b'!');
        peer.write_all(b"def").unwrap();
        if round % 2 == 0 {
            thread::yield_now();
        }
        send_urgent(&peer, b'?');
        peer.write_all(b"ghi").unwrap();
        let received = reads.wait().unwrap().unwrap();
        // A new urgent byte makes the one before it an ordinary one, if that wasn't passed yet.
        let ordinary: Vec<u8> = received.into_iter().filter(|byte| byte.is_ascii_lowercase()).collect();
        assert!(
            b"abcdefghi".starts_with(&ordinary[..]) && ordinary.len() >= 8,
            "{ordinary:?}"
        );
    }
}

#[test]
fn a_short_read_hides_nothing_that_was_sent_since_its_event() {
    let _watchdog = watchdog();
    // Home is kept from looking at the kernel between the event and the read.
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            for round in 0..200 {
                let (mut stream, mut peer) = with_std();
                assert!(poll_here(pin!(stream.readable())).await.is_pending());
                peer.write_all(b"abc").unwrap();
                stream.readable().await.unwrap();
                match round % 4 {
                    0 => peer.write_all(b"def").unwrap(),
                    1 => send_urgent(&peer, b'!'),
                    2 => peer.shutdown(Shutdown::Write).unwrap(),
                    _ => {
                        send_urgent(&peer, b'!');
                        peer.write_all(b"def").unwrap();
                    }
                }
                let mut buffer = [0; 64];
                let mut received = Vec::new();
                let expected = if round % 2 == 0 && round % 4 != 2 || round % 4 == 3 {
                    6
                } else {
                    3
                };
                while received.len() < expected {
                    let n = stream.read(&mut buffer).await.unwrap();
                    assert_ne!(n, 0);
                    received.extend_from_slice(&buffer[..n]);
                }
                assert_eq!(&received[..], &b"abcdef"[..expected]);
                if round % 4 == 2 {
                    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
                }
            }
        })
        .unwrap();
}

#[test]
fn short_reads_and_full_ones_in_any_order_lose_no_edge() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (mut stream, mut peer) = with_std();
    // Or small writes wait for acknowledgements, 40 ms each time.
    stream.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    let echo = runtime.spawner().spawn(async move {
        let mut random = Random::new(3);
        let mut buffer = [0; 32];
        loop {
            let most = 1 + random.below(32) as usize;
            match stream.read(&mut buffer[..most]).await.unwrap() {
                0 => return,
                n => stream.write_all(&buffer[..n]).await.unwrap(),
            }
        }
    });
    let mut random = Random::new(4);
    for round in 0..3000_u32 {
        let len = 1 + random.below(40) as usize;
        let message: Vec<u8> = (0..len).map(|n| (n as u32 + round) as u8).collect();
        peer.write_all(&message).unwrap();
        let mut answer = vec![0; len];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(message, answer);
    }
    drop(peer);
    echo.wait().unwrap().unwrap();
}

#[test]
fn a_read_into_more_buffers_than_the_kernel_takes_is_not_short() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, server) = connected().await;
        // More than UIO_MAXIOV of one byte each.
        const MANY: usize = 1500;
        client.write_all(&[7; MANY]).await.unwrap();
        until(|| unread(&server) == MANY);
        let (mut received, mut buffer) = (0, [0; MANY]);
        while received < MANY {
            let mut pieces: Vec<_> = buffer.chunks_mut(1).map(IoSliceMut::new).collect();
            received += (&server).read_vectored(&mut pieces).await.unwrap();
        }
        assert_eq!((received, buffer[..1024].iter().all(|&byte| byte == 7)), (MANY, true));
    });
}

#[test]
fn a_read_into_nothing_takes_nothing() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        client.write_all(b"abc").await.unwrap();
        server.readable().await.unwrap();
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
        server.read_exact(&mut [0; 3]).await.unwrap();
    });
}
