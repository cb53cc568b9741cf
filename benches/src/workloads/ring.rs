//! libevent's chain, closed to a ring: each link reads a token from its socket pair and writes it to the next one.

use std::cell::{Cell as Number, RefCell};
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::{Cell, one};
use crate::measure::{Batches, batches, want_descriptors};
use crate::peers::raw::{self, Epoll};
use crate::peers::{Library, Name, Sockets, Stream, with_reactor};

/// Hops in a batch. Each batch begins with its tokens evenly spread: left alone for long, they bunch, because who tries to
/// read once more before it waits moves two tokens that have met on together. A bunch is cheaper than what is meant.
const HOPS: usize = 2_000;

#[derive(Clone, Copy)]
pub struct Ring {
    pub pairs: usize,
    pub tokens: usize,
    /// Bytes that are read at most. With 1, as in libevent's chain, tokens never merge, and only a read that says EAGAIN
    /// tells that nothing is left; with more, a short read does as well.
    pub buffer: usize,
    /// Takes the reading end off the loop after each token, and puts it back.
    pub again: bool,
}

pub fn cell(name: Name, ring: Ring) -> Cell {
    want_descriptors(2 * ring.pairs as u64 + 100)?;
    if ring.again && matches!(name, Name::MonoioUring | Name::Compio | Name::Glommio) {
        return Err("io_uring registers nothing".into());
    }
    if ring.again && name == Name::Libuv {
        return Err("its stop and start cancel each other out before the kernel hears of them".into());
    }
    // The reading and the writing end of each.
    let pairs: Vec<_> = (0..ring.pairs).map(|_| UnixStream::pair().expect("a pair")).collect();
    let nanoseconds = match name {
        Name::Raw => raw(&pairs, ring),
        Name::Libevent | Name::Libuv => in_c(Library::of(name), &pairs, ring),
        name => with_reactor!(name, P => {
            if <P as Sockets>::NONBLOCKING {
                set_nonblocking(&pairs);
            }
            P::run(|peer| in_tasks(peer, pairs, ring))
        }),
    };
    one("ns", nanoseconds)
}

fn set_nonblocking(pairs: &[(UnixStream, UnixStream)]) {
    for end in pairs.iter().flat_map(|(from, to)| [from, to]) {
        end.set_nonblocking(true).expect("a socket");
    }
}

/// The writing ends into which a batch's tokens go at its start.
fn starts(pairs: &[(UnixStream, UnixStream)], ring: Ring) -> Vec<i32> {
    (0..ring.tokens)
        .map(|token| pairs[token * ring.pairs / ring.tokens].1.as_raw_fd())
        .collect()
}

fn send_tokens(starts: &[i32]) {
    for &end in starts {
        assert_eq!(raw::write(end, b"t"), 1, "a token");
    }
}

/// What is left of a batch.
#[derive(Default)]
struct Left {
    hops: Number<usize>,
    tokens: Number<usize>,
}

impl Left {
    fn begin(&self, tokens: usize) {
        self.hops.set(HOPS);
        self.tokens.set(tokens);
    }

    /// Tokens have hopped: how many of them go on. At the end, none does.
    fn hop(&self, arrived: usize) -> usize {
        self.hops.update(|hops| hops - arrived);
        let stay = self.tokens.get().saturating_sub(self.hops.get());
        self.tokens.update(|tokens| tokens - stay);
        arrived - stay
    }

    fn is_over(&self) -> bool {
        self.hops.get() == 0
    }
}

/// What the links share, and the main task waits for.
#[derive(Default)]
struct Shared {
    left: Left,
    main: RefCell<Option<Waker>>,
}

impl Shared {
    fn hop(&self, arrived: usize) -> usize {
        let go_on = self.left.hop(arrived);
        if self.left.is_over() {
            self.main.take().into_iter().for_each(Waker::wake);
        }
        go_on
    }
}

async fn in_tasks<P: Sockets>(peer: P, pairs: Vec<(UnixStream, UnixStream)>, ring: Ring) -> f64 {
    let shared = Rc::new(Shared::default());
    let starts = starts(&pairs, ring);
    let (readers, mut writers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    writers.rotate_left(1);
    for (from, to) in readers.into_iter().zip(writers) {
        let (from, to) = (peer.unix(from), peer.unix(to));
        match ring.again {
            false => peer.spawn_detached(link(from, to, ring.buffer, shared.clone())),
            true => peer.spawn_detached(link_again(peer.clone(), from, to, ring.buffer, shared.clone())),
        }
    }
    let mut batches = Batches::new();
    while batches.more() {
        let start = Instant::now();
        shared.left.begin(ring.tokens);
        send_tokens(&starts);
        poll_fn(|cx| {
            if shared.left.is_over() {
                return Poll::Ready(());
            }
            shared.main.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        batches.add(start, HOPS);
    }
    batches.median()
}

async fn link<S: Stream>(mut from: S, mut to: S, size: usize, shared: Rc<Shared>) {
    let mut buffer = vec![0; size];
    let mut n;
    loop {
        (n, buffer) = from.read(buffer).await;
        n = shared.hop(n);
        if n > 0 {
            buffer = to.write_all(buffer, n).await;
        }
    }
}

async fn link_again<P: Sockets>(peer: P, mut from: P::Unix, mut to: P::Unix, size: usize, shared: Rc<Shared>) {
    let mut buffer = vec![0; size];
    let mut n;
    loop {
        (n, buffer) = from.read(buffer).await;
        n = shared.hop(n);
        if n > 0 {
            buffer = to.write_all(buffer, n).await;
        }
        let socket = P::off_the_loop(from).expect("what io_uring answers is known beforehand");
        from = peer.unix(socket);
    }
}

fn raw(pairs: &[(UnixStream, UnixStream)], ring: Ring) -> f64 {
    let starts = starts(pairs, ring);
    let mut epoll = Epoll::new();
    let ends: Vec<_> = (0..pairs.len())
        .map(|i| (pairs[i].0.as_raw_fd(), pairs[(i + 1) % pairs.len()].1.as_raw_fd()))
        .collect();
    for (i, &(from, _)) in ends.iter().enumerate() {
        epoll.add(from, i);
    }
    let left = Left::default();
    let (mut ready, mut buffer) = (Vec::new(), vec![0; ring.buffer]);
    batches(HOPS, || {
        left.begin(ring.tokens);
        send_tokens(&starts);
        while !left.is_over() {
            ready.extend(epoll.wait(None));
            for i in ready.drain(..) {
                let (from, to) = ends[i];
                let n = raw::read(from, &mut buffer);
                assert!(n > 0, "a token");
                let n = left.hop(n as usize);
                if n > 0 {
                    assert_eq!(raw::write(to, &buffer[..n]), n as isize, "a token");
                }
                if ring.again {
                    epoll.remove(from);
                    epoll.add(from, i);
                }
            }
        }
    })
}

fn in_c(library: &Library, pairs: &[(UnixStream, UnixStream)], ring: Ring) -> f64 {
    set_nonblocking(pairs);
    let starts = starts(pairs, ring);
    let ends: Vec<_> = pairs
        .iter()
        .flat_map(|(from, to)| [from.as_raw_fd(), to.as_raw_fd()])
        .collect();
    // SAFETY: two ends a pair; the sockets outlive the ring's last run.
    unsafe {
        let (count, size) = (pairs.len() as i32, ring.buffer as i32);
        let made = (library.ring_new)(ends.as_ptr(), count, size, i32::from(ring.again));
        batches(HOPS, || {
            send_tokens(&starts);
            (library.ring_run)(made, HOPS as i64, ring.tokens as i64);
        })
    }
}
