//! `without <system call's number> <errno> <command> ...` runs a command in which the kernel answers a system call with an
//! error, by a seccomp filter. Needs nothing but rustc: `rustc -O --edition 2024 -o target/without .ci/without.rs`.

use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[repr(C)]
struct Statement(u16, u8, u8, u32);

#[repr(C)]
struct Program(u16, *const Statement);

unsafe extern "C" {
    fn prctl(option: i32, ...) -> i32;
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = || {
        words
            .next()
            .and_then(|word| word.parse::<u32>().ok())
            .expect("a number")
    };
    let (call, errno) = (number(), number());
    // Load the number of the call; is it that one? Then errno, else allow.
    let filter = [
        Statement(0x20, 0, 0, 0),
        Statement(0x15, 0, 1, call),
        Statement(0x06, 0, 0, 0x0005_0000 | errno),
        Statement(0x06, 0, 0, 0x7fff_0000),
    ];
    let program = Program(filter.len() as u16, filter.as_ptr());
    // SAFETY: PR_SET_NO_NEW_PRIVS takes no pointer; PR_SET_SECCOMP with SECCOMP_MODE_FILTER copies the program, which
    // outlives the call.
    let failed = unsafe { prctl(38, 1_u64, 0_u64, 0_u64, 0_u64) != 0 || prctl(22, 2_u64, &raw const program) != 0 };
    assert!(!failed, "{}", Error::last_os_error());
    let error = Command::new(words.next().expect("a command")).args(words).exec();
    panic!("{error}");
}
