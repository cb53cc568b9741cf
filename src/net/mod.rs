//! Sockets on the loop: mio's non-blocking ones, watched by the runtime's own base.
//!
//! Like every [`AsyncFd`](crate::io::AsyncFd), a socket can be made and dropped on any thread; the first loop that polls
//! it is its home. Making one (`bind`, `connect`) is async because names may have to be looked up, which happens on the
//! pool of [`unblock`](crate::unblock()).

mod addr;
mod tcp_listener;
mod tcp_split;
mod tcp_stream;

pub use addr::ToSocketAddrs;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use tcp_stream::TcpStream;
