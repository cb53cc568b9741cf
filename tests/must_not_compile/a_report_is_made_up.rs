//! What may get more fields or kinds is neither made nor taken apart completely outside of the crate.

use evbase::{Cause, Report, RunError, SpawnErrorKind, Turn, WaitError};

fn report() -> Report {
    Report {
        cause: Cause::Dropped,
        completed: 0,
        cancelled: 0,
        panicked: 0,
    }
}

fn turn() -> Turn {
    Turn {
        events: 0,
        timers: 0,
        polls: 0,
        closed: false,
    }
}

fn run(error: RunError) {
    match error {
        RunError::Stopped | RunError::NotHome { .. } | RunError::Nested => {}
        RunError::Forked | RunError::ThreadExiting | RunError::Io(_) => {}
    }
}

fn wait(error: WaitError) {
    match error {
        WaitError::InsideLoop | WaitError::Unbound | WaitError::Forked => {}
        WaitError::ThreadExiting | WaitError::Io(_) => {}
    }
}

fn spawn(kind: SpawnErrorKind) {
    match kind {
        SpawnErrorKind::Stopped | SpawnErrorKind::NotHome { .. } => {}
        SpawnErrorKind::Forked | SpawnErrorKind::ThreadExiting => {}
    }
}

fn main() {}
