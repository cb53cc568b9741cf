//! [`UCred`]: who is at the other side of a Unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Who is at the other side of a Unix socket, as the kernel knows it.
///
/// # Examples
///
/// ```
/// let (one, _other) = evbase::net::UnixStream::pair()?;
/// let peer = one.peer_cred()?;
/// println!("user {}, group {}, process {:?}", peer.uid, peer.gid, peer.pid);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UCred {
    /// The effective user.
    pub uid: libc::uid_t,
    /// The effective group.
    pub gid: libc::gid_t,
    /// The process; `None` where the kernel doesn't tell (FreeBSD, DragonFly), or knows of none.
    pub pid: Option<libc::pid_t>,
}

#[cfg(target_os = "linux")]
pub(super) fn peer_cred(socket: BorrowedFd<'_>) -> io::Result<UCred> {
    let none = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let peer = option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, none)?;
    Ok(UCred {
        uid: peer.uid,
        gid: peer.gid,
        pid: Some(peer.pid).filter(|&pid| pid != 0),
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn peer_cred(socket: BorrowedFd<'_>) -> io::Result<UCred> {
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the descriptor is borrowed for the call, and both pointers are to locals.
    if unsafe { libc::getpeereid(socket.as_raw_fd(), &mut uid, &mut gid) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(UCred {
        uid,
        gid,
        pid: peer_pid(socket)?,
    })
}

#[cfg(target_vendor = "apple")]
fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<Option<libc::pid_t>> {
    option(socket, libc::SOL_LOCAL, libc::LOCAL_PEERPID, 0).map(Some)
}

#[cfg(target_os = "netbsd")]
fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<Option<libc::pid_t>> {
    let none = libc::unpcbid {
        unp_pid: 0,
        unp_euid: 0,
        unp_egid: 0,
    };
    // Level 0 is that of Unix sockets (unix(4)).
    option(socket, 0, libc::LOCAL_PEEREID, none).map(|peer| Some(peer.unp_pid))
}

#[cfg(target_os = "openbsd")]
fn peer_pid(socket: BorrowedFd<'_>) -> io::Result<Option<libc::pid_t>> {
    let none = libc::sockpeercred { uid: 0, gid: 0, pid: 0 };
    option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, none).map(|peer| Some(peer.pid))
}

#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
fn peer_pid(_: BorrowedFd<'_>) -> io::Result<Option<libc::pid_t>> {
    Ok(None)
}

/// Reads an option into `value`, which is of the type that the kernel writes for it: plain integers.
#[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
fn option<T: Copy>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel writes `len` bytes at most, which is the size of the local that
    // the pointer is to; and any bytes are a value of its type, which is made of integers (see above).
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}
