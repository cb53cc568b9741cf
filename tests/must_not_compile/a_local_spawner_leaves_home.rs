//! A `LocalSpawner` reaches home's own state: it stays on the thread, and is not shared either.

fn to_a_thread<T: Send>(_: T) {}

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    let spawner = runtime.local_spawner().unwrap();
    to_a_thread(&spawner);
    to_a_thread(spawner);
}
