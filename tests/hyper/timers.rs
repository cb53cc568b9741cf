//! hyper's timeouts.

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, Instant};

use evbase::hyper::{Io, LocalExecutor, Timer};
use evbase::time::Sleep;
use futures::AsyncReadExt;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::rt::Timer as _;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{Whole, block_on, connected};
use crate::support::{poll_here, watchdog};

#[test]
fn a_sleep_is_reset_where_it_is_and_fires_at_its_new_deadline() {
    let _watchdog = watchdog();
    block_on(async {
        let start = Instant::now();
        let mut sleep = Timer.sleep(Duration::from_secs(3600));
        assert!(poll_here(sleep.as_mut()).await.is_pending());
        let place: *const Sleep = &*sleep.as_mut().downcast_mut_pin::<Sleep>().unwrap();
        let deadline = start + Duration::from_millis(20);
        Timer.reset(&mut sleep, deadline);
        assert_eq!(place, &raw const *sleep.as_mut().downcast_mut_pin::<Sleep>().unwrap());
        sleep.await;
        assert!(Instant::now() >= deadline);

        let deadline = Instant::now() + Duration::from_millis(5);
        Timer.sleep_until(deadline).await;
        assert!(Instant::now() >= deadline);
    });
}

#[test]
fn a_sleep_of_another_timer_is_replaced() {
    struct Never;
    impl Future for Never {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
            std::task::Poll::Pending
        }
    }
    impl hyper::rt::Sleep for Never {}

    let _watchdog = watchdog();
    block_on(async {
        let mut sleep: std::pin::Pin<Box<dyn hyper::rt::Sleep>> = Box::pin(Never);
        Timer.reset(&mut sleep, Instant::now());
        sleep.await;
    });
}

#[test]
fn a_client_that_sends_no_request_is_timed_out() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, server) = connected().await;
        let start = Instant::now();
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Whole::default())));
        let limit = Duration::from_millis(20);
        let served = hyper::server::conn::http1::Builder::new()
            .timer(Timer)
            .header_read_timeout(limit)
            .serve_connection(Io::new(server), service)
            .await;
        assert!(served.unwrap_err().is_timeout());
        assert!(start.elapsed() >= limit);
        // And its connection was closed.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
    });
}

#[test]
fn a_peer_that_answers_no_ping_is_given_up() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, server) = connected().await;
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Whole::default())));
        let server = hyper::server::conn::http2::Builder::new(LocalExecutor).serve_connection(Io::new(server), service);
        let mut server = pin!(server);
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(LocalExecutor)
            .timer(Timer)
            .keep_alive_interval(Duration::from_millis(10))
            .keep_alive_timeout(Duration::from_millis(20))
            .keep_alive_while_idle(true)
            .handshake::<_, Full<Bytes>>(Io::new(client))
            .await
            .unwrap();
        let connection = evbase::spawn_local(connection);
        let mut response = pin!(sender.send_request(Request::new(Full::default())));
        let Either::Left((response, _)) = select(response.as_mut(), server.as_mut()).await else {
            panic!("the server has ended");
        };
        response.unwrap().into_body().collect().await.unwrap();
        // From here on nobody polls the server.
        let error = connection.await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
    });
}
