//! The guard ends the context of the thread that has entered it.

fn to_a_thread<T: Send>(_: T) {}

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    to_a_thread(runtime.enter().unwrap());
}
