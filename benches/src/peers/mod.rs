//! The runtimes under test, behind a few traits: every workload is written once, and each peer runs that very code.
//!
//! The glue in the files below is what a user of the peer would write, by its documentation. Where a peer lacks something
//! (a join handle, a spawn from another thread), its file says what stands in for it.

use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

mod bare;
mod calloop;
mod compio;
mod evbase;
mod glommio;
mod in_c;
mod monoio;
pub mod raw;
mod smol;
mod tokio;

pub use self::bare::Bare;
pub use self::calloop::Calloop;
pub use self::compio::Compio;
pub use self::evbase::Evbase;
pub use self::glommio::Glommio;
pub use self::in_c::Library;
pub use self::monoio::{MonoioEpoll, MonoioUring};
pub use self::smol::Smol;
pub use self::tokio::{LocalRuntime, LocalSet};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Evbase,
    TokioLocalSet,
    TokioLocalRuntime,
    Smol,
    MonoioEpoll,
    MonoioUring,
    Compio,
    Glommio,
    Calloop,
    Bare,
    Libevent,
    Libuv,
    Raw,
}

impl Name {
    pub const ALL: [Name; 13] = [
        Name::Evbase,
        Name::TokioLocalSet,
        Name::TokioLocalRuntime,
        Name::Smol,
        Name::MonoioEpoll,
        Name::MonoioUring,
        Name::Compio,
        Name::Glommio,
        Name::Calloop,
        Name::Bare,
        Name::Libevent,
        Name::Libuv,
        Name::Raw,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Name::Evbase => "evbase",
            Name::TokioLocalSet => "tokio",
            Name::TokioLocalRuntime => "tokio-lrt",
            Name::Smol => "smol",
            Name::MonoioEpoll => "monoio-epoll",
            Name::MonoioUring => "monoio-uring",
            Name::Compio => "compio",
            Name::Glommio => "glommio",
            Name::Calloop => "calloop",
            Name::Bare => "bare",
            Name::Libevent => "libevent",
            Name::Libuv => "libuv",
            Name::Raw => "raw",
        }
    }

    /// Whether it is a yardstick rather than a runtime: what is left when everything that isn't needed is left out.
    pub fn is_limit(self) -> bool {
        matches!(self, Name::Bare | Name::Raw)
    }

    pub fn by_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.text() == text)
    }

    /// What may keep it from running on this machine at all.
    pub fn check(self) -> Result<(), String> {
        match self {
            Name::Libevent if !cfg!(libevent) => {
                Err("libevent's headers were not found when the suite was built (Debian: libevent-dev)".into())
            }
            Name::Libuv if !cfg!(libuv) => {
                Err("libuv's headers were not found when the suite was built (Debian: libuv1-dev)".into())
            }
            Name::MonoioUring | Name::Compio | Name::Glommio => uring_works(),
            _ => Ok(()),
        }
    }
}

/// Whether the kernel gives this process an io_uring: containers often forbid it.
fn uring_works() -> Result<(), String> {
    // The kernel's struct io_uring_params, zeroed: 120 bytes, 8-aligned.
    let mut parameters = [0_u64; 15];
    // SAFETY: the system call writes the parameters only; the descriptor is closed again.
    unsafe {
        match libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) {
            fd if fd >= 0 => {
                libc::close(fd as i32);
                Ok(())
            }
            _ => Err(format!("no io_uring here: {}", std::io::Error::last_os_error())),
        }
    }
}

/// A runtime: a handle of its running loop, which tasks may clone.
pub trait Peer: Clone + 'static {
    /// Makes a runtime, runs `main` on it to its end, and destroys the runtime.
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T;

    type Join<T: 'static>: Future + 'static;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Self::Join<T>;

    /// Spawns a task that nobody joins.
    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static);

    /// The runtime's own yield; if it has none, a wake-up of the task itself.
    fn yield_now() -> impl Future<Output = ()> + 'static {
        futures_lite::future::yield_now()
    }
}

/// A runtime that other threads can spawn into.
pub trait Foreign: 'static {
    type Spawner: Clone + Send + 'static;

    /// As `Peer::run`; `main` gets what other threads spawn by.
    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F);

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static);
}

/// For runtimes without a foreign spawn: a channel of boxed futures, and a task that spawns what it receives.
pub struct ByChannel<P>(std::marker::PhantomData<P>);

type BoxedTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl<P: Peer> Foreign for ByChannel<P> {
    type Spawner = async_channel::Sender<BoxedTask>;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        P::run(|peer| {
            let (sender, receiver) = async_channel::unbounded::<BoxedTask>();
            let main = main(sender);
            async move {
                let spawner = peer.clone();
                peer.spawn_detached(async move {
                    while let Ok(task) = receiver.recv().await {
                        spawner.spawn_detached(task);
                    }
                });
                main.await;
            }
        });
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner
            .try_send(Box::pin(task))
            .expect("the loop runs until all are spawned");
    }
}

pub trait Timers: Peer {
    fn sleep(&self, duration: Duration) -> impl Future + use<Self> + 'static;
}

/// A connected stream socket. The buffer is handed over and comes back, which io_uring needs, and which costs the others
/// the copy of three words.
pub trait Stream: 'static {
    fn read(&mut self, buffer: Vec<u8>) -> impl Future<Output = (usize, Vec<u8>)>;

    fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> impl Future<Output = Vec<u8>>;
}

pub trait Sockets: Timers {
    type Unix: Stream;
    type Tcp: Stream;
    type Listener: 'static;

    /// Whether sockets have to be set to non-blocking mode before they come here. Some peers do it themselves; io_uring's
    /// must not be.
    const NONBLOCKING: bool = false;

    fn unix(&self, socket: UnixStream) -> Self::Unix;

    /// Takes the socket off the loop. `None` if it was never on it, as with io_uring.
    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream>;

    fn listener(&self, listener: TcpListener) -> Self::Listener;

    /// The next connection, with TCP_NODELAY as the listener has it.
    fn accept(&self, listener: &mut Self::Listener) -> impl Future<Output = Self::Tcp>;
}

/// A UDP socket that is connected with another one.
pub trait Datagram: 'static {
    fn recv(&self, buffer: &mut [u8]) -> impl Future<Output = usize>;

    fn send(&self, datagram: &[u8]) -> impl Future<Output = ()>;
}

pub trait Datagrams: Peer {
    type Udp: Datagram;

    /// Takes a socket in non-blocking mode.
    fn udp(&self, socket: UdpSocket) -> Self::Udp;
}

/// `Datagram` for a type that has these methods.
macro_rules! datagram {
    ($socket:ty) => {
        impl crate::peers::Datagram for $socket {
            async fn recv(&self, buffer: &mut [u8]) -> usize {
                self.recv(buffer).await.expect("recv")
            }

            async fn send(&self, datagram: &[u8]) {
                self.send(datagram).await.expect("send");
            }
        }
    };
}
use datagram;

/// `Stream` for a type that implements the `AsyncRead` and `AsyncWrite` of `futures`.
macro_rules! futures_stream {
    ($($stream:ty),*) => {$(
        impl crate::peers::Stream for $stream {
            async fn read(&mut self, mut buffer: Vec<u8>) -> (usize, Vec<u8>) {
                let n = futures_lite::AsyncReadExt::read(self, &mut buffer).await.expect("read");
                (n, buffer)
            }

            async fn write_all(&mut self, buffer: Vec<u8>, len: usize) -> Vec<u8> {
                futures_lite::AsyncWriteExt::write_all(self, &buffer[..len]).await.expect("write");
                buffer
            }
        }
    )*};
}
use futures_stream;

/// Evaluates an expression with `$P` as the type of a peer that runs tasks.
macro_rules! with_tasks {
    ($name:expr, $P:ident => $do:expr) => {
        match $name {
            $crate::peers::Name::Bare => {
                use $crate::peers::Peer as _;
                type $P = $crate::peers::Bare;
                $do
            }
            name => $crate::peers::with_reactor!(name, $P => $do),
        }
    };
}
pub(crate) use with_tasks;

/// The same, for peers that have timers and sockets as well.
macro_rules! with_reactor {
    ($name:expr, $P:ident => $do:expr) => {
        $crate::peers::with_reactor!(@ $name, $P => $do,
            Evbase Evbase, TokioLocalSet LocalSet, TokioLocalRuntime LocalRuntime, Smol Smol, MonoioEpoll MonoioEpoll,
            MonoioUring MonoioUring, Compio Compio, Glommio Glommio, Calloop Calloop)
    };
    (@ $name:expr, $P:ident => $do:expr, $($variant:ident $peer:ident),*) => {
        match $name {
            $($crate::peers::Name::$variant => {
                use $crate::peers::Peer as _;
                type $P = $crate::peers::$peer;
                $do
            })*
            name => unreachable!("{} doesn't run this workload", name.text()),
        }
    };
}
pub(crate) use with_reactor;
