//! GLib's main loop, by `g_unix_fd_source_new`: what `g_unix_fd_add` attaches to the default context is attached to one of its own
//! here, since the tests run in several threads.

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::AsRawFd;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use evbase::Embedded;

use crate::Turns;
use crate::scenarios::Host;

type Function = unsafe extern "C" fn();

const G_IO_IN: c_uint = 1;
const G_SOURCE_REMOVE: c_int = 0;
const G_SOURCE_CONTINUE: c_int = 1;

unsafe extern "C" {
    fn g_main_context_new() -> *mut c_void;
    fn g_main_context_unref(context: *mut c_void);
    fn g_main_context_iteration(context: *mut c_void, may_block: c_int) -> c_int;
    fn g_unix_fd_source_new(fd: c_int, condition: c_uint) -> *mut c_void;
    fn g_timeout_source_new(milliseconds: c_uint) -> *mut c_void;
    fn g_source_set_callback(
        source: *mut c_void,
        callback: Function,
        argument: *mut c_void,
        drop: Option<unsafe extern "C" fn(*mut c_void)>,
    );
    fn g_source_attach(source: *mut c_void, context: *mut c_void) -> c_uint;
    fn g_source_destroy(source: *mut c_void);
    fn g_source_unref(source: *mut c_void);
}

/// A context, which is a loop.
pub(crate) struct GLib(*mut c_void);

impl GLib {
    pub(crate) fn new() -> Self {
        // SAFETY: takes nothing, and doesn't fail.
        Self(unsafe { g_main_context_new() })
    }
}

impl Drop for GLib {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and this is the last use.
        unsafe { g_main_context_unref(self.0) };
    }
}

/// What the callbacks share.
struct Serving<'a> {
    turns: Turns<'a>,
    over: std::cell::Cell<bool>,
}

/// A `GUnixFDSourceFunc`.
unsafe extern "C" fn readable(_fd: c_int, _condition: c_uint, serving: *mut c_void) -> c_int {
    // SAFETY: `serve` gives this pointer, and destroys the source before the target goes.
    let serving = unsafe { &*serving.cast::<Serving<'_>>() };
    serving.over.set(serving.turns.turn());
    G_SOURCE_CONTINUE
}

/// A `GSourceFunc`.
unsafe extern "C" fn time_is_over(serving: *mut c_void) -> c_int {
    // SAFETY: as in `readable`.
    let serving = unsafe { &*serving.cast::<Serving<'_>>() };
    serving.over.set(true);
    G_SOURCE_REMOVE
}

impl Host for GLib {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let serving = Serving {
            turns: Turns::of(embedded, done),
            over: std::cell::Cell::new(done()),
        };
        let argument = ptr::from_ref(&serving).cast_mut().cast();
        let context = self.0;
        let attach = |source: *mut c_void, callback: Function| {
            // SAFETY: the source is new. It calls the function with the type that is its own, and is destroyed before
            // `serving` goes.
            unsafe {
                g_source_set_callback(source, callback, argument, None);
                g_source_attach(source, context);
            }
            source
        };
        // SAFETY: GLib calls a callback of these sources with the signature of the function that is cast here.
        let sources = unsafe {
            let by_fd: unsafe extern "C" fn(c_int, c_uint, *mut c_void) -> c_int = readable;
            let by_time: unsafe extern "C" fn(*mut c_void) -> c_int = time_is_over;
            [
                attach(
                    g_unix_fd_source_new(embedded.as_raw_fd(), G_IO_IN),
                    std::mem::transmute::<unsafe extern "C" fn(c_int, c_uint, *mut c_void) -> c_int, Function>(by_fd),
                ),
                attach(
                    g_timeout_source_new(longest.as_millis() as c_uint),
                    std::mem::transmute::<unsafe extern "C" fn(*mut c_void) -> c_int, Function>(by_time),
                ),
            ]
        };
        while !serving.over.get() {
            // SAFETY: the context is this thread's.
            unsafe { g_main_context_iteration(context, 1) };
        }
        for source in sources {
            // SAFETY: it is attached, or has removed itself; the reference is ours, and the last use.
            unsafe {
                g_source_destroy(source);
                g_source_unref(source);
            }
        }
        serving.turns.count()
    }
}
