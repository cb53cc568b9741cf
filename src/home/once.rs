//! A value that is set once, and the wakers of those who wait for it, on any thread.

use std::task::Waker;

use crate::executor::catch_panic;
use crate::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Once<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting {
        wakers: Vec<Option<Waiting>>,
        free: Vec<usize>,
    },
    Set(T),
}

/// A waker, and whether a poll of its waiter may have the value set.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    can_help: bool,
}

/// Kept by a waiter: the index of its waker.
#[derive(Debug, Default)]
pub(crate) struct Waiter(Option<usize>);

impl<T: Copy> Once<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Waiting {
            wakers: Vec::new(),
            free: Vec::new(),
        }))
    }

    pub(crate) fn get(&self) -> Option<T> {
        match *self.0.lock() {
            State::Set(value) => Some(value),
            State::Waiting { .. } => None,
        }
    }

    /// The value; if it isn't set, the waiter's waker is kept until it is. Wakers are cloned and dropped outside of the lock.
    pub(crate) fn poll(&self, waiter: &mut Waiter, waker: &Waker, can_help: bool) -> Option<T> {
        {
            let state = self.0.lock();
            match &*state {
                State::Set(value) => return Some(*value),
                State::Waiting { wakers, .. } => {
                    let held = waiter.0.and_then(|at| wakers[at].as_ref());
                    if held.is_some_and(|held| held.can_help == can_help && held.waker.will_wake(waker)) {
                        return None;
                    }
                }
            }
        }
        let waker = waker.clone();
        let mut state = self.0.lock();
        let (value, left) = match &mut *state {
            State::Set(value) => (Some(*value), Some(waker)),
            State::Waiting { wakers, free } => {
                let at = *waiter.0.get_or_insert_with(|| {
                    free.pop().unwrap_or_else(|| {
                        wakers.push(None);
                        wakers.len() - 1
                    })
                });
                (
                    None,
                    wakers[at].replace(Waiting { waker, can_help }).map(|held| held.waker),
                )
            }
        };
        drop(state);
        drop(left);
        value
    }

    /// Removes a waiter.
    pub(crate) fn leave(&self, waiter: &mut Waiter) {
        let Some(at) = waiter.0.take() else {
            return;
        };
        let mut state = self.0.lock();
        let left = match &mut *state {
            State::Set(_) => None,
            State::Waiting { wakers, free } => {
                free.push(at);
                wakers[at].take()
            }
        };
        drop(state);
        drop(left);
    }

    /// Wakes those whose poll may have the value set.
    pub(crate) fn nudge(&self) {
        let helps = |held: &mut Option<Waiting>| held.take_if(|held| held.can_help);
        let helpers: Vec<_> = match &mut *self.0.lock() {
            State::Set(_) => return,
            State::Waiting { wakers, .. } => wakers.iter_mut().filter_map(helps).collect(),
        };
        helpers.into_iter().for_each(|held| catch_panic::wake(held.waker));
    }

    /// Sets the value, and wakes all who wait. Later calls do nothing.
    pub(crate) fn set(&self, value: T) {
        let mut state = self.0.lock();
        let wakers = match &mut *state {
            State::Set(_) => return,
            State::Waiting { wakers, .. } => std::mem::take(wakers),
        };
        *state = State::Set(value);
        drop(state);
        for held in wakers.into_iter().flatten() {
            catch_panic::wake(held.waker);
        }
    }
}
