//! libuv, by `uv_poll`.

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use evbase::Embedded;

use crate::Turns;
use crate::scenarios::Host;

pub(crate) struct Libuv;

unsafe extern "C" {
    fn libuv_serve(
        fd: c_int,
        milliseconds: u64,
        turn: unsafe extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    );
}

impl Host for Libuv {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let turns = Turns::of(embedded, done);
        if !turns.are_over() {
            let fd = embedded.as_raw_fd();
            let longest = longest.as_millis() as u64;
            // SAFETY: the callback is called during the call only, on this thread, with the pointer to `turns`.
            unsafe { libuv_serve(fd, longest, Turns::turn_in_c, turns.as_argument()) };
        }
        turns.count()
    }
}
