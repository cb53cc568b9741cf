//! The scenarios of `tests/embed` for hosts in other languages: `asyncio_host.py` loads this by ctypes.
//!
//! The host gives a function that serves a descriptor: it calls [`evbase_turn`] each time when that is readable, until that returns 1
//! or the time is over, and returns how often it has called it.

#[path = "../../embed/scenarios.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "the hosts in Rust use all of it")]
mod scenarios;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use evbase::Embedded;
use scenarios::Host;

/// Serves a descriptor for so many milliseconds at most. Returns the number of turns.
pub type Serve = extern "C" fn(fd: c_int, milliseconds: u64) -> usize;

/// What [`evbase_turn`] turns, and whether the host is done.
type Served = *const (Rc<Embedded>, *const dyn Fn() -> bool);

thread_local! {
    static SERVED: Cell<Option<Served>> = const { Cell::new(None) };
}

struct Foreign(Serve);

impl Host for Foreign {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        if done() {
            return 0;
        }
        // SAFETY: only the lifetime changes. `evbase_turn` uses it during the call below, while the borrow lasts.
        let done = unsafe { std::mem::transmute::<*const dyn Fn() -> bool, *const (dyn Fn() -> bool + 'static)>(done) };
        let served = (embedded.clone(), done);
        SERVED.set(Some(&served));
        let turns = self.0(embedded.as_raw_fd(), longest.as_millis() as u64);
        SERVED.set(None);
        turns
    }
}

/// The descriptor is readable: one turn. Returns 1 if the host is done.
#[unsafe(no_mangle)]
pub extern "C" fn evbase_turn() -> c_int {
    let served = SERVED.get().expect("called by a host that serves");
    // SAFETY: `Foreign::serve`, which set it, is further out in the stack, and keeps both alive.
    let (embedded, done) = unsafe { &*served };
    let _ = embedded.turn();
    // SAFETY: as above.
    unsafe { (**done)() }.into()
}

macro_rules! run_by_name {
    ($name:ident, $host:ident, $($scenario:ident)+) => {
        match $name {
            $(stringify!($scenario) => scenarios::$scenario($host),)+
            other => panic!("there is no scenario {other:?}"),
        }
    };
}

/// Runs a scenario. Returns 1 if all is well; else it has written what is not to the standard error.
///
/// # Safety
///
/// `name` is a string of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evbase_scenario(name: *const c_char, serve: Serve) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_str().expect("a name in ASCII");
    let host: &mut dyn Host = &mut Foreign(serve);
    let run = || scenarios::all_scenarios!(run_by_name! name, host,);
    catch_unwind(AssertUnwindSafe(run)).is_ok().into()
}
