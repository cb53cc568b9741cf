//! glommio, on io_uring. It isn't asked to pin its thread: the suite has done that.

use std::future::Future;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use glommio::LocalExecutorBuilder;
use glommio::task::JoinHandle;
use glommio::timer::Timer;

use super::{Peer, Sockets, Timers, futures_stream};

#[derive(Clone, Copy)]
pub struct Glommio;

impl Peer for Glommio {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let executor = LocalExecutorBuilder::default().make().expect("an executor");
        let main = main(Glommio);
        executor.run(main)
    }

    type Join<T: 'static> = JoinHandle<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        glommio::spawn_local(task).detach()
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}

impl Timers for Glommio {
    fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
        Timer::new(duration)
    }
}

impl Sockets for Glommio {
    type Unix = glommio::net::UnixStream;
    type Tcp = glommio::net::TcpStream;
    type Listener = glommio::net::TcpListener;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        // SAFETY: the descriptor is owned, and given away by its only owner; the same below.
        unsafe { glommio::net::UnixStream::from_raw_fd(socket.into_raw_fd()) }
    }

    fn off_the_loop(_: Self::Unix) -> Option<UnixStream> {
        None
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        // SAFETY: as above.
        unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        listener.accept().await.expect("accept")
    }
}

futures_stream!(glommio::net::UnixStream, glommio::net::TcpStream);
