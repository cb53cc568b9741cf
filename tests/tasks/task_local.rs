//! Task-locals: there in their scope, for its task alone, to the end of the future.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use evbase::task::LocalKey;
use evbase::{Builder, Runtime, spawn_local, task_local, yield_now};

use crate::support::{OnDrop, Worker, panics, poll_here, poll_once, turn_until, watchdog};

task_local! {
    /// With attributes, and visible elsewhere.
    pub(crate) static NUMBER: u32;
    static TEXT: String;
    static LOG: RefCell<Vec<u32>>
}

/// What `NUMBER` is here.
fn number() -> Option<u32> {
    NUMBER.try_get().ok()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future).unwrap()
}

#[test]
fn each_task_sees_its_own_value_however_they_take_turns() {
    let _watchdog = watchdog();
    block_on(async {
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let turns = async move {
                    for _ in 0..10 {
                        assert_eq!(number(), Some(n));
                        assert_eq!(TEXT.with(String::len), n as usize);
                        yield_now().await;
                    }
                };
                spawn_local(NUMBER.scope(n, TEXT.scope("x".repeat(n as usize), turns)))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
            assert_eq!(number(), None);
        }
    });
}

#[test]
fn outside_of_a_scope_it_is_an_error_or_a_panic_that_says_so() {
    let error = NUMBER.try_with(|_| ()).unwrap_err();
    assert!(error.to_string().contains("scope"), "{error}");
    assert_eq!(NUMBER.try_get().unwrap_err(), error);
    let said = panics(|| NUMBER.with(|_| ()));
    assert!(said.contains("outside of its scope"), "{said}");
    assert_eq!(panics(|| NUMBER.get()), said);
}

#[test]
fn the_inner_of_two_scopes_counts_and_the_outer_one_comes_back_even_after_a_panic() {
    let _watchdog = watchdog();
    block_on(NUMBER.scope(1, async {
        NUMBER
            .scope(2, async {
                assert_eq!(number(), Some(2));
                yield_now().await;
                assert_eq!(number(), Some(2));
            })
            .await;
        assert_eq!(number(), Some(1));
        assert_eq!(NUMBER.sync_scope(3, number), Some(3));
        panics(|| NUMBER.sync_scope(4, || panic!("on purpose")));
        assert_eq!(number(), Some(1));
        panics(|| poll_once(&mut pin!(NUMBER.scope(5, async { panic!("on purpose") }))));
        assert_eq!(number(), Some(1));
    }));
    assert_eq!(number(), None);
}

#[test]
fn who_reads_a_value_may_open_a_scope_of_the_same_key() {
    let _watchdog = watchdog();
    NUMBER.sync_scope(1, || {
        NUMBER.with(|outer| {
            assert_eq!(NUMBER.sync_scope(2, number), Some(2));
            let mut scope = pin!(NUMBER.scope(3, async { number() }));
            assert_eq!(poll_once(&mut scope), Poll::Ready(Some(3)));
            assert_eq!((*outer, number()), (1, Some(1)));
        });
    });
    LOG.sync_scope(RefCell::default(), || {
        LOG.with(|log| log.borrow_mut().push(1));
        LOG.with(|log| assert_eq!(*log.borrow(), [1]));
    });
}

#[test]
fn tasks_see_no_value_of_those_around_them() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    NUMBER.sync_scope(1, || {
        runtime
            .block_on(async {
                assert_eq!(number(), Some(1), "the future is run in the scope");
                let spawned = spawn_local(async { number() });
                assert_eq!(spawned.await.unwrap(), None);
                let scoped = NUMBER.scope(2, async {
                    let spawned = spawn_local(async { number() });
                    (number(), spawned.await.unwrap())
                });
                assert_eq!(scoped.await, (Some(2), None));
            })
            .unwrap();
    });
    // Another runtime is closed within a scope: its tasks are dropped there.
    let seen = Rc::new(Cell::new(Some(0)));
    let other = Runtime::new().unwrap();
    let at_end = seen.clone();
    let guard = OnDrop(move || at_end.set(number()));
    other
        .spawn_local(async move {
            let _guard = guard;
            pending::<()>().await
        })
        .unwrap();
    turn_until(&other, || other.metrics().polls > 0);
    runtime
        .block_on(async {
            let scope = NUMBER.scope(3, async {
                drop(other);
                number()
            });
            assert_eq!(spawn_local(scope).await.unwrap(), Some(3));
        })
        .unwrap();
    assert_eq!(seen.get(), None);
}

