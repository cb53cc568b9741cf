//! The hosts that need no library: `poll(2)`, `epoll(7)`, another runtime.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Embedded, Runtime};

use crate::scenarios::{Host, in_every_host};
use crate::support::readable_within;

/// A host that waits with a system call: false if the time is over.
struct Calls<W>(W);

impl<W: FnMut(&Embedded, Duration) -> bool> Host for Calls<W> {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let end = Instant::now() + longest;
        let mut turns = 0;
        while !done() && (self.0)(embedded, end.saturating_duration_since(Instant::now())) {
            turns += 1;
            let _ = embedded.turn();
        }
        turns
    }
}

fn by_select(embedded: &Embedded, longest: Duration) -> bool {
    let mut set = std::mem::MaybeUninit::<libc::fd_set>::uninit();
    let fd = embedded.as_raw_fd();
    assert!((fd as usize) < libc::FD_SETSIZE);
    let mut timeout = libc::timeval {
        tv_sec: longest.as_secs() as _,
        tv_usec: longest.subsec_micros() as _,
    };
    // SAFETY: `FD_ZERO` initialises the set, whose bounds the number is within.
    unsafe {
        libc::FD_ZERO(set.as_mut_ptr());
        libc::FD_SET(fd, set.as_mut_ptr());
        let none = std::ptr::null_mut();
        libc::select(fd + 1, set.as_mut_ptr(), none, none, &mut timeout) == 1
    }
}

/// Another epoll, in which each runtime's descriptor is registered when it first comes.
#[cfg(target_os = "linux")]
fn by_epoll(flags: i32) -> impl FnMut(&Embedded, Duration) -> bool {
    // SAFETY: takes no pointer; the descriptor is new.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let mut known = None;
    move |embedded, longest| {
        let fd = embedded.as_raw_fd();
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | flags) as u32,
            u64: 0,
        };
        let embedded = std::ptr::from_ref(embedded);
        if known != Some(embedded) {
            // A descriptor that was closed has left by itself, unless a scenario still has it.
            // SAFETY: `event` outlives the calls.
            unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, &mut event);
                assert_eq!(
                    libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event),
                    0
                );
            }
            known = Some(embedded);
        }
        // SAFETY: room for one event.
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, longest.as_millis() as i32) == 1 }
    }
}

/// Another runtime, which watches the descriptor by an `AsyncFd`: edge-triggered.
struct Evbase(Runtime);

impl Host for Evbase {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let turns = Rc::new(Cell::new(0));
        // Its own number for the descriptor, since an `AsyncFd` wants to own what it watches.
        let watched = AsyncFd::new(embedded.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let serve = async {
            while !done() {
                let mut ready = watched.readable().await.unwrap();
                ready.clear_ready();
                turns.set(turns.get() + 1);
                let _ = embedded.turn();
            }
        };
        let _ = self.0.block_on(evbase::time::timeout(longest, serve));
        turns.get()
    }
}

in_every_host! {
    poll: Calls(readable_within::<Embedded>),
    select: Calls(by_select),
    another_runtime: Evbase(Runtime::new().unwrap()),
}

#[cfg(target_os = "linux")]
in_every_host! {
    epoll_by_level: Calls(by_epoll(0)),
    epoll_by_edge: Calls(by_epoll(libc::EPOLLET)),
}
