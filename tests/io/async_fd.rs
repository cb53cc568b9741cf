//! Descriptors on the loop: pipes, socket pairs, eventfds. Readiness is never lost, waiters are all woken, and a
//! descriptor is registered, deregistered and closed at home.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use evbase::io::{AsyncFd, Interest, Ready};
use evbase::{Builder, Runtime, yield_now};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_test::{assert_pending, assert_ready, task};

use crate::support::{DropProbe, Drops, Random, poll_here, turn_until, watchdog};

fn pipe() -> (AsyncFd<PipeReader>, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (AsyncFd::new(reader).unwrap(), writer)
}

fn pair() -> (AsyncFd<UnixStream>, UnixStream) {
    let (left, right) = UnixStream::pair().unwrap();
    (AsyncFd::new(left).unwrap(), right)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

/// A socket that tells where it is dropped.
#[derive(Debug)]
struct Probed {
    socket: UnixStream,
    _probe: DropProbe,
}

impl AsFd for Probed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn probed(log: &Drops) -> (AsyncFd<Probed>, UnixStream) {
    let (socket, peer) = UnixStream::pair().unwrap();
    (
        AsyncFd::new(Probed {
            socket,
            _probe: log.probe(),
        })
        .unwrap(),
        peer,
    )
}

/// Waits for the peer's end, which comes when the last descriptor of the other side is closed.
fn wait_for_end(mut peer: &UnixStream) {
    peer.set_nonblocking(false).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

fn fill(mut socket: &UnixStream) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match socket.write(&[7; 4096]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

// ---- Readiness ----

#[test]
fn new_sets_non_blocking_mode() {
    let _watchdog = watchdog();
    let (reader, _writer) = io::pipe().unwrap();
    let fd = AsyncFd::new(reader).unwrap();
    assert_eq!(
        (&mut fd.get_ref()).read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn readable_waits_for_bytes_and_try_io_clears_what_is_over() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut writer) = pipe();
        assert!(poll_here(pin!(fd.readable())).await.is_pending());
        writer.write_all(b"abc").unwrap();
        let mut guard = fd.readable().await.unwrap();
        assert!(guard.ready().is_readable() && !guard.ready().is_writable());
        let mut buffer = [0; 8];
        let n = guard
            .try_io(|fd| (&mut fd.get_ref()).read(&mut buffer))
            .unwrap()
            .unwrap();
        assert_eq!(&buffer[..n], b"abc");
        // Still thought to be ready, until an operation finds out.
        assert!(guard.try_io(|fd| (&mut fd.get_ref()).read(&mut buffer)).is_err());
        assert!(poll_here(pin!(fd.readable())).await.is_pending());
        writer.write_all(b"d").unwrap();
        let mut guard = fd.readable().await.unwrap();
        assert_eq!(
            guard
                .try_io(|fd| (&mut fd.get_ref()).read(&mut buffer))
                .unwrap()
                .unwrap(),
            1
        );
    });
}

#[test]
fn readiness_is_retained_until_it_is_cleared() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut writer) = pipe();
        writer.write_all(b"a").unwrap();
        fd.readable().await.unwrap().retain_ready();
        drop(fd.readable().await.unwrap());
        assert_eq!((&mut fd.get_ref()).read(&mut [0; 2]).unwrap(), 1);
        let mut guard = fd.readable().await.unwrap();
        guard.clear_ready();
        assert!(poll_here(pin!(fd.readable())).await.is_pending());
        writer.write_all(b"b").unwrap();
        fd.readable().await.unwrap().retain_ready();
    });
}

#[test]
fn a_guard_never_clears_readiness_that_came_since_it_was_made() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (fd, mut writer) = pipe();
    writer.write_all(b"a").unwrap();
    runtime
        .block_on(async {
            let mut guard = fd.readable().await.unwrap();
            let mut buffer = [0; 8];
            assert_eq!((&mut fd.get_ref()).read(&mut buffer).unwrap(), 1);
            assert!((&mut fd.get_ref()).read(&mut buffer).is_err());
            // The event of this comes between the WouldBlock and the clearing.
            writer.write_all(b"b").unwrap();
            let events = runtime.metrics().events;
            while runtime.metrics().events == events {
                evbase::time::sleep(std::time::Duration::from_micros(100)).await;
            }
            guard.clear_ready();
            fd.readable().await.unwrap().retain_ready();
        })
        .unwrap();
}

#[test]
fn a_guard_that_was_sent_abroad_clears_at_home() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (fd, mut writer) = pair();
    writer.write_all(b"a").unwrap();
    runtime
        .block_on(async {
            let mut guard = fd.readable().await.unwrap();
            assert_eq!((&mut fd.get_ref()).read(&mut [0; 8]).unwrap(), 1);
            thread::scope(|scope| {
                scope.spawn(|| guard.clear_ready());
            });
            yield_now().await;
            let mut readable = pin!(fd.readable());
            while poll_here(readable.as_mut()).await.is_ready() {
                readable.set(fd.readable());
                yield_now().await;
            }
            writer.write_all(b"b").unwrap();
            readable.await.unwrap().retain_ready();
        })
        .unwrap();
}

#[test]
fn a_guard_that_clears_abroad_what_it_has_cleared_sends_nothing() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (fd, mut writer) = pair();
    writer.write_all(b"a").unwrap();
    let guard = runtime.block_on(async { fd.readable().await.unwrap() });
    let mut guard = guard.unwrap();
    let before = runtime.metrics().messages;
    thread::scope(|scope| {
        scope.spawn(|| (0..1000).for_each(|_| guard.clear_ready()));
    });
    runtime.block_on(async { yield_now().await }).unwrap();
    assert_eq!(runtime.metrics().messages - before, 1);
}

/// What becomes of the other end, which lives on if it is given back.
type End = fn(UnixStream, &AsyncFd<UnixStream>) -> Option<UnixStream>;

