//! Child processes: [`Command`] and [`Child`].
//!
//! The builder is the standard library's, and so is what it asks of the operating system; a [`Child`] is awaited, and its pipes
//! are read and written, in any loop of evbase's. No thread is started.
//!
//! # Who waits for the end of a child
//!
//! | platform | how |
//! |---|---|
//! | Linux | a pidfd, which the loop watches as an [`AsyncFd`](crate::io::AsyncFd) |
//! | macOS, BSD | a kqueue with `EVFILT_PROC`, which the loop watches in the same way |
//! | neither to be had (Linux before 5.3, a sandbox) | SIGCHLD, as [`Signals`](crate::signal::Signals) |
//!
//! A child is only ever waited for by its number, and only while nobody has: children of others are never reaped.
//!
//! # Who reaps a child whose [`Child`] was dropped
//!
//! It runs on, unless [`kill_on_drop`](Command::kill_on_drop) says otherwise, and leaves no zombie when it ends:
//!
//! * The loop that last awaited it reaps it when it ends; if there was none, or that has closed, the loop that ran where it was
//!   dropped. That loop is woken for it, or does it when it next runs. No task is spent on it, and no grace period waits for it.
//! * If there was no such loop, or it closes before the child ends, or the child could only be waited for by SIGCHLD, a handler of
//!   SIGCHLD reaps it, on whichever thread the kernel runs that. The handler is installed for the first such child, and stays. It
//!   calls the handler that was there before, and interrupts system calls of the program as any handler does. (Where SIGCHLD is
//!   ignored, the kernel reaps, and no handler is installed.)
//! * A process that ends leaves its children to `init`, as ever.
//!
//! In the child of a `fork`, a `Child` of the parent's answers with errors, and its drop neither kills nor reaps.

mod child;
mod command;
mod exit;
mod orphans;
mod pipes;
mod reaper;

pub use std::process::{ExitStatus, Output};

pub use child::Child;
pub use command::Command;
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
