//! libuv as a guest: its loop has a turn around each sleep of a runtime, by hooks. What is written in the docs of
//! `Runtime::before_wait`.

use std::ffi::c_int;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::{Embedded, Runtime, WaitHook, yield_now};

use crate::scenarios::is_readable;
use crate::watchdog::{rounds, watched};

#[repr(C)]
struct RawGuest {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn libuv_guest_new() -> *mut RawGuest;
    fn libuv_guest_free(guest: *mut RawGuest);
    fn libuv_guest_fd(guest: *const RawGuest) -> c_int;
    fn libuv_guest_timeout(guest: *mut RawGuest) -> c_int;
    fn libuv_guest_run(guest: *mut RawGuest);
    fn libuv_guest_start_timer(guest: *mut RawGuest, milliseconds: u64);
    fn libuv_guest_fired(guest: *const RawGuest) -> c_int;
    fn libuv_guest_read(guest: *mut RawGuest, fd: c_int);
    fn libuv_guest_received(guest: *const RawGuest) -> usize;
    fn libuv_guest_ended(guest: *const RawGuest) -> c_int;
}

/// A loop of libuv with a timer and a pipe. Not `Send`: all calls come from the thread that made it.
struct Uv(*mut RawGuest);

impl Uv {
    fn new() -> Rc<Self> {
        // SAFETY: takes nothing; it aborts rather than fail.
        Rc::new(Self(unsafe { libuv_guest_new() }))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the loop is.
        unsafe { BorrowedFd::borrow_raw(libuv_guest_fd(self.0)) }
    }

    /// One pass of the loop, which doesn't wait.
    fn run(&self) {
        // SAFETY: a valid loop, on its thread, which isn't running: its callbacks come back to no Rust.
        unsafe { libuv_guest_run(self.0) };
    }

    fn timeout(&self) -> Option<Duration> {
        // SAFETY: a valid loop, on its thread.
        let milliseconds = unsafe { libuv_guest_timeout(self.0) };
        u64::try_from(milliseconds).ok().map(Duration::from_millis)
    }

    fn start_timer(&self, after: Duration) {
        // SAFETY: as above.
        unsafe { libuv_guest_start_timer(self.0, after.as_millis() as u64) };
    }

    fn fired(&self) -> usize {
        // SAFETY: as above.
        unsafe { libuv_guest_fired(self.0) as usize }
    }

    fn read(&self, from: UnixStream) {
        // SAFETY: as above; the descriptor is given away.
        unsafe { libuv_guest_read(self.0, from.into_raw_fd()) };
    }

    fn received(&self) -> usize {
        // SAFETY: as above.
        unsafe { libuv_guest_received(self.0) }
    }

    fn has_ended(&self) -> bool {
        // SAFETY: as above.
        unsafe { libuv_guest_ended(self.0) != 0 }
    }
}

impl Drop for Uv {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and this is the last use.
        unsafe { libuv_guest_free(self.0) };
    }
}

/// The recipe.
fn be_host_of(uv: &Rc<Uv>, runtime: &Runtime) -> [WaitHook; 2] {
    let before = {
        let uv = uv.clone();
        runtime.before_wait(move |wait| {
            let timeout = uv.timeout().into_iter();
            // It takes a part at a time, and leaves its descriptor readable, without a new edge.
            let left = is_readable(&uv.fd()).then_some(Duration::ZERO);
            timeout.chain(left).for_each(|timeout| wait.at_most(timeout));
        })
    };
    let after = {
        let uv = uv.clone();
        runtime.after_wait(move || uv.run())
    };
    // Its own number for the descriptor, since an `AsyncFd` wants to own what it watches.
    let fd: OwnedFd = uv.fd().try_clone_to_owned().unwrap();
    let wakes = runtime.spawn_local(async move {
        let fd = AsyncFd::new(fd).unwrap();
        loop {
            // The event ends the sleep, and the hooks do the rest.
            fd.readable().await.unwrap().clear_ready();
        }
    });
    drop(wakes.unwrap());
    [before.unwrap(), after.unwrap()]
}