const ENDS: [End; 5] = [
    |mut peer, _| peer.write_all(b"x").map(|()| Some(peer)).unwrap(),
    |mut peer, _| peer.write_all(b"x").map(|()| None).unwrap(),
    |peer, _| peer.shutdown(Shutdown::Write).map(|()| Some(peer)).unwrap(),
    |peer, fd| fd.get_ref().shutdown(Shutdown::Both).map(|()| Some(peer)).unwrap(),
    // It goes with unread data: a reset.
    |peer, fd| {
        fd.get_ref()
            .write_all(b"x")
            .map(|()| drop(peer))
            .map(|()| None)
            .unwrap()
    },
];

#[test]
fn readable_and_writable_are_ready_with_one_interest() {
    let _watchdog = watchdog();
    block_on(async {
        for end in ENDS {
            let ((one, one_peer), (other, other_peer)) = (pair(), pair());
            let _peers = (end(one_peer, &one), end(other_peer, &other));
            let mut short = one.readable().await.unwrap();
            let mut long = other.ready(Interest::READABLE).await.unwrap();
            assert_eq!(short.ready(), long.ready());
            short.clear_ready();
            long.clear_ready();
            assert_eq!((short.ready(), long.ready()), (Ready::EMPTY, Ready::EMPTY));
            let short = one.writable().await.unwrap().ready();
            assert_eq!(short, other.ready(Interest::WRITABLE).await.unwrap().ready());
        }
    });
}

#[test]
fn ready_waits_for_either_direction_and_says_which() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut peer) = pair();
        let guard = fd.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(guard.ready().is_writable() && !guard.ready().is_readable());
        assert!(poll_here(pin!(fd.ready(Interest::READABLE))).await.is_pending());
        peer.write_all(b"x").unwrap();
        let guard = fd.ready(Interest::READABLE).await.unwrap();
        assert!(guard.ready().is_readable());
        let mut guard = fd.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(guard.ready().contains(Ready::READABLE | Ready::WRITABLE));
        fill(fd.get_ref());
        guard.clear_ready_matching(Ready::WRITABLE);
        let guard = fd.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(guard.ready().is_readable() && !guard.ready().is_writable());
        assert!(poll_here(pin!(fd.ready(Interest::WRITABLE))).await.is_pending());
    });
}

#[test]
fn writable_waits_for_room() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut peer) = pair();
        let written = fill(fd.get_ref());
        let mut writable = pin!(fd.writable());
        assert!(poll_here(writable.as_mut()).await.is_pending());
        let mut rest = vec![0; written];
        peer.read_exact(&mut rest).unwrap();
        assert!(writable.await.unwrap().ready().is_writable());
    });
}

#[test]
fn read_with_and_write_with_go_on_over_would_block() {
    let _watchdog = watchdog();
    block_on(async {
        let (left, right) = UnixStream::pair().unwrap();
        let (left, right) = (AsyncFd::new(left).unwrap(), AsyncFd::new(right).unwrap());
        fill(left.get_ref());
        let calls = Cell::new(0);
        let write = left.write_with(|mut socket| {
            calls.set(calls.get() + 1);
            socket.write(b"end")
        });
        let read = async {
            let mut total = 0;
            let mut buffer = [0; 8192];
            loop {
                let n = right.read_with(|mut socket| socket.read(&mut buffer)).await.unwrap();
                total += n;
                if buffer[..n].ends_with(b"end") {
                    return total;
                }
            }
        };
        let (written, _) = futures::join!(write, read);
        assert_eq!(written.unwrap(), 3);
        assert!(calls.get() >= 2);
        // Other errors come through.
        let error = right.read_with(|_| Err::<(), _>(io::Error::other("mine"))).await;
        assert!(error.is_err());
        let error = left
            .write_with(|_| Err::<(), _>(io::Error::other("mine")))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "mine");
    });
}

#[test]
fn an_interrupted_operation_is_tried_again() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut peer) = pair();
        peer.write_all(b"x").unwrap();
        for direction in ["read", "write"] {
            let mut calls = 0;
            let operation = |_: &UnixStream| {
                calls += 1;
                if calls < 3 {
                    Err(ErrorKind::Interrupted.into())
                } else {
                    Ok(calls)
                }
            };
            let result = match direction {
                "read" => fd.read_with(operation).await,
                _ => fd.write_with(operation).await,
            };
            assert_eq!(result.unwrap(), 3);
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_eventfd_can_be_waited_for_again_and_again() {
    use std::os::fd::FromRawFd;
    let _watchdog = watchdog();
    // SAFETY: the descriptor is fresh, and owned by the file from here on.
    let file = unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        assert!(fd >= 0);
        std::fs::File::from_raw_fd(fd)
    };
    let mut abroad = file.try_clone().unwrap();
    let runtime = Builder::new().start("home").unwrap();
    let task = runtime.spawner().spawn(async move {
        let fd = AsyncFd::new(file).unwrap();
        let mut sum = 0;
        while sum < 1000 {
            let mut value = [0; 8];
            fd.read_with(|mut file| file.read(&mut value)).await.unwrap();
            sum += u64::from_ne_bytes(value);
        }
        sum
    });
    for _ in 0..1000 {
        abroad.write_all(&1_u64.to_ne_bytes()).unwrap();
    }
    assert_eq!(task.wait().unwrap().unwrap(), 1000);
}

// ---- Waiters ----

#[test]
fn all_waiters_of_a_direction_are_woken_whichever_method_they_use() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let (fd, mut peer) = pair();
    let fd = &fd;
    let mut readable: Vec<_> = (0..5).map(|_| task::spawn(fd.readable())).collect();
    let mut ready = task::spawn(fd.ready(Interest::READABLE));
    let mut read_with = task::spawn(fd.read_with(|mut socket| socket.read(&mut [0; 1])));
    let mut polled = task::spawn(poll_fn(|cx| fd.poll_read_ready(cx).map(|guard| guard.map(drop))));
    let mut buffers = [[0; 1]; 2];
    let mut async_read: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| task::spawn(poll_fn(move |cx| Pin::new(&mut &*fd).poll_read(cx, buffer))))
        .collect();
    readable
        .iter_mut()
        .for_each(|waiter| assert!(waiter.poll().is_pending()));
    assert!(ready.poll().is_pending());
    assert!(read_with.poll().is_pending());
    assert!(polled.poll().is_pending());
    async_read
        .iter_mut()
        .for_each(|waiter| assert!(waiter.poll().is_pending()));
    // Polled twice: kept once, or twice, but woken.
    assert!(readable[3].poll().is_pending());

    peer.write_all(b"abc").unwrap();
    turn_until(&runtime, || readable[0].is_woken());
    for waiter in &mut readable {
        assert!(waiter.is_woken());
        assert!(assert_ready!(waiter.poll()).is_ok());
    }
    assert!(ready.is_woken() && read_with.is_woken() && polled.is_woken());
    assert!(assert_ready!(ready.poll()).is_ok());
    assert!(assert_ready!(polled.poll()).is_ok());
    assert_eq!(assert_ready!(read_with.poll()).unwrap(), 1);
    for waiter in &mut async_read {
        assert!(waiter.is_woken());
        assert_eq!(assert_ready!(waiter.poll()).unwrap(), 1);
    }
}

