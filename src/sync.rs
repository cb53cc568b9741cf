//! The synchronisation primitives, from `std` and `parking_lot` or, in a model, from `loom`.
//!
//! What the models run takes them from here: the gate, a task's state, the join cell, the shared free list, bells, binding,
//! termination. Counters that nothing synchronises with use `std` directly.

#[cfg(not(evbase_loom))]
mod imp {
    pub(crate) use std::cell::Cell;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
    pub(crate) use std::sync::{Arc, OnceLock};

    /// A `Cell` of each thread. Const and without a destructor: reading it is a plain load, and destructors of other
    /// thread-locals can use it.
    macro_rules! thread_cell {
        ($name:ident: $type:ty = $value:expr) => {
            std::thread_local! {
                static $name: std::cell::Cell<$type> = const { std::cell::Cell::new($value) };
            }
        };
    }
    pub(crate) use thread_cell;

    pub(crate) use parking_lot::Mutex;

    /// `std`'s `UnsafeCell` behind the interface of loom's, which sees every access.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(evbase_loom)]
mod imp {
    use std::sync::atomic::Ordering::{Acquire, Release};

    pub(crate) use loom::cell::{Cell, UnsafeCell};
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

    /// loom's thread-locals are made at run time.
    macro_rules! thread_cell {
        ($name:ident: $type:ty = $value:expr) => {
            loom::thread_local! {
                static $name: std::cell::Cell<$type> = std::cell::Cell::new($value);
            }
        };
    }
    pub(crate) use thread_cell;

    /// loom's `Mutex` behind the interface of parking_lot's.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// `std`'s `OnceLock`, which loom has none of. As there, looking is a load, and setters wait for each other.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        setting: Mutex<()>,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self {
                is_set: AtomicBool::new(false),
                setting: Mutex::new(()),
                value: std::sync::OnceLock::new(),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            match self.is_set.load(Acquire) {
                true => self.value.get(),
                false => None,
            }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let _setting = self.setting.lock();
            self.value.set(value)?;
            self.is_set.store(true, Release);
            Ok(())
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            let _setting = self.setting.lock();
            let value = self.value.get_or_init(make);
            self.is_set.store(true, Release);
            value
        }
    }
}

pub(crate) use imp::*;
