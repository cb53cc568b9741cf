//! Sockets on the loop: mio's non-blocking ones, watched by the runtime's own base.
//!
//! Like every [`AsyncFd`](crate::io::AsyncFd), a socket can be made and dropped on any thread; the first loop that polls
//! it is its home. Making one of TCP or UDP (`bind`, `connect`) is async because names may have to be looked up, which happens
//! on the pool of [`unblock`](crate::unblock()).
//!
//! # Options
//!
//! What has no method here is a matter of [`socket2`](https://docs.rs/socket2): its `SockRef` takes a reference to each of these
//! sockets. Options that have to be set before a socket is bound or connected are set on a `socket2::Socket`, which becomes one of
//! the standard library's and goes through [`TcpListener::from_std`], [`UdpSocket::from_std`] or [`TcpStream::connect_std`].
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//! use evbase::net::{TcpListener, TcpStream};
//! use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
//!
//! let runtime = evbase::Runtime::new()?;
//! runtime.block_on(async {
//!     let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
//!     socket.set_reuse_address(true)?;
//!     socket.set_recv_buffer_size(1 << 20)?;
//!     socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
//!     socket.listen(4096)?;
//!     let listener = TcpListener::from_std(socket.into())?;
//!
//!     let client = TcpStream::connect(listener.local_addr()?).await?;
//!     let options = SockRef::from(&client);
//!     options.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
//!     assert!(client.keepalive()?);
//!     Ok::<(), std::io::Error>(())
//! })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addr;
mod bytes;
mod incoming;
mod peer_cred;
mod socket;
mod split;
mod tcp_listener;
mod tcp_stream;
mod udp_socket;
mod unix_datagram;
mod unix_listener;
mod unix_stream;

pub use addr::{ToSocketAddrs, lookup_host};
#[cfg(any(feature = "hyper", feature = "tokio"))]
pub(crate) use bytes::recv;
pub use incoming::Incoming;
pub use peer_cred::UCred;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use tcp_listener::TcpListener;
pub use tcp_stream::TcpStream;
pub use udp_socket::UdpSocket;
pub use unix_datagram::UnixDatagram;
pub use unix_listener::UnixListener;
pub use unix_stream::UnixStream;
