//! When descriptors run out, making a base fails with the reason, and leaves nothing behind.
//!
//! The only test of this file, for it changes a limit of the whole process.

// libkqueue has descriptors of its own.

use std::fs::File;
use std::os::fd::AsRawFd;

use evbase::base::EventBase;

/// The lowest number that isn't in use.
fn lowest_free() -> libc::rlim_t {
    let file = File::open("Cargo.toml").unwrap();
    file.as_raw_fd() as libc::rlim_t
}

fn with_limit<R>(descriptors: libc::rlim_t, run: impl FnOnce() -> R) -> R {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel reads and writes structures that outlive the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut old), 0);
        assert_eq!(
            libc::setrlimit(
                libc::RLIMIT_NOFILE,
                &libc::rlimit {
                    rlim_cur: descriptors,
                    ..old
                }
            ),
            0
        );
    }
    let result = run();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &old) }, 0);
    result
}

#[test]
fn a_base_without_descriptors_to_be_had_fails_with_emfile_and_leaks_none() {
    crate::support::alone(|| {
        let free = lowest_free();
        let mut failures = 0;
        for more in 0.. {
            match with_limit(free + more, EventBase::<()>::new) {
                Ok(mut base) => {
                    base.notifier().notify().unwrap();
                    assert!(base.turn(None, |_| {}).unwrap().notified);
                    break;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                    failures += 1;
                }
            }
            assert_eq!(lowest_free(), free);
        }
        assert!(failures >= 2);
        assert_eq!(lowest_free(), free);
    });
}
