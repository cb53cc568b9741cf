//! tokio's I/O traits and channels on the loop, without tokio's runtime.

#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, IoSlice};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::thread;

use evbase::Runtime;
use evbase::io::AsyncFd;
use evbase::net::{TcpListener, TcpStream};
use evbase::process::Command;
use futures::{SinkExt, StreamExt};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf, copy, copy_bidirectional,
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::codec::{Framed, LinesCodec};

use crate::support::{Random, rounds, watchdog};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = futures::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

fn pair() -> (AsyncFd<UnixStream>, AsyncFd<UnixStream>) {
    let (left, right) = UnixStream::pair().unwrap();
    (AsyncFd::new(left).unwrap(), AsyncFd::new(right).unwrap())
}

#[test]
fn megabytes_go_through_a_proxy_of_tokios_as_they_were_sent() {
    let _watchdog = watchdog();
    const TOTAL: usize = 4 << 20;
    block_on(async {
        let (mut client, mut from_client) = connected().await;
        let (mut to_server, server) = connected().await;
        let proxy = evbase::spawn_local(async move { copy_bidirectional(&mut from_client, &mut to_server).await });
        let echo = evbase::spawn_local(async move {
            let (mut reader, mut writer) = server.into_split();
            let copied = copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
            copied
        });
        let mut random = Random::new(1);
        let sent: Vec<u8> = (0..TOTAL).map(|_| random.next() as u8).collect();
        let (mut reader, mut writer) = client.split();
        let write = async {
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let len = (1 + random.below(100_000) as usize).min(rest.len());
                writer.write_all(&rest[..len]).await.unwrap();
                rest = &rest[len..];
            }
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let ((), read) = futures::join!(write, reader.read_to_end(&mut received));
        assert_eq!(read.unwrap(), TOTAL);
        assert!(received == sent, "what came back differs");
        assert_eq!(proxy.await.unwrap().unwrap(), (TOTAL as u64, TOTAL as u64));
        assert_eq!(echo.await.unwrap(), TOTAL as u64);
    });
}

#[test]
fn lines_are_read_through_a_buffer() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, mut server) = connected().await;
        let write = async {
            for piece in ["on", "e\ntw", "o\n", "three"] {
                server.write_all(piece.as_bytes()).await.unwrap();
                evbase::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            AsyncWriteExt::shutdown(&mut server).await.unwrap();
        };
        let read = async {
            let mut lines = BufReader::new(client).lines();
            let mut seen = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                seen.push(line);
            }
            seen
        };
        let (seen, ()) = futures::join!(read, write);
        assert_eq!(seen, ["one", "two", "three"]);
    });
}

#[test]
fn a_codec_frames_a_socket_and_any_descriptor() {
    let _watchdog = watchdog();
    async fn talk<S>(left: S, right: S)
    where
        S: tokio::io::AsyncRead + AsyncWrite + Unpin,
    {
        let mut left = Framed::new(left, LinesCodec::new());
        let mut right = Framed::new(right, LinesCodec::new());
        for line in ["one", "two"] {
            left.send(line).await.unwrap();
            assert_eq!(right.next().await.unwrap().unwrap(), line);
        }
        drop(left);
        assert!(right.next().await.is_none());
    }
    block_on(async {
        let (left, right) = connected().await;
        talk(left, right).await;
        let (left, right) = evbase::net::UnixStream::pair().unwrap();
        talk(left, right).await;
        let (left, right) = pair();
        talk(left, right).await;
    });
}

#[test]
fn a_read_fills_only_what_it_has_read() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        server.write_all(b"hello").await.unwrap();
        client.readable().await.unwrap();

        let mut memory = [std::mem::MaybeUninit::uninit(); 16];
        let mut buffer = ReadBuf::uninit(&mut memory);
        buffer.put_slice(b"oh, ");
        let read = std::future::poll_fn(|cx| tokio::io::AsyncRead::poll_read(Pin::new(&mut client), cx, &mut buffer));
        read.await.unwrap();
        assert_eq!(buffer.filled(), b"oh, hello");
        // No zeroes were written behind it.
        assert_eq!(buffer.initialized().len(), 9);

        // At the end, nothing is added.
        AsyncWriteExt::shutdown(&mut server).await.unwrap();
        let read = std::future::poll_fn(|cx| tokio::io::AsyncRead::poll_read(Pin::new(&mut client), cx, &mut buffer));
        read.await.unwrap();
        assert_eq!(buffer.filled(), b"oh, hello");
    });
}

