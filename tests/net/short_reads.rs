//! A short read of a Unix stream hides nothing: neither behind descriptors that were sent along, nor behind another sender's
//! bytes, urgent ones, or the end.
#![cfg(target_os = "linux")]

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::thread;
use std::time::Duration;

use evbase::Builder;
use evbase::net::{TcpStream, UnixListener, UnixStream};
use evbase::time::timeout;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::block_on;
use crate::support::{Random, alone, held, poll_here, until, watchdog};

type Std = std::os::unix::net::UnixStream;

fn with_std() -> (UnixStream, Std) {
    let (ours, theirs) = Std::pair().unwrap();
    (UnixStream::from_std(ours).unwrap(), theirs)
}

/// Sends bytes with a descriptor.
fn send_descriptor(socket: &Std, bytes: &[u8], fd: RawFd) {
    let mut control = [0_u64; 8];
    let piece = IoSlice::new(bytes);
    // SAFETY: a message of one piece, and of control data that fits into the buffer, which is aligned for its header; all outlive
    // the call.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = (&raw const piece).cast_mut().cast();
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(socket.as_raw_fd(), &message, 0)
    };
    assert_eq!(sent, bytes.len() as isize);
}

/// Reads until all are there, without an end of the stream to help, with buffers that none of them fills.
async fn read_all(stream: &UnixStream, total: usize, vectored: bool) -> Vec<u8> {
    let (mut received, mut stream) = (Vec::new(), stream);
    while received.len() < total {
        let mut buffer = [0; 100];
        let n = if vectored {
            let (first, second) = buffer.split_at_mut(7);
            let mut pieces = [IoSliceMut::new(first), IoSliceMut::new(second)];
            stream.read_vectored(&mut pieces).await.unwrap()
        } else {
            stream.read(&mut buffer).await.unwrap()
        };
        assert_ne!(n, 0);
        received.extend_from_slice(&buffer[..n]);
    }
    received
}

#[test]
fn descriptors_between_bytes_hide_nothing_behind_them() {
    // It counts the descriptors of its process.
    alone(between_bytes);
}

fn between_bytes() {
    let before = held();
    block_on(async {
        for round in 0..400 {
            let (stream, mut peer) = with_std();
            // All come with one event, or the first before it.
            if round % 2 == 0 {
                assert!(poll_here(pin!(stream.readable())).await.is_pending());
            }
            peer.write_all(b"abc").unwrap();
            if round % 4 < 2 {
                stream.readable().await.unwrap();
            }
            send_descriptor(&peer, b"def", peer.as_raw_fd());
            peer.write_all(b"ghi").unwrap();
            send_descriptor(&peer, b"jkl", peer.as_raw_fd());
            peer.write_all(b"mno").unwrap();
            let mut received = Vec::new();
            if round % 16 < 8 {
                // One that fills its buffer first: the next read is by another system call, which tells less.
                received.resize(3, 0);
                (&stream).read_exact(&mut received).await.unwrap();
            }
            received.extend(read_all(&stream, 15 - received.len(), round % 8 < 4).await);
            assert_eq!(received, b"abcdefghijklmno");
            assert!(poll_here(pin!((&stream).read(&mut [0]))).await.is_pending());
        }
    });
    assert_eq!(held(), before, "descriptors that nobody takes are closed");
}

#[test]
fn another_senders_bytes_are_not_hidden_where_credentials_are_asked_for() {
    let _watchdog = watchdog();
    block_on(async {
        for round in 0..50 {
            let (stream, mut peer) = with_std();
            SockRef::from(&stream).set_passcred(true).unwrap();
            assert!(poll_here(pin!(stream.readable())).await.is_pending());
            peer.write_all(b"abc").unwrap();
            // A child is another sender.
            let sent = std::process::Command::new("printf")
                .arg("def")
                .stdout(std::os::fd::OwnedFd::from(peer.try_clone().unwrap()))
                .status();
            assert!(sent.unwrap().success());
            peer.write_all(b"ghi").unwrap();
            assert_eq!(read_all(&stream, 9, round % 2 == 0).await, b"abcdefghi");
        }
    });
}

/// Reads three packets that are there at once, each of which is a short read.
async fn read_packets(mut ours: impl AsyncRead + Unpin, theirs: Socket) {
    let mut buffer = [0; 64];
    // From its first wait on, it is told of what comes, once.
    assert!(poll_here(pin!(ours.read(&mut buffer))).await.is_pending());
    for packet in ["one", "two!", "three"] {
        theirs.send(packet.as_bytes()).unwrap();
    }
    for packet in ["one", "two!", "three"] {
        let read = timeout(Duration::from_secs(10), ours.read(&mut buffer)).await;
        let n = read.expect("a packet is there, and is not read").unwrap();
        assert_eq!(&buffer[..n], packet.as_bytes());
    }
}

