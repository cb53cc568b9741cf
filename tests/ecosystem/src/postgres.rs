use std::thread;

use evbase::net::TcpStream;
use evbase::{JoinHandle, spawn_local};
use futures::TryStreamExt;
use futures::future::try_join_all;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::servers::{Server, postgres};
use crate::{Result, on_a_loop};

async fn connect(server: &Server) -> Result<(Client, JoinHandle<Result<(), Error>>)> {
    let stream = TcpStream::connect(server.address()).await?;
    let mut config = Config::new();
    config.user("postgres").dbname("postgres");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    Ok((client, spawn_local(connection)))
}

/// A server listens before it has recovered: until then it says that it starts up.
async fn connect_when_ready(server: &Server) -> Result<(Client, JoinHandle<Result<(), Error>>)> {
    loop {
        match connect(server).await {
            Err(error) if format!("{error:?}").contains("57P03") => {
                evbase::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            connected => return connected,
        }
    }
}

#[test]
fn queries_are_pipelined_streamed_and_cancelled() {
    let server = postgres();
    on_a_loop(async || {
        let (mut client, connection) = connect_when_ready(&server).await?;
        client
            .batch_execute("CREATE TABLE number (value INT8 NOT NULL)")
            .await?;

        // One connection, all at once.
        let insert = client
            .prepare("INSERT INTO number SELECT generate_series($1::INT8, $1 + 99)")
            .await?;
        let inserted = try_join_all((0..20i64).map(|n| {
            let (client, insert) = (&client, &insert);
            async move { client.execute(insert, &[&(n * 100)]).await }
        }));
        assert_eq!(inserted.await?, vec![100; 20]);

        let rows = client.query_raw("SELECT value FROM number ORDER BY value", Vec::<i64>::new());
        let values: Vec<i64> = rows.await?.map_ok(|row| row.get::<_, i64>(0)).try_collect().await?;
        assert!(values.iter().copied().eq(0..2000));

        // A transaction that is dropped is rolled back; an error leaves the connection as it was.
        let transaction = client.transaction().await?;
        transaction.execute("DELETE FROM number", &[]).await?;
        drop(transaction);
        client
            .query("SELECT 1 / 0", &[])
            .await
            .unwrap_err()
            .code()
            .ok_or("a code")?;
        let left: i64 = client.query_one("SELECT COUNT(*) FROM number", &[]).await?.get(0);
        assert_eq!(left, 2000);

        // A query is cancelled over a connection of its own.
        let cancel = client.cancel_token();
        let stream = TcpStream::connect(server.address()).await?;
        let sleeping = client.query("SELECT pg_sleep(600)", &[]);
        let cancelling = async {
            evbase::time::sleep(std::time::Duration::from_millis(100)).await;
            cancel.cancel_query_raw(stream, NoTls).await
        };
        let (slept, cancelled) = futures::join!(sleeping, cancelling);
        cancelled?;
        let code = slept.unwrap_err().code().cloned();
        assert_eq!(code, Some(tokio_postgres::error::SqlState::QUERY_CANCELED));

        drop(client);
        connection.await??;
        Ok(())
    });
}

#[test]
fn a_server_that_is_killed_in_a_query_is_an_error_and_no_hang() {
    let mut server = postgres();
    on_a_loop(async || {
        let (client, connection) = connect_when_ready(&server).await?;
        let query = spawn_local(async move { client.query("SELECT pg_sleep(600)", &[]).await.map(drop) });
        let (watcher, other) = connect_when_ready(&server).await?;
        let running = "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        while watcher.query_one(running, &[]).await?.get::<_, i64>(0) == 0 {
            evbase::yield_now().await;
        }
        // Another thread does it: the loop is in the kernel meanwhile.
        let killed = thread::scope(|scope| scope.spawn(|| server.kill()).join());
        killed.unwrap();
        assert!(query.await?.unwrap_err().is_closed());
        connection.await?.unwrap_err();
        watcher.query("SELECT 1", &[]).await.unwrap_err();
        let _ = other.await?;
        Ok(())
    });
}