#[test]
fn vectors_are_written_at_once() {
    let _watchdog = watchdog();
    async fn write<W: AsyncWrite + Unpin>(mut writer: W) {
        assert!(writer.is_write_vectored());
        let bufs = [IoSlice::new(b""), IoSlice::new(b"hel"), IoSlice::new(b"lo")];
        assert_eq!(writer.write_vectored(&bufs).await.unwrap(), 5);
    }
    block_on(async {
        let (mut client, mut server) = connected().await;
        write(&mut client).await;
        write(client.split().1).await;
        write(client.into_split().1).await;
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hellohellohello");

        let (left, mut right) = pair();
        write(left).await;
        right.read_to_string(&mut text).await.unwrap();
        assert_eq!(text.len(), 20);

        let (left, right) = evbase::net::UnixStream::pair().unwrap();
        let (mut reader, writer) = (right.into_split().0, left.into_split().1);
        write(writer).await;
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text.len(), 25);
    });
}

#[test]
fn a_shutdown_closes_the_writing_side_of_a_connection_and_only_flushes_a_descriptor() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut client, mut server) = connected().await;
        AsyncWriteExt::shutdown(&mut client).await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        server.write_all(b"hello").await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 5);
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

        let (mut left, mut right) = pair();
        left.shutdown().await.unwrap();
        left.write_all(b"more").await.unwrap();
        assert_eq!(right.read(&mut [0; 8]).await.unwrap(), 4);
    });
}

#[test]
fn a_childs_pipes_are_read_and_written() {
    let _watchdog = watchdog();
    block_on(async {
        let piped = std::process::Stdio::piped;
        let mut child = Command::new("sh")
            .args(["-c", "tr a-z A-Z; echo done >&2"])
            .stdin(piped())
            .stdout(piped())
            .stderr(piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        // The child reads its end.
        stdin.shutdown().await.unwrap();
        let (mut text, mut errors) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        assert_eq!((&text[..], &errors[..]), ("HELLO", "done\n"));
        assert!(child.wait().await.unwrap().success());
    });
}

#[test]
fn channels_of_tokios_wake_a_loop_from_another_thread_and_from_its_own() {
    rounds(500, |round| {
        let (sender, mut receiver) = mpsc::channel(1 + round % 3);
        let (done, ended) = oneshot::channel();
        let (state, mut watched) = watch::channel(0);
        let thread = thread::spawn(move || {
            for n in 0..20 {
                sender.blocking_send(n).unwrap();
            }
            drop(sender);
            ended.blocking_recv().unwrap()
        });
        let sum = block_on(async {
            let notify = Rc::new(Notify::new());
            let permits = Rc::new(Semaphore::new(0));
            let waiting = {
                let (notify, permits) = (notify.clone(), permits.clone());
                evbase::spawn_local(async move {
                    notify.notified().await;
                    permits.acquire_many(20).await.unwrap().forget();
                    watched.wait_for(|&n| n == 20).await.map(|n| *n).unwrap()
                })
            };
            notify.notify_one();
            let mut sum = 0;
            while let Some(n) = receiver.recv().await {
                sum += n;
                permits.add_permits(1);
                state.send_modify(|n| *n += 1);
            }
            tokio::select! {
                counted = waiting => assert_eq!(counted.unwrap(), 20),
                () = evbase::time::sleep(crate::support::SOON) => panic!("it waits for what has happened"),
            }
            sum
        });
        done.send(sum).unwrap();
        assert_eq!(thread.join().unwrap(), 190);
    });
}
