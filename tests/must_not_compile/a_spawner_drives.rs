//! A `Spawner` is for every thread, and drives nothing; nor does a `Shutdown`.

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    let (spawner, shutdown) = (runtime.spawner(), runtime.shutdown_handle());
    let _ = spawner.block_on(async {});
    let _ = spawner.run();
    let _ = spawner.turn(None);
    let _ = shutdown.run();
}
