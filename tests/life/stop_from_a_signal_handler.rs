//! `Shutdown::request` in a signal handler that interrupts home anywhere, also inside of evbase's own code.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use std::{ptr, thread};

use evbase::{Builder, Cause, RunError, Runtime, Shutdown, spawn_local, yield_now};

use crate::support::{alone, parked, poll_once, until_parked};

/// What the handler asks to stop.
static HANDLE: AtomicPtr<Shutdown> = AtomicPtr::new(ptr::null_mut());
/// All that were in it, leaked: a handler may be running that has read an old one.
static HANDLES: Mutex<Vec<&Shutdown>> = Mutex::new(Vec::new());
/// How many signals are to come before the one that stops.
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static CAME: AtomicUsize = AtomicUsize::new(0);
static ERRNO_LOST: AtomicBool = AtomicBool::new(false);

fn errno() -> *mut libc::c_int {
    #[cfg(target_os = "linux")]
    // SAFETY: this thread's own.
    return unsafe { libc::__errno_location() };
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    // SAFETY: this thread's own.
    return unsafe { libc::__error() };
}

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: this thread's own.
    let before = unsafe { errno().replace(libc::EXDEV) };
    CAME.fetch_add(1, SeqCst);
    // SAFETY: null, or a handle that is leaked.
    if let Some(handle) = unsafe { HANDLE.load(SeqCst).as_ref() }
        && BEFORE.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err()
    {
        handle.request();
    }
    // SAFETY: this thread's own.
    if unsafe { errno().replace(before) } != libc::EXDEV {
        ERRNO_LOST.store(true, SeqCst);
    }
}

fn let_the_handler_stop(runtime: &Runtime) {
    let handle = Box::leak(Box::new(runtime.shutdown_handle()));
    HANDLE.store(handle, SeqCst);
    HANDLES.lock().unwrap().push(handle);
}

fn install() {
    // SAFETY: a zeroed sigaction is one without flags; the handler does what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()), 0);
    }
}

