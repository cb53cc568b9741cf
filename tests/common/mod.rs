//! What the tests of the life cycle share: a watchdog, rounds, probes that say where they were dropped, a look at
//! `/proc`, processes of their own.
#![allow(dead_code)] // each test file uses a part of it

use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// How long a test may take that should take about a second.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long is surely too long for something that does not happen by itself.
pub(crate) const MOMENT: Duration = Duration::from_millis(20);

/// Runs `body` on this thread, while another one ends the process, with the test's name, if it takes longer.
pub(crate) fn within<R>(deadline: Duration, body: impl FnOnce() -> R) -> R {
    let (done, is_done) = mpsc::channel::<()>();
    let name = test_name();
    let watchdog = thread::Builder::new().name("watchdog".into()).spawn(move || {
        if is_done.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not `eprintln`, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "\nwatchdog: `{name}` hangs (deadline {deadline:?})");
            if std::env::var_os("EVBASE_HANG").is_some() {
                loop {
                    thread::park();
                }
            }
            std::process::abort();
        }
    });
    let result = body();
    drop(done);
    watchdog.unwrap().join().unwrap();
    result
}

/// `within` the usual deadline.
pub(crate) fn watched<R>(body: impl FnOnce() -> R) -> R {
    within(DEADLINE, body)
}

/// Runs `round` again and again under the watchdog; each makes its own runtimes. On a machine that is busy, or under a
/// sanitizer, as often as it can in ten seconds.
pub(crate) fn rounds(n: usize, mut round: impl FnMut(usize)) {
    watched(|| in_seconds(0..n, 10).for_each(&mut round));
}

/// As many of the rounds as a busy machine, or a sanitizer, gets through in that time; one at least.
pub(crate) fn in_seconds(rounds: std::ops::Range<usize>, seconds: u64) -> impl Iterator<Item = usize> {
    let (first, end) = (rounds.start, Instant::now() + Duration::from_secs(seconds));
    rounds.take_while(move |round| *round == first || Instant::now() < end)
}

fn test_name() -> String {
    let alone = std::env::var("EVBASE_ALONE").ok();
    alone.unwrap_or_else(|| thread::current().name().unwrap_or("unnamed").to_owned())
}

// ---- Processes ----

/// Whether this is the process that `alone` has made.
pub(crate) fn is_alone() -> bool {
    std::env::var_os("EVBASE_ALONE").is_some()
}

/// The command that runs the test that calls this, and nothing else, in a process of its own, under `wrapper`.
pub(crate) fn alone_command(wrapper: &[&str]) -> Command {
    let name = test_name();
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
    if is_alone() {
        return watched(body);
    }
    let output = watched(|| alone_command(&[]).output().unwrap());
    assert_success(&output);
}

