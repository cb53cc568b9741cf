//! A task outlives the function that spawns it, and the `block_on` that it is spawned in.

use evbase::{LocalSpawner, Runtime, Spawner};

fn spawned(spawner: &Spawner) {
    let local = 1;
    drop(spawner.spawn(async { local + 1 }));
}

fn spawned_with(spawner: &Spawner) {
    let local = 1;
    drop(spawner.spawn_with(|| async { local + 1 }));
}

fn at_home(runtime: &Runtime) {
    let local = 1;
    drop(runtime.spawn_local(async { local + 1 }));
}

fn by_a_local_spawner(spawner: &LocalSpawner) {
    let local = 1;
    drop(spawner.spawn_local(async { local + 1 }));
}

fn in_the_root(runtime: &Runtime) {
    let _ = runtime.block_on(async {
        let local = 1;
        evbase::spawn_local(async { local + 1 }).await
    });
}

fn main() {}
