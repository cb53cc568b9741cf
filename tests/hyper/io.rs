//! What is no socket of this crate's, under hyper.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use evbase::hyper::Io;
use evbase::io::AsyncFd;
use evbase::net::UnixStream;
use futures::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBuf, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{Whole, block_on, text_of};
use crate::support::{poll_with, watchdog};

#[test]
fn a_unix_socket_serves_and_so_does_any_descriptor() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, server) = UnixStream::pair().unwrap();
        exchange(client, server).await;
        let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        exchange(AsyncFd::new(client).unwrap(), AsyncFd::new(server).unwrap()).await;
    });
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(client: S, server: S) {
    let service = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(Response::new(Whole::from(request.uri().path().to_owned())))
    });
    evbase::spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(Io::new(server), service));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(Io::new(client)).await.unwrap();
    evbase::spawn_local(connection);
    let request = Request::get("/by/a/socket/of/unix").body(Whole::default()).unwrap();
    let text = text_of(sender.send_request(request).await.unwrap()).await;
    assert_eq!(text, "/by/a/socket/of/unix");
}

/// Says how much it has read, whatever it has.
struct Says(usize);

impl AsyncRead for Says {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        buf[..3].copy_from_slice(b"abc");
        Poll::Ready(Ok(self.0))
    }
}

impl AsyncWrite for Says {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }
}

fn read(says: usize, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let mut io = Io::new(Says(says));
    let mut read = std::future::poll_fn(|cx| Pin::new(&mut io).poll_read(cx, buf.unfilled()));
    poll_with(&mut read, std::task::Waker::noop())
}

#[test]
fn a_reader_that_says_more_than_it_can_have_read_is_a_panic_and_not_believed() {
    let mut memory = [std::mem::MaybeUninit::uninit(); 8];
    let mut buf = ReadBuf::uninit(&mut memory);
    assert!(read(3, &mut buf).is_ready());
    assert_eq!(buf.filled(), b"abc");
    // What it has not written is zeroes, and no memory of anybody's.
    assert!(read(5, &mut buf).is_ready());
    assert_eq!(buf.filled(), b"abcabc\0\0");

    let mut memory = [std::mem::MaybeUninit::uninit(); 8];
    let mut buf = ReadBuf::uninit(&mut memory);
    assert!(catch_unwind(AssertUnwindSafe(|| read(9, &mut buf))).is_err());
    assert_eq!(buf.filled(), b"");
}

#[test]
fn only_a_socket_promises_to_write_vectors() {
    let _watchdog = watchdog();
    block_on(async {
        let (client, _server) = super::connected().await;
        assert!(Io::new(client).is_write_vectored());
        let mut other = Io::new(Says(0));
        assert!(!other.is_write_vectored());
        let wrote = std::future::poll_fn(|cx| {
            Pin::new(&mut other).poll_write_vectored(cx, &[IoSlice::new(b""), IoSlice::new(b"abc")])
        });
        assert_eq!(wrote.await.unwrap(), 3);
        let closed = std::future::poll_fn(|cx| Pin::new(&mut other).poll_shutdown(cx)).await;
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn it_gives_back_what_it_was_given() {
    let mut io = Io::new(Says(1));
    io.get_mut().0 = 2;
    assert_eq!(io.get_ref().0, 2);
    assert_eq!(io.into_inner().0, 2);
}
