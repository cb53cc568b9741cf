//! libevent and libuv: `c/libevent.c` and `c/libuv.c`, which have the same functions.

use std::ffi::{c_int, c_long, c_void};

use super::Name;
use crate::memory;

/// A function that the library calls at home when another thread has woken it; not 0 ends the loop.
pub type Woken = extern "C" fn(*mut c_void) -> c_int;

/// What is driven in either library. The functions are unsafe to call: their pointers have to be what `*_new` gave, and
/// arrays as long as the number beside them says.
pub struct Library {
    use_allocator: unsafe extern "C" fn(memory::Malloc, memory::Realloc, memory::Calloc, memory::Free),
    pub create: unsafe extern "C" fn(),
    pub wake_new: unsafe extern "C" fn(Woken, *mut c_void) -> *mut c_void,
    pub wake_ring: unsafe extern "C" fn(*mut c_void),
    pub wake_run: unsafe extern "C" fn(*mut c_void),
    pub timers_new: unsafe extern "C" fn(*const u64, c_int) -> *mut c_void,
    pub timers_churn: unsafe extern "C" fn(*mut c_void, *const u64, c_int),
    pub timers_fire: unsafe extern "C" fn(*const u64, c_int),
    pub sleeps_new: unsafe extern "C" fn() -> *mut c_void,
    pub sleeps_sleep: unsafe extern "C" fn(*mut c_void, u64),
    pub ring_new: unsafe extern "C" fn(*const c_int, c_int, c_int, c_int) -> *mut c_void,
    pub ring_run: unsafe extern "C" fn(*mut c_void, c_long, c_long),
    pub echo: unsafe extern "C" fn(c_int),
    pub ends_new: unsafe extern "C" fn(*const u64, c_int) -> *mut c_void,
    pub ends_run: unsafe extern "C" fn(*mut c_void),
    pub ends_stop: unsafe extern "C" fn(*mut c_void),
    pub ends_free: unsafe extern "C" fn(*mut c_void),
}

impl Library {
    /// The library of that name, which `Name::check` has found.
    pub fn of(name: Name) -> &'static Self {
        match name {
            #[cfg(libevent)]
            Name::Libevent => library!("libevent"),
            #[cfg(libuv)]
            Name::Libuv => library!("libuv"),
            _ => unreachable!("{} is not in C, or not built in", name.text()),
        }
    }

    /// Makes the library's memory count; has to come before anything else.
    pub fn count_memory(&self) {
        // SAFETY: the four belong together, and nothing is allocated yet.
        unsafe {
            (self.use_allocator)(
                memory::counted_malloc,
                memory::counted_realloc,
                memory::counted_calloc,
                memory::counted_free,
            );
        }
    }
}

macro_rules! library {
    ($prefix:literal) => {{
        unsafe extern "C" {
            #[link_name = concat!($prefix, "_use_allocator")]
            fn use_allocator(a: memory::Malloc, b: memory::Realloc, c: memory::Calloc, d: memory::Free);
            #[link_name = concat!($prefix, "_create")]
            fn create();
            #[link_name = concat!($prefix, "_wake_new")]
            fn wake_new(woken: Woken, argument: *mut c_void) -> *mut c_void;
            #[link_name = concat!($prefix, "_wake_ring")]
            fn wake_ring(wake: *mut c_void);
            #[link_name = concat!($prefix, "_wake_run")]
            fn wake_run(wake: *mut c_void);
            #[link_name = concat!($prefix, "_timers_new")]
            fn timers_new(us: *const u64, alive: c_int) -> *mut c_void;
            #[link_name = concat!($prefix, "_timers_churn")]
            fn timers_churn(timers: *mut c_void, us: *const u64, count: c_int);
            #[link_name = concat!($prefix, "_timers_fire")]
            fn timers_fire(us: *const u64, count: c_int);
            #[link_name = concat!($prefix, "_sleeps_new")]
            fn sleeps_new() -> *mut c_void;
            #[link_name = concat!($prefix, "_sleeps_sleep")]
            fn sleeps_sleep(sleeps: *mut c_void, us: u64);
            #[link_name = concat!($prefix, "_ring_new")]
            fn ring_new(ends: *const c_int, pairs: c_int, buffer: c_int, again: c_int) -> *mut c_void;
            #[link_name = concat!($prefix, "_ring_run")]
            fn ring_run(ring: *mut c_void, hops: c_long, tokens: c_long);
            #[link_name = concat!($prefix, "_echo")]
            fn echo(listener: c_int);
            #[link_name = concat!($prefix, "_ends_new")]
            fn ends_new(us: *const u64, alive: c_int) -> *mut c_void;
            #[link_name = concat!($prefix, "_ends_run")]
            fn ends_run(ends: *mut c_void);
            #[link_name = concat!($prefix, "_ends_stop")]
            fn ends_stop(ends: *mut c_void);
            #[link_name = concat!($prefix, "_ends_free")]
            fn ends_free(ends: *mut c_void);
        }
        &Library {
            use_allocator,
            create,
            wake_new,
            wake_ring,
            wake_run,
            timers_new,
            timers_churn,
            timers_fire,
            sleeps_new,
            sleeps_sleep,
            ring_new,
            ring_run,
            echo,
            ends_new,
            ends_run,
            ends_stop,
            ends_free,
        }
    }};
}
use library;
