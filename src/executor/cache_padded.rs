//! A cache line of one's own.

use std::ops::Deref;

/// In cache lines of its own (two, for processors that prefetch the next one): writing it slows down no reader of the fields
/// beside it.
#[repr(align(128))]
pub(super) struct CachePadded<T>(pub(super) T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
