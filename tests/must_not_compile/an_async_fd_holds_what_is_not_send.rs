//! An `AsyncFd` that is dropped abroad travels home with what it holds.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

struct NotSend(UdpSocket, Rc<()>);

impl AsFd for NotSend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn main() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _ = evbase::io::AsyncFd::new(NotSend(socket, Rc::new(())));
}
