//! evbase, through its free functions, as a task would use it.

use std::future::Future;
use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use evbase::io::{AsyncFd, Ready};
use evbase::{JoinHandle, Runtime};

use super::{Foreign, Peer, Sockets, Stream, Timers, futures_stream};

#[derive(Clone, Copy)]
pub struct Evbase;

impl Evbase {
    /// As `Peer::run`, on a runtime with settings of its own.
    pub fn run_on<T: 'static, F: Future<Output = T> + 'static>(runtime: Runtime, main: impl FnOnce(Self) -> F) -> T {
        runtime.block_on(main(Evbase)).expect("nobody stops it")
    }
}

impl Peer for Evbase {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        Self::run_on(Runtime::new().expect("a runtime"), main)
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
    type Unix = Pair;
    type Tcp = evbase::net::TcpStream;
    type Listener = evbase::net::TcpListener;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        Pair(AsyncFd::new(socket).expect("a socket"))
    }

    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
        Some(socket.0.into_inner().expect("at home"))
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        evbase::net::TcpListener::from_std(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept").0
    }
}

futures_stream!(evbase::net::TcpStream);

/// An end of a socket pair. An `AsyncFd` knows nothing of the descriptor in it; who does says so by its guard: here, that a
/// short read leaves nothing behind, since nobody sends descriptors along.
pub struct Pair(AsyncFd<UnixStream>);

impl Stream for Pair {
    async fn read(&mut self, mut buffer: Vec<u8>) -> (usize, Vec<u8>) {
        loop {
            let mut guard = self.0.readable().await.expect("a socket");
            match self.0.get_ref().read(&mut buffer) {
                Ok(n) => {
                    if n < buffer.len() {
                        guard.clear_ready_matching(Ready::READABLE);
                    }
                    return (n, buffer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => panic!("read: {error}"),
            }
        }
    }

    async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> Vec<u8> {
        futures_lite::AsyncWriteExt::write_all(&mut self.0, &buffer[..len])
            .await
            .expect("write");
        buffer
    }
}
