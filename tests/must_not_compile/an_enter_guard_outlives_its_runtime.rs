//! While a guard is alive, its runtime is neither dropped nor shut down nor moved away.

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    let guard = runtime.enter().unwrap();
    drop(runtime);
    drop(guard);

    let runtime = evbase::Runtime::new().unwrap();
    let guard = runtime.enter().unwrap();
    let _ = runtime.shutdown();
    drop(guard);
}