/// A process that ends in the middle, or that is traced, can't look for its leaks.
fn without_leak_check(mut command: Command) -> Command {
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command
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

// ---- Probes ----

/// Remembers where its probes were dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<Mutex<Vec<ThreadId>>>);

impl Drops {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Goes anywhere.
    pub(crate) fn probe(&self) -> DropProbe {
        DropProbe(self.clone())
    }

    /// Must stay where it was made.
    pub(crate) fn local_probe(&self) -> LocalDropProbe {
        LocalDropProbe {
            made_on: thread::current().id(),
            probe: self.probe(),
            not_send: PhantomData,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn threads(&self) -> Vec<ThreadId> {
        self.0.lock().unwrap().clone()
    }

    /// Exactly `n` probes were dropped, all of them on `home`.
    #[track_caller]
    pub(crate) fn assert_on(&self, home: ThreadId, n: usize) {
        assert_eq!(self.threads(), vec![home; n]);
    }
}

pub(crate) struct DropProbe(Drops);

impl Drop for DropProbe {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().push(thread::current().id());
    }
}

pub(crate) struct LocalDropProbe {
    made_on: ThreadId,
    probe: DropProbe,
    not_send: PhantomData<Rc<()>>,
}

impl Drop for LocalDropProbe {
    fn drop(&mut self) {
        if self.made_on != thread::current().id() {
            let _ = writeln!(
                std::io::stderr(),
                "a value that is not Send was dropped abroad: `{}`",
                test_name()
            );
            std::process::abort();
        }
    }
}

/// Runs a closure when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

// ---- Wakers and futures ----

/// Counts its wake-ups.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (wakes.clone(), wakes.into())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A waker that runs a closure.
pub(crate) fn waker_fn(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct WakerFn<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for WakerFn<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Arc::new(WakerFn(f)).into()
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

/// Keeps threads in one place until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// Waits for something that other threads bring about; the watchdog says when that takes too long.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let mut looks = 0;
    while !done() {
        looks += 1;
        if looks < 200 {
            thread::yield_now();
        } else {
            // Out of the way of those who bring it about.
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// As `until`, but gives up: false.
pub(crate) fn soon(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut is_done = false;
    until(|| {
        is_done = done();
        is_done || start.elapsed() > Duration::from_secs(10)
    });
    is_done
}

// ---- Threads ----

/// A thread that runs closures, one at a time, until this is dropped; then it exits.
pub(crate) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    pub(crate) fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            for job in todo {
                job();
            }
        });
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub(crate) fn id(&self) -> ThreadId {
        self.thread.as_ref().unwrap().thread().id()
    }

    /// Starts a job there.
    pub(crate) fn start<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> mpsc::Receiver<R> {
        let (result, is_there) = mpsc::channel();
        let job = Box::new(move || drop(result.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        is_there
    }

    /// Runs a job there, and waits for it.
    #[track_caller]
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        self.start(job).recv().expect("the job panicked")
    }

    /// Lets the thread exit, and waits until its thread-locals are gone.
    pub(crate) fn exit(mut self) {
        drop(self.jobs.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Names a thread to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tid(i64);

impl Tid {
    pub(crate) fn here() -> Self {
        #[cfg(target_os = "linux")]
        // SAFETY: takes nothing, and can't fail.
        return Self(unsafe { libc::syscall(libc::SYS_gettid) });
        #[cfg(not(target_os = "linux"))]
        Self(0)
    }

    pub(crate) fn number(self) -> i64 {
        self.0
    }
}

/// Returns when the thread sleeps in the kernel's queue, or as a home that waits for something outside of its loop (where
/// that can be seen: elsewhere, after a while).
pub(crate) fn until_parked(thread: Tid) {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let path = format!("/proc/self/task/{}/syscall", thread.0);
        // epoll_wait, epoll_pwait, epoll_pwait2; ppoll
        let parked = ["232 ", "281 ", "441 ", "271 "];
        let is_parked = |line: String| parked.iter().any(|number| line.starts_with(number));
        if std::fs::read_to_string(&path).is_ok() {
            return until(|| std::fs::read_to_string(&path).is_ok_and(is_parked));
        }
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        thread::yield_now();
    }
}

/// The kernel's name of a runtime's home, which runs.
pub(crate) fn tid_of(runtime: &evbase::Runtime) -> Tid {
    runtime.spawner().spawn(async { Tid::here() }).wait().unwrap().unwrap()
}

/// A runtime with a thread of its own, which sleeps in the kernel.
pub(crate) fn parked(builder: evbase::Builder) -> evbase::Runtime {
    let runtime = builder.start("home").unwrap();
    until_parked(tid_of(&runtime));
    runtime
}

/// The waker of a task of that runtime that waits for ever.
pub(crate) fn waker_of(runtime: &evbase::Runtime) -> Waker {
    let (give, given) = mpsc::channel();
    drop(runtime.spawner().spawn(poll_fn(move |cx| {
        // It is polled again when the waker is used.
        let _ = give.send(cx.waker().clone());
        Poll::<()>::Pending
    })));
    given.recv().unwrap()
}

/// Keeps home inside of a task until the latch is opened.
pub(crate) fn hold(runtime: &evbase::Runtime) -> Latch {
    let (entered, release) = (Latch::new(), Latch::new());
    let (in_task, let_go) = (entered.clone(), release.clone());
    drop(runtime.spawner().spawn(async move {
        in_task.open();
        let_go.wait();
    }));
    entered.wait();
    release
}

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

// ---- System calls ----

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
    note(&format!("{MARK}{};", home.0));
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

    /// How many writes went to a notify descriptor, an eventfd or a pipe.
    pub(crate) fn notify_writes(&self) -> usize {
        let to_eventfd = r#", "\1\0\0\0\0\0\0\0", 8"#;
        let to_pipe = r#", "\1", 1"#;
        let is_notify =
            |line: &&String| line.contains("write(") && (line.contains(to_eventfd) || line.contains(to_pipe));
        self.lines.iter().filter(is_notify).count()
    }
}

// ---- Panics ----

/// Keeps panics that say that they are on purpose out of the tests' output.
pub(crate) fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let on_purpose = info.payload_as_str().is_none_or(|text| text.contains("on purpose"));
            if !on_purpose {
                loud(info);
            }
        }));
    });
}
