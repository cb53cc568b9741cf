//! The story that evbase answers: thread A runs the loop, thread B adds, deletes, breaks and frees.
//!
//! With libevent, B may hang in `close(kq)` while A sits in its wait for ever, or the memory goes under A. Here B may do
//! what it likes: all of it is a message to A, which does the work.
//!
//! Run it with `cargo run --example origin_story`.

use std::future::pending;
use std::os::unix::net::UnixStream;
use std::thread;

use evbase::Builder;
use evbase::io::AsyncFd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A: a thread that makes the loop its own, and sleeps in the kernel, with no timeout.
    let runtime = Builder::new().start("A")?;

    // B: this thread. It has never driven the loop, and never will.
    println!("B is {:?}, A is {:?}", thread::current().id(), runtime.home());
    let spawner = runtime.spawner();
    let shutdown = runtime.shutdown_handle();

    // event_add: watch a socket that nobody will ever write to.
    let (reader, _writer) = UnixStream::pair()?;
    let watch = spawner.spawn(async move {
        let socket = AsyncFd::new(reader)?;
        let _freed = Freed("the watched socket");
        socket.readable().await.map(drop)
    });
    spawner.spawn_with(|| async {
        let _freed = Freed("a task that waits for ever");
        pending::<()>().await
    });

    // Tasks run in the order of their spawning: when this one is done, A watches the socket, and sleeps again.
    spawner.spawn(async {}).wait()??;

    // event_del, while A waits for it.
    watch.abort();
    println!("the watch: {}", watch.wait()?.unwrap_err());

    // event_base_loopbreak: never lost, even if the loop hasn't started.
    shutdown.request_now();

    // event_base_free: doesn't block, and frees nothing here.
    let terminated = runtime.shutdown();
    println!("the end: {}", terminated.wait()?);
    Ok(())
}

/// Says where it was dropped.
struct Freed(&'static str);

impl Drop for Freed {
    fn drop(&mut self) {
        println!("{} was freed on {:?}", self.0, thread::current().id());
    }
}
