//! [`LocalKey`]: values of a task, as thread-locals are of a thread.
//!
//! A scope has its value, and lends it to the thread while the scope's code runs: the thread-local slot of a key holds a pointer to
//! the value of the innermost scope, and which task that scope is in. The slot has no destructor, so that it is there to the very
//! end of a thread, when runtimes at home on it close.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::thread;

use pin_project_lite::pin_project;

use crate::executor::{self, TaskId};

/// Declares values that belong to a task, each a [`LocalKey`](crate::task::LocalKey): as `std`'s `thread_local!` does for threads,
/// but without an initial value. [`scope`](crate::task::LocalKey::scope) gives one.
///
/// # Examples
///
/// ```
/// evbase::task_local! {
///     /// Who is served.
///     pub static USER: String;
///     static REQUEST: u32;
/// }
///
/// fn log(text: &str) -> String {
///     USER.with(|user| format!("{user} #{}: {text}", REQUEST.get()))
/// }
///
/// let runtime = evbase::Runtime::new()?;
/// let served = runtime.block_on(async {
///     let serve = |user: &str, request| {
///         USER.scope(user.to_owned(), REQUEST.scope(request, async {
///             evbase::yield_now().await;
///             log("served")
///         }))
///     };
///     // Both at once, on one thread.
///     let (one, two) = (evbase::spawn_local(serve("anna", 1)), evbase::spawn_local(serve("bob", 2)));
///     (one.await.unwrap(), two.await.unwrap())
/// })?;
/// assert_eq!(served, ("anna #1: served".into(), "bob #2: served".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! task_local {
    () => {};
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty; $($rest:tt)*) => {
        $crate::task_local!($(#[$attribute])* $vis static $name: $type);
        $crate::task_local!($($rest)*);
    };
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty) => {
        $(#[$attribute])*
        $vis static $name: $crate::task::LocalKey<$type> = {
            ::std::thread_local! {
                static SLOT: $crate::task::__Slot<$type> = const { $crate::task::__Slot::new() };
            }
            $crate::task::LocalKey::__new(SLOT)
        };
    };
}

/// A value of a task; declared by [`task_local!`](crate::task_local).
///
/// The value is there within a [`scope`](LocalKey::scope): whenever its future is polled, and while that is dropped. Within the
/// scope, another one may give the key another value for a while. The scope's own task alone sees the value: not the tasks that
/// it spawns, nor those of another runtime that closes meanwhile. Works in any executor, whose tasks are told apart by their scopes.
///
/// Reading a value costs two thread-locals; nothing is moved when a scope is polled.
pub struct LocalKey<T: 'static> {
    slot: thread::LocalKey<Slot<T>>,
}

/// What the thread knows of a key: its innermost scope.
#[doc(hidden)]
pub struct Slot<T>(Cell<Option<Entered<T>>>);

/// A scope whose code runs on this thread.
struct Entered<T> {
    /// `None`: the scope's value was taken.
    value: Option<*const T>,
    task: Option<TaskId>,
}

impl<T> Clone for Entered<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Entered<T> {}

impl<T> Slot<T> {
    #[doc(hidden)]
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(slot: thread::LocalKey<Slot<T>>) -> Self {
        Self { slot }
    }

    /// Runs a future with this value.
    ///
    /// # Panics
    ///
    /// Polling it again after it was ready panics.
    ///
    /// # Examples
    ///
    /// ```
    /// evbase::task_local!(static DEPTH: u32);
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(DEPTH.scope(1, async {
    ///     assert_eq!(DEPTH.get(), 1);
    ///     DEPTH.scope(2, async { assert_eq!(DEPTH.get(), 2) }).await;
    ///     assert_eq!(DEPTH.get(), 1);
    ///     // A task of its own: it would need a scope, too.
    ///     evbase::spawn_local(async { assert!(DEPTH.try_get().is_err()) }).await.unwrap();
    /// }))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> TaskLocalFuture<T, F> {
        TaskLocalFuture {
            key: self,
            value: Some(value),
            future: Some(future),
        }
    }

    /// Runs a closure with this value.
    ///
    /// # Examples
    ///
    /// ```
    /// evbase::task_local!(static NAME: &'static str);
    ///
    /// let len = NAME.sync_scope("evbase", || NAME.with(|name| name.len()));
    /// assert_eq!(len, 6);
    /// ```
    pub fn sync_scope<F, R>(&'static self, value: T, f: F) -> R
    where
        F: FnOnce() -> R,
    {
        self.enter(Some(&value), f)
    }

    /// Calls the closure with the value, and gives what it returns. The closure may open scopes of the same key.
    ///
    /// # Panics
    ///
    /// Outside of a scope: see [`try_with`](LocalKey::try_with).
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("evbase: {error}"),
        }
    }

    /// Calls the closure with the value, and gives what it returns.
    ///
    /// # Errors
    ///
    /// Outside of a scope.
    ///
    /// # Examples
    ///
    /// ```
    /// evbase::task_local!(static USER: String);
    ///
    /// fn greeting() -> String {
    ///     USER.try_with(|user| format!("hello, {user}")).unwrap_or_else(|_| "hello".into())
    /// }
    ///
    /// assert_eq!(greeting(), "hello");
    /// assert_eq!(USER.sync_scope("anna".into(), greeting), "hello, anna");
    /// ```
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let entered = self.slot.try_with(|slot| slot.0.get()).ok().flatten();
        let in_this_task = entered.filter(|entered| entered.task == executor::running());
        let value = in_this_task.and_then(|entered| entered.value).ok_or(AccessError(()))?;
        // SAFETY: only `enter` fills the slot, which is this thread's, with a value that its caller lends it for the length of a
        // call that is still on this thread's stack: on the way out, it restores what was there before. So the value outlives
        // `f`, whose call ends first; nobody has it mutably meanwhile; and `f` can't keep the reference.
        Ok(f(unsafe { &*value }))
    }

