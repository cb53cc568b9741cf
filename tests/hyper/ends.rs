//! What becomes of connections when a runtime stops, is dropped, or is in its grace period.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, ThreadId};
use std::time::Duration;

use evbase::hyper::{Executor, LocalExecutor};
use evbase::{Builder, Runtime};
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{BOTH, Sender, Version, Whole, serve};
use crate::support::{rounds, until};

/// Dropped at home, or it says so.
struct AtHome {
    home: ThreadId,
    dropped: Arc<AtomicUsize>,
    _not_send: Rc<()>,
}

impl Drop for AtHome {
    fn drop(&mut self) {
        assert_eq!(self.home, thread::current().id());
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// A service that answers nothing, and counts its requests.
fn serve_nothing(
    stream: evbase::net::TcpStream,
    version: Version,
    arrived: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
) {
    let home = thread::current().id();
    let service = service_fn(move |_| {
        arrived.fetch_add(1, SeqCst);
        let state = AtHome {
            home,
            dropped: dropped.clone(),
            _not_send: Rc::default(),
        };
        async move {
            std::future::pending::<()>().await;
            drop(state);
            Ok::<_, Infallible>(Response::new(Whole::default()))
        }
    });
    serve(stream, version, service);
}

#[test]
fn dropped_abroad_in_the_middle_of_requests_their_state_is_dropped_at_home() {
    rounds(200, |round| {
        let version = BOTH[round % 2];
        let runtime = Builder::new().start("http").unwrap();
        let (arrived, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut connects = Some(runtime.spawner().spawn_with({
            let (arrived, dropped) = (arrived.clone(), dropped.clone());
            move || async move {
                for _ in 0..4 {
                    let (client, server) = super::connected().await;
                    serve_nothing(server, version, arrived.clone(), dropped.clone());
                    let mut sender = Sender::new(client, version).await;
                    evbase::spawn_local(async move { sender.send(Request::new(Whole::default())).await });
                }
            }
        }));
        until(|| {
            // Without a connection, for want of a port, nothing would ever arrive.
            if let Some(connects) = connects.take_if(|connects| connects.is_finished()) {
                connects.wait().unwrap().unwrap();
            }
            arrived.load(SeqCst) >= round % 5
        });
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.panicked, 0);
        assert_eq!(arrived.load(SeqCst), dropped.load(SeqCst));
    });
}

#[test]
fn a_request_in_flight_is_finished_in_the_grace_period() {
    rounds(50, |round| {
        let version = BOTH[round % 2];
        let runtime = Builder::new().grace(Duration::from_secs(20)).build().unwrap();
        let shutdown = runtime.shutdown_handle();
        let text = runtime.block_on(async {
            let (client, server) = super::connected().await;
            let shutdown = shutdown.clone();
            let service = service_fn(move |_| {
                // The stop comes in the middle of this request.
                shutdown.request();
                async {
                    evbase::time::sleep(Duration::from_millis(1)).await;
                    // In HTTP/2, this is a task that is spawned while the runtime stops.
                    Ok::<_, Infallible>(Response::new(Whole::from("finished")))
                }
            });
            let server = serve(server, version, service);
            let mut sender = Sender::new(client, version).await;
            let text = super::text_of(sender.send(Request::new(Whole::default())).await.unwrap()).await;
            drop(sender);
            server.await.unwrap().unwrap();
            text
        });
        assert_eq!(text.unwrap(), "finished");
    });
}

#[test]
fn an_executor_of_an_ended_runtime_drops_what_it_is_given() {
    let runtime = Runtime::new().unwrap();
    let executor = Executor::new(runtime.spawner());
    drop(runtime);
    let given = Arc::new(());
    let task = given.clone();
    executor.execute(async move { drop(task) });
    assert_eq!(Arc::strong_count(&given), 1);
}

#[test]
fn both_executors_run_what_they_are_given() {
    let runtime = Runtime::new().unwrap();
    let executor = Executor::new(runtime.spawner());
    let ran = Arc::<AtomicUsize>::default();
    let local = Rc::new(Cell::new(0));
    runtime
        .block_on(async {
            let (ran, other) = (ran.clone(), local.clone());
            executor.execute(async move { ran.fetch_add(1, SeqCst) });
            LocalExecutor.execute(async move { other.set(1) });
            while local.get() == 0 {
                evbase::yield_now().await;
            }
        })
        .unwrap();
    let abroad = {
        let ran = ran.clone();
        thread::spawn(move || executor.execute(async move { ran.fetch_add(1, SeqCst) }))
    };
    abroad.join().unwrap();
    runtime
        .block_on(async {
            while ran.load(SeqCst) < 2 {
                evbase::yield_now().await;
            }
        })
        .unwrap();
}
