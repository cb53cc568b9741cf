use std::time::Duration;

use evbase::net::TcpStream;
use evbase::{Builder, spawn_local};
use futures::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, RedisConnectionInfo};

use crate::servers::{Server, redis as server};
use crate::{Result, on_a_loop};

async fn connect(server: &Server) -> Result<MultiplexedConnection> {
    let stream = TcpStream::connect(server.address()).await?;
    // Its own time-outs want a runtime that it knows: `evbase::time::timeout` is for that.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let info = RedisConnectionInfo::default();
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    spawn_local(driver);
    Ok(connection)
}

#[test]
fn commands_share_a_connection() {
    let server = server();
    on_a_loop(async || {
        let connection = connect(&server).await?;
        let counts = try_join_all((0..200).map(|n| {
            let mut connection = connection.clone();
            async move {
                let _: () = connection.set(format!("key {n}"), vec![b'x'; n * 100]).await?;
                let length: usize = connection.strlen(format!("key {n}")).await?;
                assert_eq!(length, n * 100);
                connection.incr::<_, _, i64>("count", 1).await
            }
        }));
        let mut counts = counts.await?;
        counts.sort_unstable();
        assert!(counts.into_iter().eq(1..=200));
        Ok(())
    });
}

#[test]
fn a_connection_serves_other_loops_and_its_answers_can_time_out() {
    let server = server();
    on_a_loop(async || {
        let mut connection = connect(&server).await?;
        let abroad = Builder::new().start("abroad")?;
        let mut theirs = connection.clone();
        let count = abroad
            .spawner()
            .spawn(async move { theirs.incr::<_, _, i64>("count", 41).await });
        assert_eq!(count.await??, 41);
        // Nothing is ever pushed to that list.
        let waiting = connection.blpop::<_, ()>("empty", 0.0);
        evbase::time::timeout(Duration::from_millis(50), waiting)
            .await
            .unwrap_err();
        Ok(())
    });
}

#[test]
fn a_server_that_is_killed_is_an_error_and_no_hang() {
    let mut server = server();
    on_a_loop(async || {
        let mut connection = connect(&server).await?;
        let mut waiting = connection.clone();
        let waiting = spawn_local(async move { waiting.blpop::<_, ()>("empty", 0.0).await });
        // Answered once the other command is under way.
        let _: () = connect(&server).await?.set("key", 1).await?;
        server.kill();
        waiting.await?.unwrap_err();
        connection.get::<_, ()>("key").await.unwrap_err();
        Ok(())
    });
}
