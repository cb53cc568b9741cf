//! Values that say where they were dropped.

use std::io::Write;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use super::{test_name, until};

/// Remembers where its probes were dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Arc<Mutex<Vec<ThreadId>>>);

impl Drops {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Goes anywhere.
    pub(crate) fn probe(&self) -> DropProbe {
        DropProbe(self.clone())
    }

    /// Must stay where it was made.
    pub(crate) fn local_probe(&self) -> LocalDropProbe {
        LocalDropProbe {
            made_on: thread::current().id(),
            probe: self.probe(),
            not_send: PhantomData,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn threads(&self) -> Vec<ThreadId> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until `n` probes were dropped.
    pub(crate) fn wait_for(&self, n: usize) -> Vec<ThreadId> {
        until(|| self.count() >= n);
        self.threads()
    }

    /// Exactly `n` probes were dropped, all of them on `home`.
    #[track_caller]
    pub(crate) fn assert_on(&self, home: ThreadId, n: usize) {
        assert_eq!(self.threads(), vec![home; n]);
    }
}

/// Records the thread on which it is dropped.
#[derive(Debug)]
pub(crate) struct DropProbe(Drops);

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().push(thread::current().id());
    }
}

/// As `DropProbe`, but not `Send`; ends the process if it is dropped somewhere else all the same.
#[derive(Debug)]
pub(crate) struct LocalDropProbe {
    made_on: ThreadId,
    probe: DropProbe,
    not_send: PhantomData<Rc<()>>,
}

impl LocalDropProbe {
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(
            thread::current().id(),
            self.made_on,
            "touched on a thread where it was not made"
        );
    }
}

impl Drop for LocalDropProbe {
    fn drop(&mut self) {
        if self.made_on != thread::current().id() {
            let _ = writeln!(
                std::io::stderr(),
                "a value that is not Send was dropped abroad: `{}`",
                test_name()
            );
            std::process::abort();
        }
    }
}

/// Runs a closure when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
