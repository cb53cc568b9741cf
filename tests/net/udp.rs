//! UDP over the loop: datagrams come whole, from whom they say, once each; and whoever waits for one is woken.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::thread;
use std::time::Duration;

use evbase::Builder;
use evbase::io::Interest;
use evbase::net::UdpSocket;
use evbase::time::timeout;
use socket2::SockRef;

use crate::block_on;
use crate::support::{poll_here, watchdog};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

async fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Two that are connected with each other.
async fn connected() -> (UdpSocket, UdpSocket) {
    let ((one, one_address), (other, other_address)) = (bound().await, bound().await);
    one.connect(other_address).await.unwrap();
    other.connect(one_address).await.unwrap();
    assert_eq!(one.peer_addr().unwrap(), other_address);
    (one, other)
}

#[test]
fn datagrams_come_whole_and_say_who_sent_them() {
    let _watchdog = watchdog();
    block_on(async {
        let ((one, one_address), (other, other_address)) = (bound().await, bound().await);
        let mut buffer = [0; 2000];
        for len in [0, 1, 1400, 2000] {
            let sent: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert_eq!(one.send_to(&sent, other_address).await.unwrap(), len);
            assert_eq!(other.recv_from(&mut buffer).await.unwrap(), (len, one_address));
            assert!(buffer[..len] == sent);
        }
        // A name, and a text.
        let name = format!("localhost:{}", other_address.port());
        for target in [other_address.to_string(), name] {
            // The first address of the name may be of IPv6.
            match one.send_to(b"x", &target).await {
                Ok(_) => assert_eq!(other.recv_from(&mut buffer).await.unwrap(), (1, one_address)),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT), "{target}: {error}"),
            }
        }
        // Several that come together come one by one.
        for len in 1..=10 {
            one.send_to(&buffer[..len], other_address).await.unwrap();
        }
        for len in 1..=10 {
            assert_eq!(other.recv(&mut buffer).await.unwrap(), len);
        }
        // The rest of one that is too long is lost.
        one.send_to(b"hello", other_address).await.unwrap();
        one.send_to(b"!", other_address).await.unwrap();
        assert_eq!(other.recv(&mut buffer[..2]).await.unwrap(), 2);
        assert_eq!(other.recv(&mut buffer[..2]).await.unwrap(), 1);
        assert!(poll_here(pin!(other.recv(&mut buffer))).await.is_pending());
        let nowhere = one.send_to(b"x", &[][..]).await.unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = connected().await;
        let (stranger, _) = bound().await;
        stranger
            .send_to(b"stranger", other.local_addr().unwrap())
            .await
            .unwrap();
        one.send(b"peer").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(other.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"peer");
        assert_eq!(stranger.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(stranger.send(b"x").await.is_err());
    });
}

#[test]
fn peeks_take_nothing() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = connected().await;
        let (mut buffer, address) = ([0; 16], one.local_addr().unwrap());
        assert!(poll_here(pin!(other.peek(&mut buffer))).await.is_pending());
        assert!(poll_here(pin!(other.peek_from(&mut buffer))).await.is_pending());
        assert_eq!(other.try_peek(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        one.send(b"abc").await.unwrap();
        for _ in 0..2 {
            assert_eq!(other.peek(&mut buffer).await.unwrap(), 3);
            assert_eq!(other.peek_from(&mut buffer).await.unwrap(), (3, address));
            assert_eq!(other.try_peek(&mut buffer).unwrap(), 3);
            assert_eq!(other.try_peek_from(&mut buffer).unwrap(), (3, address));
            assert_eq!(poll_fn(|cx| other.poll_peek(cx, &mut buffer)).await.unwrap(), 3);
            assert_eq!(
                poll_fn(|cx| other.poll_peek_from(cx, &mut buffer)).await.unwrap(),
                (3, address)
            );
        }
        assert_eq!(other.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(
            other.try_peek_from(&mut buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    });
}

#[test]
fn what_is_tried_or_polled_is_what_is_awaited() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = connected().await;
        let (mut buffer, [from, to]) = ([0; 16], [&one, &other].map(|socket| socket.local_addr().unwrap()));
        let would_block = |result: std::io::Result<usize>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        };
        would_block(other.try_recv(&mut buffer));
        would_block(other.try_recv_from(&mut buffer).map(|(n, _)| n));
        assert_eq!(one.try_send(b"a").unwrap(), 1);
        other.readable().await.unwrap();
        assert_eq!(other.try_recv(&mut buffer).unwrap(), 1);
        would_block(other.try_recv(&mut buffer));
        // Readiness is forgotten.
        assert!(poll_here(pin!(other.readable())).await.is_pending());
        assert_eq!(one.try_send_to(b"ab", to).unwrap(), 2);
        poll_fn(|cx| other.poll_recv_ready(cx)).await.unwrap();
        assert_eq!(other.try_recv_from(&mut buffer).unwrap(), (2, from));
        poll_fn(|cx| one.poll_send_ready(cx)).await.unwrap();
        one.writable().await.unwrap();
        assert!(one.ready(Interest::WRITABLE).await.unwrap().is_writable());
        assert_eq!(poll_fn(|cx| one.poll_send(cx, b"abc")).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| other.poll_recv(cx, &mut buffer)).await.unwrap(), 3);
        assert_eq!(poll_fn(|cx| one.poll_send_to(cx, b"abcd", to)).await.unwrap(), 4);
        assert_eq!(
            poll_fn(|cx| other.poll_recv_from(cx, &mut buffer)).await.unwrap(),
            (4, from)
        );
        let n = one.try_io(Interest::WRITABLE, || SockRef::from(&one).send(b"hello"));
        assert_eq!(n.unwrap(), 5);
        assert_eq!(other.recv(&mut buffer).await.unwrap(), 5);
    });
}

