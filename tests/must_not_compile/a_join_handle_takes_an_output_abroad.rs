//! The handle gives the output, or drops it: where the output must not go, the handle must not either.

use std::rc::Rc;

fn to_a_thread<T: Send>(_: T) {}

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    let handle = runtime.spawn_local(async { Rc::new(1) }).unwrap();
    to_a_thread(&handle);
    to_a_thread(handle);
}
