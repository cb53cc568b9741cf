//! Dropping a runtime from a foreign thread: the drop returns at once, and home frees everything.
//!
//! Run it with `cargo run --example foreign_drop`.

use std::future::pending;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::Builder;

/// Not `Send`: dropped anywhere but at home, its count would be a data race.
struct Resource(Rc<String>);

impl Drop for Resource {
    fn drop(&mut self) {
        println!("{} is dropped on {:?}", self.0, thread::current().name());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Builder::new().start("home")?;
    runtime.spawner().spawn_with(|| async {
        let resource = Resource(Rc::new("a resource".to_owned()));
        // At home as well: its count is not atomic.
        let _second_owner = resource.0.clone();
        // Keeps the other one for ever, and the loop asleep.
        evbase::spawn_local(async move {
            let _resource = resource;
            pending::<()>().await
        });
        pending::<()>().await
    });
    // Detached: the task goes on, until the runtime ends.

    // A thread that has nothing to do with home drops the runtime.
    let dropper = thread::Builder::new().name("dropper".into()).spawn(move || {
        let start = Instant::now();
        let terminated = runtime.shutdown();
        println!("the drop took {:?} of {:?}", start.elapsed(), thread::current().name());
        terminated
    })?;
    let terminated = dropper.join().expect("the dropper only drops");
    match terminated.wait_timeout(Duration::from_secs(5))? {
        Some(report) => println!("closed: {report}"),
        None => println!("home is still busy"),
    }
    Ok(())
}
