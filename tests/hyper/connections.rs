//! Servers and clients, of both versions.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::thread;

use evbase::Builder;
use evbase::hyper::{Executor, Io};
use evbase::net::{TcpListener, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::rt::Executor as _;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

use super::{BOTH, Sender, Version, Whole, block_on, connected, serve, text_of};
use crate::support::watchdog;

#[test]
fn a_service_may_hold_what_is_not_send() {
    let _watchdog = watchdog();
    for version in BOTH {
        block_on(async {
            let (client, server) = connected().await;
            let seen = Rc::new(RefCell::new(Vec::new()));
            let log = seen.clone();
            let server = serve(
                server,
                version,
                service_fn(move |request| {
                    let log = log.clone();
                    async move {
                        log.borrow_mut().push(request.uri().path().to_owned());
                        // Another task's turn, with the `Rc` in hand.
                        evbase::yield_now().await;
                        let text = format!("{} of {:?}", log.borrow().len(), request.version());
                        Ok::<_, Infallible>(Response::new(Whole::from(text)))
                    }
                }),
            );
            let mut sender = Sender::new(client, version).await;
            for n in 1..=3 {
                let request = Request::get(format!("http://here/{n}")).body(Whole::default()).unwrap();
                let text = text_of(sender.send(request).await.unwrap()).await;
                let protocol = match version {
                    Version::Http1 => "HTTP/1.1",
                    Version::Http2 => "HTTP/2.0",
                };
                assert_eq!(text, format!("{n} of {protocol}"));
            }
            assert_eq!(seen.borrow().len(), 3);
            drop(sender);
            server.await.unwrap().unwrap();
            // The service went with its connection.
            assert_eq!(Rc::strong_count(&seen), 1);
        });
    }
}

#[test]
fn requests_of_one_http2_connection_are_served_at_the_same_time() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, server) = connected().await;
        let open = Rc::new(Cell::new(0));
        let all_here = futures::lock::Mutex::new(());
        let all_here = Rc::new(all_here);
        let held = all_here.lock().await;
        let service = {
            let (open, all_here) = (open.clone(), all_here.clone());
            service_fn(move |_| {
                let (open, all_here) = (open.clone(), all_here.clone());
                async move {
                    open.set(open.get() + 1);
                    drop(all_here.lock().await);
                    Ok::<_, Infallible>(Response::new(Whole::default()))
                }
            })
        };
        serve(server, Version::Http2, service);
        let Sender::Http2(sender) = Sender::<Whole>::new(client, Version::Http2).await else {
            unreachable!()
        };
        let requests = futures::future::join_all((0..50).map(|_| {
            let mut sender = sender.clone();
            async move { sender.send_request(Request::new(Whole::default())).await.unwrap() }
        }));
        let release = async {
            while open.get() < 50 {
                evbase::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            drop(held);
        };
        let (responses, ()) = futures::join!(requests, release);
        assert!(responses.iter().all(|response| response.status() == StatusCode::OK));
    });
}

#[test]
fn a_client_is_used_from_another_thread_while_home_drives_its_connection() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("http").unwrap();
    let home = runtime.home().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let served = runtime.spawner().spawn_with(move || async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let count = Rc::new(Cell::new(0));
        let service = service_fn(move |_| {
            count.set(count.get() + 1);
            let text = format!("{} on {:?}", count.get(), thread::current().id());
            async move { Ok::<_, Infallible>(Response::new(Whole::from(text))) }
        });
        serve(stream, Version::Http2, service).await.unwrap().unwrap();
    });
    // A handshake writes, which is for home to do; the connection follows by the executor, and so do hyper's own tasks.
    let executor = Executor::new(runtime.spawner());
    let handshake = {
        let executor = executor.clone();
        async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            hyper::client::conn::http2::handshake::<_, _, Whole>(executor, Io::new(stream))
                .await
                .unwrap()
        }
    };
    let (sender, connection) = runtime.spawner().spawn(handshake).wait().unwrap().unwrap();
    executor.execute(async { connection.await.unwrap() });
    for n in 1..=100 {
        let mut sender = sender.clone();
        let text = futures::executor::block_on(async move {
            let response = sender.send_request(Request::new(Full::default())).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        assert_eq!(text, format!("{n} on {home:?}"));
    }
    drop(sender);
    served.wait().unwrap().unwrap();
}

#[test]
fn an_upgraded_connection_is_read_and_written_as_any_other() {
    use futures::{AsyncReadExt, AsyncWriteExt};

    let _watchdog = watchdog();
    block_on(async {
        let (client, server) = connected().await;
        let service = service_fn(|request: Request<_>| async move {
            assert_eq!(request.method(), Method::CONNECT);
            evbase::spawn_local(async move {
                let mut stream = Io::new(hyper::upgrade::on(request).await.unwrap());
                let mut word = [0; 5];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
                stream.close().await.unwrap();
            });
            Ok::<_, Infallible>(Response::new(Whole::default()))
        });
        evbase::spawn_local(async move {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(Io::new(server), service)
                .with_upgrades()
                .await
                .unwrap();
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(Io::new(client)).await.unwrap();
        evbase::spawn_local(connection.with_upgrades());
        let request = Request::connect("there:1").body(Whole::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        // What hyper gives away is ours again.
        let parts = upgraded.downcast::<Io<TcpStream>>().unwrap();
        let mut stream = parts.io.into_inner();
        stream.write_all(b"hello").await.unwrap();
        let mut text = String::from_utf8(parts.read_buf.to_vec()).unwrap();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    });
}
