//! Hooks around the sleep: balanced, in order, and harmless whatever they do.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use evbase::time::sleep;
use evbase::{Builder, Cause, LocalSpawner, RunError, Runtime, Shutdown, WaitHook, spawn_local, yield_now};

use crate::scenarios::is_readable;
use crate::support::{alone, readable_within, turn_when_readable};
use crate::watched;

type Log = Rc<RefCell<Vec<&'static str>>>;

fn logging(log: &Log, what: &'static str) -> impl FnMut() + 'static {
    let log = log.clone();
    move || log.borrow_mut().push(what)
}

/// Two before and two after, which write their names.
fn four(runtime: &Runtime, log: &Log) -> [WaitHook; 4] {
    let [mut b1, mut b2, a1, a2] = ["b1", "b2", "a1", "a2"].map(|what| logging(log, what));
    [
        runtime.before_wait(move |_| b1()).unwrap(),
        runtime.after_wait(a1).unwrap(),
        runtime.before_wait(move |_| b2()).unwrap(),
        runtime.after_wait(a2).unwrap(),
    ]
}

#[test]
fn a_task_has_hooks_run_through_the_local_spawner() {
    watched(|| {
        // On a thread of the runtime's own, where nobody has the runtime.
        let runtime = Builder::new().start("home").unwrap();
        let task = runtime.spawner().spawn_with(|| async {
            let spawner = LocalSpawner::current();
            let log = Log::default();
            let (mut before, after) = (logging(&log, "before"), logging(&log, "after"));
            let hooks = (
                spawner.before_wait(move |wait| {
                    before();
                    wait.at_most(Duration::from_millis(1));
                }),
                spawner.after_wait(after),
            );
            let far = spawn_local(sleep(Duration::from_secs(3600)));
            sleep(Duration::from_millis(20)).await;
            drop(hooks);
            let said = log.take();
            assert!(said.len() >= 4, "the sleep is cut into pieces: {said:?}");
            assert!(said.chunks(2).all(|round| round == ["before", "after"]), "{said:?}");
            sleep(Duration::from_millis(2)).await;
            assert!(log.borrow().is_empty());
            far.abort();
        });
        task.wait().unwrap().unwrap();
        // And when the runtime has gone.
        let runtime = Runtime::new().unwrap();
        let spawner = runtime.local_spawner().unwrap();
        drop(runtime);
        assert!(matches!(spawner.before_wait(|_| {}), Err(RunError::Stopped)));
        assert!(matches!(spawner.after_wait(|| {}), Err(RunError::Stopped)));
    });
}

#[test]
fn hooks_run_around_each_sleep_and_only_then() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let log = Log::default();
        let hooks = four(&runtime, &log);
        runtime.block_on(async { yield_now().await }).unwrap();
        assert!(log.borrow().is_empty(), "home has not slept");
        runtime.block_on(sleep(Duration::from_millis(2))).unwrap();
        let said = log.take();
        assert!(!said.is_empty() && said.len() % 4 == 0);
        assert!(
            said.chunks(4).all(|round| round == ["b1", "b2", "a2", "a1"]),
            "{said:?}"
        );
        drop(hooks);
        runtime.block_on(sleep(Duration::from_millis(2))).unwrap();
        assert!(log.borrow().is_empty());
    });
}

#[test]
fn a_hook_sees_how_long_home_will_sleep_and_makes_it_shorter() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let before = {
            let seen = seen.clone();
            runtime.before_wait(move |wait| {
                seen.borrow_mut().push(wait.timeout());
                wait.at_most(Duration::from_millis(1));
                assert_eq!(wait.timeout(), Some(Duration::from_millis(1)));
                wait.at_most(Duration::from_secs(1));
                assert_eq!(wait.timeout(), Some(Duration::from_millis(1)));
            })
        };
        let _before = before.unwrap();
        // Nothing else would end this.
        runtime.turn(None).unwrap();
        assert_eq!(seen.take(), [None]);
        let far = runtime.spawn_local(sleep(Duration::from_secs(3600))).unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        assert!(seen.borrow().is_empty(), "a turn that doesn't sleep");
        runtime.turn(None).unwrap();
        let timeout = seen.take()[0].unwrap();
        assert!(timeout > Duration::from_secs(3500) && timeout < Duration::from_secs(3700));
        runtime.turn(Some(Duration::from_millis(700))).unwrap();
        assert!(seen.take()[0].unwrap() <= Duration::from_millis(700));
        far.abort();
    });
}

