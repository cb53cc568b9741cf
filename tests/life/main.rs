//! The life of a runtime: how it begins, who stops it, from where, and what is left of it.

#[path = "../support/mod.rs"]
mod support;

mod a_thousand_descriptors;
mod builder;
mod closing;
mod contexts;
mod counts;
mod drop_at_home;
mod foreign_drop;
mod fork_child;
mod grace;
mod handles_outlive_runtime;
mod home_exits;
mod late_stops;
mod origin_story;
mod process_exit;
mod rings;
mod runtime_in_a_task_of_itself;
mod stop_before_run;
mod stop_from_a_signal_handler;
mod stop_is_told;
mod stop_refuses_work;
mod stopped_calls;
mod thread_locals;
mod two_runtimes_on_a_thread;
mod waiting_homes;