#[test]
fn all_waiters_for_room_are_woken_and_no_reader() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let (fd, mut peer) = pair();
    let fd = &fd;
    let written = fill(fd.get_ref());
    let mut reader = task::spawn(fd.readable());
    assert!(reader.poll().is_pending());
    let mut writers: Vec<_> = (0..3).map(|_| task::spawn(fd.writable())).collect();
    let mut async_write = task::spawn(poll_fn(|cx| Pin::new(&mut &*fd).poll_write(cx, b"x")));
    assert!(async_write.poll().is_pending());
    writers
        .iter_mut()
        .for_each(|waiter| assert!(waiter.poll().is_pending()));
    peer.read_exact(&mut vec![0; written]).unwrap();
    turn_until(&runtime, || writers[0].is_woken());
    assert!(async_write.is_woken());
    assert_eq!(assert_ready!(async_write.poll()).unwrap(), 1);
    for waiter in &mut writers {
        assert!(waiter.is_woken());
        assert!(assert_ready!(waiter.poll()).is_ok());
    }
    assert_pending!(reader.poll());
}

#[test]
fn many_tasks_share_one_descriptor_and_each_byte_is_read_once() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (fd, mut peer) = pair();
    let fd = Rc::new(fd);
    let read = Rc::new(Cell::new(0));
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let (fd, read) = (fd.clone(), read.clone());
            let task = async move {
                loop {
                    match fd.read_with(|mut socket| socket.read(&mut [0; 3])).await.unwrap() {
                        0 => return,
                        n => read.set(read.get() + n),
                    }
                }
            };
            runtime.spawn_local(task).unwrap()
        })
        .collect();
    let writing = thread::spawn(move || {
        for _ in 0..500 {
            peer.write_all(b"12345").unwrap();
            thread::yield_now();
        }
    });
    runtime.block_on(futures::future::join_all(readers)).unwrap();
    writing.join().unwrap();
    assert_eq!(read.get(), 2500);
}

#[test]
fn a_waiter_that_was_dropped_takes_no_wake_up_from_the_others() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let (fd, mut peer) = pair();
    let mut first = task::spawn(fd.readable());
    let mut second = task::spawn(fd.readable());
    assert!(first.poll().is_pending());
    assert!(second.poll().is_pending());
    drop(first);
    peer.write_all(b"x").unwrap();
    turn_until(&runtime, || second.is_woken());
    assert!(assert_ready!(second.poll()).is_ok());
}

// ---- Ends and errors ----

#[test]
fn the_end_of_the_peers_writing_closes_reading_only() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, mut peer) = pair();
        let mut readable = pin!(fd.readable());
        assert!(poll_here(readable.as_mut()).await.is_pending());
        peer.shutdown(Shutdown::Write).unwrap();
        let guard = readable.await.unwrap();
        assert!(guard.ready().is_read_closed() && !guard.ready().is_write_closed());
        drop(guard);
        assert_eq!(fd.read_with(|mut socket| socket.read(&mut [0; 4])).await.unwrap(), 0);
        assert_eq!(
            fd.read_with(|mut socket| socket.read(&mut [0; 4])).await.unwrap(),
            0,
            "again and again"
        );
        // The other direction works.
        let guard = fd.writable().await.unwrap();
        assert!(guard.ready().is_writable() && !guard.ready().is_write_closed());
        drop(guard);
        fd.write_with(|mut socket| socket.write(b"hello")).await.unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn what_was_sent_before_the_end_is_read_before_it() {
    let _watchdog = watchdog();
    block_on(async {
        for _ in 0..200 {
            let (mut fd, mut peer) = pair();
            peer.write_all(b"the last words").unwrap();
            drop(peer);
            let mut text = String::new();
            fd.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "the last words");
        }
    });
}

#[test]
fn a_hang_up_wakes_both_directions() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let _context = runtime.enter().unwrap();
    let (fd, peer) = pair();
    fill(fd.get_ref());
    let mut reader = task::spawn(fd.readable());
    let mut writer = task::spawn(fd.writable());
    assert!(reader.poll().is_pending());
    // Registering for writing may report what is known already.
    while let Poll::Ready(guard) = writer.poll() {
        guard.unwrap().clear_ready();
        drop(writer);
        writer = task::spawn(fd.writable());
    }
    drop(peer);
    turn_until(&runtime, || reader.is_woken() && writer.is_woken());
    assert!(assert_ready!(reader.poll()).unwrap().ready().is_read_closed());
    assert!(assert_ready!(writer.poll()).unwrap().ready().is_writable());
    let error = (&mut fd.get_ref()).write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_pipe_without_a_reader_wakes_its_writer_with_an_error() {
    let _watchdog = watchdog();
    block_on(async {
        let (reader, writer) = io::pipe().unwrap();
        let writer = AsyncFd::new(writer).unwrap();
        // Full, and waiting.
        let write_on = async {
            loop {
                if let Err(error) = writer.write_with(|mut pipe| pipe.write(&[0; 4096])).await {
                    return error;
                }
            }
        };
        let close = async {
            for _ in 0..50 {
                yield_now().await;
            }
            drop(reader);
        };
        let (error, ()) = futures::join!(write_on, close);
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        // It is an error in both directions, and can be cleared.
        let mut guard = writer.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap();
        assert!(
            guard.ready().is_error() || guard.ready().is_write_closed(),
            "{:?}",
            guard.ready()
        );
        guard.clear_ready();
        assert!(
            poll_here(pin!(writer.writable())).await.is_pending(),
            "no event came since"
        );
    });
}

