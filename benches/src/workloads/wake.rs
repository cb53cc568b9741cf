//! Another thread wakes the sleeping loop, which answers, which wakes the thread.

use std::ffi::{c_int, c_void};
use std::future::poll_fn;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::Cell;
use crate::measure::{Core, pin, quantile, thread_cpu};
use crate::peers::raw::{Epoll, Eventfd};
use crate::peers::{Library, Name, with_tasks};

const TRIPS: usize = 5_000;

/// So long does the other thread spin before each trip, for the loop to fall asleep.
const PAUSE: Duration = Duration::from_micros(50);

pub fn cell(name: Name) -> Cell {
    let (mut trips, cpu) = match name {
        Name::Libevent | Name::Libuv => in_c(Library::of(name)),
        Name::Raw => raw(),
        name => with_tasks!(name, P => P::run(|_| in_task())),
    };
    Ok(vec![
        ("p50", quantile(&mut trips, 0.5)),
        ("p99", quantile(&mut trips, 0.99)),
        ("cpu", cpu.as_nanos() as f64 / 1e3 / TRIPS as f64),
    ])
}

/// The other thread: calls `ring` and waits to be unparked with the answer, again and again. Returns microseconds a trip.
fn caller(answered: Arc<AtomicBool>, ring: impl Fn() + Send + 'static) -> JoinHandle<Vec<f64>> {
    thread::spawn(move || {
        pin(Core::Counterpart);
        let trip = |_| {
            let start = Instant::now();
            while start.elapsed() < PAUSE {}
            let start = Instant::now();
            ring();
            while !answered.swap(false, SeqCst) {
                thread::park();
            }
            start.elapsed().as_nanos() as f64 / 1e3
        };
        (0..TRIPS).map(trip).collect()
    })
}

fn answer(answered: &AtomicBool, caller: &Thread) {
    answered.store(true, SeqCst);
    caller.unpark();
}

/// A task that waits for a waker to be called, as any channel's receiver does.
async fn in_task() -> (Vec<f64>, Duration) {
    let called = Arc::new((AtomicBool::new(false), AtomicWaker::new()));
    let answered = Arc::new(AtomicBool::new(false));
    let calls = called.clone();
    let caller = caller(answered.clone(), move || {
        calls.0.store(true, SeqCst);
        calls.1.wake();
    });
    let start = thread_cpu();
    for _ in 0..TRIPS {
        poll_fn(|cx| {
            called.1.register(cx.waker());
            match called.0.swap(false, SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        answer(&answered, caller.thread());
    }
    let cpu = thread_cpu() - start;
    (caller.join().expect("the caller"), cpu)
}

fn raw() -> (Vec<f64>, Duration) {
    let bell = Arc::new(Eventfd::new());
    let mut epoll = Epoll::new();
    epoll.add_edge(bell.fd(), 0);
    let answered = Arc::new(AtomicBool::new(false));
    let rings = bell.clone();
    let caller = caller(answered.clone(), move || rings.ring());
    let start = thread_cpu();
    for _ in 0..TRIPS {
        assert_eq!(epoll.wait(None).count(), 1);
        answer(&answered, caller.thread());
    }
    let cpu = thread_cpu() - start;
    (caller.join().expect("the caller"), cpu)
}

struct InC {
    left: usize,
    answered: Arc<AtomicBool>,
    caller: Option<Thread>,
}

fn in_c(library: &Library) -> (Vec<f64>, Duration) {
    extern "C" fn woken(state: *mut c_void) -> c_int {
        // SAFETY: the state of `in_c`, which waits for the loop that calls this.
        let state = unsafe { &mut *state.cast::<InC>() };
        state.left -= 1;
        answer(
            &state.answered,
            state.caller.as_ref().expect("set before the loop runs"),
        );
        c_int::from(state.left == 0)
    }

    let mut state = InC {
        left: TRIPS,
        answered: Arc::new(AtomicBool::new(false)),
        caller: None,
    };
    let answered = state.answered.clone();
    let state = ptr::from_mut(&mut state);
    // SAFETY: the state outlives the loop, and is used by it alone while it runs; the loop may be rung from any thread.
    unsafe {
        let wake = (library.wake_new)(woken, state.cast());
        let (bell, ring) = (wake as usize, library.wake_ring);
        let caller = caller(answered, move || ring(bell as *mut c_void));
        (*state).caller = Some(caller.thread().clone());
        let start = thread_cpu();
        (library.wake_run)(wake);
        let cpu = thread_cpu() - start;
        (caller.join().expect("the caller"), cpu)
    }
}
