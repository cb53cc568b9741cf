//! What a panic of ours says, and what may be used after one.

use std::marker::PhantomData;
use std::panic::{UnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

use evbase::io::AsyncFd;
use evbase::time::{Interval, Sleep};
use evbase::{
    AbortHandle, AbortOnDrop, Builder, Embedded, JoinHandle, JoinSet, LocalSpawner, Runtime, Shutdown, Spawner,
    Terminated, WaitHook,
};

use crate::support::alone;

/// Where the panics were, by their hook.
static PLACES: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

#[test]
fn outside_of_a_context_current_names_the_line_of_its_caller() {
    alone(|| {
        set_hook(Box::new(|info| {
            let place = info.location().unwrap();
            PLACES.lock().unwrap().push((place.file().to_owned(), place.line()));
        }));
        let first = line!() + 1;
        assert!(catch_unwind(|| drop(Spawner::current())).is_err());
        assert!(catch_unwind(|| drop(Shutdown::current())).is_err());
        assert!(catch_unwind(|| drop(LocalSpawner::current())).is_err());
        assert!(catch_unwind(|| drop(evbase::spawn_local(async {}))).is_err());
        let expected: Vec<_> = (first..first + 4).map(|line| (file!().to_owned(), line)).collect();
        assert_eq!(*PLACES.lock().unwrap(), expected);
    });
}

/// Whether a type is `UnwindSafe`, asked when the test runs: a missing one fails the test, not the whole executable.
macro_rules! is_unwind_safe {
    ($type:ty) => {{
        #[allow(dead_code, reason = "the other one is taken where this isn't needed")]
        trait Fallback {
            const YES: bool = false;
        }
        struct Ask<T: ?Sized>(PhantomData<T>);
        impl<T: ?Sized> Fallback for Ask<T> {}
        impl<T: ?Sized + UnwindSafe> Ask<T> {
            #[allow(dead_code, reason = "the other one is taken where this isn't there")]
            const YES: bool = true;
        }
        (stringify!($type), <Ask<$type>>::YES)
    }};
}

#[test]
fn handles_may_be_used_after_a_panic() {
    let asked = [
        is_unwind_safe!(Runtime),
        is_unwind_safe!(&'static Runtime),
        is_unwind_safe!(Builder),
        is_unwind_safe!(Spawner),
        is_unwind_safe!(&'static Spawner),
        is_unwind_safe!(LocalSpawner),
        is_unwind_safe!(Embedded),
        is_unwind_safe!(WaitHook),
        is_unwind_safe!(Shutdown),
        is_unwind_safe!(&'static Shutdown),
        is_unwind_safe!(Terminated),
        is_unwind_safe!(JoinHandle<u8>),
        is_unwind_safe!(&'static JoinHandle<u8>),
        is_unwind_safe!(AbortHandle),
        is_unwind_safe!(&'static evbase::SpawnError<u8>),
        is_unwind_safe!(AbortOnDrop<u8>),
        is_unwind_safe!(JoinSet<u8>),
        is_unwind_safe!(Sleep),
        is_unwind_safe!(Interval),
        is_unwind_safe!(AsyncFd<std::fs::File>),
        is_unwind_safe!(&'static AsyncFd<std::fs::File>),
        #[cfg(feature = "net")]
        is_unwind_safe!(evbase::net::TcpStream),
        #[cfg(feature = "net")]
        is_unwind_safe!(evbase::net::TcpListener),
    ];
    let not: Vec<_> = asked.iter().filter(|(_, yes)| !yes).map(|(name, _)| name).collect();
    assert!(not.is_empty(), "not UnwindSafe: {not:?}");
}