/// `poll(2)`, until done.
fn serve_by_poll(embedded: &Embedded, done: impl Fn() -> bool) -> usize {
    let mut turns = 0;
    while !done() {
        let mut fd = libc::pollfd {
            fd: embedded.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid element.
        unsafe { libc::poll(&mut fd, 1, -1) };
        if fd.revents != 0 {
            embedded.turn().unwrap();
            turns += 1;
        }
    }
    turns
}

/// Drives a runtime, by itself or in a `poll(2)` loop, until done. Returns the number of turns.
fn drive(runtime: &Runtime, embedded: Option<&Embedded>, done: impl Fn() -> bool) -> usize {
    match embedded {
        Some(embedded) => serve_by_poll(embedded, done),
        None => {
            let mut turns = 0;
            while !done() {
                runtime.turn(None).unwrap();
                turns += 1;
            }
            turns
        }
    }
}

fn both_ways(test: impl Fn(&Runtime, Option<&Embedded>)) {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        test(&runtime, None);
        let runtime = Runtime::new().unwrap();
        test(&runtime, Some(&runtime.embed().unwrap()));
    });
}

#[test]
fn a_libuv_timer_started_by_a_task_fires_on_time_in_a_uv_loop_hosted_through_before_wait() {
    both_ways(|runtime, embedded| {
        let uv = Uv::new();
        let _hooks = be_host_of(&uv, runtime);
        let after = Duration::from_millis(20);
        for n in 1..=5 {
            let start = Instant::now();
            let starts = uv.clone();
            let task = runtime.spawn_local(async move {
                yield_now().await;
                starts.start_timer(after);
            });
            let turns = drive(runtime, embedded, || uv.fired() == n);
            let took = start.elapsed();
            assert!(task.unwrap().is_finished());
            // libuv counts whole milliseconds from the last one that has begun.
            assert!(took >= after - Duration::from_millis(1), "{took:?}");
            assert!(took < after + Duration::from_secs(2), "{took:?}");
            assert!(turns <= 8, "{turns}");
        }
    });
}

#[test]
fn what_a_libuv_loop_waits_for_wakes_a_sleeping_home() {
    both_ways(|runtime, embedded| {
        let uv = Uv::new();
        let _hooks = be_host_of(&uv, runtime);
        // Nothing is left that would have libuv's loop run for another reason.
        for _ in 0..10 {
            runtime.turn(Some(Duration::from_millis(1))).unwrap();
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reads = uv.clone();
        runtime.spawn_local(async move { reads.read(ours) }).unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(1));
                theirs.write_all(b"x").unwrap();
            }
        });
        drive(runtime, embedded, || uv.has_ended());
        writer.join().unwrap();
        assert_eq!(uv.received(), 20);
    });
}

#[test]
fn what_a_libuv_loop_leaves_for_its_next_pass_is_not_forgotten() {
    both_ways(|runtime, embedded| {
        let uv = Uv::new();
        let _hooks = be_host_of(&uv, runtime);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // More than the 32 buffers that libuv reads for one event, and nothing that comes later.
        let size = 400_000;
        socket_buffer(&theirs, 2 * size);
        theirs.set_nonblocking(true).unwrap();
        let written = theirs.write(&vec![0; size]).unwrap();
        assert!(written > 33 * 4096, "{written}");
        uv.read(ours);
        drive(runtime, embedded, || uv.received() == written);
        drop(theirs);
        drive(runtime, embedded, || uv.has_ended());
    });
}

fn socket_buffer(socket: &UnixStream, size: usize) {
    let size = size as c_int;
    let (option, length) = ((&raw const size).cast(), size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the kernel reads `size` during the call.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, option, length) };
}

#[test]
fn an_idle_libuv_loop_costs_its_hosts_host_nothing() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let uv = Uv::new();
        let _hooks = be_host_of(&uv, &runtime);
        // Without anything to wait for, and with something far away.
        for _ in 0..2 {
            let turns = (0..10).take_while(|_| is_readable(&embedded) && embedded.turn().is_ok());
            assert!(turns.count() < 10);
            thread::sleep(Duration::from_millis(100));
            assert!(!is_readable(&embedded));
            let starts = uv.clone();
            let starts = async move { starts.start_timer(Duration::from_secs(3600)) };
            runtime.spawn_local(starts).unwrap();
        }
    });
}

#[test]
fn a_libuv_loop_may_go_before_or_after_the_runtime() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let embedded = (round % 4 < 2).then(|| runtime.embed().unwrap());
        let uv = Uv::new();
        let hooks = be_host_of(&uv, &runtime);
        uv.start_timer(Duration::from_millis(1));
        drive(&runtime, embedded.as_ref(), || uv.fired() == 1);
        if round % 2 == 0 {
            drop((hooks, uv));
            drop(runtime);
        } else {
            drop(runtime);
            drop((uv, hooks));
        }
    });
}
