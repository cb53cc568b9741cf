//! A UDP socket.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use super::addr::{ToSocketAddrs, first, first_that_works};
use super::socket::{datagram, socket};
use crate::home::Direction;
use crate::io::{AsyncFd, Interest, Ready};

/// A UDP socket.
///
/// It sends to and receives from any address ([`send_to`](UdpSocket::send_to), [`recv_from`](UdpSocket::recv_from)), or from one
/// peer only, once it is connected ([`send`](UdpSocket::send), [`recv`](UdpSocket::recv)). All take `&self`: any number of tasks
/// may use it at once.
///
/// Its errors, its home and its cancel-safety are those of every [`AsyncFd`]. Methods that don't wait may be called on any
/// thread; their errors are the operating system's. Options beyond those here: [see the module](super#options).
///
/// # Examples
///
/// ```
/// use evbase::net::UdpSocket;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let server = UdpSocket::bind("127.0.0.1:0").await?;
///     let client = UdpSocket::bind("127.0.0.1:0").await?;
///     client.connect(server.local_addr()?).await?;
///     client.send(b"hello").await?;
///     let mut buffer = [0; 1500];
///     let (n, peer) = server.recv_from(&mut buffer).await?;
///     server.send_to(&buffer[..n], peer).await?;
///     let n = client.recv(&mut buffer).await?;
///     assert_eq!(&buffer[..n], b"hello");
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UdpSocket {
    fd: AsyncFd<mio::net::UdpSocket>,
}

impl UdpSocket {
    /// Binds to the first of the addresses that works. With options that have to be set before: [see the module](super#options).
    /// Cancel-safe: a future that is dropped before it is ready has bound nothing.
    ///
    /// # Errors
    ///
    /// That of the last address (`AddrInUse` if its port is taken), or of the look-up of a name.
    pub async fn bind(addrs: impl ToSocketAddrs) -> io::Result<Self> {
        first_that_works(addrs, |addr| async move {
            mio::net::UdpSocket::bind(addr).map(Self::from_inner)
        })
        .await
    }

    fn from_inner(socket: mio::net::UdpSocket) -> Self {
        Self {
            fd: AsyncFd::from_nonblocking(socket, false),
        }
    }

    /// Connects the socket with the first of the addresses that works: from now on it receives from there only, and
    /// [`send`](UdpSocket::send) sends there. Nothing is sent by this. Cancel-safe: a future that is dropped before it is ready has
    /// changed nothing.
    ///
    /// # Errors
    ///
    /// That of the last address, or of the look-up of a name.
    pub async fn connect(&self, addrs: impl ToSocketAddrs) -> io::Result<()> {
        first_that_works(addrs, |addr| async move { self.fd.get_ref().connect(addr) }).await
    }

    /// Sends a datagram to the first of the addresses; says how many bytes. Waits while there is no room. Cancel-safe: a future that
    /// is dropped before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// Those of `sendto(2)`, of the look-up of a name, and [of every `AsyncFd`](AsyncFd#errors).
    pub async fn send_to(&self, buf: &[u8], target: impl ToSocketAddrs) -> io::Result<usize> {
        let target = first(target).await?;
        self.fd.write_with(|socket| socket.send_to(buf, target)).await
    }

    /// As [`send_to`](UdpSocket::send_to), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`send_to`](UdpSocket::send_to).
    pub fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        self.fd
            .poll_io(Direction::Write, cx, |socket| socket.send_to(buf, target))
    }

    /// As [`send_to`](UdpSocket::send_to), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is no room, and those of `sendto(2)`.
    pub fn try_send_to(&self, buf: &[u8], target: SocketAddr) -> io::Result<usize> {
        self.fd.try_io(Interest::WRITABLE, |socket| socket.send_to(buf, target))
    }

    /// Waits for a datagram; says how long it is and who sent it. What doesn't fit into `buf` is lost. Cancel-safe: a future that is
    /// dropped before it is ready has taken nothing.
    ///
    /// # Errors
    ///
    /// Those of `recvfrom(2)`, and [of every `AsyncFd`](AsyncFd#errors).
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.read_with(|socket| socket.recv_from(buf)).await
    }

    /// As [`recv_from`](UdpSocket::recv_from), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`recv_from`](UdpSocket::recv_from).
    pub fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.fd.poll_io(Direction::Read, cx, |socket| socket.recv_from(buf))
    }

    /// As [`recv_from`](UdpSocket::recv_from), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing, and those of `recvfrom(2)`.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.try_io(Interest::READABLE, |socket| socket.recv_from(buf))
    }

    /// As [`recv`](UdpSocket::recv), but the datagram stays. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As for [`recv`](UdpSocket::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::net::UdpSocket;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
    ///     // With itself.
    ///     socket.connect(socket.local_addr()?).await?;
    ///     socket.send(b"hello").await?;
    ///     let mut buffer = [0; 16];
    ///     assert_eq!(socket.peek(&mut buffer).await?, 5);
    ///     assert_eq!(socket.recv(&mut buffer).await?, 5);
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.fd.read_with(|socket| socket.peek(buf)).await
    }

    /// As [`peek`](UdpSocket::peek), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`recv`](UdpSocket::recv).
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.fd.poll_io(Direction::Read, cx, |socket| socket.peek(buf))
    }

    /// As [`peek`](UdpSocket::peek), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing, and those of `recv(2)`.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.fd.try_io(Interest::READABLE, |socket| socket.peek(buf))
    }

    /// As [`recv_from`](UdpSocket::recv_from), but the datagram stays. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As for [`recv_from`](UdpSocket::recv_from).
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.read_with(|socket| socket.peek_from(buf)).await
    }

    /// As [`peek_from`](UdpSocket::peek_from), for futures written by hand.
    ///
    /// # Errors
    ///
    /// As for [`recv_from`](UdpSocket::recv_from).
    pub fn poll_peek_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.fd.poll_io(Direction::Read, cx, |socket| socket.peek_from(buf))
    }

    /// As [`peek_from`](UdpSocket::peek_from), at once. From any thread.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is nothing, and those of `recvfrom(2)`.
    pub fn try_peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.fd.try_io(Interest::READABLE, |socket| socket.peek_from(buf))
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().local_addr()
    }

    /// The address that it is connected with.
    ///
    /// # Errors
    ///
    /// `NotConnected` if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.fd.get_ref().peer_addr()
    }
}

