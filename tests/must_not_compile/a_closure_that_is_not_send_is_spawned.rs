//! The future of `spawn_with` may be `!Send`, but the closure that makes it travels.

use std::rc::Rc;

use evbase::Spawner;

fn spawned(spawner: &Spawner) {
    let held = Rc::new(1);
    drop(spawner.spawn_with(move || async move { *held }));
}

fn tried(spawner: &Spawner) {
    let held = Rc::new(1);
    drop(spawner.try_spawn_with(move || async move { *held }));
}

fn main() {}
