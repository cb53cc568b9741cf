//! A runtime in a plain `poll(2)` loop, beside a descriptor of the loop's own: what a GUI, a game or a language binding has.
//!
//! Run it with `cargo run --example embedded`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use evbase::{Builder, Runtime, time};

/// The host's wait: until one of the descriptors is readable. (Any loop will do: GLib, libuv, epoll, kqueue, select.)
fn poll<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the kernel reads and writes the array, which is borrowed for the length of the call.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
    match count {
        0.. => Ok(polled.map(|fd| fd.revents != 0)),
        _ => Err(io::Error::last_os_error()),
    }
}

async fn tick(runtime: &str) {
    let mut interval = time::interval(Duration::from_millis(200));
    loop {
        let at = interval.tick().await;
        println!("tick of {runtime}, {:?} late", at.elapsed());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime: Runtime = Builder::new().build()?;
    let embedded = runtime.embed()?;

    // Home may spawn between two turns, and any thread may at any time: the descriptor says so.
    drop(runtime.spawn_local(tick("a local task"))?);
    let spawner = runtime.spawner();
    thread::spawn(move || drop(spawner.spawn(tick("a task from another thread"))));

    // The host's own descriptor.
    let (mut keys, mut keyboard) = UnixStream::pair()?;
    thread::spawn(move || {
        for key in b"evbase" {
            thread::sleep(Duration::from_millis(130));
            let _ = keyboard.write_all(&[*key]);
        }
    });

    loop {
        let [key_is_there, runtime_is_due] = poll([keys.as_fd(), embedded.as_fd()])?;
        if key_is_there {
            let mut key = [0];
            if keys.read(&mut key)? == 0 {
                break;
            }
            println!("the host's key: {}", char::from(key[0]));
        }
        if runtime_is_due && embedded.turn()?.closed {
            break;
        }
    }
    println!("{}", runtime.shutdown().wait()?);
    Ok(())
}