/// Options: `name`, `set_name` and their texts.
macro_rules! options {
    ($($(#[$doc:meta])* $get:ident / $set:ident: $type:ty;)*) => {
        /// # Options
        ///
        /// From any thread; their errors are those of `getsockopt(2)` and `setsockopt(2)`.
        impl UdpSocket {
            $(
                $(#[$doc])*
                pub fn $get(&self) -> io::Result<$type> {
                    self.fd.get_ref().$get()
                }

                #[doc = concat!("Sets what [`", stringify!($get), "`](UdpSocket::", stringify!($get), ") tells.")]
                pub fn $set(&self, value: $type) -> io::Result<()> {
                    self.fd.get_ref().$set(value)
                }
            )*
        }
    };
}

options! {
    /// Whether it may send to a broadcast address (`SO_BROADCAST`).
    broadcast / set_broadcast: bool;
    /// The time to live of the packets it sends (`IP_TTL`).
    ttl / set_ttl: u32;
    /// The time to live of the multicast packets it sends (`IP_MULTICAST_TTL`); at first 1, which doesn't leave the network.
    multicast_ttl_v4 / set_multicast_ttl_v4: u32;
    /// Whether multicast packets that it sends come back to this host (`IP_MULTICAST_LOOP`). At first they do.
    multicast_loop_v4 / set_multicast_loop_v4: bool;
    /// As [`multicast_loop_v4`](UdpSocket::multicast_loop_v4), of IPv6 (`IPV6_MULTICAST_LOOP`).
    multicast_loop_v6 / set_multicast_loop_v6: bool;
}

/// # Multicast
///
/// From any thread.
impl UdpSocket {
    /// Joins a multicast group on the interface with that address, or on any (`0.0.0.0`).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`: `ENODEV` if there is no such interface.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::{Ipv4Addr, SocketAddr};
    /// use evbase::net::UdpSocket;
    /// use socket2::SockRef;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let (group, here) = (Ipv4Addr::new(239, 255, 77, 77), Ipv4Addr::LOCALHOST);
    ///     let receiver = UdpSocket::bind("0.0.0.0:0").await?;
    ///     receiver.join_multicast_v4(group, here)?;
    ///
    ///     let sender = UdpSocket::bind("0.0.0.0:0").await?;
    ///     SockRef::from(&sender).set_multicast_if_v4(&here)?; // by which interface it sends
    ///     sender.send_to(b"hello", SocketAddr::from((group, receiver.local_addr()?.port()))).await?;
    ///     let mut buffer = [0; 1500];
    ///     let (n, _) = receiver.recv_from(&mut buffer).await?;
    ///     assert_eq!(&buffer[..n], b"hello");
    ///     receiver.leave_multicast_v4(group, here)
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.fd.get_ref().join_multicast_v4(&group, &interface)
    }

    /// Leaves a multicast group that it has joined.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`: `EADDRNOTAVAIL` if it isn't in that group.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.fd.get_ref().leave_multicast_v4(&group, &interface)
    }

    /// Joins a multicast group on the interface with that index, or on any (0).
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`: `ENODEV` if there is no such interface.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.fd.get_ref().join_multicast_v6(group, interface)
    }

    /// Leaves a multicast group that it has joined.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`: `EADDRNOTAVAIL` if it isn't in that group.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.fd.get_ref().leave_multicast_v6(group, interface)
    }
}

socket!(UdpSocket, std::net::UdpSocket, |socket| Self::from_inner(
    mio::net::UdpSocket::from_std(socket)
));
datagram!(
    UdpSocket,
    r#"    let one = UdpSocket::bind("127.0.0.1:0").await?;
    let other = UdpSocket::bind("127.0.0.1:0").await?;
    one.connect(other.local_addr()?).await?;"#
);
