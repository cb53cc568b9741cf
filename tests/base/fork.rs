//! In the child of a fork a base answers errors, and the parent goes on undisturbed.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use evbase::base::{EventBase, Fired, Interest, Mode};

use crate::support::{AT_ONCE, pair, ready};

/// Runs `check` in a child process, which exits at once after that. Panics if it did.
fn in_a_child(check: impl FnOnce()) {
    // SAFETY: the child has only this thread, and uses nothing that another thread could have held: allocator
    // and standard error are usable after a fork on the systems that this is tested on. It never returns.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let result = catch_unwind(AssertUnwindSafe(check));
            // SAFETY: ends the process without running any destructor or exit handler.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes to `status`, which outlives the call.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
                "a check failed in the child"
            );
        }
    }
}

#[test]
fn in_the_child_a_base_answers_errors_and_the_parents_goes_on() {
    crate::support::alone(|| {
        let mut base = EventBase::<_>::new().unwrap();
        let (one, mut one_peer) = pair();
        let (other, mut other_peer) = pair();
        let (third, _third_peer) = pair();
        let one_key = base.register(&one, Interest::READABLE, Mode::Edge, 1).unwrap();
        base.register(&other, Interest::READABLE, Mode::Edge, 2).unwrap();
        let timer = base.arm(Instant::now(), 3);
        let notifier = base.notifier();
        // In options, for the child to take: what a closure owns, the parent drops with it.
        let (mut base, mut sockets) = (Some(base), Some((one, other)));

        in_a_child(|| {
            let mut base = base.take().unwrap();
            let errors = [
                base.register(&third, Interest::READABLE, Mode::Level, 4).unwrap_err(),
                base.reregister(one_key, Interest::WRITABLE, Mode::Level).unwrap_err(),
                base.turn(AT_ONCE, |_| panic!("nothing is handed out")).unwrap_err(),
            ];
            for error in errors {
                assert!(error.to_string().contains("fork"), "{error}");
            }
            notifier.notify().unwrap();
            assert_eq!(base.deregister(one_key), Some(1));
            assert_eq!(base.disarm(timer), Some(3));
            assert_eq!(base.clear(), (vec![2], vec![]));
            drop(base);
            drop(sockets.take());
        });

        let mut base = base.take().unwrap();
        let mut fired = Vec::new();
        let turned = base.turn(AT_ONCE, |event| {
            if let Fired::Timer { payload, .. } = event {
                fired.push(payload);
            }
        });
        assert!(!turned.unwrap().notified, "the child has woken its parent");
        assert_eq!(fired, [3]);
        one_peer.write_all(b"hello").unwrap();
        other_peer.write_all(b"hello").unwrap();
        assert_eq!(ready(&mut base), [1, 2]);
        base.notifier().notify().unwrap();
        assert!(base.turn(None, |_| {}).unwrap().notified);
    });
}

#[test]
fn a_base_made_in_the_child_works_there() {
    crate::support::alone(|| {
        let parents = EventBase::<u32>::new().unwrap();
        in_a_child(|| {
            let mut base = EventBase::<u32>::new().unwrap();
            let (ours, mut theirs) = pair();
            base.register(&ours, Interest::READABLE, Mode::Level, 1).unwrap();
            theirs.write_all(b"hello").unwrap();
            assert_eq!(ready(&mut base), [1]);
            base.notifier().notify().unwrap();
            assert!(base.turn(None, |_| {}).unwrap().notified);
            // And one made by the child is foreign to the grandchild.
            in_a_child(|| assert!(base.turn(AT_ONCE, |_| {}).is_err()));
            assert_eq!(ready(&mut base), [1]);
        });
        drop(parents);
    });
}