#[test]
fn a_datagram_to_nobody_is_an_error_of_the_next_call() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = connected().await;
        let gone = other.local_addr().unwrap();
        drop(other);
        one.send(b"x").await.unwrap();
        let error = one.recv(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // Once; and the socket is as good as before.
        assert!(poll_here(pin!(one.recv(&mut [0; 16]))).await.is_pending());
        assert!(one.take_error().unwrap().is_none());
        let again = UdpSocket::bind(gone).await.unwrap();
        again.send_to(b"y", one.local_addr().unwrap()).await.unwrap();
        assert_eq!(one.recv(&mut [0; 16]).await.unwrap(), 1);
    });
}

#[test]
fn no_datagram_is_lost_to_a_receive_that_is_dropped() {
    let _watchdog = watchdog();
    block_on(async {
        let (one, other) = connected().await;
        let mut buffer = [0; 4];
        for n in 0..2000_u32 {
            assert!(poll_here(pin!(other.recv(&mut buffer))).await.is_pending());
            one.send(&n.to_ne_bytes()).await.unwrap();
            if n % 3 == 0 {
                // Dropped unpolled, and dropped when the datagram was there.
                drop(other.recv(&mut buffer));
                other.readable().await.unwrap();
            }
            assert_eq!(other.recv(&mut buffer).await.unwrap(), 4);
            assert_eq!(u32::from_ne_bytes(buffer), n);
        }
        let silence = timeout(Duration::from_millis(1), other.recv(&mut buffer)).await;
        assert!(silence.is_err());
    });
}

#[test]
fn each_datagram_is_received_by_one_of_many_tasks() {
    let _watchdog = watchdog();
    const TASKS: usize = 8;
    block_on(async {
        let (socket, address) = bound().await;
        let socket = std::rc::Rc::new(socket);
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let socket = socket.clone();
                evbase::spawn_local(async move {
                    let (mut sum, mut buffer) = (0, [0; 4]);
                    loop {
                        socket.recv(&mut buffer).await.unwrap();
                        match u32::from_ne_bytes(buffer) {
                            0 => return sum,
                            n => sum += n,
                        }
                        evbase::yield_now().await;
                    }
                })
            })
            .collect();
        let sender = UdpSocket::bind(ANY_PORT).await.unwrap();
        for n in 1..=100_u32 {
            sender.send_to(&n.to_ne_bytes(), address).await.unwrap();
            evbase::yield_now().await;
        }
        for _ in 0..TASKS {
            sender.send_to(&0_u32.to_ne_bytes(), address).await.unwrap();
        }
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        assert_eq!(sum, 5050);
    });
}

