//! A borrowed descriptor could be closed, and its number be another's, while the base still watches it.

use std::net::UdpSocket;
use std::os::fd::AsFd;

fn main() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = evbase::io::AsyncFd::new(socket.as_fd()).unwrap();
    drop(socket);
    drop(fd);
}
