//! Kernel objects, and somebody else's reactor, as `AsyncFd`s.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evbase::io::AsyncFd;
use evbase::spawn_local;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::on_a_loop;
use crate::servers::Directory;

#[test]
fn a_timerfd_fires_again_and_again() {
    on_a_loop(async || {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let start = Instant::now();
        let period = Duration::from_millis(2);
        timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty())?;
        let timer = AsyncFd::new(timer)?;
        for n in 1..=10 {
            timer.read_with(|timer| Ok(timer.wait()?)).await?;
            assert!(start.elapsed() >= n * period);
        }
        Ok(())
    });
}

#[test]
fn a_signalfd_takes_signals() {
    on_a_loop(async || {
        let mask = SigSet::from(Signal::SIGUSR2);
        mask.thread_block()?;
        let signals = AsyncFd::new(SignalFd::new(&mask)?)?;
        let taking = spawn_local(async move {
            let take = |signals: &SignalFd| {
                // It would block: that has no error there.
                signals.read_signal()?.ok_or_else(|| ErrorKind::WouldBlock.into())
            };
            for _ in 0..3 {
                let signal = signals.read_with(take).await?;
                assert_eq!(signal.ssi_signo, Signal::SIGUSR2 as u32);
                raise(Signal::SIGUSR2)?;
            }
            Ok::<_, io::Error>(())
        });
        // It waits for the first one.
        evbase::yield_now().await;
        raise(Signal::SIGUSR2)?;
        taking.await??;
        Ok(())
    });
}

#[test]
fn a_pidfd_tells_of_the_end_of_a_process() {
    on_a_loop(async || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        Errno::result(fd)?;
        // SAFETY: the kernel just made this descriptor for us.
        let process = AsyncFd::new(unsafe { OwnedFd::from_raw_fd(fd as i32) })?;
        assert!(child.try_wait()?.is_none());
        drop(child.stdin.take());
        let _ended = process.readable().await?;
        assert!(child.try_wait()?.ok_or("it has ended")?.success());
        Ok(())
    });
}

#[test]
fn an_inotify_sees_files_come() {
    on_a_loop(async || {
        let directory = Directory::new("inotify");
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory.path(), AddWatchFlags::IN_CREATE)?;
        let inotify = AsyncFd::new(inotify)?;
        let path = directory.path().to_owned();
        let writer = thread::spawn(move || {
            for n in 0..10 {
                std::fs::write(path.join(n.to_string()), "").unwrap();
            }
        });
        let mut names = Vec::new();
        while names.len() < 10 {
            let events = inotify.read_with(|inotify| Ok(inotify.read_events()?)).await?;
            names.extend(events.into_iter().filter_map(|event| event.name?.into_string().ok()));
        }
        assert!(names.iter().map(|name| name.parse::<u32>().unwrap()).eq(0..10));
        writer.join().unwrap();
        Ok(())
    });
}

/// A reactor inside ours.
struct Reactor(mio::Poll);

impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the `Poll` is there, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[test]
fn a_reactor_of_mio_is_polled_when_it_has_something() {
    on_a_loop(async || {
        let mut theirs = AsyncFd::new(Reactor(mio::Poll::new()?))?;
        let mut listener = mio::net::TcpListener::bind("127.0.0.1:0".parse()?)?;
        let registry = theirs.get_ref().0.registry();
        registry.register(&mut listener, mio::Token(7), mio::Interest::READABLE)?;
        let address = listener.local_addr()?;
        let mut events = mio::Events::with_capacity(8);
        for _ in 0..10 {
            let connecting = thread::spawn(move || std::net::TcpStream::connect(address).unwrap());
            let mut accepted = None;
            while accepted.is_none() {
                let mut ready = theirs.readable().await?;
                // Cleared first: what comes during the poll is an event of its own.
                ready.clear_ready();
                drop(ready);
                theirs.get_mut().0.poll(&mut events, Some(Duration::ZERO))?;
                assert!(events.iter().all(|event| event.token() == mio::Token(7)));
                accepted = listener.accept().ok();
            }
            connecting.join().unwrap();
        }
        Ok(())
    });
}
