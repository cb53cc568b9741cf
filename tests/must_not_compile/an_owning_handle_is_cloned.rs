//! Dropping a `Runtime` shuts it down: there is one. Nor is there a second join handle, which would give the output again.

fn main() {
    let runtime = evbase::Runtime::new().unwrap();
    let _: evbase::Runtime = runtime.clone();
    let handle = runtime.spawn_local(async {}).unwrap();
    let _: evbase::JoinHandle<()> = handle.clone();
}
