//! A future of a quarter of a mebibyte can be spawned in every way on a thread with a usual stack, in a debug build too. Each
//! in a process of its own, which an overflow ends.

use std::future::Future;
use std::thread;

use evbase::{JoinHandle, Runtime};

use crate::support::alone;

const STACK: usize = 2 << 20;

fn large() -> impl Future<Output = u8> + Send {
    let bytes = [7_u8; 256 << 10];
    async move {
        evbase::yield_now().await;
        bytes[std::hint::black_box(100)]
    }
}

/// Spawns on a thread with a stack of two mebibytes, and takes the output there.
fn takes(spawn: fn(&Runtime) -> JoinHandle<u8>) {
    alone(|| {
        let thread = thread::Builder::new().stack_size(STACK);
        let work = move || {
            let runtime = Runtime::new().unwrap();
            let task = spawn(&runtime);
            runtime.block_on(task).unwrap().unwrap()
        };
        assert_eq!(thread.spawn(work).unwrap().join().unwrap(), 7);
    });
}

#[test]
fn by_the_runtime_itself() {
    takes(|runtime| runtime.spawn_local(large()).unwrap());
}

#[test]
fn by_a_local_spawner() {
    takes(|runtime| runtime.local_spawner().unwrap().spawn_local(large()).unwrap());
}

#[test]
fn by_the_free_function() {
    takes(|runtime| {
        let _context = runtime.enter().unwrap();
        evbase::spawn_local(large())
    });
}

#[test]
fn by_a_spawner() {
    takes(|runtime| runtime.spawner().spawn(large()));
}

#[test]
fn by_a_spawner_that_may_refuse() {
    takes(|runtime| runtime.spawner().try_spawn(large()).unwrap());
}

#[test]
fn by_a_closure_that_makes_it() {
    takes(|runtime| runtime.spawner().spawn_with(large));
}

#[test]
fn by_a_closure_that_makes_it_and_may_be_refused() {
    takes(|runtime| runtime.spawner().try_spawn_with(large).map_err(drop).unwrap());
}

#[test]
fn as_the_root() {
    alone(|| {
        let thread = thread::Builder::new().stack_size(STACK);
        let work = || Runtime::new().unwrap().block_on(large()).unwrap();
        assert_eq!(thread.spawn(work).unwrap().join().unwrap(), 7);
    });
}
