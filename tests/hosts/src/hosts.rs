//! A runtime in the loops of others: each host here runs all scenarios of `tests/embed`. And libuv as a guest of evbase.
//!
//! ```console
//! $ cargo test --manifest-path tests/hosts/Cargo.toml
//! ```

#[path = "../../embed/scenarios.rs"]
mod scenarios;
#[path = "../../support/watchdog.rs"]
#[allow(dead_code, reason = "each binary uses a part of it")]
mod watchdog;

mod asyncio;
mod calloop;
mod glib;
mod guest;
mod libuv;
mod thread;
mod tokio;

use std::cell::Cell;
use std::rc::Rc;

use evbase::Embedded;
use scenarios::in_every_host;
use watchdog::watched;

in_every_host! {
    tokio_async_fd: tokio::Tokio::new(),
    calloop_by_level: calloop::Calloop::new(::calloop::Mode::Level),
    calloop_by_edge: calloop::Calloop::new(::calloop::Mode::Edge),
    glib_unix_fd: glib::GLib::new(),
    libuv_poll: libuv::Libuv,
    another_thread_polls: thread::Polled,
}

/// What the callbacks of a host do: turns, and counts them.
struct Turns<'a> {
    embedded: &'a Rc<Embedded>,
    done: &'a dyn Fn() -> bool,
    count: Cell<usize>,
}

impl<'a> Turns<'a> {
    fn of(embedded: &'a Rc<Embedded>, done: &'a dyn Fn() -> bool) -> Self {
        Self {
            embedded,
            done,
            count: Cell::new(0),
        }
    }

    /// Whether the host has nothing more to do. It turns only if it has.
    fn are_over(&self) -> bool {
        (self.done)()
    }

    /// The descriptor is readable. Returns whether that was the last turn.
    fn turn(&self) -> bool {
        self.count.set(self.count.get() + 1);
        // After the end it answers so; the scenarios look at that themselves.
        let _ = self.embedded.turn();
        self.are_over()
    }

    fn count(&self) -> usize {
        self.count.get()
    }

    /// For a callback in C: `argument` is a pointer to this.
    ///
    /// # Safety
    ///
    /// The pointer is valid, and this thread made it.
    unsafe extern "C" fn turn_in_c(argument: *mut std::ffi::c_void) -> std::ffi::c_int {
        // SAFETY: the caller's promise.
        unsafe { &*argument.cast::<Turns<'_>>() }.turn().into()
    }

    fn as_argument(&self) -> *mut std::ffi::c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}
