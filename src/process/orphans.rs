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
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use crate::base::fork::{Birth, PerProcess};

struct Orphans {
    asked: AtomicUsize,
    first: Block,
}

struct Block {
    /// Zero: free.
    slots: [AtomicI32; 64],
    next: OnceLock<Box<Block>>,
}

/// Has a child reaped when it ends. It has to be a child of this process that nobody has reaped, or will.
pub(super) fn adopt(pid: u32) {
    if kernel_reaps() {
        return;
    }
    let orphans = Orphans::of_process();
    orphans.insert(pid as libc::pid_t);
    // It may have ended before it was there to be found.
    orphans.reap();
}

impl Orphans {
    /// The list of this process, with a handler.
    fn of_process() -> &'static Self {
        static ORPHANS: PerProcess<Orphans> = PerProcess::new();
        let make = || Self {
            asked: AtomicUsize::new(0),
            first: Block::new(),
        };
        let (orphans, is_new) = ORPHANS.get(make);
        if is_new {
            let birth = Birth::here();
            let reap = move || {
                if !birth.is_child() {
                    orphans.reap();
                }
            };
            // SAFETY: the list's `reap` is async-signal-safe, and so is the question before it. (An error, which the kernel has
            // none for, would leave the handler's work to the next adoption.)
            let _ = unsafe { signal_hook_registry::register(libc::SIGCHLD, reap) };
            // Others may have adopted before the handler was there.
            orphans.reap();
        }
        orphans
    }

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
        if self.asked.fetch_add(1, AcqRel) != 0 {
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
    // SAFETY: asks only; the kernel writes to the local during the call, and one that succeeds has filled it in.
    let action = unsafe {
        if libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) != 0 {
            return false;
        }
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}