#[test]
fn a_sleep_is_called_off_when_a_hook_finds_work_and_the_hooks_stay_balanced() {
    watched(|| {
        type Action = fn(&LocalSpawner);
        let spawns: Action = |spawner| drop(spawner.spawn_local(async {}).unwrap());
        let stops: Action = |_| Shutdown::current().request();
        let wakes: Action = |_| {
            let spawner = evbase::Spawner::current();
            thread::spawn(move || drop(spawner.spawn(async {}))).join().unwrap();
        };
        for action in [spawns, wakes, stops] {
            let runtime = Builder::new().build().unwrap();
            let log = Log::default();
            let _hooks = four(&runtime, &log);
            let spawner = runtime.local_spawner().unwrap();
            let _hook = runtime.before_wait(move |_| action(&spawner)).unwrap();
            // There is nothing else that could end this.
            let turn = runtime.turn(None).unwrap();
            assert!(turn.polls == 1 || turn.closed, "{turn:?}");
            assert_eq!(log.take(), ["b1", "b2", "a2", "a1"]);
        }
    });
}

#[test]
fn a_timer_that_a_hook_arms_ends_the_sleep() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        // Before the nap: when that is over, so are 5 ms, and no turn follows that nothing would end.
        let start = Instant::now();
        let mut nap = Box::pin(sleep(Duration::from_millis(5)));
        let polled = Rc::new(Cell::new(0));
        let _hook = {
            let polled = polled.clone();
            runtime.before_wait(move |_| {
                polled.set(polled.get() + 1);
                let waker = std::task::Waker::noop();
                let _ = nap.as_mut().poll(&mut std::task::Context::from_waker(waker));
            })
        };
        while start.elapsed() < Duration::from_millis(5) {
            runtime.turn(None).unwrap();
        }
        assert!(polled.get() >= 1);
    });
}

#[test]
fn a_hook_that_drops_itself_does_not_run_again() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let slot: Rc<RefCell<Option<WaitHook>>> = Rc::default();
        let (runs, dropped) = (Rc::new(Cell::new(0)), Rc::new(()));
        let hook = {
            let (slot, runs, dropped) = (slot.clone(), runs.clone(), dropped.clone());
            runtime.before_wait(move |_| {
                runs.set(runs.get() + 1);
                drop(slot.take());
                assert_eq!(Rc::strong_count(&dropped), 2, "not while it runs");
            })
        };
        slot.replace(Some(hook.unwrap()));
        for _ in 0..3 {
            runtime.turn(Some(Duration::from_millis(1))).unwrap();
        }
        assert_eq!((runs.get(), Rc::strong_count(&dropped)), (1, 1));
    });
}

#[test]
fn a_hook_that_adds_and_drops_others_is_fine() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let log = Log::default();
        let slot: Rc<RefCell<Vec<WaitHook>>> = Rc::default();
        slot.borrow_mut().extend(four(&runtime, &log));
        let _hook = {
            let (slot, log, spawner) = (slot.clone(), log.clone(), runtime.local_spawner().unwrap());
            runtime.before_wait(move |_| {
                drop(slot.take());
                let hook = spawner.after_wait(logging(&log, "new")).unwrap();
                slot.borrow_mut().push(hook);
            })
        };
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(log.take(), ["b1", "b2", "new"]);
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(log.take(), ["new"]);
    });
}

#[test]
fn the_panic_of_a_hook_leaves_the_driving_call_after_the_others_and_the_runtime_goes_on() {
    watched(|| {
        for panics_before in [true, false] {
            let runtime = Runtime::new().unwrap();
            let log = Log::default();
            let _outer = four(&runtime, &log);
            let runs = Rc::new(Cell::new(0));
            let panic = {
                let runs = runs.clone();
                move || {
                    runs.set(runs.get() + 1);
                    resume_unwind(Box::new("of the hook"));
                }
            };
            let _hook = match panics_before {
                true => runtime.before_wait(move |_| panic()),
                false => runtime.after_wait(panic),
            };
            let _inner = four(&runtime, &log);
            // Nothing else would end this; an `after_wait` hook needs an end.
            let nap = Duration::from_millis(if panics_before { 3_600_000 } else { 1 });
            let panicked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(sleep(nap))));
            let payload = panicked.unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"of the hook"));
            assert_eq!(log.take(), ["b1", "b2", "b1", "b2", "a2", "a1", "a2", "a1"]);
            let answer = runtime.block_on(async {
                sleep(Duration::from_millis(1)).await;
                spawn_local(async { 42 }).await.unwrap()
            });
            assert_eq!(answer.unwrap(), 42);
            assert_eq!(runs.get(), 1);
        }
    });
}

