//! The example `http`, with a real client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use evbase::Cause;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};

use super::{BOTH, Sender, block_on, text_of};
use crate::support::{alone, in_seconds};

#[path = "../../examples/http.rs"]
#[allow(dead_code, reason = "its main")]
mod http;

/// Runs the example in this process, and a client on another thread, which ends it by a signal.
fn served<R: Send>(client: impl FnOnce(SocketAddr) -> R + Send) -> (evbase::Report, R) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(move || client(addr));
        let report = http::run(listener).unwrap();
        (report, client.join().unwrap())
    })
}

fn interrupt() {
    // SAFETY: takes nothing; the example has a handler.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGINT) }, 0);
}

async fn sender(addr: SocketAddr, version: super::Version) -> Sender<Empty<Bytes>> {
    Sender::new(evbase::net::TcpStream::connect(addr).await.unwrap(), version).await
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

#[test]
fn it_serves_both_versions() {
    alone(|| {
        let (report, ()) = served(|addr| {
            block_on(async {
                for version in BOTH {
                    let mut sender = sender(addr, version).await;
                    let response = sender.send(get("/json")).await.unwrap();
                    assert_eq!(response.headers()["content-type"], "application/json");
                    assert_eq!(text_of(response).await, r#"{"message":"hello"}"#);
                    let text = text_of(sender.send(get("/double/21")).await.unwrap()).await;
                    assert_eq!(text, r#"{"double":42,"n":21}"#);
                    assert_eq!(sender.send(get("/none")).await.unwrap().status(), StatusCode::NOT_FOUND);
                    assert_eq!(
                        sender.send(get("/double/x")).await.unwrap().status(),
                        StatusCode::BAD_REQUEST
                    );
                }
            });
            interrupt();
        });
        assert_eq!(
            (report.cause, report.cancelled, report.panicked),
            (Cause::Requested, 0, 0)
        );
    });
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_closes_what_is_idle() {
    alone(|| {
        for round in in_seconds(0..10, 10) {
            let version = BOTH[round % 2];
            let (report, ()) = served(|addr| {
                // Idle from the beginning; and kept alive, with a request behind it.
                let mut silent = TcpStream::connect(addr).unwrap();
                let mut idle = BufReader::new(TcpStream::connect(addr).unwrap());
                idle.get_mut()
                    .write_all(b"GET /json HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    .unwrap();
                let mut line = String::new();
                idle.read_line(&mut line).unwrap();
                assert_eq!(line, "HTTP/1.1 200 OK\r\n");
                block_on(async {
                    let mut sender = sender(addr, version).await;
                    let response: Response<_> = sender.send(get("/stream")).await.unwrap();
                    let mut frames = response.into_body().into_data_stream();
                    assert_eq!(frames.next().await.unwrap().unwrap(), "line 0\n");
                    interrupt();
                    let rest: Vec<_> = frames.map(Result::<Bytes, hyper::Error>::unwrap).collect().await;
                    assert_eq!(rest.concat(), b"line 1\nline 2\nline 3\nline 4\n");
                });
                silent.read_to_end(&mut Vec::new()).unwrap();
                idle.read_to_end(&mut Vec::new()).unwrap();
                assert!(TcpStream::connect(addr).is_err(), "it still listens");
            });
            assert_eq!(
                (report.cause, report.cancelled, report.panicked),
                (Cause::Requested, 0, 0)
            );
        }
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    alone(|| {
        let (report, ()) = served(|addr| {
            let mut silent = TcpStream::connect(addr).unwrap();
            let mut stream = BufReader::new(TcpStream::connect(addr).unwrap());
            stream
                .get_mut()
                .write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .unwrap();
            let mut line = String::new();
            while line != "line 0\n" {
                line.clear();
                stream.read_line(&mut line).unwrap();
            }
            interrupt();
            // Signals that are pending are one: the first has been heard when idle connections are closed. (Not asked for by
            // connecting until that fails: a full backlog makes the kernel try again only after a second.)
            silent.read_to_end(&mut Vec::new()).unwrap();
            interrupt();
            // Cut off, or reset.
            let mut rest = String::new();
            let _ = stream.read_to_string(&mut rest);
            assert!(!rest.contains("line 4"), "{rest}");
        });
        assert_eq!(report.cause, Cause::Requested);
        assert_eq!(report.panicked, 0);
        assert!(report.cancelled >= 1, "{report}");
    });
}
