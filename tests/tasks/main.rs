//! Tasks: spawned from anywhere, woken, joined, aborted, and none of them starved.

#[path = "../support/mod.rs"]
mod support;

mod abort_on_drop;
mod block_on;
#[cfg(feature = "net")]
mod budget;
mod fairness;
mod ids;
mod join_handle;
mod join_set;
mod large_futures;
mod no_lost_wakeups;
mod priorities;
mod shuffled;
mod spawner;
mod task_local;
#[cfg(feature = "unblock")]
mod unblock;
mod user_code_comes_back;
mod wakers_may_do_anything;
