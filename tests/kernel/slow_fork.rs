//! Somebody's fork that takes long, because a handler of theirs does: nobody here waits for it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use evbase::Builder;
use evbase::time::sleep;

use crate::support::{alone, poll_here, until};

const HOUR: Duration = Duration::from_secs(3600);

static IS_ARMED: AtomicBool = AtomicBool::new(false);
static IN_FORK: AtomicBool = AtomicBool::new(false);
static MAY_GO_ON: AtomicBool = AtomicBool::new(false);
static GAVE_UP: AtomicBool = AtomicBool::new(false);

/// Keeps the fork until the test lets it go on, or for five seconds, if whoever would do so waits for the fork.
extern "C" fn prepare() {
    if !IS_ARMED.load(SeqCst) {
        return;
    }
    IN_FORK.store(true, SeqCst);
    let start = Instant::now();
    while !MAY_GO_ON.load(SeqCst) {
        if start.elapsed() > Duration::from_secs(5) {
            GAVE_UP.store(true, SeqCst);
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_sleep_that_is_reset_and_dropped_abroad_does_not_wait_for_it() {
    alone(|| {
        // Handlers run in the reverse order of their making: this one after evbase's own, if there are any.
        // SAFETY: the handler is a function for the life of the process.
        assert_eq!(unsafe { libc::pthread_atfork(Some(prepare), None, None) }, 0);
        let runtime = Builder::new().start("home").unwrap();
        let armed = runtime.spawner().spawn(async {
            let mut sleeps = [sleep(HOUR), sleep(HOUR)];
            for sleep in &mut sleeps {
                assert!(poll_here(sleep).await.is_pending());
            }
            sleeps
        });
        let [mut is_reset, is_dropped] = armed.wait().unwrap().unwrap();
        IS_ARMED.store(true, SeqCst);
        let forks = thread::spawn(|| {
            // SAFETY: the child ends at once, and runs nothing.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::_exit(0);
                }
                assert!(child > 0);
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert_eq!(status, 0);
            }
        });
        until(|| IN_FORK.load(SeqCst));
        is_reset.reset(Instant::now() + 2 * HOUR);
        drop(is_dropped);
        drop(is_reset);
        let waited = GAVE_UP.load(SeqCst);
        MAY_GO_ON.store(true, SeqCst);
        forks.join().unwrap();
        assert!(!waited, "it waited for the fork");
        runtime.shutdown().wait().unwrap();
    });
}
