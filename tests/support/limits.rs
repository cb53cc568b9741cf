//! What the process holds, and may hold.

/// How many descriptors and threads this process has; `None` where there is no `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

pub(crate) fn held() -> Option<Held> {
    if cfg!(evbase_libkqueue) {
        // It has some of its own, and closes late.
        return None;
    }
    let count = |path| std::fs::read_dir(path).ok().map(Iterator::count);
    Some(Held {
        descriptors: count("/proc/self/fd")?,
        threads: count("/proc/self/task")?,
    })
}

/// Resident memory in pages.
pub(crate) fn resident_pages() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse().ok()
}

/// The numbers of the open descriptors of this process.
pub(crate) fn open_descriptors() -> Vec<i32> {
    // SAFETY: F_GETFD takes no pointer, and answers EBADF for a number that is not open.
    (0..4096)
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1)
        .collect()
}

/// Sets the soft limit of open descriptors, and says what it was.
pub(crate) fn limit_descriptors(most: usize) -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the local for their length.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = (most as libc::rlim_t).min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        before as usize
    }
}

/// Lets the process have that much more memory than it has, and no thread's stack then; says what the limit was.
pub(crate) fn limit_address_space(more: usize) -> libc::rlim_t {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    limit_address_space_to((pages * page + more) as libc::rlim_t)
}

/// Sets the soft limit of the address space, and says what it was.
pub(crate) fn limit_address_space_to(most: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the local for their length.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = most.min(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
        before
    }
}
