//! The event base by itself, with no future in sight: a socket, a timer, and a thread that notifies.
//!
//! Run it with `cargo run --example base_alone`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use evbase::base::{EventBase, Fired, Interest, Mode};

fn main() -> io::Result<()> {
    // The payloads are ours to choose: here, a source carries its reader, and a timer a name.
    let mut base: EventBase<UnixStream, &str> = EventBase::new()?;
    println!("waiting with {}", base.backend());

    let (reader, mut writer) = UnixStream::pair()?;
    let fd = reader.try_clone()?;
    let socket = base.register(&fd, Interest::READABLE, Mode::Level, reader)?;

    let start = Instant::now();
    base.arm(start + Duration::from_millis(30), "the second timer");
    base.arm(start + Duration::from_millis(10), "the first timer");

    // Others can't touch the base; they can end its wait.
    let notifier = base.notifier();
    let abroad = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        writer.write_all(b"hello from abroad")?;
        notifier.notify()
    });

    let mut end_of_stream = false;
    while !end_of_stream || base.timers() > 0 {
        let turned = base.turn(None, |fired| match fired {
            Fired::Source { event, payload, .. } => {
                let mut bytes = [0; 64];
                let count = payload.read(&mut bytes).unwrap_or(0);
                println!(
                    "{:>5.1?}  {event:?}: {:?}",
                    start.elapsed(),
                    String::from_utf8_lossy(&bytes[..count])
                );
                end_of_stream = count == 0;
            }
            Fired::Timer { payload, .. } => println!("{:>5.1?}  {payload}", start.elapsed()),
            _ => {}
        })?;
        if turned.notified {
            println!("{:>5.1?}  notified", start.elapsed());
        }
        if end_of_stream {
            // Deregister, then close. The payload comes back.
            base.deregister(socket);
        }
    }
    abroad.join().expect("the thread doesn't panic")
}
