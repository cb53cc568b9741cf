//! A host that can't poll: another thread polls for it, and sends it a message, as in `examples/host_thread.rs`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::Embedded;

use crate::Turns;
use crate::scenarios::Host;

pub(crate) struct Polled;

/// False: the other descriptor is readable, which ends the thread.
fn wait_for(embedded: &OwnedFd, end: &impl AsRawFd) -> bool {
    let mut fds = [embedded.as_raw_fd(), end.as_raw_fd()].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: two elements, which are borrowed for the length of the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
    fds[1].revents == 0
}

impl Host for Polled {
    fn serve(&mut self, embedded: &Rc<Embedded>, done: &dyn Fn() -> bool, longest: Duration) -> usize {
        let turns = Turns::of(embedded, done);
        let end = Instant::now() + longest;
        let (is_over, over) = std::io::pipe().unwrap();
        let fd = embedded.as_fd().try_clone_to_owned().unwrap();
        let (send, events) = mpsc::channel::<mpsc::Sender<()>>();
        let polls = thread::spawn(move || {
            while wait_for(&fd, &is_over) {
                let (turned, is_turned) = mpsc::channel();
                if send.send(turned).is_err() || is_turned.recv().is_err() {
                    break;
                }
            }
        });
        while !turns.are_over() {
            let Ok(turned) = events.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                break;
            };
            turns.turn();
            turned.send(()).unwrap();
        }
        drop((over, events));
        polls.join().unwrap();
        turns.count()
    }
}