#[test]
fn the_value_is_there_while_the_future_is_dropped_whatever_drops_it() {
    let _watchdog = watchdog();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let scoped = |n: u32, waits: bool| {
        let seen = seen.clone();
        let guard = OnDrop(move || seen.lock().unwrap().push((n, number())));
        NUMBER.scope(n, async move {
            let _guard = guard;
            if waits {
                pending::<()>().await;
            }
        })
    };
    // It ends; it is never polled; it is dropped half-way; it is aborted; its runtime closes; its home exits.
    let runtime = Runtime::new().unwrap();
    runtime.block_on(scoped(1, false)).unwrap();
    drop(scoped(2, true));
    let mut half_way = Box::pin(scoped(3, true));
    assert!(poll_once(&mut half_way).is_pending());
    drop(half_way);
    let aborted = runtime.spawn_local(scoped(4, true)).unwrap();
    runtime.block_on(yield_now()).unwrap();
    aborted.abort();
    assert!(runtime.block_on(aborted).unwrap().unwrap_err().is_cancelled());
    runtime.spawn_local(scoped(5, true)).unwrap();
    runtime.block_on(yield_now()).unwrap();
    drop(runtime);
    let worker = Worker::new();
    let at_exit = scoped(6, true);
    let runtime = worker.run(move || {
        let runtime = Runtime::new().unwrap();
        // Bound before the thread first uses the key.
        runtime.block_on(async { drop(spawn_local(at_exit)) }).unwrap();
        runtime
    });
    worker.exit();
    assert_eq!(
        *seen.lock().unwrap(),
        [1, 2, 3, 4, 5, 6].map(|n| (n, Some(n))),
        "of each scope its own"
    );
    drop(runtime);
}

#[test]
fn a_value_can_be_taken_back() {
    let _watchdog = watchdog();
    block_on(async {
        let mut scope = pin!(TEXT.scope("a".to_owned(), async {
            yield_now().await;
            TEXT.try_get()
        }));
        assert!(poll_here(scope.as_mut()).await.is_pending());
        assert_eq!(scope.as_mut().take_value().as_deref(), Some("a"));
        assert_eq!(scope.as_mut().take_value(), None);
        // A scope without a value hides the outer one.
        let seen = TEXT.sync_scope("b".to_owned(), || poll_once(&mut scope.as_mut()));
        assert!(matches!(seen, Poll::Ready(Err(_))), "{seen:?}");

        let mut scope = pin!(TEXT.scope("c".to_owned(), async {}));
        scope.as_mut().await;
        assert_eq!(scope.take_value().as_deref(), Some("c"));
    });
}

#[test]
fn a_scope_that_moves_between_threads_takes_its_value_along() {
    let _watchdog = watchdog();
    let home = Builder::new().start("home").unwrap();
    let mut scope = Box::pin(LOG.scope(RefCell::default(), async {
        for n in 0..4 {
            LOG.with(|log| log.borrow_mut().push(n));
            yield_now().await;
        }
        LOG.with(|log| log.borrow().clone())
    }));
    assert!(poll_once(&mut scope).is_pending());
    let worker = Worker::new();
    let mut scope = worker.run(move || {
        assert!(poll_once(&mut scope).is_pending());
        assert!(LOG.try_with(|_| ()).is_err());
        scope
    });
    assert!(poll_once(&mut scope).is_pending());
    let log = home.spawner().spawn(scope).wait().unwrap().unwrap();
    assert_eq!(log, [0, 1, 2, 3]);
}

#[test]
fn futures_that_are_polled_within_a_scope_by_hand_see_its_value() {
    let _watchdog = watchdog();
    let both = async { futures::join!(async { number() }, poll_fn(|_| Poll::Ready(number()))) };
    assert_eq!(block_on(NUMBER.scope(1, both)), (Some(1), Some(1)));
    let nested = async { futures::executor::block_on(async { number() }) };
    assert_eq!(
        block_on(async { spawn_local(NUMBER.scope(2, nested)).await.unwrap() }),
        Some(2)
    );
    // A key is a value that can be handed on.
    let key: &'static LocalKey<u32> = &NUMBER;
    assert_eq!(key.sync_scope(3, || key.get()), 3);
}
