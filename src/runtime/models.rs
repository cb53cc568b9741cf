//! loom models of what crosses threads in a runtime's life. See `executor::models` for how they are run.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::binding::{Binding, Claim};
use super::waiters::{Once, Place};

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

struct Wait(Arc<Once<u32>>, Place);

impl Future for Wait {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        let Self(once, place) = &mut *self;
        match once.poll(place, cx.waker()) {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.leave(&mut self.1);
    }
}

/// Termination: close ∥ two who wait ∥ one who polls and goes. Four threads, two preemptions.
#[test]
fn everyone_who_waits_for_the_end_is_told() {
    model(2, || {
        let once = Arc::new(Once::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let wait = Wait(once.clone(), Place::default());
                thread::spawn(move || assert_eq!(loom::future::block_on(wait), 7))
            })
            .collect();
        let leaver = {
            let mut wait = Wait(once.clone(), Place::default());
            thread::spawn(move || {
                let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Pending | Poll::Ready(7)));
            })
        };
        once.happen(7);
        for thread in waiters {
            thread.join().unwrap();
        }
        leaver.join().unwrap();
        assert_eq!(once.get(), Some(7));
    });
}

/// Unbound: two threads that drive or drop ∥ one that asks who is home. Three threads, three preemptions.
#[test]
fn one_thread_becomes_home_and_gets_the_base() {
    model(3, || {
        let base = Arc::new(AtomicUsize::new(0));
        let binding = Arc::new(Binding::new(base.clone()));
        let threads: Vec<_> = [1, 2]
            .into_iter()
            .map(|me| {
                let binding = binding.clone();
                thread::spawn(move || match binding.claim(me) {
                    Claim::Won(base) => {
                        base.fetch_add(1, Relaxed);
                        assert!(binding.is_home(me));
                        assert!(matches!(binding.claim(me), Claim::Home));
                        true
                    }
                    Claim::Home => panic!("nobody bound it for this thread"),
                    Claim::NotHome(_) => {
                        assert!(binding.is_bound() && !binding.is_home(me));
                        false
                    }
                })
            })
            .collect();
        // Abroad, before or after.
        assert!(!binding.is_home(3));
        let won = threads.into_iter().map(|t| t.join().unwrap());
        assert_eq!(won.filter(|&won| won).count(), 1);
        assert_eq!(base.load(Relaxed), 1);
        assert!(binding.home().is_some());
    });
}
