//! Futures that are not `Send`, from other threads: a closure travels, the future that it makes stays at home.
//!
//! Run it with `cargo run --example not_send`.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use evbase::Builder;

thread_local! {
    /// Belongs to home alone, so it needs no lock.
    static LOG: Rc<RefCell<Vec<String>>> = Rc::default();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Builder::new().start("home")?;

    let threads: Vec<_> = (0..3)
        .map(|n| {
            let spawner = runtime.spawner();
            thread::spawn(move || {
                spawner.spawn_with(move || {
                    // Runs at home.
                    let log = LOG.with(Rc::clone);
                    async move {
                        evbase::time::sleep(Duration::from_millis(10 * (3 - n))).await;
                        let here = thread::current().name().unwrap_or("?").to_owned();
                        log.borrow_mut().push(format!("number {n}, on {here}"));
                    }
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread only spawns").wait()??;
    }

    let lines = runtime
        .spawner()
        .spawn_with(|| async { LOG.with(|log| log.take()) })
        .wait()??;
    println!("{}", lines.join("\n"));
    Ok(())
}
