use std::process::Command;

use bytes::Bytes;
use evbase::net::{TcpListener, TcpStream};
use evbase::{JoinHandle, spawn_local, unblock};
use futures::future::try_join_all;
use h2::{RecvStream, client, server};
use http::{Request, Response};

use crate::{Result, on_a_loop, tcp_pair};

/// All of a body. What has been read is told to the sender, who may send as much again.
async fn body(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Answers each request of a connection with its method, path and body.
async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        spawn_local(async move {
            let (head, stream) = request.into_parts();
            let mut answer = format!("{} {}: ", head.method, head.uri.path()).into_bytes();
            answer.extend(body(stream).await?);
            // h2 keeps what the window has no room for.
            let mut sender = respond.send_response(Response::new(()), false)?;
            sender.send_data(answer.into(), true)
        });
    }
    Ok(())
}

#[test]
fn requests_share_a_connection() {
    on_a_loop(async || {
        let (ours, theirs) = tcp_pair().await?;
        let serving = spawn_local(serve(theirs));
        let (sender, connection) = client::handshake(ours).await?;
        let driver: JoinHandle<_> = spawn_local(connection);
        let requests = (0..20u32).map(|n| {
            let mut sender = sender.clone().ready();
            async move {
                let sent = Bytes::from(vec![n as u8; 1 + 20_000 * n as usize]);
                let mut sender = (&mut sender).await?;
                let request = Request::post(format!("http://localhost/{n}")).body(()).unwrap();
                let (response, mut stream) = sender.send_request(request, false)?;
                stream.send_data(sent.clone(), true)?;
                let answer = body(response.await?.into_body()).await?;
                let head = format!("POST /{n}: ").into_bytes();
                assert!(answer == [&head, &sent[..]].concat(), "request {n}");
                Ok::<_, h2::Error>(())
            }
        });
        try_join_all(requests).await?;
        drop(sender);
        driver.await??;
        serving.await??;
        Ok(())
    });
}

#[test]
fn curl_is_served() {
    on_a_loop(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let curl = unblock(move || {
            Command::new("curl")
                .args([
                    "--http2-prior-knowledge",
                    "--silent",
                    "--show-error",
                    "--max-time",
                    "60",
                    "--data",
                    "two",
                ])
                .arg(format!("http://{address}/one"))
                .output()
        });
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                spawn_local(serve(stream));
            }
            #[allow(unreachable_code)]
            Ok::<_, std::io::Error>(())
        });
        let output = curl
            .await
            .map_err(|error| format!("curl is needed for this test: {error}"))?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "POST /one: two");
        Ok(())
    });
}