/// The types of the standard library's take any socket, and systemd hands out such ones (`ListenSequentialPacket=`).
#[test]
fn packets_hide_none_behind_them() {
    let _watchdog = watchdog();
    block_on(async {
        let pair = || Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let (ours, theirs) = pair();
        read_packets(UnixStream::from_std(OwnedFd::from(ours).into()).unwrap(), theirs).await;
        let (ours, theirs) = pair();
        read_packets(TcpStream::from_std(OwnedFd::from(ours).into()).unwrap(), theirs).await;

        // Those of a listener are what it is.
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let name = format!("\0evbase-packets-{}", std::process::id());
        let address = SockAddr::unix(&name).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(1).unwrap();
        let listener = UnixListener::from_std(OwnedFd::from(listener).into()).unwrap();
        let theirs = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        theirs.connect(&address).unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        read_packets(ours, theirs).await;
    });
}

#[test]
fn an_end_that_comes_with_data_is_not_hidden() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for round in 0..500_u32 {
        let (mut stream, mut peer) = with_std();
        let reads = runtime.spawner().spawn(async move {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            received
        });
        if round % 3 == 0 {
            until(|| runtime.metrics().parks > 0);
        }
        peer.write_all(&round.to_ne_bytes()).unwrap();
        match round % 4 {
            0 => peer.shutdown(Shutdown::Write).unwrap(),
            1 => send_descriptor(&peer, b"!", peer.as_raw_fd()),
            _ => {}
        }
        drop(peer);
        let received = reads.wait().unwrap().unwrap();
        assert!(received.starts_with(&round.to_ne_bytes()));
        assert_eq!(received.len(), if round % 4 == 1 { 5 } else { 4 });
    }
}

#[test]
fn urgent_bytes_hide_nothing_behind_them() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let mut random = Random::new(6);
    if SockRef::from(&with_std().1).send_out_of_band(b"?").is_err() {
        eprintln!("skipped: this kernel knows no urgent data on Unix sockets");
        return;
    }
    for _ in 0..500 {
        let (stream, mut peer) = with_std();
        let reads = runtime.spawner().spawn(async move {
            let mut received = read_all(&stream, 9, false).await;
            received.retain(u8::is_ascii_lowercase);
            received
        });
        if random.below(2) == 0 {
            thread::yield_now();
        }
        peer.write_all(b"abc").unwrap();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        peer.write_all(b"def").unwrap();
        if random.below(2) == 0 {
            thread::yield_now();
        }
        SockRef::from(&peer).send_out_of_band(b"?").unwrap();
        peer.write_all(b"ghi").unwrap();
        let received = reads.wait().unwrap().unwrap();
        assert!(
            b"abcdefghi".starts_with(&received[..]) && received.len() >= 8,
            "{received:?}"
        );
    }
}

#[test]
fn urgent_bytes_that_were_taken_hide_nothing_behind_them() {
    let _watchdog = watchdog();
    if SockRef::from(&with_std().1).send_out_of_band(b"?").is_err() {
        eprintln!("skipped: this kernel knows no urgent data on Unix sockets");
        return;
    }
    block_on(async {
        let (stream, mut peer) = with_std();
        peer.write_all(b"abc").unwrap();
        SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        peer.write_all(b"def").unwrap();
        take_urgent!(stream);
        assert_eq!(read_all(&stream, 6, false).await, b"abcdef");
    });
}

#[test]
fn more_buffers_than_the_kernel_takes_are_filled_in_turn() {
    let _watchdog = watchdog();
    block_on(async {
        const MANY: usize = 1500;
        let (stream, mut peer) = with_std();
        peer.write_all(&[7; MANY]).unwrap();
        let (mut received, mut buffer) = (0, [0; MANY]);
        while received < MANY {
            let mut pieces: Vec<_> = buffer.chunks_mut(1).map(IoSliceMut::new).collect();
            received += (&stream).read_vectored(&mut pieces).await.unwrap();
        }
        assert_eq!(received, MANY);
        // Nor does a read into nothing take anything.
        peer.write_all(b"x").unwrap();
        stream.readable().await.unwrap();
        assert_eq!((&stream).read_vectored(&mut []).await.unwrap(), 0);
        assert_eq!((&stream).read(&mut []).await.unwrap(), 0);
        assert_eq!(read_all(&stream, 1, false).await, b"x");
    });
}

#[test]
fn short_reads_and_full_ones_in_any_order_lose_no_edge() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (mut stream, mut peer) = with_std();
    let echo = runtime.spawner().spawn(async move {
        let mut random = Random::new(7);
        let mut buffer = [0; 32];
        loop {
            let most = 1 + random.below(32) as usize;
            match stream.read(&mut buffer[..most]).await.unwrap() {
                0 => return,
                n => stream.write_all(&buffer[..n]).await.unwrap(),
            }
        }
    });
    let mut random = Random::new(8);
    for round in 0..5000_u32 {
        let len = 1 + random.below(40) as usize;
        let message: Vec<u8> = (0..len).map(|n| (n as u32 + round) as u8).collect();
        if random.below(8) == 0 {
            send_descriptor(&peer, &message, peer.as_raw_fd());
        } else {
            peer.write_all(&message).unwrap();
        }
        let mut answer = vec![0; len];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(message, answer);
    }
    drop(peer);
    echo.wait().unwrap().unwrap();
}
