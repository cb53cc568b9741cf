//! What ends something takes it by value; and the owning handle is one only.

use std::net::UdpSocket;

use evbase::io::AsyncFd;
use evbase::net::TcpStream;
use evbase::{JoinHandle, Runtime, Terminated};

fn shut_down(runtime: Runtime) {
    let _ = runtime.shutdown();
    let _ = runtime.run();
}

fn waited_for(handle: JoinHandle<()>, terminated: Terminated) {
    let _ = handle.wait();
    handle.abort();
    let _ = terminated.wait();
    let _ = terminated.wait();
}

fn taken_apart(fd: AsyncFd<UdpSocket>, stream: TcpStream) {
    let _ = fd.into_inner();
    let _ = fd.get_ref();
    let _ = stream.into_split();
    let _ = stream.into_std();
}

fn main() {}
