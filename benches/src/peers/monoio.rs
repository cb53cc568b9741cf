//! monoio, on epoll (its "legacy" driver) and on io_uring.

use std::future::Future;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::task::JoinHandle;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::{Peer, Sockets, Stream, Timers};

pub struct Monoio<D>(PhantomData<D>);

pub type MonoioEpoll = Monoio<LegacyDriver>;
pub type MonoioUring = Monoio<IoUringDriver>;

impl<D> Clone for Monoio<D> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// What differs between the two drivers.
pub trait Driver: 'static {
    /// Epoll needs sockets that don't block; io_uring's would answer EAGAIN for them.
    const NONBLOCKING: bool;

    fn block_on<F: Future>(future: F) -> F::Output;
}

macro_rules! driver {
    ($($driver:ty, $nonblocking:literal;)*) => {$(
        impl Driver for $driver {
            const NONBLOCKING: bool = $nonblocking;

            fn block_on<F: Future>(future: F) -> F::Output {
                let mut runtime: monoio::Runtime<TimeDriver<$driver>> =
                    RuntimeBuilder::<$driver>::new().enable_timer().build().expect("a runtime");
                runtime.block_on(future)
            }
        }
    )*};
}

driver! {
    LegacyDriver, true;
    IoUringDriver, false;
}

impl<D: Driver> Peer for Monoio<D> {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let main = main(Self(PhantomData));
        D::block_on(main)
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        monoio::spawn(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }
}

impl<D: Driver> Timers for Monoio<D> {
    fn sleep(&self, duration: Duration) -> impl Future + use<D> + 'static {
        monoio::time::sleep(duration)
    }
}

impl<D: Driver> Sockets for Monoio<D> {
    type Unix = monoio::net::UnixStream;
    type Tcp = monoio::net::TcpStream;
    type Listener = monoio::net::TcpListener;

    const NONBLOCKING: bool = D::NONBLOCKING;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        monoio::net::UnixStream::from_std(socket).expect("a socket")
    }

    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
        // SAFETY: the descriptor is owned, and given away by its only owner.
        D::NONBLOCKING.then(|| unsafe { UnixStream::from_raw_fd(socket.into_raw_fd()) })
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        listener.set_nonblocking(D::NONBLOCKING).expect("a listener");
        monoio::net::TcpListener::from_std(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept").0
    }
}

macro_rules! stream {
    ($($stream:ty),*) => {$(
        impl Stream for $stream {
            async fn read(&mut self, buffer: Vec<u8>) -> (usize, Vec<u8>) {
                let (n, buffer) = AsyncReadRent::read(self, buffer).await;
                (n.expect("read"), buffer)
            }

            async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> Vec<u8> {
                let (n, slice) = AsyncWriteRentExt::write_all(self, buffer.slice(..len)).await;
                n.expect("write");
                slice.into_inner()
            }
        }
    )*};
}

stream!(monoio::net::UnixStream, monoio::net::TcpStream);
