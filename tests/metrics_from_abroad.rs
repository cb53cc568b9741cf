//! `Metrics` can be read from any thread while home goes on.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::watched;
use evbase::{Builder, spawn_local};

#[test]
fn alive_makes_sense_while_home_goes_on() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let is_enough = enough.clone();
        let task = runtime.spawner().spawn_with(move || async move {
            while !is_enough.load(SeqCst) {
                for _ in 0..10 {
                    spawn_local(async {}).await.unwrap();
                }
            }
        });
        // At most the one above and the one that it waits for. An overflow panics, or gives some 2^64. More readers than
        // cores, so that some are interrupted between two figures.
        let results: Vec<_> = thread::scope(|scope| {
            let read = || {
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(1) {
                    let metrics = runtime.metrics();
                    assert!(metrics.alive() < 1_000_000, "{metrics:?}");
                }
            };
            let readers: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
            let results = readers.into_iter().map(|reader| reader.join()).collect();
            enough.store(true, SeqCst);
            results
        });
        task.wait().unwrap().unwrap();
        assert!(results.iter().all(|result| result.is_ok()), "see above");
    });
}
