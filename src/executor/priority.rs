//! The priorities of tasks.

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
