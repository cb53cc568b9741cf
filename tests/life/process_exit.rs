//! The process exits from inside a task: a future under poll is never dropped.

use std::future::pending;
use std::io::Write;
use std::process::exit;

use evbase::{Builder, Runtime};

use crate::support::{OnDrop, alone_until_exit};

/// Says on standard error, which is not captured, that a destructor ran.
fn tell(what: &'static str) -> OnDrop<impl FnMut()> {
    OnDrop(move || {
        let _ = writeln!(std::io::stderr(), "dropped: {what}");
    })
}

fn assert_exited(output: Option<std::process::Output>) {
    let Some(output) = output else {
        unreachable!("the process has not exited");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(!said.contains("dropped:"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_exit_inside_a_task_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Runtime::new().unwrap();
        let other = tell("another task");
        drop(runtime.spawn_local(async move {
            let _other = other;
            pending::<()>().await;
        }));
        let root = tell("the root");
        let _ = runtime.block_on(async move {
            let _root = root;
            let task = tell("the task");
            evbase::spawn_local(async move {
                let _task = task;
                evbase::yield_now().await;
                exit(7);
            })
            .await
            .unwrap();
        });
    }));
}

#[test]
fn an_exit_inside_the_root_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Runtime::new().unwrap();
        let root = tell("the root");
        let _ = runtime.block_on(async move {
            let _root = root;
            exit(7);
        });
    }));
}

#[test]
fn an_exit_inside_a_task_of_a_started_runtime_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Builder::new().start("home").unwrap();
        let probe = tell("the task");
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            exit(7);
        }));
        runtime.shutdown_handle().terminated().wait().unwrap();
    }));
}

#[test]
fn an_exit_inside_a_task_after_a_stop_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Builder::new().grace(std::time::Duration::MAX).build().unwrap();
        let probe = tell("the task");
        drop(runtime.spawn_local(async move {
            let _probe = probe;
            evbase::Shutdown::current().requested().await;
            evbase::yield_now().await;
            exit(7);
        }));
        drop(runtime);
    }));
}

#[test]
fn an_exit_inside_a_destructor_at_the_end_drops_it_once() {
    let output = alone_until_exit(|| {
        let runtime = Runtime::new().unwrap();
        let probe = OnDrop(|| {
            let _ = writeln!(std::io::stderr(), "once");
            exit(7);
        });
        drop(runtime.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        drop(runtime);
    });
    let Some(output) = output else {
        unreachable!("the process has not exited");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert_eq!(said.matches("once").count(), 1, "{said}");
}

#[test]
fn an_exit_on_another_thread_leaves_home_alone() {
    assert_exited(alone_until_exit(|| {
        let runtime = crate::support::parked(Builder::new());
        let probe = tell("the task");
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        exit(7);
    }));
}

#[test]
fn an_exit_inside_a_task_drops_nothing_of_other_runtimes_of_the_thread_either() {
    assert_exited(alone_until_exit(|| {
        let other = Runtime::new().unwrap();
        let probe = tell("a task of the other runtime");
        drop(other.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        other.block_on(evbase::yield_now()).unwrap();
        let runtime = Runtime::new().unwrap();
        let _ = runtime.block_on(async { exit(7) });
    }));
}

#[test]
fn an_exit_inside_a_waker_at_home_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Builder::new().start("home").unwrap();
        let probe = tell("the task");
        drop(runtime.spawner().spawn(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let mut requested = runtime.shutdown_handle().requested();
        let exits = crate::support::waker_fn(|| exit(7));
        assert!(crate::support::poll_with(&mut requested, &exits).is_pending());
        runtime.shutdown_handle().request();
        runtime.shutdown_handle().terminated().wait().unwrap();
    }));
}

#[test]
fn an_exit_inside_the_closure_of_spawn_with_drops_nothing() {
    assert_exited(alone_until_exit(|| {
        let runtime = Runtime::new().unwrap();
        let probe = tell("another task");
        drop(runtime.spawn_local(async move {
            let _probe = probe;
            pending::<()>().await;
        }));
        let held = tell("what the closure holds");
        drop(runtime.spawner().spawn_with(move || {
            let _held = held;
            exit(7);
            #[allow(unreachable_code)]
            async {}
        }));
        runtime.run().unwrap();
    }));
}
