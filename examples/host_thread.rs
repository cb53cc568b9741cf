//! A host that can't poll a descriptor, such as `winit`: a thread polls for it, and the host's proxy wakes the host's loop, which
//! turns the runtime.
//!
//! Run it with `cargo run --example host_thread`. `Gui` stands for the host; in winit, its `Proxy` is the `EventLoopProxy`, and
//! `Event::RuntimeIsDue` a user event.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use evbase::{Embedded, Runtime, time};

enum Event {
    /// The host's own.
    Key(char),
    RuntimeIsDue {
        /// Tells the thread that polls to go on.
        turned: mpsc::Sender<()>,
    },
}

type Proxy = mpsc::Sender<Event>;

/// The host's loop, which waits in a way of its own.
struct Gui {
    events: mpsc::Receiver<Event>,
    proxy: Proxy,
}

impl Gui {
    fn new() -> Self {
        let (proxy, events) = mpsc::channel();
        Self { events, proxy }
    }

    fn run(self, mut handle: impl FnMut(Event) -> bool) {
        drop(self.proxy);
        while self.events.recv().is_ok_and(&mut handle) {}
    }
}

fn wait_until_readable(fd: BorrowedFd<'_>) {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one element, which is borrowed for the length of the call.
    unsafe { libc::poll(&mut polled, 1, -1) };
}

/// Polls for the host. It ends when the host does.
fn poll_for(proxy: Proxy, embedded: Arc<Embedded>) {
    thread::spawn(move || {
        loop {
            wait_until_readable(embedded.as_fd());
            let (turned, is_turned) = mpsc::channel();
            if proxy.send(Event::RuntimeIsDue { turned }).is_err() || is_turned.recv().is_err() {
                break;
            }
        }
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::new()?;
    let embedded = Arc::new(runtime.embed()?);
    let gui = Gui::new();
    poll_for(gui.proxy.clone(), embedded.clone());

    let keyboard = gui.proxy.clone();
    thread::spawn(move || {
        for key in "evbase".chars() {
            thread::sleep(Duration::from_millis(70));
            let _ = keyboard.send(Event::Key(key));
        }
    });

    // It runs on the host's thread, so it may use what belongs there.
    let count = runtime.spawn_local(async {
        for n in 1..=5 {
            time::sleep(Duration::from_millis(100)).await;
            println!("task: {n}");
        }
    })?;
    gui.run(|event| {
        match event {
            Event::Key(key) => println!("host: {key}"),
            Event::RuntimeIsDue { turned } => {
                if embedded.turn().is_err() {
                    return false;
                }
                let _ = turned.send(());
            }
        }
        !count.is_finished()
    });
    println!("{}", runtime.shutdown().wait()?);
    Ok(())
}
