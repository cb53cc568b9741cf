//! The bytes on the heap: at rest, they are sharper than resident memory, in which a small leak hides for long.

use crate::support::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Keeps malloc to one arena: else each of many grows to the most that it ever held, which takes hours, and looks like a
/// leak. To be called before there are threads.
pub(crate) fn one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer; malloc's own lock guards it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel, so that resident memory is what is in use.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer; malloc's own lock guards it.
    unsafe {
        libc::malloc_trim(0);
    }
}
