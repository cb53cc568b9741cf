//! Bytes in and out of a stream, by `recv`, `send` and `sendmsg`: they cost the kernel less than `read`, `write` and `writev`, and what
//! they write to a connection that is broken raises no `SIGPIPE`, which a program written in another language may not ignore.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
#[cfg(any(feature = "hyper", feature = "tokio"))]
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
#[cfg(any(feature = "hyper", feature = "tokio"))]
use std::os::fd::BorrowedFd;

use socket2::SockRef;

use crate::io::MOST_BUFFERS;

/// Apple's systems have no such flag, but an option of the socket, which whoever makes the socket sets.
#[cfg(target_vendor = "apple")]
const FLAGS: i32 = 0;
#[cfg(not(target_vendor = "apple"))]
const FLAGS: i32 = libc::MSG_NOSIGNAL;

/// So many bytes in several buffers are faster copied and sent as one than gathered by the kernel.
const FEW: usize = 1024;

pub(super) fn send(socket: &impl AsFd, buf: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(buf, FLAGS)
}

pub(super) fn send_vectored(socket: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(MOST_BUFFERS)];
    let len = bufs.iter().fold(0, |len: usize, buf| len.saturating_add(buf.len()));
    let gathered = || SockRef::from(socket).send_vectored_with_flags(bufs, FLAGS);
    if len > FEW {
        return gathered();
    }
    thread_local! {
        /// One for all sends: it need not be filled with zeroes for each.
        static COPIED: RefCell<[u8; FEW]> = const { RefCell::new([0; FEW]) };
    }
    let sent = COPIED.try_with(|copied| {
        let mut copied = copied.borrow_mut();
        let mut rest = &mut copied[..];
        for buf in bufs {
            rest.write_all(buf)?;
        }
        send(socket, &copied[..len])
    });
    // On some platforms it is gone while the thread exits.
    sent.unwrap_or_else(|_| gathered())
}

/// Into memory that nobody has initialised: `buf` has so many bytes at its front that it says.
#[cfg(any(feature = "hyper", feature = "tokio"))]
pub(crate) fn recv(socket: BorrowedFd<'_>, buf: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    SockRef::from(&socket).recv(buf)
}
