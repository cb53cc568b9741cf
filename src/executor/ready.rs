//! A queue of tasks to poll, first in, first out.
//!
//! Two vectors: one is taken from, the other is added to, and they change places when the first is used up. That takes half the
//! instructions of a ring.

use std::mem;
use std::ptr::NonNull;

use super::task::Header;

/// Up to this capacity a queue keeps its memory.
pub(super) const KEPT: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// The older ones. Those before `next` have been taken.
    batch: Vec<NonNull<Header>>,
    next: usize,
    /// The newer ones.
    incoming: Vec<NonNull<Header>>,
}

impl Ready {
    pub(super) fn len(&self) -> usize {
        self.batch.len() - self.next + self.incoming.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn push(&mut self, task: NonNull<Header>) {
        self.incoming.push(task);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<NonNull<Header>> {
        if self.next == self.batch.len() {
            self.batch.clear();
            self.next = 0;
            mem::swap(&mut self.batch, &mut self.incoming);
        }
        let task = *self.batch.get(self.next)?;
        self.next += 1;
        Some(task)
    }

    /// All of them, oldest first.
    pub(super) fn as_mut_slice(&mut self) -> &mut [NonNull<Header>] {
        self.batch.drain(..self.next);
        self.next = 0;
        self.batch.append(&mut self.incoming);
        &mut self.batch
    }

    /// Gives half of a larger queue's memory back, if it is nearly empty.
    #[inline]
    pub(super) fn shrink(&mut self) {
        if self.capacity() > KEPT && self.len() < self.capacity() / 8 {
            self.halve();
        }
    }

    #[cold]
    fn halve(&mut self) {
        self.as_mut_slice();
        for half in [&mut self.batch, &mut self.incoming] {
            half.shrink_to(half.capacity() / 2);
        }
    }

    /// For how many tasks there is memory.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.batch.capacity() + self.incoming.capacity()
    }
}
