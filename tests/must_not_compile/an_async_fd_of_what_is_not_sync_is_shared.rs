//! A task that may be polled elsewhere holds a reference to an `AsyncFd` of something that only one thread may look at.

use std::cell::Cell;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use evbase::io::AsyncFd;

struct NotSync(UdpSocket, Cell<u8>);

impl AsFd for NotSync {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn to_a_thread<T: Send>(_: T) {}

fn main() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = Arc::new(AsyncFd::new(NotSync(socket, Cell::new(0))).unwrap());
    to_a_thread(fd);
}

async fn guarded(fd: &AsyncFd<NotSync>) {
    to_a_thread(fd.readable().await.unwrap());
}