#[test]
fn a_hook_may_not_drive() {
    watched(|| {
        let runtime = Rc::new(Runtime::new().unwrap());
        let nested = Rc::new(Cell::new(false));
        let hook = {
            let (weak, nested) = (Rc::downgrade(&runtime), nested.clone());
            runtime.before_wait(move |_| {
                let runtime = weak.upgrade().unwrap();
                nested.set(matches!(runtime.turn(None), Err(RunError::Nested)));
            })
        };
        let _hook = hook.unwrap();
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(nested.get());
    });
}

#[test]
fn a_close_is_done_whatever_the_hooks_do_and_after_what_ran_before() {
    watched(|| {
        type Close = fn(Runtime);
        let here: Close = |runtime| drop(runtime);
        // Another call at home closes it.
        let in_passing: Close = |runtime| {
            thread::spawn(move || drop(runtime)).join().unwrap();
            drop(Runtime::new().unwrap());
        };
        // A wait for something else is under way.
        let in_a_wait: Close = |runtime| {
            let elsewhere = Builder::new().start("elsewhere").unwrap();
            let task = elsewhere.spawner().spawn(sleep(Duration::from_millis(30)));
            let dropper = thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                drop(runtime);
            });
            task.wait().unwrap().unwrap();
            dropper.join().unwrap();
        };
        for close in [here, in_passing, in_a_wait] {
            for panics_before in [true, false] {
                let runtime = Builder::new().grace(Duration::from_secs(3600)).build().unwrap();
                let log = Log::default();
                let _hooks = four(&runtime, &log);
                let panics = || resume_unwind(Box::new("of a hook"));
                let _panics = match panics_before {
                    true => runtime.before_wait(move |_| panics()),
                    false => runtime.after_wait(panics),
                };
                let task = runtime.spawn_local(async {
                    sleep(Duration::from_millis(2)).await;
                    sleep(Duration::from_millis(2)).await;
                });
                let terminated = runtime.shutdown_handle().terminated();
                // No panic leaves a drop, or a call that is about something else, and the grace period goes on.
                close(runtime);
                assert_eq!(terminated.wait().unwrap().completed, 1);
                assert!(task.unwrap().is_finished());
                let said = log.take();
                assert!(said.len() >= 8, "{said:?}");
                assert!(
                    said.chunks(4).all(|round| round == ["b1", "b2", "a2", "a1"]),
                    "{said:?}"
                );
            }
        }
        // Embedded, and between two turns: what was done before the host's wait is undone.
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let log = Log::default();
        let _hooks = four(&runtime, &log);
        embedded.turn().unwrap();
        assert_eq!(log.take(), ["b1", "b2"]);
        drop(runtime);
        assert_eq!(log.take(), ["a2", "a1"]);
    });
}

#[test]
fn hooks_are_dropped_at_home_when_the_runtime_closes() {
    watched(|| {
        let alive = Rc::new(());
        let runtime = Runtime::new().unwrap();
        let (one, other) = (alive.clone(), alive.clone());
        let hooks = (
            runtime.before_wait(move |_| drop(one.clone())).unwrap(),
            runtime.after_wait(move || drop(other.clone())).unwrap(),
        );
        assert_eq!(Rc::strong_count(&alive), 3);
        drop(runtime);
        assert_eq!(Rc::strong_count(&alive), 1);
        drop(hooks);
        let runtime = Runtime::new().unwrap();
        runtime.shutdown_handle().request();
        runtime.run().unwrap();
        assert!(matches!(runtime.before_wait(|_| {}), Err(RunError::Stopped)));
    });
}

#[test]
fn abroad_there_are_no_hooks() {
    watched(|| {
        let runtime = Builder::new().start("home").unwrap();
        assert!(matches!(runtime.before_wait(|_| {}), Err(RunError::NotHome { .. })));
        assert!(matches!(runtime.after_wait(|| {}), Err(RunError::NotHome { .. })));
    });
}

