//! Unix sockets over the loop: connections and datagrams, by path, by abstract name and in pairs; and who is at the other side.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::io::Interest;
use evbase::net::{UnixDatagram, UnixListener, UnixStream};
use evbase::time::timeout;
use evbase::{Builder, Runtime};
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use socket2::SockRef;

use crate::block_on;
use crate::support::{poll_here, watchdog};

/// A path of its own, which is removed at the end.
struct TempPath(PathBuf);

impl TempPath {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("evbase-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(target_os = "linux")]
fn abstract_name() -> SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("evbase-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    SocketAddr::from_abstract_name(name).unwrap()
}

// ---- Streams ----

async fn echo_once(listener: &UnixListener, client: impl Future<Output = std::io::Result<UnixStream>>) {
    let (client, accepted) = futures::join!(client, listener.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
    client.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).await.unwrap();
    server.write_all(&buffer).await.unwrap();
    server.close().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn a_listener_at_a_path_is_connected_to() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    block_on(async {
        let missing = UnixStream::connect(&path.0).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let listener = UnixListener::bind(&path.0).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path.0));
        for _ in 0..10 {
            echo_once(&listener, UnixStream::connect(&path.0)).await;
        }
        let taken = UnixListener::bind(&path.0).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        assert!(poll_here(pin!(listener.accept())).await.is_pending());
        drop(listener);
        let refused = UnixStream::connect(&path.0).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn abstract_names_need_no_path() {
    use std::os::linux::net::SocketAddrExt;
    let _watchdog = watchdog();
    let (of_streams, of_datagrams) = (abstract_name(), abstract_name());
    block_on(async {
        let listener = UnixListener::bind_addr(&of_streams).unwrap();
        assert_eq!(
            listener.local_addr().unwrap().as_abstract_name(),
            of_streams.as_abstract_name()
        );
        echo_once(&listener, UnixStream::connect_addr(&of_streams)).await;

        let server = UnixDatagram::bind_addr(&of_datagrams).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        assert_eq!(client.send_to_addr(b"one", &of_datagrams).await.unwrap(), 3);
        client.connect_addr(&of_datagrams).unwrap();
        client.send(b"two!").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(server.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(server.recv(&mut buffer).await.unwrap(), 4);
    });
}

#[test]
fn incoming_is_a_stream_of_connections_without_end() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    block_on(async {
        let listener = UnixListener::bind(&path.0).unwrap();
        let connect = async {
            for n in 0..10 {
                let stream = UnixStream::connect(&path.0).await.unwrap();
                stream.try_write(&[n]).unwrap();
            }
        };
        let mut accepted = Vec::new();
        let accept = async {
            let mut incoming = listener.incoming().take(10);
            while let Some(stream) = incoming.next().await {
                let mut byte = [0];
                stream.unwrap().read_exact(&mut byte).await.unwrap();
                accepted.push(byte[0]);
            }
        };
        futures::join!(connect, accept);
        assert!(accepted.into_iter().eq(0..10));
        assert!(poll_here(listener.incoming().next()).await.is_pending());
        assert!(poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await.is_pending());
    });
}

#[test]
fn what_is_tried_is_what_is_awaited() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        let nothing = other.try_read(&mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        assert!(poll_here(pin!(other.readable())).await.is_pending());
        one.writable().await.unwrap();
        assert!(one.ready(Interest::WRITABLE).await.unwrap().is_writable());
        poll_fn(|cx| one.poll_write_ready(cx)).await.unwrap();
        assert_eq!(one.try_write(b"abc").unwrap(), 3);
        let pieces = [IoSlice::new(b"de"), IoSlice::new(b"fgh")];
        assert_eq!(one.try_write_vectored(&pieces).unwrap(), 5);
        poll_fn(|cx| other.poll_read_ready(cx)).await.unwrap();
        assert_eq!(other.try_read(&mut buffer[..2]).unwrap(), 2);
        let (mut first, mut second) = ([0; 4], [0; 4]);
        let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(other.try_read_vectored(&mut pieces).unwrap(), 6);
        assert_eq!((&first, &second[..2]), (b"cdef", &b"gh"[..]));
        let mut call = || SockRef::from(&other).peek(&mut [std::mem::MaybeUninit::uninit()]);
        let nothing = other.try_io(Interest::READABLE, &mut call).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        one.try_write(b"x").unwrap();
        assert_eq!(other.try_io(Interest::READABLE, &mut call).unwrap(), 1);
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(other.try_read(&mut buffer).unwrap(), 1);
        assert_eq!(other.try_read(&mut buffer).unwrap(), 0);
        assert!(other.take_error().unwrap().is_none());
    });
}

#[test]
fn a_writer_waits_for_room_and_a_closed_one_is_the_end() {
    let _watchdog = watchdog();
    block_on(async {
        const TOTAL: usize = 4 << 20;
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let write = async {
            one.write_all(&vec![7; TOTAL]).await.unwrap();
            one.close().await.unwrap();
            one.close().await.unwrap();
            assert_eq!(one.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        };
        let read = async {
            let mut received = Vec::new();
            other.read_to_end(&mut received).await.unwrap();
            assert!(received.len() == TOTAL && received.iter().all(|&byte| byte == 7));
        };
        futures::join!(write, read);
        other.write_all(b"y").await.unwrap();
        one.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn halves_work_in_two_tasks_and_are_reunited() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (mut reader, mut writer) = UnixStream::from_std(ours).unwrap().into_split();
    let writes = runtime.spawner().spawn(async move {
        for _ in 0..1000 {
            writer.write_all(&[1; 1000]).await.unwrap();
        }
        writer
    });
    let reads = runtime.spawner().spawn(async move {
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        reader
    });
    theirs.write_all(b"hello").unwrap();
    theirs.read_exact(&mut vec![0; 1_000_000]).unwrap();
    let (reader, writer) = (reads.wait().unwrap().unwrap(), writes.wait().unwrap().unwrap());
    let stream = reader.reunite(writer).unwrap();
    let (mut reader, writer) = stream.into_split();
    drop(writer);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the writing side is shut down");
    theirs.write_all(b"x").unwrap();
    let reads = runtime
        .spawner()
        .spawn(async move { reader.read_exact(&mut [0]).await.unwrap() });
    reads.wait().unwrap().unwrap();
    block_on(async {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = UnixStream::split(&mut one);
        writer.write_all(b"x").await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
        other.write_all(b"y").await.unwrap();
        reader.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn the_peer_is_known() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    // SAFETY: both take nothing and can't fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let pid = cfg!(not(any(target_os = "freebsd", target_os = "dragonfly"))).then(|| std::process::id() as libc::pid_t);
    block_on(async {
        let listener = UnixListener::bind(&path.0).unwrap();
        let (client, accepted) = futures::join!(UnixStream::connect(&path.0), listener.accept());
        let (one, _other) = UnixStream::pair().unwrap();
        for stream in [client.unwrap(), accepted.unwrap().0, one] {
            let peer = stream.peer_cred().unwrap();
            assert_eq!((peer.uid, peer.gid, peer.pid), (uid, gid, pid));
        }
        #[cfg(target_os = "linux")]
        {
            let (one, _other) = UnixDatagram::pair().unwrap();
            assert_eq!(one.peer_cred().unwrap().pid, pid);
            assert_eq!(UnixDatagram::unbound().unwrap().peer_cred().unwrap().pid, None);
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_backlog_is_an_error_that_passes() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    block_on(async {
        let listener = UnixListener::bind(&path.0).unwrap();
        SockRef::from(&listener).listen(1).unwrap();
        let mut clients = Vec::new();
        let error = loop {
            match UnixStream::connect(&path.0).await {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
            assert!(clients.len() < 10);
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        listener.accept().await.unwrap();
        clients.push(UnixStream::connect(&path.0).await.unwrap());
        for _ in 1..clients.len() {
            listener.accept().await.unwrap();
        }
    });
}

#[test]
fn sockets_of_the_standard_library_go_in_and_come_out() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    let listener = std::os::unix::net::UnixListener::bind(&path.0).unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (datagrams, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let ours = block_on(async {
        let listener = UnixListener::try_from(listener).unwrap();
        echo_once(&listener, UnixStream::connect(&path.0)).await;
        listener.into_std().unwrap();
        let datagrams = UnixDatagram::try_from(datagrams).unwrap();
        datagrams.writable().await.unwrap();
        datagrams.into_std().unwrap();
        let stream = UnixStream::try_from(ours).unwrap();
        assert!(poll_here(pin!(stream.readable())).await.is_pending());
        stream.into_std().unwrap()
    });
    ours.set_nonblocking(false).unwrap();
    (&ours).write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
}

// ---- Datagrams ----

#[test]
fn datagrams_come_whole_and_say_who_sent_them() {
    let _watchdog = watchdog();
    let (server_path, client_path) = (TempPath::new(), TempPath::new());
    block_on(async {
        let server = UnixDatagram::bind(&server_path.0).unwrap();
        let client = UnixDatagram::bind(&client_path.0).unwrap();
        let mut buffer = [0; 2000];
        for len in [0, 1, 1400, 2000] {
            let sent: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert_eq!(client.send_to(&sent, &server_path.0).await.unwrap(), len);
            let (n, sender) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!((n, sender.as_pathname()), (len, Some(&*client_path.0)));
            assert!(buffer[..len] == sent);
        }
        assert_eq!(client.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        client.connect(&server_path.0).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*server_path.0));
        assert_eq!(client.local_addr().unwrap().as_pathname(), Some(&*client_path.0));
        assert_eq!(client.try_send(b"a").unwrap(), 1);
        assert_eq!(client.try_send_to(b"ab", &server_path.0).unwrap(), 2);
        assert_eq!(poll_fn(|cx| client.poll_send(cx, b"abc")).await.unwrap(), 3);
        let sent = poll_fn(|cx| client.poll_send_to(cx, b"abcd", &server_path.0)).await;
        assert_eq!(sent.unwrap(), 4);
        server.readable().await.unwrap();
        assert_eq!(server.try_recv(&mut buffer).unwrap(), 1);
        assert_eq!(server.try_recv_from(&mut buffer).unwrap().0, 2);
        assert_eq!(poll_fn(|cx| server.poll_recv(cx, &mut buffer)).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| server.poll_recv_from(cx, &mut buffer)).await.unwrap().0, 4);
        let nothing = server.try_recv(&mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        assert!(poll_here(pin!(server.recv(&mut buffer))).await.is_pending());
        drop(server);
        assert_eq!(
            client.send(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_sender_waits_for_room_and_loses_nothing() {
    let _watchdog = watchdog();
    const MANY: u32 = 5000;
    block_on(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let send = async {
            for n in 0..MANY {
                one.send(&n.to_ne_bytes()).await.unwrap();
            }
            one.shutdown(Shutdown::Write).unwrap();
        };
        let receive = async {
            // Until the sender waits.
            while !matches!(one.try_send(&[]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
                evbase::yield_now().await;
            }
            let (mut next, mut buffer) = (0, [0; 4]);
            while next < MANY {
                if other.recv(&mut buffer).await.unwrap() == 4 {
                    assert_eq!(u32::from_ne_bytes(buffer), next);
                    next += 1;
                }
            }
        };
        futures::join!(send, receive);
    });
}

/// Fills the queue of whoever is bound there.
fn fill(path: &Path, sender: &UnixDatagram, datagram: &[u8]) -> usize {
    (0..).take_while(|_| sender.try_send_to(datagram, path).is_ok()).count()
}

#[test]
fn a_sender_that_waits_for_room_lets_its_loop_sleep() {
    let _watchdog = watchdog();
    // The receiver is full of others' datagrams, or of the sender's own.
    for is_own in [false, true] {
        let path = TempPath::new();
        let runtime = Runtime::new().unwrap();
        let server = std::os::unix::net::UnixDatagram::bind(&path.0).unwrap();
        let (filler, sender) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
        fill(&path.0, if is_own { &sender } else { &filler }, b"first");
        let send = sender.send_to(b"second", &path.0);
        runtime
            .block_on(async {
                let mut send = pin!(send);
                let in_time = timeout(Duration::from_millis(300), send.as_mut()).await;
                assert!(in_time.is_err());
                let turns = runtime.metrics().turns;
                assert!(turns < 200, "{turns} turns in 300 ms");
                server.recv(&mut [0; 16]).unwrap();
                assert_eq!(send.await.unwrap(), 6);
            })
            .unwrap();
    }
}

/// A pause is no deadline: virtual time has nowhere to jump to.
#[test]
fn a_sender_that_waits_for_room_moves_no_virtual_time() {
    let _watchdog = watchdog();
    // The receiver is full of others' datagrams, or of the sender's own; or the sender is.
    for (is_own, size) in [(false, 5), (true, 5), (true, 100_000)] {
        let path = TempPath::new();
        let server = std::os::unix::net::UnixDatagram::bind(&path.0).unwrap();
        let (filler, sender) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
        let datagram = vec![0; size];
        let waiting = fill(&path.0, if is_own { &sender } else { &filler }, &datagram);
        let receives = thread::spawn(move || {
            // Real time, in which virtual time could run away.
            thread::sleep(Duration::from_millis(50));
            (0..=waiting).for_each(|_| _ = server.recv(&mut [0; 16]).unwrap());
        });
        let waits = async {
            let start = evbase::time::now();
            assert_eq!(sender.send_to(&datagram, &path.0).await.unwrap(), size);
            evbase::time::now() - start
        };
        let paused = Builder::new().paused().build().unwrap();
        assert_eq!(paused.block_on(waits).unwrap(), Duration::ZERO, "{is_own}, {size}");
        receives.join().unwrap();
    }
}

#[test]
fn a_sender_is_told_at_once_of_the_room_that_its_own_datagrams_leave() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    let server = std::os::unix::net::UnixDatagram::bind(&path.0).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    let runtime = Runtime::new().unwrap();
    let told = runtime.block_on(async {
        let timers = || runtime.metrics().timers;
        let mut told = 0;
        for _ in 0..20 {
            fill(&path.0, &sender, b"first");
            let mut send = pin!(sender.send_to(b"second", &path.0));
            // Until its pauses are longer.
            let waits = timeout(Duration::from_millis(20), send.as_mut());
            assert!(waits.await.is_err());
            server.recv(&mut [0; 16]).unwrap();
            let before = timers();
            assert_eq!(send.await.unwrap(), 6);
            told += usize::from(timers() == before);
        }
        told
    });
    assert!(told.unwrap() > 0, "each time a pause has ended first");
}

#[test]
fn a_sender_to_a_path_waits_for_room_that_others_have_taken() {
    let _watchdog = watchdog();
    let path = TempPath::new();
    block_on(async {
        let server = UnixDatagram::bind(&path.0).unwrap();
        let (first, second) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
        let waiting = fill(&path.0, &first, b"first");
        let send = second.send_to(b"second", &path.0);
        let receive = async {
            let mut buffer = [0; 16];
            for _ in 0..waiting {
                assert_eq!(server.recv(&mut buffer).await.unwrap(), 5);
            }
            assert_eq!(server.recv(&mut buffer).await.unwrap(), 6);
        };
        let (sent, ()) = futures::join!(send, receive);
        assert_eq!(sent.unwrap(), 6);
    });
}
