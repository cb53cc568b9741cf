//! smol's parts: async-executor and async-io, whose reactor is driven by the loop's thread (`async_io::block_on`).

use std::future::Future;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::{Executor, LocalExecutor, Task};
use async_io::{Async, Timer};

use super::{Foreign, Peer, Sockets, Timers, futures_stream};

#[derive(Clone)]
pub struct Smol(Rc<LocalExecutor<'static>>);

impl Peer for Smol {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let executor = Rc::new(LocalExecutor::new());
        async_io::block_on(executor.run(main(Smol(executor.clone()))))
    }

    type Join<T: 'static> = Task<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.spawn(task)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(task).detach();
    }
}

/// A `LocalExecutor` can't be spawned into from abroad; an `Executor` can, and is run by one thread here.
impl Foreign for Smol {
    type Spawner = Arc<Executor<'static>>;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let executor = Arc::new(Executor::new());
        async_io::block_on(executor.run(main(executor.clone())));
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner.spawn(task).detach();
    }
}

impl Timers for Smol {
    fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
        Timer::after(duration)
    }
}

impl Sockets for Smol {
    type Unix = Async<UnixStream>;
    type Tcp = Async<std::net::TcpStream>;
    type Listener = Async<TcpListener>;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        Async::new(socket).expect("a socket")
    }

    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
        Some(socket.into_inner().expect("a socket"))
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        Async::new(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept").0
    }
}

futures_stream!(Async<UnixStream>, Async<std::net::TcpStream>);