#[test]
fn the_end_of_a_pipe_is_read_as_an_end() {
    let _watchdog = watchdog();
    block_on(async {
        let (fd, writer) = pipe();
        let read = evbase::spawn_local(async move { fd.read_with(|mut pipe| pipe.read(&mut [0; 4])).await });
        yield_now().await;
        drop(writer);
        assert_eq!(read.await.unwrap().unwrap(), 0);
    });
}

// ---- What can't be polled, and where ----

#[test]
fn a_regular_file_is_unsupported() {
    let _watchdog = watchdog();
    block_on(async {
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let fd = AsyncFd::new(file).unwrap();
        for _ in 0..2 {
            let error = fd.readable().await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let error = fd.writable().await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        let error = fd.read_with(|mut file| file.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        // It was registered nowhere, and can be had back.
        assert!(fd.into_inner().unwrap().metadata().unwrap().len() > 0);
    });
}

#[test]
fn a_regular_file_is_unsupported_for_writing_too() {
    let _watchdog = watchdog();
    let path = std::env::temp_dir().join(format!("evbase-test-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    block_on(async {
        let fd = AsyncFd::new(file).unwrap();
        let written = fd.write_with(|mut file| file.write(b"x")).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn two_objects_on_one_descriptor_are_an_error_and_the_first_goes_on() {
    let _watchdog = watchdog();
    struct Borrowed(i32);
    impl AsFd for Borrowed {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the tests keep the descriptor open.
            unsafe { BorrowedFd::borrow_raw(self.0) }
        }
    }
    block_on(async {
        let (first, mut peer) = pair();
        assert!(poll_here(pin!(first.readable())).await.is_pending());
        let second = AsyncFd::new(Borrowed(first.as_raw_fd())).unwrap();
        for _ in 0..2 {
            let error = second.readable().await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        }
        assert_eq!(
            second.writable().await.map(drop).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        drop(second);
        peer.write_all(b"x").unwrap();
        first.readable().await.unwrap().retain_ready();
        // A duplicate is another descriptor.
        let third = AsyncFd::new(first.get_ref().try_clone().unwrap()).unwrap();
        third.readable().await.unwrap().retain_ready();
        // And when the first is gone, its number is free.
        let second = AsyncFd::new(Borrowed(first.as_raw_fd())).unwrap();
        let socket = first.into_inner().unwrap();
        second.readable().await.unwrap().retain_ready();
        drop(second);
        drop(socket);
    });
}

#[test]
fn polled_outside_of_any_loop_it_is_an_error_and_can_be_used_afterwards() {
    let _watchdog = watchdog();
    let (fd, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    let mut buffer = [0; 1];
    for error in [
        futures::executor::block_on(fd.readable()).map(drop).unwrap_err(),
        futures::executor::block_on(fd.writable()).map(drop).unwrap_err(),
        futures::executor::block_on(fd.ready(Interest::READABLE))
            .map(drop)
            .unwrap_err(),
        futures::executor::block_on(fd.read_with(|_| Ok(()))).unwrap_err(),
        futures::executor::block_on(fd.write_with(|_| Ok(()))).unwrap_err(),
        futures::executor::block_on((&fd).read(&mut buffer)).unwrap_err(),
        futures::executor::block_on((&fd).write(&buffer)).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("outside") && text.contains("block_on"), "{text}");
    }
    assert_eq!(block_on((&fd).read(&mut buffer)).unwrap(), 1);
}

#[test]
fn polled_in_another_loop_it_is_an_error_that_names_both_threads() {
    let _watchdog = watchdog();
    let a = Builder::new().start("a").unwrap();
    let b = Builder::new().start("b").unwrap();
    let (fd, mut peer) = pair();
    let fd = Arc::new(fd);
    let at_home = fd.clone();
    let waits = a.spawner().spawn(async move { at_home.readable().await.map(drop) });
    crate::support::until(|| a.metrics().parks > 0 && a.metrics().polls > 0);
    let abroad = fd.clone();
    let texts = b
        .spawner()
        .spawn(async move {
            [
                abroad.readable().await.map(drop).unwrap_err().to_string(),
                abroad.writable().await.map(drop).unwrap_err().to_string(),
                abroad.read_with(|_| Ok(())).await.unwrap_err().to_string(),
                abroad.write_with(|_| Ok(())).await.unwrap_err().to_string(),
            ]
        })
        .wait()
        .unwrap()
        .unwrap();
    for text in texts {
        for thread in [a.home().unwrap(), b.home().unwrap()] {
            assert!(text.contains(&format!("{thread:?}")), "{text}");
        }
    }
    // At home it goes on undisturbed.
    peer.write_all(b"x").unwrap();
    waits.wait().unwrap().unwrap().unwrap();
}

#[test]
fn the_first_loop_that_polls_it_is_its_home_whatever_the_poll_was() {
    let _watchdog = watchdog();
    let (a, b) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    for (name, poll) in [("readable", 0), ("writable", 1), ("write_with", 2), ("AsyncWrite", 3)] {
        let (fd, _peer) = pair();
        a.block_on(async {
            match poll {
                0 => drop(poll_here(pin!(fd.readable())).await),
                1 => drop(poll_here(pin!(fd.writable())).await),
                2 => assert_eq!(fd.write_with(|mut socket| socket.write(b"x")).await.unwrap(), 1),
                _ => assert_eq!((&fd).write(b"x").await.unwrap(), 1),
            }
        })
        .unwrap();
        let elsewhere = b.block_on(async { poll_here(pin!(fd.writable())).await.map(|guard| guard.map(drop)) });
        assert!(
            matches!(elsewhere.unwrap(), Poll::Ready(Err(_))),
            "after {name} in one loop, another loop may poll it"
        );
    }
}

// ---- Leaving ----

/// A descriptor that is registered with the runtime, made there.
fn registered(runtime: &Runtime, fd: AsyncFd<Probed>) -> AsyncFd<Probed> {
    let task = runtime.spawner().spawn(async move {
        assert!(poll_here(pin!(fd.readable())).await.is_pending());
        fd
    });
    task.wait().unwrap().unwrap()
}

#[test]
fn dropped_abroad_it_travels_home_and_is_closed_there() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let home = runtime.home().unwrap();
    for round in 0..300 {
        let log = Drops::new();
        let (fd, peer) = probed(&log);
        let fd = registered(&runtime, fd);
        assert_eq!(log.count(), 0);
        if round % 2 == 0 {
            drop(fd);
        } else {
            thread::spawn(move || drop(fd)).join().unwrap();
        }
        wait_for_end(&peer);
        assert_eq!(log.wait_for(1), [home]);
    }
}

#[test]
fn dropped_before_it_was_polled_it_is_closed_where_it_is() {
    let _watchdog = watchdog();
    let log = Drops::new();
    let (fd, peer) = probed(&log);
    drop(fd);
    wait_for_end(&peer);
    assert_eq!(log.threads(), [thread::current().id()]);
}

#[test]
fn dropped_at_home_it_is_closed_at_once_and_its_number_can_be_used_again() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            for _ in 0..1000 {
                let (fd, mut peer) = pair();
                assert!(poll_here(pin!(fd.readable())).await.is_pending());
                drop(fd);
                assert!(peer.write(b"x").is_err());
                // Most likely with the same numbers.
                let (fd, mut peer) = pair();
                assert!(poll_here(pin!(fd.readable())).await.is_pending());
                peer.write_all(b"x").unwrap();
                fd.readable().await.unwrap().retain_ready();
            }
        })
        .unwrap();
}

#[test]
fn numbers_are_reused_at_once_when_descriptors_are_dropped_abroad() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    for _ in 0..200 {
        let log = Drops::new();
        let (fd, peer) = probed(&log);
        let fd = registered(&runtime, fd);
        drop(fd);
        drop(peer);
        let (fd, mut peer) = pair();
        peer.write_all(b"x").unwrap();
        let read = runtime.spawner().spawn(async move { (&fd).read(&mut [0; 2]).await });
        assert_eq!(read.wait().unwrap().unwrap().unwrap(), 1);
    }
}