#[test]
fn embedded_they_run_at_the_end_of_a_turn_and_at_the_beginning_of_the_next() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let log = Log::default();
        let hooks = four(&runtime, &log);
        assert!(is_readable(&embedded), "they have to run before the host waits");
        embedded.turn().unwrap();
        assert_eq!(log.take(), ["b1", "b2"]);
        assert!(!is_readable(&embedded));
        runtime.spawn_local(async {}).unwrap();
        assert!(embedded.turn().unwrap().polls == 1);
        assert_eq!(log.take(), ["a2", "a1", "b1", "b2"]);
        assert!(!is_readable(&embedded));
        // Not at the end of a turn that leaves work.
        runtime
            .spawn_local(async {
                for _ in 0..100 {
                    yield_now().await
                }
            })
            .unwrap();
        assert!(embedded.turn().unwrap().more);
        assert_eq!(log.take(), ["a2", "a1"]);
        assert!(!embedded.turn().unwrap().more);
        assert_eq!(log.take(), ["b1", "b2"]);
        // What drives otherwise has them run, too, and a turn follows.
        runtime.block_on(async {}).unwrap();
        assert_eq!(log.take(), ["a2", "a1"]);
        assert!(is_readable(&embedded));
        embedded.turn().unwrap();
        assert_eq!(log.take(), ["b1", "b2"]);
        assert!(!is_readable(&embedded));
        drop(hooks);
    });
}

#[test]
fn embedded_the_bound_of_a_hook_is_in_the_descriptor() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let until = Instant::now() + Duration::from_millis(10);
        let _hook = runtime.before_wait(move |wait| {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                wait.at_most(left);
            }
        });
        embedded.turn().unwrap();
        assert!(!is_readable(&embedded));
        assert!(readable_within(&embedded, Duration::from_secs(10)));
        assert!(Instant::now() >= until);
        embedded.turn().unwrap();
        assert!(!is_readable(&embedded));
    });
}

#[test]
fn embedded_the_panic_of_a_hook_leaves_the_turn() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let log = Log::default();
        let _four = four(&runtime, &log);
        let _hook = runtime.before_wait(|_| resume_unwind(Box::new("of the hook")));
        assert!(catch_unwind(AssertUnwindSafe(|| embedded.turn())).is_err());
        assert_eq!(log.take(), ["b1", "b2", "a2", "a1"]);
        assert!(is_readable(&embedded), "the hooks have to run again");
        embedded.turn().unwrap();
        assert_eq!(log.take(), ["b1", "b2"]);
        assert!(!is_readable(&embedded));
        let _hook = runtime.after_wait(|| resume_unwind(Box::new("of the hook")));
        assert!(catch_unwind(AssertUnwindSafe(|| embedded.turn())).is_err());
        assert_eq!(log.take(), ["a2", "a1"]);
        embedded.turn().unwrap();
        assert_eq!(log.take(), ["b1", "b2"]);
        assert!(!is_readable(&embedded));
    });
}

#[test]
fn the_call_that_drives_a_hook_that_forks_answers_forked_in_the_child() {
    alone(|| {
        for is_embedded in [true, false] {
            for calls_block_on in [true, false] {
                let runtime = Runtime::new().unwrap();
                let _embedded = is_embedded.then(|| runtime.embed().unwrap());
                let child = Rc::new(Cell::new(-1));
                let _hook = {
                    let child = child.clone();
                    runtime.before_wait(move |wait| {
                        if child.get() < 0 {
                            // SAFETY: this process has no thread but the test's and its watchdog; the child makes system calls
                            // and looks at its own memory.
                            child.set(unsafe { libc::fork() });
                        }
                        wait.at_most(Duration::from_millis(1));
                    })
                };
                let until_forked = async {
                    while child.get() < 0 {
                        sleep(Duration::from_millis(5)).await;
                    }
                };
                let forked = match calls_block_on {
                    true => matches!(runtime.block_on(until_forked), Err(RunError::Forked)),
                    false => matches!(runtime.turn(Some(Duration::from_millis(5))), Err(RunError::Forked)),
                };
                if child.get() == 0 {
                    // SAFETY: ends the child, and runs nothing that belongs to the parent.
                    unsafe { libc::_exit(i32::from(!forked)) };
                }
                assert!(!forked && child.get() > 0);
                let mut status = -1;
                // SAFETY: `status` outlives the call.
                assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
                assert_eq!(status, 0, "{is_embedded} {calls_block_on}");
            }
        }
    });
}

