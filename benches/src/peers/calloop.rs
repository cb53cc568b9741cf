//! calloop, with its executor as an event source.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use calloop::channel::{Event, Sender};
use calloop::futures::{Scheduler, executor};
use calloop::io::Async;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, LoopHandle};

use super::{BoxedTask, Foreign, Peer, Sockets, Timers, futures_stream};

#[derive(Clone)]
pub struct Calloop {
    handle: LoopHandle<'static, ()>,
    scheduler: Scheduler<()>,
}

impl Peer for Calloop {
    fn run<T: 'static, F: Future<Output = T> + 'static>(main: impl FnOnce(Self) -> F) -> T {
        let mut event_loop = EventLoop::try_new().expect("a loop");
        let (executor, scheduler) = executor().expect("an executor");
        let handle = event_loop.handle();
        handle.insert_source(executor, |(), _, _| {}).expect("a source");
        let output = Rc::new(RefCell::new(None));
        let place = output.clone();
        let main = main(Calloop {
            handle,
            scheduler: scheduler.clone(),
        });
        let main = async move {
            let value = main.await;
            place.replace(Some(value));
        };
        scheduler.schedule(main).expect("the executor is alive");
        loop {
            event_loop.dispatch(None, &mut ()).expect("a turn");
            if let Some(value) = output.take() {
                return value;
            }
        }
    }

    type Join<T: 'static> = Join<T>;

    fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Join<T> {
        let cell = Rc::new(RefCell::new(Cell {
            value: None,
            waker: None,
        }));
        let place = cell.clone();
        self.spawn_detached(async move {
            let value = task.await;
            let mut place = place.borrow_mut();
            place.value = Some(value);
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        });
        Join(cell)
    }

    fn spawn_detached(&self, task: impl Future<Output = ()> + 'static) {
        self.scheduler.schedule(task).expect("the executor is alive");
    }
}

/// calloop has no join handles: its task leaves the value in a cell instead.
pub struct Join<T>(Rc<RefCell<Cell<T>>>);

struct Cell<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<T> {
        let mut cell = self.0.borrow_mut();
        match cell.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                cell.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Through calloop's own channel, whose callback schedules.
impl Foreign for Calloop {
    type Spawner = Sender<BoxedTask>;

    fn run<F: Future<Output = ()> + 'static>(main: impl FnOnce(Self::Spawner) -> F) {
        let (sender, channel) = calloop::channel::channel::<BoxedTask>();
        let main = main(sender);
        <Self as Peer>::run(|calloop| {
            let Calloop { handle, scheduler } = calloop;
            let spawn = move |event, _: &mut (), _: &mut ()| {
                if let Event::Msg(task) = event {
                    scheduler.schedule(task).expect("the executor is alive");
                }
            };
            handle.insert_source(channel, spawn).expect("a source");
            main
        });
    }

    fn spawn(spawner: &Self::Spawner, task: impl Future<Output = ()> + Send + 'static) {
        spawner
            .send(Box::pin(task))
            .expect("the loop runs until all are spawned");
    }
}

impl Timers for Calloop {
    /// Its `TimeoutFuture` leaves the timer armed when it is dropped; this one takes it out, as cancelling has to.
    fn sleep(&self, duration: Duration) -> impl Future + use<> + 'static {
        let waker = Rc::new(RefCell::new(Some(Waker::noop().clone())));
        let waits = waker.clone();
        let fire = move |_, _: &mut (), _: &mut ()| {
            if let Some(waker) = waits.take() {
                waker.wake();
            }
            TimeoutAction::Drop
        };
        let token = self.handle.insert_source(Timer::from_duration(duration), fire);
        let armed = Armed {
            handle: self.handle.clone(),
            token: token.expect("a source"),
        };
        poll_fn(move |cx| {
            let _armed = &armed;
            match waker.borrow_mut().as_mut() {
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
    }
}

struct Armed {
    handle: LoopHandle<'static, ()>,
    token: calloop::RegistrationToken,
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.handle.remove(self.token);
    }
}

impl Sockets for Calloop {
    type Unix = Async<'static, UnixStream>;
    type Tcp = Async<'static, std::net::TcpStream>;
    type Listener = Async<'static, TcpListener>;

    fn unix(&self, socket: UnixStream) -> Self::Unix {
        self.handle.adapt_io(socket).expect("a socket")
    }

    fn off_the_loop(socket: Self::Unix) -> Option<UnixStream> {
        Some(socket.into_inner())
    }

    fn listener(&self, listener: TcpListener) -> Self::Listener {
        self.handle.adapt_io(listener).expect("a listener")
    }

    async fn accept(&self, listener: &mut Self::Listener) -> Self::Tcp {
        loop {
            match listener.get_mut().accept() {
                Ok((stream, _)) => return self.handle.adapt_io(stream).expect("a socket"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => listener.readable().await,
                Err(error) => panic!("accept: {error}"),
            }
        }
    }
}

futures_stream!(Async<'static, UnixStream>, Async<'static, std::net::TcpStream>);