    /// A clone of the value.
    ///
    /// # Panics
    ///
    /// Outside of a scope: see [`try_get`](LocalKey::try_get).
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// A clone of the value.
    ///
    /// # Errors
    ///
    /// Outside of a scope.
    pub fn try_get(&'static self) -> Result<T, AccessError>
    where
        T: Clone,
    {
        self.try_with(T::clone)
    }

    /// Runs `code` with this value in the slot.
    fn enter<R>(&'static self, value: Option<&T>, code: impl FnOnce() -> R) -> R {
        /// Also if `code` panics.
        struct Restore<T: 'static> {
            key: &'static LocalKey<T>,
            outer: Option<Entered<T>>,
        }

        impl<T> Drop for Restore<T> {
            fn drop(&mut self) {
                self.key.replace(self.outer);
            }
        }

        let inner = Entered {
            value: value.map(ptr::from_ref),
            task: executor::running(),
        };
        let _restore = Restore {
            key: self,
            outer: self.replace(Some(inner)),
        };
        code()
    }

    /// On platforms where this thread-local is gone while the thread exits, no scope has a value then.
    fn replace(&'static self, entered: Option<Entered<T>>) -> Option<Entered<T>> {
        self.slot.try_with(|slot| slot.0.replace(entered)).unwrap_or(None)
    }
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`LocalKey::scope`].
    ///
    /// Its future is polled and dropped with the value; the value itself is dropped with this.
    #[must_use = "futures do nothing unless polled"]
    pub struct TaskLocalFuture<T, F>
    where
        T: 'static,
    {
        key: &'static LocalKey<T>,
        value: Option<T>,
        // `None` once it was ready.
        #[pin]
        future: Option<F>,
    }

    impl<T: 'static, F> PinnedDrop for TaskLocalFuture<T, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                this.key.enter(this.value.as_ref(), || this.future.set(None));
            }
        }
    }
}

impl<T: 'static, F> TaskLocalFuture<T, F> {
    /// Takes the value, if it was not taken before. If the future is polled after that, the key has no value there.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{cell::Cell, pin::pin};
    ///
    /// evbase::task_local!(static COUNT: Cell<u32>);
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let count = runtime.block_on(async {
    ///     let mut counting = pin!(COUNT.scope(Cell::new(0), async {
    ///         COUNT.with(|count| count.set(count.get() + 1));
    ///     }));
    ///     counting.as_mut().await;
    ///     counting.take_value()
    /// })?;
    /// assert_eq!(count.unwrap().get(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_value(self: Pin<&mut Self>) -> Option<T> {
        self.project().value.take()
    }
}

impl<T: 'static, F: Future> Future for TaskLocalFuture<T, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        this.key.enter(this.value.as_ref(), || {
            let future = this.future.as_mut().as_pin_mut();
            let polled = future
                .expect("evbase: a TaskLocalFuture was polled after it was ready")
                .poll(cx);
            if polled.is_ready() {
                this.future.set(None);
            }
            polled
        })
    }
}

impl<T: fmt::Debug, F> fmt::Debug for TaskLocalFuture<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLocalFuture")
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// A [`LocalKey`] has no value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError(());

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the task-local has no value here: this code is outside of its scope, or in another task, which needs a \
             scope of its own",
        )
    }
}

impl Error for AccessError {}