#[test]
fn a_hook_may_bound_the_sleep_to_no_time_and_to_all_time() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let hook = runtime.before_wait(|wait| wait.at_most(Duration::ZERO)).unwrap();
        // Nothing else would end this.
        runtime.turn(None).unwrap();
        drop(hook);
        let _hook = runtime.before_wait(|wait| {
            let before = wait.timeout();
            wait.at_most(Duration::MAX);
            assert_eq!(wait.timeout(), before.or(Some(Duration::MAX)));
        });
        runtime.turn(Some(Duration::from_millis(1))).unwrap();
        runtime.block_on(sleep(Duration::from_millis(1))).unwrap();
        // Embedded, where the bound is a time to wake up at.
        let embedded = runtime.embed().unwrap();
        embedded.turn().unwrap();
        assert!(!is_readable(&embedded));
    });
}

#[test]
fn a_hook_sees_what_is_left_of_the_grace_period() {
    watched(|| {
        let grace = Duration::from_secs(3600);
        let runtime = Builder::new().grace(grace).build().unwrap();
        let seen = Rc::new(Cell::new(None));
        let _hook = {
            let seen = seen.clone();
            runtime.before_wait(move |wait| {
                seen.set(wait.timeout());
                wait.at_most(Duration::ZERO);
            })
        };
        drop(runtime.spawn_local(std::future::pending::<()>()).unwrap());
        runtime.turn(None).unwrap();
        assert_eq!(seen.take(), None);
        runtime.shutdown_handle().request();
        assert!(!runtime.turn(None).unwrap().closed);
        let left = seen.take().unwrap();
        assert!(left <= grace && left > grace / 2, "{left:?}");
        runtime.shutdown_handle().request_now();
    });
}

#[test]
fn a_hook_sees_how_long_the_virtual_clock_would_have_home_sleep() {
    watched(|| {
        let hour = Duration::from_secs(3600);
        let runtime = Builder::new().paused().build().unwrap();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let _hook = {
            let seen = seen.clone();
            runtime.before_wait(move |wait| seen.borrow_mut().push(wait.timeout()))
        };
        for _ in 0..3 {
            runtime.block_on(async { sleep(hour).await }).unwrap();
            assert_eq!(seen.take(), [Some(hour)]);
        }
    });
}

#[test]
fn a_hook_that_drops_its_runtime_has_it_closed_after_the_sleep() {
    watched(|| {
        for drives_by_a_wait in [true, false] {
            let runtime = Runtime::new().unwrap();
            let embedded = runtime.embed().unwrap();
            let terminated = runtime.shutdown_handle().terminated();
            let task = runtime.spawn_local(std::future::pending::<()>()).unwrap();
            let slot = Rc::new(Cell::new(None));
            let hook = {
                let slot = slot.clone();
                runtime.before_wait(move |_| drop::<Option<Runtime>>(slot.take()))
            };
            slot.set(Some(runtime));
            if !drives_by_a_wait {
                while !turn_when_readable(&embedded).closed {}
            }
            assert!(task.wait().unwrap().unwrap_err().is_cancelled());
            assert_eq!(terminated.wait().unwrap().cause, Cause::Dropped);
            drop(hook);
        }
    });
}

#[test]
fn embedded_the_bound_of_a_hook_is_in_the_descriptor_wherever_virtual_time_is() {
    watched(|| {
        let runtime = Builder::new().paused().build().unwrap();
        runtime
            .block_on(async { sleep(Duration::from_secs(3600)).await })
            .unwrap();
        let embedded = runtime.embed().unwrap();
        let runs = Rc::new(Cell::new(0));
        let _hook = {
            let runs = runs.clone();
            runtime.before_wait(move |wait| {
                runs.set(runs.get() + 1);
                wait.at_most(Duration::from_millis(5));
            })
        };
        let mut turns = 0;
        while runs.get() < 3 {
            turn_when_readable(&embedded);
            turns += 1;
        }
        assert!(turns < 20, "{turns}");
    });
}

#[test]
fn embedded_a_hook_that_spawns_and_panics_leaves_the_task_to_the_next_turn() {
    watched(|| {
        let runtime = Runtime::new().unwrap();
        let embedded = runtime.embed().unwrap();
        let ran = Rc::new(Cell::new(0));
        let _hook = {
            let (ran, spawner) = (ran.clone(), runtime.local_spawner().unwrap());
            runtime.before_wait(move |_| {
                let ran = ran.clone();
                drop(spawner.spawn_local(async move { ran.set(ran.get() + 1) }).unwrap());
                resume_unwind(Box::new("of the hook"));
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(|| embedded.turn())).is_err());
        assert!(is_readable(&embedded), "the task is ready");
        while is_readable(&embedded) {
            embedded.turn().unwrap();
        }
        assert_eq!(ran.get(), 1);
    });
}
