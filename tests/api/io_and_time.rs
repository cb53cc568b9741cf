//! What the compiler can prove of descriptors, sockets and timers: their names and signatures, and that they may stand beside a
//! panic that is caught.

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use evbase::io::{AsyncFd, Interest, IntoInnerError, Ready, ReadyGuard, TryNewError};
use evbase::net::{
    Incoming, OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener,
    UnixStream, WriteHalf,
};
use evbase::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output};
use evbase::signal::Signals;
use evbase::time::{Interval, MissedTickBehavior, Sleep, Timeout};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};

#[test]
fn a_panic_beside_them_breaks_no_descriptor_and_no_timer() {
    fn safe<T: UnwindSafe + RefUnwindSafe>() {}
    safe::<AsyncFd<std::os::unix::net::UnixStream>>();
    safe::<ReadyGuard<'static, std::os::unix::net::UnixStream>>();
    safe::<IntoInnerError<u8>>();
    safe::<TcpListener>();
    safe::<Incoming<'static>>();
    safe::<TcpStream>();
    safe::<OwnedReadHalf>();
    safe::<OwnedWriteHalf>();
    safe::<ReadHalf<'static>>();
    safe::<WriteHalf<'static>>();
    safe::<UdpSocket>();
    safe::<UnixListener>();
    safe::<UnixStream>();
    safe::<OwnedReadHalf<UnixStream>>();
    safe::<UnixDatagram>();
    safe::<Sleep>();
    safe::<Interval>();
    safe::<Timeout<u8>>();
    safe::<Signals>();
    safe::<Child>();
    safe::<ChildStdin>();
    safe::<ChildStdout>();
    safe::<ChildStderr>();
}

#[test]
fn an_error_of_what_cannot_be_used_is_one_for_every_type() {
    fn error<T: Error>() {}
    struct Nothing;
    error::<TryNewError<Nothing>>();
    error::<IntoInnerError<Nothing>>();
    fn is_io_error<T>(error: TryNewError<T>) -> io::Error {
        error.into()
    }
    let _ = is_io_error::<Nothing>;
}

#[test]
#[allow(dead_code)]
fn signals_cross_threads_and_are_streams_of_numbers() {
    fn stream<S: Stream<Item = std::ffi::c_int> + Send + Unpin + 'static>() {}
    stream::<Signals>();
    let _: fn(&[std::ffi::c_int]) -> io::Result<Signals> = Signals::new;
    fn ctrl_c() -> impl Future<Output = io::Result<()>> + Send + 'static {
        evbase::signal::ctrl_c()
    }
}

#[test]
#[allow(dead_code)]
fn children_and_their_pipes_cross_threads_and_are_waited_for_by_futures_that_do() {
    fn send<T: Send + Sync + Unpin + Debug + 'static>() {}
    fn reads<T: AsyncRead>() {}
    fn writes<T: AsyncWrite>() {}
    send::<Command>();
    send::<Child>();
    send::<ChildStdin>();
    send::<ChildStdout>();
    send::<ChildStderr>();
    writes::<ChildStdin>();
    reads::<ChildStdout>();
    reads::<ChildStderr>();
    // The standard library's own.
    let _: fn(ExitStatus, Output) -> (std::process::ExitStatus, std::process::Output) =
        |status, output| (status, output);
    let _: fn(std::process::Command) -> Command = Command::from;
    let _: fn(&mut Command) -> &mut std::process::Command = Command::as_std_mut;
    let _: fn(&mut Command, bool) -> &mut Command = Command::kill_on_drop;
    let _: fn(&mut Command) -> io::Result<Child> = Command::spawn;
    let _: fn(&Child) -> Option<u32> = Child::id;
    let _: fn(&mut Child) -> io::Result<Option<ExitStatus>> = Child::try_wait;
    let _: fn(&mut Child) -> io::Result<()> = Child::start_kill;
    fn status(command: &mut Command) -> impl Future<Output = io::Result<ExitStatus>> + Send + use<> {
        command.status()
    }
    fn output(command: &mut Command) -> impl Future<Output = io::Result<Output>> + Send + use<> {
        command.output()
    }
    fn wait(child: &mut Child) -> impl Future<Output = io::Result<ExitStatus>> + Send {
        let _: (&Option<ChildStdin>, &Option<ChildStdout>, &Option<ChildStderr>) =
            (&child.stdin, &child.stdout, &child.stderr);
        child.wait()
    }
    fn kill(child: &mut Child) -> impl Future<Output = io::Result<()>> + Send {
        child.kill()
    }
    fn wait_with_output(child: Child) -> impl Future<Output = io::Result<Output>> + Send {
        child.wait_with_output()
    }
}

#[test]
#[allow(dead_code)]
fn names_and_signatures_are_the_promised_ones() {
    fn try_new<T: AsFd + Send + 'static>(io: T) -> T {
        let error: TryNewError<T> = AsyncFd::try_new(io).err().unwrap();
        let _: Option<&(dyn Error + 'static)> = error.source();
        error.into_inner()
    }
    fn try_io<T: AsFd, R>(fd: &mut AsyncFd<T>, call: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let _: &mut T = fd.get_mut();
        fd.try_io(Interest::READABLE, call)
    }
    async fn stream(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        let _: Ready = stream.ready(Interest::READABLE).await?;
        stream.try_io(Interest::WRITABLE, || Ok(()))?;
        Ok(stream.try_read(buf)? + stream.try_write(buf)?)
    }
    fn resets(interval: &mut Interval, now: Instant) -> MissedTickBehavior {
        interval.reset();
        interval.reset_immediately();
        interval.reset_after(Duration::ZERO);
        interval.reset_at(now);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        interval.missed_tick_behavior()
    }
}
