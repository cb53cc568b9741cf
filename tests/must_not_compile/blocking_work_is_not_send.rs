//! Work for the pool of threads, and what it gives back, cross threads; and it outlives its caller.

use std::rc::Rc;

fn given() {
    let held = Rc::new(1);
    drop(evbase::unblock(move || *held));
}

fn given_back() {
    drop(evbase::unblock(|| Rc::new(1)));
}

fn main() {}
