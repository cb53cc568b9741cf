//! evbase with the crates and the servers that its users have. `.ci/run ecosystem` installs the servers and runs this.
#![cfg(test)]

mod channels;
mod descriptors;
mod files;
mod http2;
mod on_tokios_reactor;
mod postgres;
mod redis;
mod servers;
mod tls;
mod websocket;

#[path = "../../support/watchdog.rs"]
#[allow(dead_code, reason = "the crate's own tests use all of it")]
mod watchdog;

use std::time::Duration;

use evbase::net::{TcpListener, TcpStream};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Runs a test on a runtime of its own, which nothing is left on, under the watchdog.
fn on_a_loop(test: impl AsyncFnOnce() -> Result) {
    watchdog::within(Duration::from_secs(180), || {
        let runtime = evbase::Runtime::new().unwrap();
        if let Err(error) = runtime.block_on(test()).unwrap() {
            panic!("{error:?}");
        }
        runtime.shutdown().wait().unwrap();
    });
}

/// Two ends of a TCP connection.
async fn tcp_pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (connected, accepted) = futures::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    Ok((connected?, accepted?.0))
}
