//! Bodies larger than any buffer, both ways.

use std::convert::Infallible;

use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{BOTH, Sender, Version, Whole, block_on, bytes_of, connected, serve};
use crate::support::{Random, watchdog};

/// Some megabytes, in pieces of all sizes.
fn pieces(seed: u64) -> Vec<Bytes> {
    let mut random = Random::new(seed);
    let bytes: Bytes = (0..100_000).map(|_| random.next() as u8).collect();
    let mut piece = || {
        let (start, len) = (random.below(40_000) as usize, random.below(60_000) as usize);
        bytes.slice(start..start + len)
    };
    (0..100).map(|_| piece()).collect()
}

fn body(pieces: Vec<Bytes>) -> StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin> {
    StreamBody::new(futures::stream::iter(
        pieces.into_iter().map(|piece| Ok(Frame::data(piece))),
    ))
}

#[test]
fn megabytes_arrive_as_they_were_sent_both_ways_at_once() {
    let _watchdog = watchdog();
    for version in BOTH {
        block_on(async {
            let (client, server) = connected().await;
            // Sends back what comes, as it comes.
            let echo = service_fn(async |request: Request<Incoming>| Ok(Response::new(request.into_body())));
            serve(server, version, echo);
            let mut sender = Sender::new(client, version).await;
            for seed in 1..=2 {
                let sent = pieces(seed);
                let request = Request::post("http://here/").body(body(sent.clone())).unwrap();
                let response = sender.send(request).await.unwrap();
                let received = bytes_of(response).await;
                let sent = sent.concat();
                let same = sent
                    .iter()
                    .zip(&received)
                    .take_while(|(sent, received)| sent == received)
                    .count();
                assert!(
                    received == sent,
                    "{version:?}: of {} bytes, {} came back, {same} of them the same",
                    sent.len(),
                    received.len(),
                );
            }
        });
    }
}

/// A short body, which HTTP/1 writes together with its head, from two buffers.
#[test]
fn a_head_and_a_short_body_leave_in_one_system_call() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, server) = connected().await;
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Whole::from("hello"))));
        serve(server, Version::Http1, service);
        // A peer that reads once, when all has arrived.
        client.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        client.readable().await.unwrap();
        let mut buffer = [0; 1000];
        let n = client.try_read(&mut buffer).unwrap();
        assert!(buffer[..n].ends_with(b"\r\n\r\nhello"));
    });
}
