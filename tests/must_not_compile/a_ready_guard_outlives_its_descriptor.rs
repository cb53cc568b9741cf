//! A guard clears the readiness of a registration, which has to be there.

use std::net::UdpSocket;

use evbase::io::AsyncFd;

async fn dropped(fd: AsyncFd<UdpSocket>) {
    let mut guard = fd.readable().await.unwrap();
    drop(fd);
    guard.clear_ready();
}

async fn taken_apart(fd: AsyncFd<UdpSocket>) {
    let mut guard = fd.writable().await.unwrap();
    let _ = fd.into_inner();
    guard.clear_ready();
}

fn main() {}