#[test]
fn a_descriptor_dropped_abroad_while_its_runtime_ends_is_closed_and_dropped_once() {
    let _watchdog = watchdog();
    for round in 0..300 {
        let runtime = Builder::new().start("home").unwrap();
        let log = Drops::new();
        let (fd, peer) = probed(&log);
        let fd = registered(&runtime, fd);
        let dropping = thread::spawn(move || {
            if round % 2 == 0 {
                thread::yield_now();
            }
            drop(fd);
        });
        runtime.shutdown().wait().unwrap();
        dropping.join().unwrap();
        wait_for_end(&peer);
        log.wait_for(1);
        assert_eq!(log.count(), 1);
    }
}

/// How many of ten turns end before their time, with `before` called before each.
fn early_turns(runtime: &Runtime, mut before: impl FnMut()) -> usize {
    let time = std::time::Duration::from_millis(2);
    let is_early = |_: &i32| {
        before();
        let start = std::time::Instant::now();
        runtime.turn(Some(time)).unwrap();
        start.elapsed() < time
    };
    (0..10).filter(is_early).count()
}

/// Only closed, it would be a source for as long as a duplicate keeps the file open, and nothing could end that.
#[test]
fn it_is_deregistered_before_it_is_closed_so_that_a_duplicate_wakes_nobody() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let leave: [fn(&Runtime, AsyncFd<UnixStream>); 4] = [
        |runtime, fd| runtime.block_on(async { drop(fd) }).unwrap(),
        |_, fd| drop(fd),
        |_, fd| drop(fd.into_inner().unwrap()),
        |runtime, fd| {
            thread::spawn(move || drop(fd)).join().unwrap();
            runtime.turn(Some(std::time::Duration::ZERO)).unwrap();
        },
    ];
    for (way, leave) in leave.into_iter().enumerate() {
        let (fd, mut peer) = pair();
        let duplicate = fd.get_ref().try_clone().unwrap();
        runtime
            .block_on(async { assert!(poll_here(pin!(fd.readable())).await.is_pending()) })
            .unwrap();
        leave(&runtime, fd);
        let early = early_turns(&runtime, || peer.write_all(b"x").unwrap());
        // One or two may have been ended by something else.
        assert!(early < 5, "way {way}: {early} of 10 turns were ended by the duplicate");
        drop(duplicate);
    }
}

/// An error, an end or unread bytes stay; they are told once.
#[test]
fn what_is_ready_or_broken_for_ever_does_not_spin_the_loop() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (unread, mut writes) = pair();
    let (ended, ends) = pair();
    let (broken, breaks) = pair();
    let (reader, writer) = io::pipe().unwrap();
    let writer = AsyncFd::new(writer).unwrap();
    runtime
        .block_on(async {
            for fd in [&unread, &ended, &broken] {
                assert!(poll_here(pin!(fd.readable())).await.is_pending());
            }
            writer.writable().await.unwrap().retain_ready();
        })
        .unwrap();
    writes.write_all(b"nobody reads this").unwrap();
    ends.shutdown(Shutdown::Write).unwrap();
    (&mut broken.get_ref()).write_all(b"nor this").unwrap();
    drop(breaks);
    drop(reader);
    let mut events = 0;
    for _ in 0..20 {
        events += runtime.turn(Some(std::time::Duration::ZERO)).unwrap().events;
    }
    // Not again in each of the turns.
    assert!((4..20).contains(&events), "{events}");
    let early = early_turns(&runtime, || {});
    assert!(early < 5, "{early} of 10 turns didn't wait");
    // It is still to be had.
    runtime
        .block_on(async {
            assert!(unread.readable().await.unwrap().ready().is_readable());
            assert!(ended.readable().await.unwrap().ready().is_read_closed());
            assert!(broken.readable().await.unwrap().ready().is_read_closed());
        })
        .unwrap();
}

