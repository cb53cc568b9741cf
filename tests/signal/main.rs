//! Signals as a stream, and Ctrl-C. They belong to the whole process, so each test is in one of its own.

#[path = "../support/mod.rs"]
mod support;

use std::future::pending;
use std::io::ErrorKind;
use std::os::raw::c_int;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use evbase::signal::{Signals, ctrl_c};
use evbase::{Builder, Runtime, yield_now};
use futures::{FutureExt, StreamExt};

use support::{
    MOMENT, Wakes, alone, fork, held, in_seconds, limit_descriptors, open_descriptors, panics, parked, poll_with,
    quiet_panics, rounds_alone, until,
};

/// To this thread, which has handled it when this returns.
fn raise(signal: c_int) {
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// To the process: the kernel picks the thread.
fn send(signal: c_int) {
    // SAFETY: takes no pointer; it is a signal that this process handles.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

#[test]
fn signals_come_in_the_loop_each_by_its_number_and_once_however_often_it_came() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1, libc::SIGUSR2, libc::SIGUSR1]).unwrap();
        let mut too = Signals::new(&[libc::SIGUSR1]).unwrap();
        for _ in 0..1000 {
            raise(libc::SIGUSR1);
        }
        raise(libc::SIGUSR2);
        let next = async |signals: &mut Signals| signals.next().await.unwrap();
        let came = async {
            let mut came = [next(&mut signals).await, next(&mut signals).await];
            came.sort_unstable();
            assert_eq!(came, [libc::SIGUSR1, libc::SIGUSR2]);
            assert_eq!(next(&mut too).await, libc::SIGUSR1);
            for _ in 0..3 {
                assert_eq!(signals.next().now_or_never(), None);
                assert_eq!(too.next().now_or_never(), None);
                yield_now().await;
            }
            raise(libc::SIGUSR2);
            assert_eq!(next(&mut signals).await, libc::SIGUSR2);
            assert_eq!(too.next().now_or_never(), None);
        };
        runtime.block_on(came).unwrap();
    });
}

#[test]
fn a_flood_of_one_signal_hides_no_other() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        let came = runtime.block_on(async {
            raise(libc::SIGUSR2);
            let mut came = Vec::new();
            for _ in 0..2 {
                raise(libc::SIGUSR1);
                came.push(signals.next().await.unwrap());
            }
            came
        });
        assert!(came.unwrap().contains(&libc::SIGUSR2));
    });
}

/// Each waits for the one before to have arrived: a lost wake-up is a hang.
#[test]
fn no_signal_is_lost_by_a_loop_that_sleeps_or_is_about_to() {
    rounds_alone(300, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        let count = taken.clone();
        let task = runtime.spawner().spawn(async move {
            while signals.next().await == Some(libc::SIGUSR1) {
                count.fetch_add(1, SeqCst);
            }
        });
        for n in 0..100 {
            match (round + n) % 3 {
                0 => send(libc::SIGUSR1),
                1 => raise(libc::SIGUSR1),
                _ => thread::scope(|scope| {
                    scope.spawn(|| raise(libc::SIGUSR1));
                }),
            }
            until(|| taken.load(SeqCst) == n + 1);
        }
        assert!(!task.is_finished());
    });
}

/// With a count of those that come after a task has seen all, so that none hides behind another one.
#[test]
fn four_threads_signal_and_the_last_signal_of_each_is_seen() {
    rounds_alone(200, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let wanted = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP, libc::SIGALRM];
        let sent = Arc::new(wanted.map(|_| AtomicUsize::new(0)));
        let mut signals = Signals::new(&wanted).unwrap();
        let said = sent.clone();
        let task = runtime.spawner().spawn(async move {
            let mut seen = [0; 4];
            while seen != [50; 4] {
                let signal = signals.next().await.unwrap();
                let at = wanted.iter().position(|wanted| *wanted == signal).unwrap();
                seen[at] = said[at].load(SeqCst);
            }
        });
        thread::scope(|scope| {
            for (at, signal) in wanted.into_iter().enumerate() {
                let sent = &sent;
                scope.spawn(move || {
                    for _ in 0..50 {
                        // Said first: whoever takes the signal that comes after it sees this.
                        sent[at].fetch_add(1, SeqCst);
                        raise(signal);
                    }
                });
            }
        });
        task.wait().unwrap().unwrap();
    });
}

