//! The output comes back to the thread that has spawned the task, on which it was not made.

use std::rc::Rc;

fn main() {
    let spawner = evbase::Runtime::new().unwrap().spawner();
    drop(spawner.spawn(async { Rc::new(1) }));
    drop(spawner.try_spawn(async { Rc::new(2) }));
    drop(spawner.spawn_with(|| async { Rc::new(3) }));
    drop(spawner.try_spawn_with(|| async { Rc::new(4) }));
}