#[test]
fn into_inner_gives_the_descriptor_back_at_home_and_nowhere_registered_and_after_the_end() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    // Registered nowhere.
    let (fd, _peer) = pair();
    assert!(fd.into_inner().is_ok());
    // At home, inside the loop and outside of it; deregistered, so that it can be registered anew.
    for inside in [true, false] {
        let (fd, mut peer) = pair();
        let socket = runtime
            .block_on(async {
                assert!(poll_here(pin!(fd.readable())).await.is_pending());
                if inside { Ok(fd.into_inner().unwrap()) } else { Err(fd) }
            })
            .unwrap()
            .unwrap_or_else(|fd| fd.into_inner().unwrap());
        let again = AsyncFd::new(socket).unwrap();
        peer.write_all(b"x").unwrap();
        runtime
            .block_on(async { again.readable().await.unwrap().retain_ready() })
            .unwrap();
    }
    // When its base is gone, on any thread.
    for _ in 0..2 {
        let gone = Builder::new().start("home").unwrap();
        let log = Drops::new();
        let (fd, _peer) = probed(&log);
        let fd = registered(&gone, fd);
        gone.shutdown().wait().unwrap();
        let socket = fd.into_inner().unwrap();
        assert_eq!(log.count(), 0);
        drop(socket);
        assert_eq!(log.threads(), [thread::current().id()]);
    }
}

#[test]
fn into_inner_abroad_gives_the_object_back_and_it_works_on() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let log = Drops::new();
    let (fd, mut peer) = probed(&log);
    let fd = registered(&runtime, fd);
    let error = fd.into_inner().unwrap_err();
    assert_eq!(Some(error.home()), runtime.home());
    let fd = error.into_inner();
    peer.write_all(b"x").unwrap();
    let task = runtime.spawner().spawn(async move {
        fd.readable().await.unwrap().retain_ready();
        fd.into_inner().unwrap()
    });
    let socket = task.wait().unwrap().unwrap();
    assert_eq!((&socket.socket).read(&mut [0; 2]).unwrap(), 1);
    assert_eq!(log.count(), 0);
}

#[test]
fn it_outlives_its_runtime_and_answers_with_an_error() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (fd, mut peer) = pair();
    assert!(
        runtime
            .block_on(async { poll_here(pin!(fd.readable())).await.is_pending() })
            .unwrap()
    );
    drop(runtime);
    peer.write_all(b"x").unwrap();
    let other = Runtime::new().unwrap();
    let error = other
        .block_on(async { fd.readable().await.map(drop).unwrap_err() })
        .unwrap();
    assert!(
        error.to_string().contains("closed") && error.to_string().contains("into_inner"),
        "{error}"
    );
    assert!(futures::executor::block_on(fd.readable()).is_err());
    // The descriptor itself is well.
    let fd = AsyncFd::new(fd.into_inner().unwrap()).unwrap();
    assert_eq!(other.block_on((&fd).read(&mut [0; 2])).unwrap().unwrap(), 1);
}

#[test]
fn a_task_that_waits_for_a_descriptor_ends_with_the_runtime() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let log = Drops::new();
        let (fd, peer) = probed(&log);
        let task = runtime.spawner().spawn(async move { fd.readable().await.map(drop) });
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.cancelled, 1);
        assert_eq!(log.threads(), [home]);
        wait_for_end(&peer);
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    }
}

#[test]
fn user_code_that_names_the_descriptor_may_use_the_runtime() {
    let _watchdog = watchdog();
    /// Drops a descriptor of the same base while another is being registered.
    struct Meddles {
        socket: UnixStream,
        other: std::sync::Mutex<Option<AsyncFd<UnixStream>>>,
    }
    impl AsFd for Meddles {
        fn as_fd(&self) -> BorrowedFd<'_> {
            drop(self.other.lock().unwrap().take());
            self.socket.as_fd()
        }
    }
    type Poll = fn(&AsyncFd<Meddles>) -> futures::future::LocalBoxFuture<'_, io::Result<()>>;
    let polls: [Poll; 3] = [
        |fd| Box::pin(async { fd.readable().await.map(drop) }),
        |fd| Box::pin(async { fd.ready(Interest::READABLE).await.map(drop) }),
        |fd| Box::pin(fd.read_with(|meddles| (&meddles.socket).read(&mut [0; 1]).map(drop))),
    ];
    for poll in polls {
        block_on(async {
            let (other, _other_peer) = pair();
            assert!(poll_here(pin!(other.readable())).await.is_pending());
            let (socket, mut peer) = UnixStream::pair().unwrap();
            let fd = AsyncFd::new(Meddles {
                socket,
                other: std::sync::Mutex::default(),
            })
            .unwrap();
            *fd.get_ref().other.lock().unwrap() = Some(other);
            let mut waits = poll(&fd);
            assert!(poll_here(&mut waits).await.is_pending());
            peer.write_all(b"x").unwrap();
            waits.await.unwrap();
        });
    }
}

// ---- Bytes ----

fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(sum, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn ten_megabytes_are_echoed_in_random_pieces_between_two_ends_on_one_loop() {
    let _watchdog = watchdog();
    const TOTAL: usize = 10 << 20;
    let (left, right) = UnixStream::pair().unwrap();
    let (left, right) = (AsyncFd::new(left).unwrap(), AsyncFd::new(right).unwrap());
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            let echo = async {
                let mut random = Random::new(1);
                let mut buffer = vec![0; 100_000];
                loop {
                    let most = 1 + random.below(100_000) as usize;
                    let n = (&right).read(&mut buffer[..most]).await.unwrap();
                    if n == 0 {
                        break;
                    }
                    (&right).write_all(&buffer[..n]).await.unwrap();
                }
                right.get_ref().shutdown(Shutdown::Write).unwrap();
            };
            let send = async {
                let mut random = Random::new(2);
                let (mut sent, mut sum) = (0, 0);
                let mut bytes = vec![0; 200_000];
                while sent < TOTAL {
                    let len = (1 + random.below(200_000) as usize).min(TOTAL - sent);
                    bytes[..len].iter_mut().for_each(|byte| *byte = random.next() as u8);
                    (&left).write_all(&bytes[..len]).await.unwrap();
                    sum = checksum(sum, &bytes[..len]);
                    sent += len;
                }
                left.get_ref().shutdown(Shutdown::Write).unwrap();
                sum
            };
            let receive = async {
                let mut random = Random::new(3);
                let (mut received, mut sum) = (0, 0);
                let mut buffer = vec![0; 50_000];
                loop {
                    let most = 1 + random.below(50_000) as usize;
                    let n = (&left).read(&mut buffer[..most]).await.unwrap();
                    if n == 0 {
                        return (received, sum);
                    }
                    sum = checksum(sum, &buffer[..n]);
                    received += n;
                    if random.below(10) == 0 {
                        yield_now().await;
                    }
                }
            };
            let ((), sent, (received, sum)) = futures::join!(echo, send, receive);
            assert_eq!((received, sum), (TOTAL, sent));
        })
        .unwrap();
}