#[test]
fn a_stream_moves_between_loops_and_takes_along_what_has_come() {
    alone(|| {
        let before = held();
        let here = Runtime::new().unwrap();
        let elsewhere = Builder::new().start("home").unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        for n in 0..200 {
            let waits = async {
                assert_eq!(signals.next().now_or_never(), None);
                raise(libc::SIGUSR1);
                if n % 2 == 0 {
                    assert_eq!(signals.next().await, Some(libc::SIGUSR1));
                }
            };
            here.block_on(waits).unwrap();
            // It comes while no loop watches.
            raise(libc::SIGUSR1);
            let moved = elsewhere.spawner().spawn(async move {
                assert_eq!(signals.next().await, Some(libc::SIGUSR1));
                assert_eq!(signals.next().now_or_never(), None);
                signals
            });
            signals = moved.wait().unwrap().unwrap();
        }
        // The runtime that watches it ends, while it is alive.
        elsewhere.shutdown().wait().unwrap();
        raise(libc::SIGUSR1);
        assert_eq!(here.block_on(signals.next()).unwrap(), Some(libc::SIGUSR1));
        drop(signals);
        drop(here);
        // The other home's thread may be on its way out.
        until(|| held() == before);
    });
}

#[test]
fn a_stream_is_dropped_anywhere_and_its_descriptors_close() {
    rounds_alone(200, |_| {
        let before = open_descriptors().len();
        let runtime = parked(Builder::new());
        let mut signals = Signals::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        let polled = runtime.spawner().spawn(async move {
            // What the round before has sent to the process may have come to one of its threads only now.
            while signals.next().now_or_never().is_some() {}
            signals
        });
        let signals = polled.wait().unwrap().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (0..20).for_each(|_| send(libc::SIGUSR1)));
            scope.spawn(|| drop(signals));
        });
        // What comes after the end is nobody's, and ends nothing.
        send(libc::SIGUSR2);
        raise(libc::SIGUSR1);
        runtime.shutdown().wait().unwrap();
        until(|| open_descriptors().len() == before);
    });
}

#[test]
fn an_idle_stream_wakes_its_loop_never_and_starts_no_thread() {
    alone(|| {
        let threads = held().map(|held| held.threads);
        let runtime = Runtime::new().unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        let ctrl_c = ctrl_c();
        let idle = async {
            let mut ctrl_c = pin!(ctrl_c);
            assert!(futures::poll!(&mut ctrl_c).is_pending());
            assert_eq!(signals.next().now_or_never(), None);
            let turns = runtime.metrics().turns;
            evbase::time::sleep(MOMENT).await;
            assert!(runtime.metrics().turns - turns <= 3, "something wakes the loop");
        };
        runtime.block_on(idle).unwrap();
        assert_eq!(held().map(|held| held.threads), threads);
    });
}

#[test]
fn a_stream_that_is_always_ready_yields() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        let flood = async {
            let others = evbase::spawn_local(async {});
            while !others.is_finished() {
                raise(libc::SIGUSR1);
                signals.next().await.unwrap();
            }
        };
        runtime.block_on(flood).unwrap();
        raise(libc::SIGUSR1);
        assert_eq!(runtime.block_on(signals.next()).unwrap(), Some(libc::SIGUSR1));
    });
}

