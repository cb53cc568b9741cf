//! Children that no loop looks after, and nobody wants to know of: a handler of SIGCHLD reaps them.
//!
//! ```text
//!   slot     0 -> pid     adopt, on any thread
//!            pid -> 0     reap, when the child has been reaped
//!   asked    n -> n + 1   somebody asks for a look at all slots: after an adoption, or when SIGCHLD comes. Who finds 0 looks
//!            n -> 0       who looks has seen all slots since the n-th asked; else it looks again
//! ```
//!
//! One thread, or handler, looks at a time, so that no pid is waited for once it has been reaped, when it may be another child's.
//! A handler that interrupts who looks asks, and returns.
//!
//! The list only grows, by blocks, so that handlers can walk it. It is the process's: in the child of a fork the inherited handler
//! does nothing, and the first adoption makes another list.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use crate::base::fork::Birth;

struct Orphans {
    birth: Birth,
    asked: AtomicUsize,
    first: Block,
}

struct Block {
    /// Zero: free.
    slots: [AtomicI32; 64],
    next: OnceLock<Box<Block>>,
}

/// The list of this process, or of the one that it was forked off.
static ORPHANS: AtomicPtr<Orphans> = AtomicPtr::new(ptr::null_mut());

/// Has a child reaped when it ends. It has to be a child of this process that nobody has reaped, or will.
pub(super) fn adopt(pid: u32) {
    if kernel_reaps() {
        return;
    }
    let orphans = list();
    orphans.insert(pid as libc::pid_t);
    // It may have ended before it was there to be found.
    orphans.reap();
}

fn list() -> &'static Orphans {
    let mut current = ORPHANS.load(Acquire);
    loop {
        // SAFETY: what is stored there is leaked.
        let orphans = unsafe { current.as_ref() };
        if let Some(orphans) = orphans.filter(|orphans| !orphans.birth.is_child()) {
            return orphans;
        }
        let new = Box::leak(Box::new(Orphans {
            birth: Birth::here(),
            asked: AtomicUsize::new(0),
            first: Block::new(),
        }));
        let new = ptr::from_mut(new);
        match ORPHANS.compare_exchange(current, new, AcqRel, Acquire) {
            Ok(_) => {
                // SAFETY: leaked.
                let orphans: &'static Orphans = unsafe { &*new };
                // SAFETY: `reap` is async-signal-safe. (An error, which the kernel has none for, would leave its work to the next
                // adoption.)
                let _ = unsafe { signal_hook_registry::register(libc::SIGCHLD, || orphans.reap()) };
                // Others may have adopted before the handler was there.
                orphans.reap();
                return orphans;
            }
            Err(other) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                current = other;
            }
        }
    }
}

impl Orphans {
    fn insert(&self, pid: i32) {
        let mut block = &self.first;
        loop {
            for slot in &block.slots {
                if slot.compare_exchange(0, pid, AcqRel, Acquire).is_ok() {
                    return;
                }
            }
            block = block.next.get_or_init(|| Box::new(Block::new()));
        }
    }

    /// Reaps those that have ended. Async-signal-safe: atomics and `waitpid`. (The registry's handler keeps `errno`.)
    fn reap(&self) {
        if self.birth.is_child() || self.asked.fetch_add(1, AcqRel) != 0 {
            return;
        }
        let mut asked = 1;
        loop {
            let mut block = Some(&self.first);
            while let Some(Block { slots, next }) = block {
                for slot in slots {
                    let pid = slot.load(Acquire);
                    if pid != 0 && is_reaped(pid) {
                        slot.store(0, Release);
                    }
                }
                block = next.get().map(|next| &**next);
            }
            match self.asked.compare_exchange(asked, 0, AcqRel, Acquire) {
                Ok(_) => return,
                Err(more) => asked = more,
            }
        }
    }
}

impl Block {
    fn new() -> Self {
        Self {
            slots: [const { AtomicI32::new(0) }; 64],
            next: OnceLock::new(),
        }
    }
}

/// Reaps a child, if it has ended. True as well if somebody else has reaped it.
fn is_reaped(pid: i32) -> bool {
    // SAFETY: no status is asked for. The pid is that of a child of ours: it is in the list until it is reaped.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// Whether SIGCHLD is ignored, so that nobody need reap a child, and its number is free when it ends.
fn kernel_reaps() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only; the kernel writes to the local during the call.
    if unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it has filled in the structure.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}
