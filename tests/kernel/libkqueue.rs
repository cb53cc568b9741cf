//! The C interface of libkqueue, which imitates kqueue on Linux, so that the test suite can try the kqueue backend there.
//!
//! A part of `src/base/sys/kqueue.rs` when that is compiled with `--cfg evbase_libkqueue`; no package contains it.

use std::ffi::{c_int, c_void};

#[derive(Clone, Copy)]
#[repr(C)]
#[allow(non_camel_case_types, reason = "the name in C")]
pub(crate) struct kevent {
    pub(super) ident: usize,
    pub(super) filter: i16,
    pub(super) flags: u16,
    pub(super) fflags: u32,
    pub(super) data: isize,
    pub(super) udata: *mut c_void,
}

pub(super) const EVFILT_READ: i16 = -1;
pub(super) const EVFILT_WRITE: i16 = -2;
pub(super) const EVFILT_TIMER: i16 = -7;
pub(super) const NOTE_NSECONDS: u32 = 0x4;
pub(super) const EV_ADD: u16 = 0x1;
pub(super) const EV_DELETE: u16 = 0x2;
pub(super) const EV_ENABLE: u16 = 0x4;
pub(super) const EV_ONESHOT: u16 = 0x10;
pub(super) const EV_CLEAR: u16 = 0x20;
pub(super) const EV_DISPATCH: u16 = 0x80;
pub(super) const EV_ERROR: u16 = 0x4000;
pub(super) const EV_EOF: u16 = 0x8000;

#[link(name = "kqueue")]
unsafe extern "C" {
    pub(super) fn kqueue() -> c_int;
    pub(super) fn kevent(
        queue: c_int,
        changes: *const kevent,
        change_count: c_int,
        events: *mut kevent,
        event_count: c_int,
        timeout: *const libc::timespec,
    ) -> c_int;
}
