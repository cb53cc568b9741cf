//! Libraries that need tokio's reactor, and what it costs to bring it along.

use std::{fs, thread};

use async_compat::Compat;
use evbase::net::TcpListener;
use evbase::spawn_local;
use futures::io::BufReader;
use futures::{AsyncBufReadExt, AsyncWriteExt, StreamExt};
use sqlx::{Connection, PgConnection, Row};

use crate::servers::postgres;
use crate::{Result, on_a_loop};

/// How many threads of async-compat this process has.
fn reactors() -> Result<usize> {
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // It may have ended meanwhile.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(name.starts_with("async-compat"));
    }
    Ok(count)
}

#[test]
fn reqwest_runs_at_home_with_one_thread_beside_it() {
    on_a_loop(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // As little of a server as a client needs.
        spawn_local(async move {
            let mut incoming = listener.incoming();
            while let Some(stream) = incoming.next().await {
                let stream = stream?;
                spawn_local(async move {
                    let mut lines = BufReader::new(&stream).lines();
                    let request = lines.next().await.unwrap()?;
                    while lines.next().await.unwrap()? != "" {}
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{request}", request.len());
                    (&stream).write_all(answer.as_bytes()).await
                });
            }
            Ok::<_, std::io::Error>(())
        });
        let home = thread::current().id();
        let answers = Compat::new(async {
            let client = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
            let mut answers = Vec::new();
            for n in 0..10 {
                answers.push(client.get(format!("http://{address}/{n}")).send().await?.text().await?);
                assert_eq!(thread::current().id(), home);
            }
            Ok::<_, reqwest::Error>(answers)
        });
        for (n, answer) in answers.await?.iter().enumerate() {
            assert_eq!(*answer, format!("GET /{n} HTTP/1.1"));
        }
        assert_eq!(reactors()?, 1);
        Ok(())
    });
}

#[test]
fn sqlx_runs_at_home_with_one_thread_beside_it() {
    let server = postgres();
    on_a_loop(async || {
        let home = thread::current().id();
        let url = format!("postgres://postgres@{}/postgres?sslmode=disable", server.address());
        let sum = Compat::new(async {
            let mut connection = loop {
                match PgConnection::connect(&url).await {
                    // It listens before it is ready.
                    Err(error) if format!("{error:?}").contains("57P03") => evbase::yield_now().await,
                    connected => break connected?,
                }
            };
            let row = sqlx::query("SELECT SUM(n)::INT8 FROM generate_series(1, $1::INT8) AS n")
                .bind(100i64)
                .fetch_one(&mut connection)
                .await?;
            assert_eq!(thread::current().id(), home);
            let sum: i64 = row.try_get(0)?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(sum)
        });
        assert_eq!(sum.await?, 5050);
        assert_eq!(reactors()?, 1);
        Ok(())
    });
}