#[test]
fn what_cannot_be_handled_is_an_error_and_nothing_is_handled_then() {
    alone(|| {
        let before = open_descriptors();
        for bad in [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGSEGV,
            0,
            -1,
            1000,
        ] {
            let error = Signals::new(&[libc::SIGUSR1, bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(&bad.to_string()), "{error}");
        }
        assert_eq!(open_descriptors(), before);
        // None at all is a stream that is silent.
        let mut silent = Signals::new(&[]).unwrap();
        assert_eq!(
            Runtime::new()
                .unwrap()
                .block_on(async { silent.next().now_or_never() })
                .unwrap(),
            None
        );
        let most = limit_descriptors(before.len());
        assert_eq!(
            Signals::new(&[libc::SIGUSR1]).unwrap_err().raw_os_error(),
            Some(libc::EMFILE)
        );
        limit_descriptors(most);
    });
}

#[test]
fn outside_of_a_runtime_a_stream_panics_and_ctrl_c_is_an_error() {
    alone(|| {
        quiet_panics();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        // Not by chance: also with a signal that is there.
        raise(libc::SIGUSR1);
        let said = panics(|| signals.next().now_or_never());
        assert!(said.contains("outside of a runtime"), "{said}");
        let error = ctrl_c().now_or_never().unwrap().unwrap_err();
        assert!(error.to_string().contains("outside of a runtime"), "{error}");
        // It is still there.
        assert_eq!(
            Runtime::new().unwrap().block_on(signals.next()).unwrap(),
            Some(libc::SIGUSR1)
        );
    });
}

#[test]
fn a_ctrl_c_after_the_call_is_not_lost_and_each_call_waits_for_a_new_one() {
    alone(|| {
        let runtime = Runtime::new().unwrap();
        let first = ctrl_c();
        let second = ctrl_c();
        // Nobody has polled anything yet.
        raise(libc::SIGINT);
        let third = ctrl_c();
        let all = async {
            first.await.unwrap();
            second.await.unwrap();
            let mut third = pin!(third);
            assert!(futures::poll!(&mut third).is_pending());
            raise(libc::SIGINT);
            third.await.unwrap();
            // With no such future alive, it ends nothing.
            raise(libc::SIGINT);
            let mut fourth = pin!(ctrl_c());
            assert!(futures::poll!(&mut fourth).is_pending());
        };
        runtime.block_on(all).unwrap();
    });
}

#[test]
fn ctrl_c_wakes_a_task_of_a_loop_that_sleeps() {
    alone(|| {
        let runtime = Builder::new().start("home").unwrap();
        for _ in 0..50 {
            let task = runtime.spawner().spawn(ctrl_c());
            support::until_parked(support::tid_of(&runtime));
            send(libc::SIGINT);
            task.wait().unwrap().unwrap().unwrap();
        }
    });
}

/// Stopped after the first poll, dropped half-way: the loop's end doesn't hang, and the handlers do no harm.
#[test]
fn a_stream_under_poll_ends_with_its_runtime_while_signals_come() {
    rounds_alone(300, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        let task = runtime
            .spawner()
            .spawn(async move { while signals.next().await.is_some() {} });
        thread::scope(|scope| {
            scope.spawn(|| (0..20).for_each(|_| send(libc::SIGUSR1)));
            scope.spawn(|| match round % 3 {
                0 => drop(runtime),
                1 => task.abort(),
                _ => runtime.shutdown_handle().request_now(),
            });
        });
        assert!(task.wait().unwrap().unwrap_err().is_cancelled());
    });
}

#[test]
fn in_the_child_of_a_fork_a_stream_is_the_parents() {
    alone(|| {
        quiet_panics();
        let runtime = parked(Builder::new());
        let (wakes, waker) = Wakes::new();
        let here = Runtime::new().unwrap();
        let mut signals = Some(Signals::new(&[libc::SIGUSR1]).unwrap());
        let guard = here.enter().unwrap();
        assert_eq!(poll_with(&mut signals.as_mut().unwrap().next(), &waker), Poll::Pending);
        drop(guard);
        for _ in in_seconds(0..20, 10) {
            let parks = runtime.metrics().parks;
            let code = fork(|| {
                // The handler is inherited, and wakes nobody in the parent.
                raise(libc::SIGUSR1);
                let fresh = Runtime::new().unwrap();
                let mut signals = signals.take().unwrap();
                let said = panics(|| fresh.block_on(signals.next()));
                assert!(said.contains("fork"), "{said}");
                drop(signals);
                raise(libc::SIGUSR1);
                let mut anew = Signals::new(&[libc::SIGUSR1]).unwrap();
                raise(libc::SIGUSR1);
                assert_eq!(fresh.block_on(anew.next()).unwrap(), Some(libc::SIGUSR1));
            });
            assert_eq!(code, 0);
            assert_eq!(runtime.metrics().parks, parks);
            here.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!(wakes.count(), 0, "the child has woken its parent");
        }
        raise(libc::SIGUSR1);
        here.turn(None).unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(here.block_on(signals.unwrap().next()).unwrap(), Some(libc::SIGUSR1));
        drop(runtime.spawner().spawn(pending::<()>()));
    });
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn without_an_eventfd_signals_come_through_a_socket() {
    alone(|| {
        support::forbid(&[libc::SYS_eventfd2], libc::ENOSYS);
        let runtime = Builder::new().start("home").unwrap();
        let mut signals = Signals::new(&[libc::SIGUSR1]).unwrap();
        // More than a socket holds, if each were written.
        for _ in 0..100_000 {
            raise(libc::SIGUSR1);
        }
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        drop(runtime.spawner().spawn(async move {
            while signals.next().await == Some(libc::SIGUSR1) {
                count.fetch_add(1, SeqCst);
            }
        }));
        for n in 1..500 {
            until(|| taken.load(SeqCst) == n);
            send(libc::SIGUSR1);
        }
    });
}
