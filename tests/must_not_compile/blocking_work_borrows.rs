//! Work for the pool of threads outlives its caller.

fn main() {
    let local = 1;
    drop(evbase::unblock(|| local + 1));
}
