//! Wakers that wait for one event of a runtime's life, from any thread.

use std::task::Waker;

use crate::executor::guard;
use crate::sync::Mutex;

/// An event that happens once, with what it brings.
#[derive(Debug)]
pub(crate) struct Once<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting {
        wakers: Vec<Option<Waker>>,
        free: Vec<usize>,
    },
    Happened(T),
}

/// Where a waiter's waker is kept.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<usize>);

impl<T: Copy> Once<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Waiting {
            wakers: Vec::new(),
            free: Vec::new(),
        }))
    }

    pub(crate) fn get(&self) -> Option<T> {
        match *self.0.lock() {
            State::Happened(value) => Some(value),
            State::Waiting { .. } => None,
        }
    }

    /// Leaves the waker in the waiter's place, unless the event has happened. A waker that it replaces is dropped, and
    /// this one cloned, outside of the lock.
    pub(crate) fn poll(&self, place: &mut Place, waker: &Waker) -> Option<T> {
        {
            let state = self.0.lock();
            match &*state {
                State::Happened(value) => return Some(*value),
                State::Waiting { wakers, .. } => {
                    let held = place.0.and_then(|place| wakers[place].as_ref());
                    if held.is_some_and(|held| held.will_wake(waker)) {
                        return None;
                    }
                }
            }
        }
        let waker = waker.clone();
        let mut state = self.0.lock();
        let (happened, left) = match &mut *state {
            State::Happened(value) => (Some(*value), Some(waker)),
            State::Waiting { wakers, free } => {
                let at = *place.0.get_or_insert_with(|| {
                    free.pop().unwrap_or_else(|| {
                        wakers.push(None);
                        wakers.len() - 1
                    })
                });
                (None, wakers[at].replace(waker))
            }
        };
        drop(state);
        drop(left);
        happened
    }

    /// Gives a waiter's place up.
    pub(crate) fn leave(&self, place: &mut Place) {
        let Some(at) = place.0.take() else {
            return;
        };
        let mut state = self.0.lock();
        let left = match &mut *state {
            State::Happened(_) => None,
            State::Waiting { wakers, free } => {
                free.push(at);
                wakers[at].take()
            }
        };
        drop(state);
        drop(left);
    }

    /// The event happens: wakes all who wait. Later calls do nothing.
    pub(crate) fn happen(&self, value: T) {
        let mut state = self.0.lock();
        let wakers = match &mut *state {
            State::Happened(_) => return,
            State::Waiting { wakers, .. } => std::mem::take(wakers),
        };
        *state = State::Happened(value);
        drop(state);
        for waker in wakers.into_iter().flatten() {
            guard::wake(waker);
        }
    }
}