#[test]
fn a_thread_and_a_loop_play_ping_pong_and_lose_no_edge() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let theirs = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let ours = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    let echo = runtime.spawner().spawn(async move {
        let socket = UdpSocket::from_std(ours).unwrap();
        let mut buffer = [0; 1500];
        loop {
            match socket.recv_from(&mut buffer).await.unwrap() {
                (0, _) => return,
                (n, peer) => socket.send_to(&buffer[..n], peer).await.map(drop).unwrap(),
            }
        }
    });
    let mut buffer = [0; 1500];
    for n in 1..=5000 {
        let len = 1 + n % 1400;
        theirs.send(&[n as u8; 1500][..len]).unwrap();
        if n % 3 == 0 {
            thread::yield_now();
        }
        assert_eq!(theirs.recv(&mut buffer).unwrap(), len);
        assert!(buffer[..len].iter().all(|&byte| byte == n as u8));
    }
    theirs.send(&[]).unwrap();
    echo.wait().unwrap().unwrap();
}

#[test]
fn options_are_kept() {
    let _watchdog = watchdog();
    block_on(async {
        let (socket, _) = bound().await;
        for on in [true, false] {
            socket.set_broadcast(on).unwrap();
            assert_eq!(socket.broadcast().unwrap(), on);
            socket.set_multicast_loop_v4(on).unwrap();
            assert_eq!(socket.multicast_loop_v4().unwrap(), on);
        }
        socket.set_ttl(42).unwrap();
        socket.set_multicast_ttl_v4(3).unwrap();
        assert_eq!((socket.ttl().unwrap(), socket.multicast_ttl_v4().unwrap()), (42, 3));
        // All others, by socket2.
        SockRef::from(&socket).set_recv_buffer_size(50_000).unwrap();
        assert!(SockRef::from(&socket).recv_buffer_size().unwrap() >= 50_000);
        if let Ok(socket) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await {
            socket.set_multicast_loop_v6(false).unwrap();
            assert!(!socket.multicast_loop_v6().unwrap());
        }
    });
}

#[test]
fn a_multicast_group_is_joined_and_left() {
    let _watchdog = watchdog();
    // RFC 5771: for documentation.
    let group = Ipv4Addr::new(233, 252, 0, 1);
    block_on(async {
        let receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        receiver.join_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        let sender = UdpSocket::bind(ANY_PORT).await.unwrap();
        SockRef::from(&sender)
            .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
            .unwrap();
        let target = (group, receiver.local_addr().unwrap().port());
        sender.send_to(b"to all", target).await.unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).await.unwrap(), 6);
        receiver.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
        assert!(receiver.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).is_err());
        if let Ok(socket) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            // RFC 6676: for documentation.
            let group = "ff0e::db8:0:1".parse().unwrap();
            // The index of the loopback interface is 1 on Linux.
            if socket.join_multicast_v6(&group, 1).is_ok() {
                socket.leave_multicast_v6(&group, 1).unwrap();
            }
            assert!(socket.leave_multicast_v6(&group, 1).is_err());
        }
    });
}

#[test]
fn sockets_of_the_standard_library_go_in_and_come_out() {
    let _watchdog = watchdog();
    let ours = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let address = ours.local_addr().unwrap();
    let ours = block_on(async {
        let socket = UdpSocket::try_from(ours).unwrap();
        assert!(poll_here(pin!(socket.recv(&mut [0]))).await.is_pending());
        socket.into_std().unwrap()
    });
    ours.set_nonblocking(false).unwrap();
    ours.send_to(b"x", address).unwrap();
    ours.recv(&mut [0]).unwrap();
}

#[test]
fn a_socket_works_in_the_loop_that_polled_it_first_and_nowhere_else() {
    let _watchdog = watchdog();
    let home = Builder::new().start("home").unwrap();
    let socket = std::sync::Arc::new(UdpSocket::from_std(std::net::UdpSocket::bind(ANY_PORT).unwrap()).unwrap());
    // Outside of any loop.
    let error = futures::executor::block_on(socket.recv(&mut [0])).unwrap_err();
    assert!(error.to_string().contains("outside"), "{error}");
    let at_home = socket.clone();
    let polls = home
        .spawner()
        .spawn(async move { poll_here(pin!(at_home.readable())).await.is_pending() });
    assert!(polls.wait().unwrap().unwrap());
    let at_home = socket.clone();
    let receives = home
        .spawner()
        .spawn(async move { at_home.recv(&mut [0; 16]).await.unwrap() });
    block_on(async {
        let error = socket.recv(&mut [0]).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("{:?}", home.home().unwrap())),
            "{error}"
        );
    });
    // What doesn't wait is for any thread.
    let address = socket.local_addr().unwrap();
    assert_eq!(socket.try_send_to(b"abc", address).unwrap(), 3);
    assert_eq!(receives.wait().unwrap().unwrap(), 3);
}
