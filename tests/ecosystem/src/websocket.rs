use async_tungstenite::tungstenite::Message;
use async_tungstenite::{accept_async, client_async};
use futures::StreamExt;

use crate::{on_a_loop, tcp_pair};

#[test]
fn messages_come_back_and_the_end_is_told() {
    on_a_loop(async || {
        let (ours, theirs) = tcp_pair().await?;
        let server = evbase::spawn_local(async move {
            let (mut sink, mut stream) = accept_async(theirs).await?.split();
            let mut count = 0;
            while let Some(message) = stream.next().await {
                let message = message?;
                if message.is_binary() {
                    count += 1;
                    sink.send(message).await?;
                }
            }
            Ok::<_, async_tungstenite::tungstenite::Error>(count)
        });
        let (mut client, _) = client_async("ws://localhost/", ours).await?;
        for n in 0..100 {
            let bytes = vec![n as u8; n * n * 20];
            client.send(Message::binary(bytes.clone())).await?;
            let echo = client.next().await.ok_or("no answer")??;
            assert!(echo.into_data() == bytes, "message {n}");
        }
        client.close(None).await?;
        while let Some(last) = client.next().await {
            assert!(last?.is_close());
        }
        assert_eq!(server.await??, 100);
        Ok(())
    });
}
