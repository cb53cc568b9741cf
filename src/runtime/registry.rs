//! From a runtime's id to its shared half, for small things that know nothing but the id: a timer that is dropped abroad,
//! a join handle that waits. Rarely asked.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::shared::Shared;
use crate::base::fork;

type Runtimes = Option<HashMap<u64, Weak<Shared>>>;

// The standard library's mutex: it is unlocked in the child of a fork, where a table of waiting threads, shared by all
// locks, could itself be locked by a thread that isn't there.
static RUNTIMES: Mutex<Runtimes> = Mutex::new(None);

fn runtimes() -> MutexGuard<'static, Runtimes> {
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id that no other runtime of this process ever has.
pub(super) fn new_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

pub(super) fn insert(shared: &Arc<Shared>) {
    hold_over_forks();
    runtimes()
        .get_or_insert_default()
        .insert(shared.id(), Arc::downgrade(shared));
}

pub(super) fn remove(id: u64) {
    if let Some(runtimes) = runtimes().as_mut() {
        runtimes.remove(&id);
    }
}

/// The shared half of the runtime with this id; `None` when it is closed.
pub(crate) fn find(id: u64) -> Option<Arc<Shared>> {
    runtimes().as_ref()?.get(&id)?.upgrade()
}

/// Takes the lock before each fork and gives it back after it, so that no child inherits it from a thread it hasn't.
fn hold_over_forks() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        static HELD: Cell<Option<MutexGuard<'static, Runtimes>>> = const { Cell::new(None) };
    }

    // A thread that forks while its thread-locals are being destroyed goes without the lock.
    extern "C" fn lock() {
        let _ = HELD.try_with(|held| {
            // Installed twice, by two threads at once, this runs twice as well.
            let guard = held.take().unwrap_or_else(runtimes);
            held.set(Some(guard));
        });
    }

    // On the thread of `lock`, in the process or its child.
    extern "C" fn unlock() {
        drop(HELD.try_with(Cell::take));
    }

    // Without them (there was no memory for it), only a child that makes a runtime while another thread of its parent was
    // just making one could hang.
    let _ = fork::install(&INSTALLED, [Some(lock), Some(unlock), Some(unlock)]);
}
