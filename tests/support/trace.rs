//! System calls, as `strace` sees them.

use std::io::Write;
use std::process::Command;

use super::{Tid, alone_command, assert_success, is_alone, test_name, watched, without_leak_check};

/// What `strace` has seen between two marks.
pub(crate) struct Trace {
    home: String,
    lines: Vec<String>,
}

/// Runs the test that calls this in a process of its own under `strace`, with `trace` as its filter, and gives what was
/// called between the two marks (see `mark`). `None` where there is no `strace`.
pub(crate) fn traced(trace: &str, body: impl FnOnce()) -> Option<Trace> {
    if is_alone() {
        watched(body);
        std::process::exit(0);
    }
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: `{}` needs strace", test_name());
        return None;
    }
    let log = std::env::temp_dir().join(format!(
        "evbase-{}-{}",
        std::process::id(),
        test_name().replace("::", "-")
    ));
    let filter = format!("trace={trace}");
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "64",
        "-e",
        "signal=none",
        "-e",
        &filter,
        "-o",
        log.to_str().unwrap(),
    ];
    let output = watched(|| without_leak_check(alone_command(&wrapper)).output().unwrap());
    assert_success(&output);
    let log_text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    let mut lines = log_text.lines().skip_while(|line| !line.contains(MARK));
    let home = lines
        .next()
        .expect("a first mark")
        .split(MARK)
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    let end = lines
        .iter()
        .position(|line| line.contains(MARK))
        .expect("a second mark");
    lines.truncate(end);
    Some(Trace {
        home: home.to_owned(),
        lines,
    })
}

const MARK: &str = "evbase mark ";

/// Leaves a mark in the log of `traced`, which says who is home.
pub(crate) fn mark(home: Tid) {
    note(&format!("{MARK}{};", home.number()));
}

/// Leaves a text in the log of `traced`.
pub(crate) fn note(text: &str) {
    // SAFETY: the kernel reads the text during the call.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

impl Trace {
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What home has called, but for the clock and for memory.
    pub(crate) fn calls_at_home(&self) -> Vec<&String> {
        let is_call = |line: &&String| {
            let mut words = line.split_whitespace();
            let is_home = words.next() == Some(&*self.home);
            let call = words.next().unwrap_or_default();
            let is_free = ["clock_gettime(", "brk(", "mmap(", "munmap("]
                .iter()
                .any(|free| call.starts_with(free));
            // What `mark` itself has called has begun before.
            is_home && !is_free && !(call == "<..." && line.contains("write resumed"))
        };
        self.lines.iter().filter(is_call).collect()
    }

    /// What all others have called.
    pub(crate) fn calls_abroad(&self) -> Vec<&String> {
        let is_abroad = |line: &&String| line.split_whitespace().next() != Some(&*self.home);
        self.lines.iter().filter(is_abroad).collect()
    }

    /// How many writes went to a notify descriptor, an eventfd or a socket.
    pub(crate) fn notify_writes(&self) -> usize {
        let to_eventfd = r#", "\1\0\0\0\0\0\0\0", 8"#;
        let to_socket = r#", "\1", 1"#;
        let is_notify =
            |line: &&String| line.contains("write(") && (line.contains(to_eventfd) || line.contains(to_socket));
        self.lines.iter().filter(is_notify).count()
    }
}
