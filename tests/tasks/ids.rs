//! The ids of tasks.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::pending;
use std::rc::Rc;

use evbase::{Runtime, task};

#[test]
fn a_task_has_the_id_that_its_handles_say() {
    let runtime = Runtime::new().unwrap();
    runtime
        .block_on(async {
            assert_eq!(task::id(), None, "the future of block_on is no task");
            let here = evbase::spawn_local(async { task::id() });
            let id = here.id();
            assert_eq!(here.abort_handle().id(), id);
            assert_eq!(here.await.unwrap(), Some(id));
            assert_eq!(task::id(), None);
        })
        .unwrap();
    let spawner = runtime.spawner();
    let abroad = std::thread::spawn(move || spawner.spawn(async { task::id() }))
        .join()
        .unwrap();
    let id = abroad.id();
    assert_eq!(runtime.block_on(abroad).unwrap().unwrap(), Some(id));
    assert_eq!(task::id(), None);
}

#[test]
fn tasks_that_exist_at_the_same_time_have_different_ids() {
    let runtime = Runtime::new().unwrap();
    let other = Runtime::new().unwrap();
    let tasks: Vec<_> = (0..1000)
        .map(|number| [&runtime, &other][number % 2].spawn_local(pending::<()>()).unwrap())
        .collect();
    let ids: HashSet<_> = tasks.iter().map(|task| task.id()).collect();
    assert_eq!(ids.len(), tasks.len());
}

#[test]
fn an_id_outlasts_the_output_and_is_in_the_error() {
    let runtime = Runtime::new().unwrap();
    let mut task = runtime.spawn_local(pending::<()>()).unwrap();
    let id = task.id();
    task.abort();
    let error = runtime.block_on(&mut task).unwrap().unwrap_err();
    assert_eq!((error.id(), task.id()), (id, id));
    let error = std::io::Error::from(error);
    let inner = error.get_ref().unwrap().downcast_ref::<evbase::JoinError>().unwrap();
    assert!(inner.is_cancelled());
}

#[test]
fn refused_tasks_have_ids_of_their_own() {
    let runtime = Runtime::new().unwrap();
    let spawner = runtime.spawner();
    runtime.shutdown_handle().request();
    let [one, other] = [(); 2].map(|()| spawner.spawn(async {}));
    assert_ne!(one.id(), other.id());
    let id = one.id();
    assert_eq!(futures::executor::block_on(one).unwrap_err().id(), id);
}

#[test]
fn a_destructor_at_the_end_knows_whose_it_is() {
    struct Tells(Rc<Cell<Option<task::TaskId>>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.set(task::id());
        }
    }
    let told = Rc::new(Cell::new(None));
    let runtime = Runtime::new().unwrap();
    let tells = Tells(told.clone());
    let task = runtime
        .spawn_local(async move {
            let _tells = tells;
            pending::<()>().await;
        })
        .unwrap();
    runtime.turn(Some(std::time::Duration::ZERO)).unwrap();
    drop(runtime);
    assert_eq!(told.get(), Some(task.id()));
}

#[test]
fn a_task_keeps_its_id_whatever_it_enters_or_closes() {
    let runtime = Runtime::new().unwrap();
    let task = runtime
        .spawn_local(async {
            let entered = Runtime::new().unwrap();
            let guard = entered.enter().unwrap();
            let in_guard = task::id();
            drop(guard);
            // Closes here, and drops a task of its own.
            let others = entered.spawn_local(pending::<()>()).unwrap().id();
            drop(entered);
            [in_guard, task::id(), Some(others)]
        })
        .unwrap();
    let id = task.id();
    let [in_guard, after, others] = runtime.block_on(task).unwrap().unwrap();
    assert_eq!((in_guard, after), (Some(id), Some(id)));
    assert_ne!(others, Some(id));
}
