//! evbase, through its free functions, as a task would use it.

use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use evbase::{JoinHandle, Runtime};

use super::{Datagrams, Foreign, Peer, Sockets, Timers, datagram, futures_stream};

#[derive(Clone, Copy)]
pub struct Evbase;

impl Peer for Evbase {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        Runtime::new()
            .expect("a runtime")
            .block_on(main(Evbase))
            .expect("nobody stops it")
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        evbase::spawn_local(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        evbase::spawn_local(task);
    }

    fn yield_now() -> impl Future<Output = ()> + 'static {
        evbase::yield_now()
    }
}

impl Foreign for Evbase {
    type Spawner = evbase::Spawner;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let runtime = Runtime::new().expect("a runtime");
        let main = main(runtime.spawner());
        runtime.block_on(main).expect("nobody stops it");
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner.spawn(task);
    }
}

impl Timers for Evbase {
    fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
        evbase::time::sleep(duration)
    }
}

impl Sockets for Evbase {
    type Unix = evbase::net::UnixStream;
    type Tcp = evbase::net::TcpStream;
    type Listener = evbase::net::TcpListener;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        evbase::net::UnixStream::from_std(socket).expect("a socket")
    }

    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
        Some(socket.into_std().expect("at home"))
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        evbase::net::TcpListener::from_std(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept").0
    }
}

futures_stream!(evbase::net::TcpStream, evbase::net::UnixStream);

impl Datagrams for Evbase {
    type Udp = evbase::net::UdpSocket;

    fn udp(&self, socket: UdpSocket) -> Self::Udp {
        evbase::net::UdpSocket::from_std(socket).expect("a socket")
    }
}

datagram!(evbase::net::UdpSocket);
