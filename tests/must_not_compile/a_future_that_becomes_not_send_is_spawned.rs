//! A future that is `Send` only until its first poll could be moved by nobody after that; the bound asks for all of it.

use std::rc::Rc;

fn main() {
    let spawner = evbase::Runtime::new().unwrap().spawner();
    drop(spawner.spawn(async {
        let held = Rc::new(1);
        evbase::yield_now().await;
        *held
    }));
}