#[test]
fn megabytes_are_written_against_a_slow_reader() {
    let _watchdog = watchdog();
    const TOTAL: usize = 4 << 20;
    let (mut fd, mut peer) = pair();
    let reading = thread::spawn(move || {
        let mut received = 0;
        let mut buffer = [0; 3000];
        loop {
            match peer.read(&mut buffer).unwrap() {
                0 => return received,
                n => received += n,
            }
            thread::yield_now();
        }
    });
    block_on(async {
        fd.write_all(&vec![1; TOTAL]).await.unwrap();
        fd.flush().await.unwrap();
        drop(fd);
    });
    assert_eq!(reading.join().unwrap(), TOTAL);
}

#[test]
fn short_messages_go_back_and_forth_without_a_lost_edge() {
    let _watchdog = watchdog();
    let runtime = Builder::new().start("home").unwrap();
    let (fd, mut peer) = pair();
    let echo = runtime.spawner().spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let n = (&fd).read(&mut buffer).await.unwrap();
            if n == 0 {
                return;
            }
            (&fd).write_all(&buffer[..n]).await.unwrap();
        }
    });
    for round in 0..5000_u32 {
        peer.write_all(&round.to_ne_bytes()).unwrap();
        let mut answer = [0; 4];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_ne_bytes(answer), round);
    }
    drop(peer);
    echo.wait().unwrap().unwrap();
}

#[test]
fn vectored_reads_and_writes_move_all_pieces() {
    let _watchdog = watchdog();
    block_on(async {
        let (left, right) = UnixStream::pair().unwrap();
        let (left, right) = (AsyncFd::new(left).unwrap(), AsyncFd::new(right).unwrap());
        let n = (&left)
            .write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cde")])
            .await
            .unwrap();
        assert_eq!(n, 5);
        let (mut first, mut second) = ([0; 3], [0; 4]);
        let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let n = (&right).read_vectored(&mut pieces).await.unwrap();
        assert_eq!((n, &first, &second[..2]), (5, b"abc", &b"de"[..]));
    });
}

#[test]
fn closing_only_flushes() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut fd, mut peer) = pair();
        fd.close().await.unwrap();
        fd.write_all(b"still open").await.unwrap();
        peer.read_exact(&mut [0; 10]).unwrap();
        peer.set_nonblocking(true).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// Has something to flush, for which there is no room for some calls.
struct Flushes {
    socket: UnixStream,
    full: std::sync::Mutex<usize>,
}

impl AsFd for Flushes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Write for &Flushes {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.socket).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut full = self.full.lock().unwrap();
        match *full {
            0 => Err(io::Error::other("flushed once too often")),
            1 => {
                *full = 0;
                Ok(())
            }
            _ => {
                *full -= 1;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }
}

#[test]
fn flushing_and_closing_flush_what_it_holds_and_wait_for_room_to_do_it() {
    let _watchdog = watchdog();
    block_on(async {
        for would_block in 0..4 {
            for close in [false, true] {
                let (socket, _peer) = UnixStream::pair().unwrap();
                let full = std::sync::Mutex::new(would_block + 1);
                let mut fd = AsyncFd::new(Flushes { socket, full }).unwrap();
                if close {
                    fd.close().await.unwrap();
                } else {
                    fd.flush().await.unwrap();
                }
                assert_eq!(*fd.get_ref().full.lock().unwrap(), 0);
                let error = (&fd).flush().await.unwrap_err();
                assert_eq!(error.to_string(), "flushed once too often", "other errors come through");
            }
        }
    });
}

#[test]
fn vectored_calls_on_the_object_itself_move_all_pieces_too() {
    let _watchdog = watchdog();
    block_on(async {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut left, mut right) = (AsyncFd::new(left).unwrap(), AsyncFd::new(right).unwrap());
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"cde")];
        assert_eq!(left.write_vectored(&pieces).await.unwrap(), 5);
        let (mut first, mut second) = ([0; 3], [0; 4]);
        let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(right.read_vectored(&mut pieces).await.unwrap(), 5);
        assert_eq!((&first, &second[..2]), (b"abc", &b"de"[..]));
    });
}

