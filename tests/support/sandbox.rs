//! System calls that the kernel refuses.

use std::io;

/// From here on the kernel answers these system calls with an errno, to all threads of the process.
pub(crate) fn forbid(calls: &[libc::c_long], errno: i32) {
    let statement = |code: u32, yes: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: 0,
        k,
    };
    // The number of the call is what a filter finds first.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        let to_the_end = (calls.len() - at) as u8;
        filter.push(statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            to_the_end,
            *call as u32,
        ));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(statement(
        libc::BPF_RET | libc::BPF_K,
        0,
        libc::SECCOMP_RET_ERRNO | errno as u32,
    ));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        );
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
    for call in calls {
        // SAFETY: the filter answers, and nobody looks at the arguments.
        assert_eq!(unsafe { libc::syscall(*call, -1, 0, 0, 0, 0, 0) }, -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(errno));
    }
}
