//! What `Spawner` takes may come from another thread: for futures that are not `Send` there is `spawn_with`.

use std::rc::Rc;

use evbase::Spawner;

fn spawned(spawner: &Spawner) {
    let held = Rc::new(1);
    drop(spawner.spawn(async move { *held }));
}

fn tried(spawner: &Spawner) {
    let held = Rc::new(1);
    drop(spawner.try_spawn(async move { *held }));
}

fn main() {}
