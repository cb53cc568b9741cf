//! Priorities: whose turn it is among the ready tasks, when there are some of other than normal priority.

use std::collections::VecDeque;
use std::ptr::NonNull;

use super::task::Header;

/// Which of the ready tasks are polled first.
///
/// Given to a spawner, by [`Spawner::with_priority`](crate::Spawner::with_priority) or
/// [`LocalSpawner::with_priority`](crate::LocalSpawner::with_priority), whose tasks have it for life. Tasks don't inherit it: what a
/// task spawns by other ways is `Normal`.
///
/// Of the ready tasks, those of a higher priority are polled first, in the order in which they became ready. But after 16 polls
/// in a row of one priority, the next lower one that has ready tasks gets one poll. So the higher ones can't starve the
/// lower ones: of endlessly many, a `Low` task is polled after some 300 polls at most.
///
/// It concerns ready tasks only. Descriptors and timers are served as ever, and a running poll is never interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Before the others.
    High,
    /// That of all tasks for which nothing else was asked, and of the future of [`block_on`](crate::Runtime::block_on).
    #[default]
    Normal,
    /// After the others.
    Low,
}

/// How many polls in a row a priority gets while a lower one waits.
const MOST_IN_A_ROW: u32 = 16;

/// The ready tasks of other than normal priority, oldest first.
#[derive(Debug, Default)]
pub(super) struct Levels {
    high: VecDeque<NonNull<Header>>,
    low: VecDeque<NonNull<Header>>,
    /// Polls of high priority since the last lower one, and of normal priority since the last low one.
    high_in_a_row: u32,
    normal_in_a_row: u32,
}

impl Levels {
    pub(super) fn is_empty(&self) -> bool {
        self.high.is_empty() && self.low.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.high.len() + self.low.len()
    }

    pub(super) fn push(&mut self, task: NonNull<Header>, priority: Priority, normal: &mut VecDeque<NonNull<Header>>) {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => normal,
            Priority::Low => &mut self.low,
        }
        .push_back(task);
    }

    /// The task whose turn it is; `normal` are those of normal priority.
    pub(super) fn pop(&mut self, normal: &mut VecDeque<NonNull<Header>>) -> Option<NonNull<Header>> {
        let no_lower_waits = normal.is_empty() && self.low.is_empty();
        if self.high_in_a_row < MOST_IN_A_ROW || no_lower_waits {
            if let Some(task) = self.high.pop_front() {
                self.high_in_a_row = self.high_in_a_row.saturating_add(1);
                return Some(task);
            }
        }
        self.high_in_a_row = 0;
        if self.normal_in_a_row < MOST_IN_A_ROW || self.low.is_empty() {
            if let Some(task) = normal.pop_front() {
                self.normal_in_a_row = self.normal_in_a_row.saturating_add(1);
                return Some(task);
            }
        }
        self.normal_in_a_row = 0;
        self.low.pop_front()
    }
}
