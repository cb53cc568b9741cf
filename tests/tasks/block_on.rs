//! The free `block_on`: a runtime for one future.

use std::future::pending;
use std::rc::Rc;
use std::thread;

use evbase::{Cause, RunError, Runtime, Shutdown, Spawner, block_on, spawn_local};

use crate::support::{Drops, Worker, panics, rounds, watchdog};

#[test]
fn its_runtime_is_closed_when_it_returns() {
    rounds(100, |_| {
        let drops = Drops::new();
        let text = String::from("borrowed");
        let (len, spawner, terminated, detached) = block_on(async {
            let probe = drops.probe();
            let detached = spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            });
            evbase::yield_now().await;
            let not_send = Rc::new(text.len());
            let len = spawn_local(async move { *not_send }).await.unwrap();
            (len, Spawner::current(), Shutdown::current().terminated(), detached)
        })
        .unwrap();
        assert_eq!(len, text.len());
        drops.assert_on(thread::current().id(), 1);
        assert!(detached.is_finished() && spawner.try_spawn(async {}).is_err());
        let report = terminated.wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 1, 1)
        );
    });
}

#[test]
fn inside_a_loop_it_is_nested() {
    let _watchdog = watchdog();
    let nested = || matches!(block_on(async {}), Err(RunError::Nested));
    assert!(block_on(async { nested() }).unwrap());
    let runtime = Runtime::new().unwrap();
    assert!(
        runtime
            .block_on(async { spawn_local(async move { nested() }).await.unwrap() })
            .unwrap()
    );
    // Outside of the loop, beside another runtime, it is not.
    let _context = runtime.enter().unwrap();
    assert_eq!(block_on(async { 1 }).unwrap(), 1);
}

#[test]
fn a_panic_closes_the_runtime_and_goes_on() {
    let _watchdog = watchdog();
    let drops = Drops::new();
    let said = panics(|| {
        block_on(async {
            let probe = drops.probe();
            spawn_local(async move {
                let _probe = probe;
                pending::<()>().await;
            });
            evbase::yield_now().await;
            panic!("on purpose");
        })
    });
    assert_eq!((said.as_str(), drops.count()), ("on purpose", 1));
    assert_eq!(block_on(async { 1 }).unwrap(), 1);
}

#[test]
fn a_future_that_ends_its_own_runtime_is_stopped() {
    let _watchdog = watchdog();
    let stopped = block_on(async {
        Shutdown::current().request();
        pending::<()>().await;
    });
    assert!(matches!(stopped, Err(RunError::Stopped)));
}

#[test]
fn a_thread_that_exits_is_told_so() {
    let _watchdog = watchdog();
    let worker = Worker::new();
    let (said, told) = std::sync::mpsc::channel();
    struct AtExit(std::sync::mpsc::Sender<bool>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let exiting = matches!(block_on(async {}), Err(RunError::ThreadExiting));
            let _ = self.0.send(exiting);
        }
    }
    thread_local!(static AT_EXIT: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) });
    worker.run(move || {
        // Its destructor runs after that of the thread's list of runtimes, which is used later.
        AT_EXIT.set(Some(AtExit(said)));
        block_on(async {}).unwrap();
    });
    worker.exit();
    assert!(told.recv().unwrap());
}
