//! What a builder is told is what the runtime does, or a clear error.

use std::io::ErrorKind;

use evbase::base::{Backend, EventBase};
use evbase::{Builder, Runtime};

use crate::support::watched;

#[test]
fn a_backend_that_the_platform_lacks_is_unsupported() {
    let other = match Backend::default() {
        Backend::Epoll => Backend::Kqueue,
        _ => Backend::Epoll,
    };
    let error = EventBase::<()>::with_backend(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("platform"), "{error}");
    assert!(EventBase::<()>::with_backend(Backend::default()).is_ok());
}

#[test]
fn an_interval_of_zero_and_a_name_with_a_nul_are_invalid() {
    let interval = Builder::new().event_interval(0).build().unwrap_err();
    assert_eq!(interval.kind(), ErrorKind::InvalidInput);
    let name = Builder::new().start("a\0b").unwrap_err();
    assert_eq!(name.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_started_runtime_is_bound_to_a_thread_of_that_name() {
    watched(|| {
        let runtime = Builder::new().start("a name").unwrap();
        let home = runtime.home().expect("it has bound before it returned");
        assert_ne!(home, std::thread::current().id());
        let name = || async { std::thread::current().name().map(str::to_owned) };
        let name = runtime.spawner().spawn_with(name).wait().unwrap().unwrap();
        assert_eq!(name.as_deref(), Some("a name"));
    });
}

#[test]
fn a_large_future_does_not_overflow_the_stack_of_a_thread() {
    fn large() -> impl Future<Output = u8> + Send {
        let bytes = [7_u8; 200_000];
        async move {
            evbase::yield_now().await;
            bytes[std::hint::black_box(100)]
        }
    }
    watched(|| {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let spawn = || {
            let runtime = Runtime::new().unwrap();
            let abroad = runtime.spawner().spawn(large());
            runtime.block_on(async { abroad.await.unwrap() + evbase::spawn_local(large()).await.unwrap() })
        };
        assert_eq!(thread.spawn(spawn).unwrap().join().unwrap().unwrap(), 14);
    });
}
