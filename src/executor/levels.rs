//! Whose turn it is among the ready tasks, when there are some of other than normal priority, or the run is shuffled.

use std::ptr::NonNull;

use super::priority::Priority;
use super::ready::Ready;
use super::task::Header;
use crate::random::Random;

/// How many polls in a row a priority gets while a lower one waits.
const MOST_IN_A_ROW: u32 = 16;

/// The ready tasks where they aren't taken one after the other: there are, or were, some of other than normal priority, or the run is
/// shuffled. Those of normal priority are in a queue of their own, until they are in a batch.
#[derive(Debug, Default)]
pub(super) struct Levels {
    high: Ready,
    low: Ready,
    turns: Turns,
    batch: Option<Batch>,
}

/// In a run that is shuffled: the ready tasks that are polled before any others, in a random order within their level. What becomes ready
/// meanwhile comes in the next batch: nobody is overtaken for ever.
#[derive(Debug)]
struct Batch {
    random: Random,
    /// High, normal, low.
    levels: [Ready; 3],
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    /// Polls of high priority since the last lower one, and of normal priority since the last low one.
    high_in_a_row: u32,
    normal_in_a_row: u32,
}

impl Levels {
    pub(super) fn shuffled(random: Random) -> Self {
        Self {
            batch: Some(Batch {
                random,
                levels: Default::default(),
            }),
            ..Self::default()
        }
    }

    /// How many there are, without those in the queue of normal priority.
    pub(super) fn len(&self) -> usize {
        let batch = self.batch.iter().flat_map(|batch| &batch.levels).map(Ready::len);
        self.high.len() + self.low.len() + batch.sum::<usize>()
    }

    /// As [`Ready::shrink`], each of the queues.
    pub(super) fn shrink(&mut self) {
        let batch = self.batch.iter_mut().flat_map(|batch| &mut batch.levels);
        batch.chain([&mut self.high, &mut self.low]).for_each(Ready::shrink);
    }

    /// For how many tasks there is memory, without the queue of normal priority.
    #[cfg(all(test, not(evbase_loom)))]
    pub(super) fn capacity(&self) -> usize {
        let batch = self.batch.iter().flat_map(|batch| &batch.levels).map(Ready::capacity);
        self.high.capacity() + self.low.capacity() + batch.sum::<usize>()
    }

    pub(super) fn push(&mut self, task: NonNull<Header>, priority: Priority, normal: &mut Ready) {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => normal,
            Priority::Low => &mut self.low,
        }
        .push(task);
    }

    /// The task whose turn it is; `normal` are those of normal priority.
    pub(super) fn pop(&mut self, normal: &mut Ready) -> Option<NonNull<Header>> {
        let Some(batch) = &mut self.batch else {
            return self.turns.next(&mut self.high, normal, &mut self.low);
        };
        if batch.levels.iter().all(Ready::is_empty) {
            for (level, ready) in batch.levels.iter_mut().zip([&mut self.high, normal, &mut self.low]) {
                std::mem::swap(level, ready);
                batch.random.shuffle(level.as_mut_slice());
            }
        }
        let [high, normal, low] = &mut batch.levels;
        self.turns.next(high, normal, low)
    }
}

impl Turns {
    fn next(&mut self, high: &mut Ready, normal: &mut Ready, low: &mut Ready) -> Option<NonNull<Header>> {
        let no_lower_waits = normal.is_empty() && low.is_empty();
        if self.high_in_a_row < MOST_IN_A_ROW || no_lower_waits {
            if let Some(task) = high.pop() {
                self.high_in_a_row = self.high_in_a_row.saturating_add(1);
                return Some(task);
            }
        }
        self.high_in_a_row = 0;
        if self.normal_in_a_row < MOST_IN_A_ROW || low.is_empty() {
            if let Some(task) = normal.pop() {
                self.normal_in_a_row = self.normal_in_a_row.saturating_add(1);
                return Some(task);
            }
        }
        self.normal_in_a_row = 0;
        low.pop()
    }
}
