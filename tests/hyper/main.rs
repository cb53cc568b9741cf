//! hyper on the loop: connections with state that is not `Send`, timeouts, bodies of any size, and the end of the runtime.

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod connections;
mod ends;
mod example;
mod io;
mod timers;

use std::convert::Infallible;
use std::error::Error;

use evbase::Runtime;
use evbase::hyper::{Io, LocalExecutor, Timer};
use evbase::net::{TcpListener, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::HttpService;
use hyper::{Request, Response};

/// A body in one piece.
type Whole = Full<Bytes>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = futures::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (client, (server, peer)) = (client.unwrap(), server.unwrap());
    assert_eq!(client.local_addr().unwrap(), peer, "another program's connection");
    (client, server)
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

const BOTH: [Version; 2] = [Version::Http1, Version::Http2];

/// Serves a connection in a task of its own.
fn serve<S, B>(stream: TcpStream, version: Version, service: S) -> evbase::JoinHandle<hyper::Result<()>>
where
    S: HttpService<Incoming, ResBody = B, Error = Infallible> + 'static,
    S::Future: 'static,
    B: Body<Error: Error + Send + Sync> + 'static,
{
    evbase::spawn_local(async move {
        let io = Io::new(stream);
        match version {
            Version::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(Timer).serve_connection(io, service).await
            }
            Version::Http2 => {
                let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
                builder.timer(Timer).serve_connection(io, service).await
            }
        }
    })
}

enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

impl<B: Body<Data: Send, Error = Infallible> + Unpin + 'static> Sender<B> {
    /// A client whose connection is a task of its own.
    async fn new(stream: TcpStream, version: Version) -> Self {
        match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(Io::new(stream)).await.unwrap();
                evbase::spawn_local(connection);
                Self::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(LocalExecutor, Io::new(stream)).await.unwrap();
                evbase::spawn_local(connection);
                Self::Http2(sender)
            }
        }
    }

    async fn send(&mut self, request: Request<B>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

async fn bytes_of(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn text_of(response: Response<Incoming>) -> String {
    String::from_utf8(bytes_of(response).await.to_vec()).unwrap()
}
