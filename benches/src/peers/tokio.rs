//! tokio's current_thread runtime, with a `LocalSet` or as a `LocalRuntime`.

use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use super::{Datagrams, Foreign, Peer, Sockets, Stream, Timers, datagram};

#[derive(Clone, Copy)]
pub struct LocalSet;

#[derive(Clone, Copy)]
pub struct LocalRuntime;

fn builder() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    builder
}

fn local_runtime() -> tokio::runtime::LocalRuntime {
    builder().build_local(Default::default()).expect("a runtime")
}

impl Peer for LocalSet {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let runtime = builder().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, main(LocalSet))
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        tokio::task::spawn_local(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    fn yield_now() -> impl Future<Output = ()> + 'static {
        tokio::task::yield_now()
    }
}

impl Peer for LocalRuntime {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let runtime = local_runtime();
        let main = main(LocalRuntime);
        runtime.block_on(main)
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        tokio::task::spawn_local(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    fn yield_now() -> impl Future<Output = ()> + 'static {
        tokio::task::yield_now()
    }
}

/// A `LocalSet` can't be spawned into from abroad; the runtime under it can.
impl Foreign for LocalSet {
    type Spawner = Handle;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let runtime = builder().build().expect("a runtime");
        let main = main(runtime.handle().clone());
        tokio::task::LocalSet::new().block_on(&runtime, main);
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner.spawn(task);
    }
}

impl Foreign for LocalRuntime {
    type Spawner = Handle;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let runtime = local_runtime();
        let main = main(runtime.handle().clone());
        runtime.block_on(main);
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner.spawn(task);
    }
}

macro_rules! timers_and_sockets {
    ($($peer:ty),*) => {$(
        impl Timers for $peer {
            fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
                tokio::time::sleep(duration)
            }
        }

        impl Sockets for $peer {
            type Unix = tokio::net::UnixStream;
            type Tcp = tokio::net::TcpStream;
            type Listener = tokio::net::TcpListener;

            const NONBLOCKING: bool = true;

            fn unix(&self, socket: UnixStream) -> Self::Unix {
                tokio::net::UnixStream::from_std(socket).expect("a socket")
            }

            fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
                Some(socket.into_std().expect("a socket"))
            }

            fn listener(&self, listener: TcpListener) -> Self::Listener {
                listener.set_nonblocking(true).expect("a listener");
                tokio::net::TcpListener::from_std(listener).expect("a listener")
            }

            async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
                listener.accept().await.expect("accept").0
            }
        }

        impl Datagrams for $peer {
            type Udp = tokio::net::UdpSocket;

            fn udp(&self, socket: UdpSocket) -> Self::Udp {
                tokio::net::UdpSocket::from_std(socket).expect("a socket")
            }
        }
    )*};
}

datagram!(tokio::net::UdpSocket);

timers_and_sockets!(LocalSet, LocalRuntime);

macro_rules! stream {
    ($($stream:ty),*) => {$(
        impl Stream for $stream {
            async fn read(&mut self, mut buffer: Vec<u8>) -> (usize, Vec<u8>) {
                let n = AsyncReadExt::read(self, &mut buffer).await.expect("read");
                (n, buffer)
            }

            async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> Vec<u8> {
                AsyncWriteExt::write_all(self, &buffer[..len]).await.expect("write");
                buffer
            }
        }
    )*};
}

stream!(tokio::net::UnixStream, tokio::net::TcpStream);