#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(evbase_libkqueue))),
    ignore = "kqueue says nothing of urgent data"
)]
fn an_interest_in_priority_is_told_of_urgent_data() {
    let _watchdog = watchdog();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    block_on(async {
        let fd = AsyncFd::new(receiver).unwrap();
        let mut ready = pin!(fd.ready(Interest::PRIORITY));
        assert!(poll_here(ready.as_mut()).await.is_pending());
        // SAFETY: the byte outlives the call.
        let sent = unsafe { libc::send(sender.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert_eq!(sent, 1);
        let guard = evbase::time::timeout(std::time::Duration::from_secs(3), ready).await;
        assert!(guard.expect("no event of urgent data").unwrap().ready().is_priority());
    });
}

#[cfg(all(target_os = "linux", not(evbase_libkqueue)))]
#[test]
fn an_interest_in_errors_is_told_of_errors_and_of_nothing_else() {
    use std::net::UdpSocket;
    let _watchdog = watchdog();
    let [ours, friend, gone] = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    friend.send_to(b"data", ours.local_addr().unwrap()).unwrap();
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    block_on(async {
        let fd = AsyncFd::new(ours).unwrap();
        fd.readable().await.unwrap().retain_ready();
        let mut error = pin!(fd.ready(Interest::ERROR));
        assert!(poll_here(error.as_mut()).await.is_pending());
        // The answer of the network: nobody listens there.
        fd.get_ref().connect(nobody).unwrap();
        fd.get_ref().send(b"hello?").unwrap();
        assert_eq!(error.await.unwrap().ready(), Ready::ERROR);
        let take_error = || {
            fd.try_io(Interest::ERROR, |socket| {
                socket.take_error()?.ok_or_else(|| ErrorKind::WouldBlock.into())
            })
        };
        assert_eq!(take_error().unwrap().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(take_error().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(poll_here(pin!(fd.ready(Interest::ERROR))).await.is_pending());
        // The data is still there.
        let both = fd.ready(Interest::ERROR | Interest::READABLE).await.unwrap();
        assert_eq!(both.ready(), Ready::READABLE);
        drop(both);
        assert_eq!(fd.get_ref().recv(&mut [0; 8]).unwrap(), 4);
    });
}

/// What can be read by `&mut` only.
struct Exclusive(PipeReader);

impl AsFd for Exclusive {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn a_guard_that_has_the_object_to_itself_clears_only_what_it_has_seen() {
    let _watchdog = watchdog();
    let (reader, mut writer) = std::io::pipe().unwrap();
    block_on(async {
        let mut fd = AsyncFd::new(Exclusive(reader)).unwrap();
        assert!(poll_here(pin!(fd.readable_mut())).await.is_pending());
        writer.write_all(b"one").unwrap();
        let mut buf = [0; 8];
        let mut guard = fd.readable_mut().await.unwrap();
        assert!(guard.ready().is_readable());
        assert_eq!(guard.try_io(|fd| fd.get_mut().0.read(&mut buf)).unwrap().unwrap(), 3);
        assert!(guard.try_io(|fd| fd.get_mut().0.read(&mut buf)).is_err());
        assert!(!guard.ready().is_readable(), "cleared");
        drop(guard);
        let mut again = Box::pin(fd.ready_mut(Interest::READABLE));
        assert!(poll_here(again.as_mut()).await.is_pending());
        writer.write_all(b"two").unwrap();
        let mut guard = again.await.unwrap();
        // What comes after the guard was made isn't cleared by it. Home sees it before it sees that timer.
        writer.write_all(b"three").unwrap();
        evbase::time::sleep(std::time::Duration::from_millis(1)).await;
        guard.clear_ready();
        drop(guard);
        let mut guard = fd.readable_mut().await.unwrap();
        assert_eq!(guard.get_mut().get_mut().0.read(&mut buf).unwrap(), 8);
        guard.retain_ready();
    });
    // A pipe's end for writing is ready at once, and its error is one of a write.
    let (reader, writer) = std::io::pipe().unwrap();
    block_on(async {
        let mut fd = AsyncFd::new(writer).unwrap();
        let mut guard = fd.writable_mut().await.unwrap();
        assert_eq!(guard.try_io(|fd| fd.get_mut().write(b"1")).unwrap().unwrap(), 1);
        drop(reader);
        let error = guard.try_io(|fd| fd.get_mut().write(b"2")).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn an_operation_that_is_tried_says_when_readiness_is_over() {
    let _watchdog = watchdog();
    block_on(async {
        let (reader, mut writer) = pipe();
        let read = |buf: &mut [u8]| reader.try_io(Interest::READABLE, |mut pipe| pipe.read(buf));
        let mut buf = [0; 8];
        // It is registered nowhere yet.
        assert_eq!(read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        writer.write_all(b"one").unwrap();
        assert_eq!(read(&mut buf).unwrap(), 3);
        writer.write_all(b"two").unwrap();
        reader.readable().await.unwrap().retain_ready();
        assert_eq!(read(&mut buf).unwrap(), 3);
        // Nobody has found out yet.
        reader.readable().await.unwrap().retain_ready();
        assert_eq!(read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut readable = pin!(reader.readable());
        assert!(poll_here(readable.as_mut()).await.is_pending());
        writer.write_all(b"three").unwrap();
        readable.await.unwrap().retain_ready();
        let mut tries = 0;
        let interrupted = reader.try_io(Interest::READABLE, |_| {
            tries += 1;
            Err::<(), _>(
                if tries < 3 {
                    ErrorKind::Interrupted
                } else {
                    ErrorKind::Other
                }
                .into(),
            )
        });
        assert_eq!((interrupted.unwrap_err().kind(), tries), (ErrorKind::Other, 3));
        // Abroad nothing is known of readiness, and nothing is forgotten.
        thread::scope(|scope| {
            let tried = scope.spawn(|| reader.try_io(Interest::READABLE, |mut pipe| pipe.read(&mut [0; 8])));
            assert_eq!(tried.join().unwrap().unwrap(), 5);
        });
        drop(writer);
        assert!(reader.readable().await.unwrap().ready().is_readable());
    });
}

#[test]
fn what_was_cleared_through_a_guard_is_not_ready_any_more() {
    let _watchdog = watchdog();
    block_on(async {
        let (reader, mut writer) = pipe();
        writer.write_all(b"x").unwrap();
        let mut guard = reader.readable().await.unwrap();
        assert!(guard.ready().is_readable());
        let would_block = guard.try_io(|_| Err::<(), _>(ErrorKind::WouldBlock.into()));
        assert!(would_block.is_err() && guard.ready().is_empty());
    });
}

#[test]
fn what_cannot_be_used_comes_back_with_the_error() {
    #[derive(Debug)]
    struct Closed;

    impl AsFd for Closed {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: not that of any file: it is far above the limit, so nobody's is disturbed.
            unsafe { BorrowedFd::borrow_raw(i32::MAX) }
        }
    }

    let error = AsyncFd::try_new(Closed).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>();
    assert_eq!(source.unwrap().raw_os_error(), Some(libc::EBADF));
    let Closed = error.into_inner();
    let mut fd = AsyncFd::try_new(pipe().0.into_inner().unwrap()).unwrap();
    let _: &mut std::io::PipeReader = fd.get_mut();
}

#[test]
fn a_descriptor_that_a_loop_has_refused_may_go_to_another() {
    let _watchdog = watchdog();
    let file = AsyncFd::new(std::fs::File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
    for _ in 0..2 {
        let refused = Runtime::new()
            .unwrap()
            .block_on(async { file.readable().await.map(drop) });
        assert_eq!(refused.unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
    }
    file.into_inner().unwrap();
}
