//! HTTP/1 and HTTP/2 on the loop: an axum router, served until Ctrl-C.
//!
//! ```text
//! cargo run --release --example http --features hyper -- 8080
//! curl http://127.0.0.1:8080/json
//! curl http://127.0.0.1:8080/stream
//! ```
//!
//! The first Ctrl-C stops accepting, and lets requests that are in flight finish; ten seconds later, or at a second Ctrl-C,
//! what is left is dropped.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::pin;
use std::time::Duration;
use std::{env, io};

use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use evbase::hyper::{Io, LocalExecutor, Timer};
use evbase::time::{interval, sleep};
use evbase::{Builder, Report, Shutdown, net};
use futures::StreamExt;
use futures::future::{Either, select};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let port = match env::args().nth(1) {
        Some(port) => port.parse().map_err(|_| format!("{port:?} is no port"))?,
        None => 8080,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening on http://{}; Ctrl-C ends it", listener.local_addr()?);
    println!("{}", run(listener)?);
    Ok(())
}

pub(crate) fn router() -> Router {
    Router::new()
        .route("/json", get(async || Json(json!({ "message": "hello" }))))
        .route("/double/{n}", get(double))
        .route("/stream", get(stream))
}

async fn double(Path(n): Path<i32>) -> Json<Value> {
    Json(json!({ "n": n, "double": i64::from(n) * 2 }))
}

/// Five lines, a tenth of a second apart, each sent when it is there.
async fn stream() -> Body {
    let lines = interval(Duration::from_millis(100)).take(5).enumerate();
    Body::from_stream(lines.map(|(n, _)| Ok::<_, Infallible>(format!("line {n}\n"))))
}

/// Serves until it is told to stop by a signal, and says how the runtime ended.
pub(crate) fn run(listener: TcpListener) -> Result<Report, Box<dyn Error>> {
    let runtime = Builder::new().grace(Duration::from_secs(10)).build()?;
    let shutdown = runtime.shutdown_handle();
    let _signals = shutdown.on_signals(&[libc::SIGINT, libc::SIGTERM])?;
    let served = runtime.block_on(serve(listener, router(), shutdown));
    if let Ok(Err(error)) = served {
        return Err(error.into());
    }
    Ok(runtime.shutdown().wait()?)
}

async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) -> io::Result<()> {
    let listener = net::TcpListener::from_std(listener)?;
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().timer(Timer);
    builder.http2().timer(Timer);
    let connections = GracefulShutdown::new();
    let mut requested = shutdown.requested();
    loop {
        let stream = match select(pin!(listener.accept()), &mut requested).await {
            Either::Left((Ok((stream, _)), _)) => stream,
            Either::Left((Err(error), _)) => {
                // Out of descriptors, perhaps: the listener stays usable, but not at once.
                eprintln!("can't accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            Either::Right(((), _)) => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder
            .serve_connection_with_upgrades(Io::new(stream), service)
            .into_owned();
        let connection = connections.watch(connection);
        evbase::spawn_local(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
    // Nobody can connect any more; idle connections are closed, the others when they have answered.
    drop(listener);
    connections.shutdown().await;
    Ok(())
}
