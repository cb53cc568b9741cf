//! [`Builder`]: makes runtimes.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::runtime::Runtime;
use crate::base::with_own_slack;
use crate::home::{Goal, Home, RunError, Settings, Shared, clock, context};
use crate::observe::{Observer, Stall, Stalls, WatchSettings};

/// Makes a [`Runtime`] with other settings than the default ones, or one on a thread of its own.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// // A runtime on a thread of its own, which gives its tasks a second to finish when it is dropped.
/// let runtime = evbase::Builder::new()
///     .grace(Duration::from_secs(1))
///     .start("worker")?;
/// let handle = runtime.spawner().spawn(async { "hello" });
/// assert_eq!(handle.wait()??, "hello");
/// let report = runtime.shutdown().wait()?;
/// assert_eq!(report.completed, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes nothing before `build` or `start`"]
pub struct Builder {
    settings: Settings,
}

// An observer and a report are behind locks, and panics of theirs are caught.
impl UnwindSafe for Builder {}
impl RefUnwindSafe for Builder {}

/// The seed of a run in random order: none, unless the test suite asks for it (`EVBASE_SHUFFLE`, by default another one for each
/// runtime).
fn seed() -> Option<u64> {
    if !cfg!(evbase_shuffle) {
        return None;
    }
    let asked = std::env::var("EVBASE_SHUFFLE").ok().and_then(|seed| seed.parse().ok());
    let by_time = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    Some(asked.unwrap_or_else(by_time))
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("grace", &self.settings.grace)
            .field("event_interval", &self.settings.event_interval)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The default settings: no grace period, a look at the kernel every 64 polls, timers that are late by a millisecond at most.
    pub fn new() -> Self {
        Self {
            settings: Settings {
                grace: Duration::ZERO,
                event_interval: 64,
                timer_slack: None,
                event_time: None,
                paused: false,
                shuffle: seed(),
                watch: WatchSettings::default(),
            },
        }
    }

    /// How long tasks may go on after a stop was asked for. By default, not at all: no task is polled any more after the
    /// poll that is running. [`Duration::MAX`] waits for all tasks, however long they take.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Builder::new().grace(Duration::from_secs(10)).build()?;
    /// runtime.spawn_local(async {
    ///     evbase::time::sleep(Duration::from_millis(1)).await;
    ///     // Here it saves its work.
    /// })?;
    /// // This takes a millisecond, and not ten seconds: no task is left then.
    /// let report = runtime.shutdown().wait()?;
    /// assert_eq!((report.completed, report.cancelled), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// After how many polls home looks at its inbox, the clock and the kernel while tasks are ready: 64 by default. A
    /// smaller number answers sooner, a larger one asks less often.
    ///
    /// # Examples
    ///
    /// ```
    /// // A runtime that looks for events after every eighth poll.
    /// let runtime = evbase::Builder::new().event_interval(8).build()?;
    /// assert!(evbase::Builder::new().event_interval(0).build().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn event_interval(mut self, polls: u32) -> Self {
        self.settings.event_interval = polls;
        self
    }

    /// Has home look at its inbox, the clock and the kernel after polls that took so long together, too, and not only after
    /// [`event_interval`](Builder::event_interval) of them. By default the number alone counts.
    ///
    /// For programs with polls of very different lengths. It costs a look at the clock after each poll (some 20 ns). A poll
    /// that is running is never interrupted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// // However long the tasks' polls are, sockets and timers have to wait for half a millisecond and one poll at most.
    /// let runtime = evbase::Builder::new().event_time(Duration::from_micros(500)).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn event_time(mut self, time: Duration) -> Self {
        self.settings.event_time = Some(time);
        self
    }

    /// Has everything happen in a random order, for tests: within each batch of ready tasks, of events, and of timers with equal
    /// deadlines. What becomes ready during a batch comes in the next one, so that nobody is overtaken for ever.
    ///
    /// Programs must not depend on an order that nobody promises; this finds those that do. With virtual time
    /// ([`paused`](Builder::paused)), and without other threads and I/O, equal seeds give equal runs: a seed that has found something
    /// finds it again.
    ///
    /// # Examples
    ///
    /// ```
    /// let order = |seed| {
    ///     let runtime = evbase::Builder::new().shuffle(seed).paused().build().unwrap();
    ///     let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    ///     for n in 0..10 {
    ///         let order = order.clone();
    ///         runtime.spawn_local(async move { order.borrow_mut().push(n) }).unwrap();
    ///     }
    ///     runtime.turn(None).unwrap();
    ///     order.take()
    /// };
    /// assert_eq!(order(1), order(1));
    /// assert_ne!(order(1), order(2));
    /// ```
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.settings.shuffle = Some(seed);
        self
    }

    /// Gives the runtime a virtual clock, for tests: [`time::now`](crate::time::now).
    ///
    /// Time stands still while there is anything to do. When home would sleep, and neither the inbox nor the kernel has anything for
    /// it, time jumps to the next deadline, exactly: a test of an hour's timers takes no time, and its result doesn't depend on how
    /// busy the machine is. While a blocking call of [`unblock`](crate::unblock()) runs, or a [`Hold`](crate::time::Hold) lives, home really
    /// waits instead. It does so, too, if there is no deadline, or only such as never come: virtual time ends when the runtime is
    /// some 29 years old.
    ///
    /// The grace period is in virtual time as well. [`Terminated::wait_timeout`](crate::Terminated::wait_timeout) and
    /// [`Runtime::turn`] wait in real time. `Instant::now()` is real everywhere: take [`time::now`](crate::time::now).
    ///
    /// A duration counts from the clock of where it is said: a [`sleep`](crate::time::sleep), `timeout` or `interval` that is made outside of
    /// a context counts from the real one, from which virtual time moves away with each jump. Make it inside the future,
    /// as in `block_on(async { sleep(second).await })`: the arguments of `block_on(sleep(second))` are made outside.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use evbase::time;
    ///
    /// let start = Instant::now();
    /// let runtime = evbase::Builder::new().paused().build()?;
    /// runtime.block_on(async {
    ///     let mut seconds = time::interval(Duration::from_secs(1));
    ///     let first = seconds.tick().await;
    ///     for n in 1..=3600 {
    ///         assert_eq!(seconds.tick().await, first + Duration::from_secs(n));
    ///         assert_eq!(time::now(), first + Duration::from_secs(n));
    ///     }
    /// })?;
    /// assert!(start.elapsed() < Duration::from_secs(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn paused(mut self) -> Self {
        self.settings.paused = true;
        self
    }

    /// Measures how long polls, passes and waits take, and how late timers fire: `busy`, `waited` and the histograms of
    /// [`Metrics`](crate::Metrics). It costs two looks at the clock a poll, some 50 ns.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = evbase::Builder::new().measure().build()?;
    /// runtime.block_on(evbase::time::sleep(Duration::from_millis(5)))?;
    /// let metrics = runtime.metrics();
    /// assert!(metrics.waited > Duration::from_millis(4));
    /// println!("polls:\n{}", metrics.poll_times);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn measure(mut self) -> Self {
        self.settings.watch.measure = true;
        self
    }

    /// Tells an observer of each task: when it is spawned, polled, and has ended. At home. The runtimes of clones of this builder
    /// share it. Calls are serialised by a lock: a slow observer holds up the homes of all runtimes that share it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use evbase::{End, Observer, TaskInfo};
    ///
    /// #[derive(Clone, Default)]
    /// struct Ends(Arc<Mutex<Vec<String>>>);
    ///
    /// impl Observer for Ends {
    ///     fn ended(&mut self, task: &TaskInfo, end: End) {
    ///         self.0.lock().unwrap().push(format!("{} {end:?}", task.location.line()));
    ///     }
    /// }
    ///
    /// let ends = Ends::default();
    /// let runtime = evbase::Builder::new().observe(ends.clone()).build()?;
    /// let line = line!() + 1;
    /// let task = runtime.spawn_local(async {})?;
    /// runtime.block_on(task)??;
    /// assert_eq!(*ends.0.lock().unwrap(), [format!("{line} Completed")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(mut self, observer: impl Observer + Send + 'static) -> Self {
        self.settings.watch.observer = Some(Arc::new(Mutex::new(observer)));
        self
    }

    /// Calls `report` when home is busy with one thing, such as one poll of a task, for longer than `limit`: while that lasts, at 1 to
    /// 1.5 times the limit, again at 2, 4, ... times, and once when it is over. See [`Stall`].
    ///
    /// The calls come on the thread `evbase-watch`, of which there is one a process, and only while there is a runtime with
    /// this setting: a slow report delays other reports, and no home. It isn't woken while all homes sleep. It costs home a
    /// look at the clock for each poll, and a futex call at most each half of the limit. A limit of zero is an error of
    /// [`build`](Builder::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let (send, stalls) = mpsc::channel();
    /// let runtime = evbase::Builder::new()
    ///     .on_stall(Duration::from_millis(10), move |stall| send.send(stall.to_string()).unwrap())
    ///     .start("home")?;
    /// drop(runtime.spawner().spawn(async { std::thread::sleep(Duration::from_millis(100)) }));
    /// let stall = stalls.recv()?;
    /// assert!(stall.contains("has been busy"), "{stall}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_stall(mut self, limit: Duration, report: impl FnMut(&Stall) + Send + 'static) -> Self {
        self.settings.watch.stalls = Some(Stalls {
            limit,
            report: Arc::new(Mutex::new(report)),
        });
        self
    }

    /// How late a timer may be in order to share a wake-up with others, instead of a millisecond. Zero makes every timer exact.
    /// Whatever is set here, a timer is put off by no more than a 128th of its length, and by nothing if that is below 32 ms.
    ///
    /// It is not the kernel's timer slack of the home thread, which delays no timer of a runtime: see [`time`](crate::time), also
    /// for what threads and processes inherit of that.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// // Sleeps of a second may be up to 7 ms late, and those of a minute up to 100 ms.
    /// let saves_wakeups = evbase::Builder::new().timer_slack(Duration::from_millis(100)).build()?;
    /// // All sleeps are exact.
    /// let exact = evbase::Builder::new().timer_slack(Duration::ZERO).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timer_slack(mut self, slack: Duration) -> Self {
        self.settings.timer_slack = Some(slack);
        self
    }

    /// Makes a runtime without a home: the first thread that drives it, or uses it as home, becomes that (see [`Runtime`]).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an event interval of zero, or a limit of zero for stalls; what the operating system says when there are no
    /// descriptors or memory left, or with `on_stall` when it can't make the thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().event_interval(16).build()?;
    /// assert_eq!(runtime.home(), None);
    /// runtime.block_on(async { println!("this thread is home") })?;
    /// assert_eq!(runtime.home(), Some(std::thread::current().id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(self) -> io::Result<Runtime> {
        if self.settings.event_interval == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an event interval of 0 would never poll a task; the default is 64",
            ));
        }
        if self
            .settings
            .watch
            .stalls
            .as_ref()
            .is_some_and(|stalls| stalls.limit.is_zero())
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a limit of zero would make a stall of every poll; take some milliseconds",
            ));
        }
        context::sweep(None);
        if self.settings.paused {
            clock::use_virtual_time();
        }
        Shared::new(self.settings).map(Runtime::unbound)
    }

    /// Makes a runtime and a thread with that name, which binds and runs it; returns once it has bound. The handle is a
    /// foreign one from its birth: tasks come in through [`Runtime::spawner`].
    ///
    /// The thread ends when the runtime is closed: [`Runtime::shutdown`] and its `wait` tell when. Should the kernel refuse to
    /// wait, the thread ends as well, and the runtime closes with the cause [`HomeExited`](crate::Cause::HomeExited); its
    /// [`Report`](crate::Report::wait_error) has the code.
    ///
    /// # Errors
    ///
    /// As for [`build`](Builder::build); `InvalidInput` for a name with a NUL byte; what the operating system says when it
    /// can't make a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = evbase::Builder::new().start("home")?;
    /// let task = runtime.spawner().spawn(async { std::thread::current().name().map(str::to_owned) });
    /// assert_eq!(task.wait()??.as_deref(), Some("home"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(self, name: impl Into<String>) -> io::Result<Runtime> {
        let name = name.into();
        if name.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of a thread can't contain a NUL byte",
            ));
        }
        let runtime = self.build()?;
        let shared = runtime.shared().clone();
        let (bound, is_bound) = mpsc::sync_channel(1);
        with_own_slack(|| {
            thread::Builder::new()
                .name(name)
                .spawn(move || be_home(&shared, &bound))
        })?;
        match is_bound.recv() {
            Ok(Ok(())) => Ok(runtime),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(mpsc::RecvError) => Err(io::Error::other("the thread of the runtime ended before it began")),
        }
    }
}

/// What a thread made by `start` does.
fn be_home(shared: &Arc<Shared>, bound: &mpsc::SyncSender<Result<(), RunError>>) {
    let home = match Home::bind(shared) {
        Ok(home) => home,
        Err(error) => return drop(bound.send(Err(error))),
    };
    let _ = bound.send(Ok(()));
    // If the kernel refuses to wait, the thread ends, and its guard closes the runtime.
    if let Err(RunError::Io(error)) = home.drive(Goal::default()) {
        if let Some(code) = error.raw_os_error() {
            let _ = shared.wait_error.set(code);
        }
    }
}
