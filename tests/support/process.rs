//! Tests in processes of their own, and their children.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::{DEADLINE, in_seconds, test_name, until, watched, within};

/// Whether this is the process that `alone` has made.
pub(crate) fn is_alone() -> bool {
    std::env::var_os("EVBASE_ALONE").is_some()
}

/// The command that runs the test that calls this, and nothing else, in a process of its own, under `wrapper`.
pub(crate) fn alone_command(wrapper: &[&str]) -> Command {
    let name = test_name();
    // Else the process would run no test at all, and succeed.
    assert_ne!(name, "main", "with one test thread, a test doesn't know its name");
    let mut words: Vec<OsString> = wrapper.iter().map(Into::into).collect();
    words.push(std::env::current_exe().unwrap().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args([&name, "--exact", "--nocapture", "--include-ignored"])
        .env("EVBASE_ALONE", &name);
    command
}

/// Runs the body of a test in a process of its own: for what concerns a whole process. `body` runs in that one only.
pub(crate) fn alone(body: impl FnOnce()) {
    alone_within(DEADLINE, body);
}

/// As `alone`, for what takes longer.
pub(crate) fn alone_within(deadline: Duration, body: impl FnOnce()) {
    if is_alone() {
        return within(deadline, body);
    }
    // Later than its own watchdog: a hang is that test's failure, and the others of this process go on.
    let later = deadline.saturating_add(Duration::from_secs(10));
    let output = within(later, || alone_command(&[]).output().unwrap());
    assert_success(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    print!("{said}");
}

/// A process that ends in the middle, or that is traced, can't look for its leaks.
pub(crate) fn without_leak_check(mut command: Command) -> Command {
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command
}

/// Runs `round` again and again, as `rounds` does, but in a process of its own: for what is likely to hang.
pub(crate) fn rounds_alone(n: usize, mut round: impl FnMut(usize)) {
    alone(|| in_seconds(0..n, 10).for_each(&mut round));
}

/// As `alone`, for a body that ends the process itself; gives what became of it.
pub(crate) fn alone_until_exit(body: impl FnOnce()) -> Option<Output> {
    if is_alone() {
        watched(body);
        return None;
    }
    Some(watched(|| without_leak_check(alone_command(&[])).output().unwrap()))
}

pub(crate) fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Forks; the child runs `body` and ends. Gives the child's exit code, or minus the signal that killed it: a child that
/// hangs, be it in `fork` itself, is killed by SIGKILL after five seconds. To be called in a process of the test's own.
pub(crate) fn fork(body: impl FnOnce()) -> i32 {
    assert!(is_alone(), "a fork copies the locks of the other tests' threads");
    // SAFETY: the child runs `body` on its only thread, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // Without a backtrace: another thread may have held the lock of that at the fork, and under a sanitizer it takes minutes.
        std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
        let code = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => 0,
            Err(_) => 101,
        };
        // SAFETY: ends the child, and runs nothing of its parent's.
        unsafe { libc::_exit(code) };
    }
    let start = Instant::now();
    let mut status = 0;
    let mut killed = false;
    until(|| {
        // To look at it with a debugger, say EVBASE_HANG.
        if !killed && start.elapsed() > Duration::from_secs(5) && std::env::var_os("EVBASE_HANG").is_none() {
            // SAFETY: our child, which nobody has waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            killed = true;
        }
        // SAFETY: `status` outlives the call.
        let result = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        assert!(result >= 0 || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted);
        result == pid
    });
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        -libc::WTERMSIG(status)
    }
}
