//! compio, on io_uring.

use std::future::Future;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use compio::buf::{IntoInner, IoBuf};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::runtime::{JoinHandle, Runtime};

use super::{Peer, Sockets, Stream, Timers};

#[derive(Clone, Copy)]
pub struct Compio;

impl Peer for Compio {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let runtime = Runtime::new().expect("a runtime");
        let main = main(Compio);
        runtime.block_on(main)
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        compio::runtime::spawn(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }
}

impl Timers for Compio {
    fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
        compio::time::sleep(duration)
    }
}

impl Sockets for Compio {
    type Unix = compio::net::UnixStream;
    type Tcp = compio::net::TcpStream;
    type Listener = compio::net::TcpListener;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        compio::net::UnixStream::from_std(socket).expect("a socket")
    }

    fn off_the_loop(_: Self::Unix) -> Option<UnixStream> {
        None
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        compio::net::TcpListener::from_std(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept").0
    }
}

macro_rules! stream {
    ($($stream:ty),*) => {$(
        impl Stream for $stream {
            async fn read(&mut self, buffer: Vec<u8>) -> (usize, Vec<u8>) {
                let (n, buffer) = AsyncRead::read(self, buffer).await.into();
                (n.expect("read"), buffer)
            }

            async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> Vec<u8> {
                let (n, slice) = AsyncWriteExt::write_all(self, buffer.slice(..len)).await.into();
                n.expect("write");
                slice.into_inner()
            }
        }
    )*};
}

stream!(compio::net::UnixStream, compio::net::TcpStream);