/// A thread that sends signals to the one that calls this, until it is told that this is enough.
struct Storm {
    enough: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    fn over_this_thread(seed: usize) -> Self {
        // SAFETY: names this thread, which outlives the storm.
        let target = unsafe { libc::pthread_self() };
        let enough = Arc::new(AtomicBool::new(false));
        let is_enough = enough.clone();
        let thread = thread::spawn(move || {
            let mut dice = seed as u32;
            while !is_enough.load(SeqCst) {
                let came = CAME.load(SeqCst);
                // SAFETY: the target waits for this thread.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                // One at a time, so that none is merged away; at different moments.
                while CAME.load(SeqCst) == came && !is_enough.load(SeqCst) {
                    std::hint::spin_loop();
                }
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                for _ in 0..dice >> 24 {
                    std::hint::spin_loop();
                }
            }
        });
        Self {
            enough,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.enough.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Does all that home does, as often as it can.
async fn busy() {
    let shutdown = Shutdown::current();
    loop {
        let task = spawn_local(async { yield_now().await });
        let (send, receive) = futures::channel::oneshot::channel();
        drop(spawn_local(async move { send.send(1) }));
        let _ = receive.await;
        spawn_local(pending::<()>()).abort();
        let _ = evbase::time::timeout(Duration::from_micros(1), pending::<()>()).await;
        let _ = poll_once(&mut shutdown.requested());
        let _ = task.await;
    }
}

#[test]
fn a_handler_may_stop_a_busy_home_at_any_point() {
    alone(|| {
        install();
        for round in crate::support::in_seconds(0..300, 5) {
            let runtime = Builder::new().build().unwrap();
            // All of them in sixty rounds, and some of each kind in a few.
            BEFORE.store(round * 7 % 60, SeqCst);
            let_the_handler_stop(&runtime);
            let storm = Storm::over_this_thread(round);
            // Others push at the same time.
            let spawner = runtime.spawner();
            let pusher = thread::spawn(move || {
                // A few at a time: a home under signals is slow.
                while let Ok(last) = spawner.try_spawn(async {}) {
                    for _ in 0..10 {
                        drop(spawner.spawn(async {}));
                    }
                    crate::support::until(|| last.is_finished());
                }
            });
            let result = runtime.block_on(busy());
            assert!(matches!(result, Err(RunError::Stopped)), "{result:?}");
            assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
            // The storm goes on over the end.
            drop(runtime);
            drop(storm);
            pusher.join().unwrap();
        }
        assert!(!ERRNO_LOST.load(SeqCst), "the request changed errno");
    });
}

#[test]
fn a_handler_may_stop_a_home_that_sleeps() {
    alone(|| {
        install();
        for _ in 0..300 {
            let runtime = parked(Builder::new());
            let_the_handler_stop(&runtime);
            // On this thread, which is abroad.
            // SAFETY: the handler is installed.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(
                runtime.shutdown_handle().terminated().wait().unwrap().cause,
                Cause::Requested
            );
        }
        assert!(!ERRNO_LOST.load(SeqCst), "the request changed errno");
    });
}

#[test]
fn a_handler_on_the_thread_of_a_home_that_sleeps_ends_its_wait() {
    alone(|| {
        install();
        for _ in 0..300 {
            let runtime = Builder::new().build().unwrap();
            let_the_handler_stop(&runtime);
            let tid = crate::support::Tid::here();
            // SAFETY: names this thread, which outlives the other.
            let target = unsafe { libc::pthread_self() };
            let killer = thread::spawn(move || {
                until_parked(tid);
                // SAFETY: the target waits for this thread.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            });
            assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
            killer.join().unwrap();
        }
    });
}

#[test]
fn signals_that_ask_for_nothing_disturb_nothing() {
    alone(|| {
        install();
        let runtime = Runtime::new().unwrap();
        let storm = Storm::over_this_thread(5);
        for n in 0..300 {
            let slept = runtime.block_on(async move {
                evbase::time::sleep(Duration::from_micros(100)).await;
                n
            });
            assert_eq!(slept.unwrap(), n);
        }
        drop(storm);
    });
}

#[test]
fn on_signals_requests_and_then_requests_now() {
    alone(|| {
        for _ in 0..100 {
            let runtime = parked(Builder::new().grace(Duration::MAX));
            let tid = crate::support::tid_of(&runtime);
            let stuck = runtime.spawner().spawn(pending::<()>());
            let shutdown = runtime.shutdown_handle();
            let guard = shutdown.on_signals(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
            assert!(!shutdown.is_requested());
            // SAFETY: the signal is handled.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert!(shutdown.is_requested());
            until_parked(tid);
            assert_eq!(poll_once(&mut shutdown.terminated()), Poll::Pending);
            // SAFETY: the signal is handled.
            unsafe { libc::raise(libc::SIGUSR2) };
            assert_eq!(shutdown.terminated().wait().unwrap().cause, Cause::Requested);
            assert!(stuck.wait().unwrap().unwrap_err().is_cancelled());
            drop(guard);
        }
        // Without a guard the signals end nothing: neither a runtime nor the process.
        let runtime = Runtime::new().unwrap();
        drop(runtime.shutdown_handle().on_signals(&[libc::SIGUSR1]).unwrap());
        // SAFETY: a handler that does nothing stays.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert!(!runtime.shutdown_handle().is_requested());
    });
}

#[test]
fn one_signal_ends_all_runtimes_that_wait_for_it_and_calls_older_handlers_as_well() {
    alone(|| {
        install();
        let came = CAME.load(SeqCst);
        let runtimes = [parked(Builder::new()), Runtime::new().unwrap()];
        let _guards = runtimes
            .each_ref()
            .map(|runtime| runtime.shutdown_handle().on_signals(&[libc::SIGUSR1]).unwrap());
        // SAFETY: the signal is handled.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(CAME.load(SeqCst), came + 1, "the handler that was there before");
        for runtime in &runtimes {
            assert!(runtime.shutdown_handle().is_requested());
            assert_eq!(
                runtime.shutdown_handle().terminated().wait().unwrap().cause,
                Cause::Requested
            );
        }
    });
}

/// Both of its actions ran: a request, and a second one.
#[test]
fn a_signal_that_is_listed_twice_counts_once() {
    crate::support::alone(|| {
        let runtime = Builder::new().grace(Duration::from_secs(30)).build().unwrap();
        let _signals = runtime
            .shutdown_handle()
            .on_signals(&[libc::SIGUSR1, libc::SIGUSR1])
            .unwrap();
        let done = Rc::new(Cell::new(false));
        let finishing = done.clone();
        let task = async move {
            evbase::time::sleep(Duration::from_millis(20)).await;
            finishing.set(true);
        };
        drop(runtime.spawn_local(task).unwrap());
        // SAFETY: the signal has a handler.
        unsafe { libc::raise(libc::SIGUSR1) };
        runtime.run().unwrap();
        assert!(done.get(), "one signal cut the grace period short");
    });
}
