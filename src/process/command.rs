//! The builder.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};

use super::child::Child;
use crate::home::coop;

/// Says how a process is to be started: [`std::process::Command`], with a [`Child`] that can be awaited.
///
/// Its methods are those of the standard library's builder, by name and meaning. What isn't here (`uid`, `process_group`,
/// `pre_exec`, ...) is reached by [`as_std_mut`](Command::as_std_mut), or set before a [`From`].
///
/// It may be made, moved and used on any thread, with a runtime or without one.
///
/// # Examples
///
/// ```
/// use evbase::process::Command;
///
/// let runtime = evbase::Runtime::new()?;
/// let output = runtime.block_on(Command::new("echo").arg("hello").output())??;
/// assert!(output.status.success());
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Command {
    std: std::process::Command,
    // Which of the streams were set: for stdin, or may have been.
    stdin: bool,
    stdout: bool,
    stderr: bool,
    kill_on_drop: bool,
}

impl Command {
    /// See [`std::process::Command::new`].
    pub fn new<S: AsRef<OsStr>>(program: S) -> Self {
        Self {
            stdin: false,
            ..std::process::Command::new(program).into()
        }
    }

    /// See [`std::process::Command::arg`].
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Self {
        self.std.arg(arg);
        self
    }

    /// See [`std::process::Command::args`].
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.std.args(args);
        self
    }

    /// See [`std::process::Command::env`].
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, value: V) -> &mut Self {
        self.std.env(key, value);
        self
    }

    /// See [`std::process::Command::envs`].
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.std.envs(vars);
        self
    }

    /// See [`std::process::Command::env_remove`].
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Self {
        self.std.env_remove(key);
        self
    }

    /// See [`std::process::Command::env_clear`].
    pub fn env_clear(&mut self) -> &mut Self {
        self.std.env_clear();
        self
    }

    /// See [`std::process::Command::current_dir`].
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Self {
        self.std.current_dir(dir);
        self
    }

    /// See [`std::process::Command::stdin`]. With [`Stdio::piped`], [`Child::stdin`] is the other end.
    pub fn stdin<T: Into<Stdio>>(&mut self, stdin: T) -> &mut Self {
        self.std.stdin(stdin);
        self.stdin = true;
        self
    }

    /// See [`std::process::Command::stdout`]. With [`Stdio::piped`], [`Child::stdout`] is the other end.
    pub fn stdout<T: Into<Stdio>>(&mut self, stdout: T) -> &mut Self {
        self.std.stdout(stdout);
        self.stdout = true;
        self
    }

    /// See [`std::process::Command::stderr`]. With [`Stdio::piped`], [`Child::stderr`] is the other end.
    pub fn stderr<T: Into<Stdio>>(&mut self, stderr: T) -> &mut Self {
        self.std.stderr(stderr);
        self.stderr = true;
        self
    }

    /// The standard library's builder, for what this one doesn't have.
    ///
    /// [`output`](Command::output) doesn't see which of the standard streams were set there. It captures stdout and stderr all the
    /// same; stdin is no longer empty by itself, but what it was set to, or else this process's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::CommandExt;
    /// use evbase::process::Command;
    ///
    /// let mut command = Command::new("sleep");
    /// // In a process group of its own: Ctrl-C in the terminal doesn't reach it.
    /// command.arg("0").as_std_mut().process_group(0);
    /// let status = evbase::Runtime::new()?.block_on(command.status())??;
    /// assert!(status.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        self.stdin = true;
        &mut self.std
    }

    /// Whether a child is killed, by SIGKILL, when its [`Child`] is dropped, or the future of [`status`](Command::status) or
    /// [`output`](Command::output). It isn't by default. Either way, it is reaped: see the [module](super).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use evbase::process::Command;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let hangs = Command::new("sleep").arg("1000").kill_on_drop(true).status();
    /// let waited = runtime.block_on(evbase::time::timeout(Duration::from_millis(10), hangs))?;
    /// assert!(waited.is_err());
    /// // It is dead by now, and not in anybody's way.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the process, at once. Its standard streams are this process's, if nothing else was said.
    ///
    /// It blocks for as long as the operating system takes to make a process and to find the program: a millisecond or less, as a
    /// rule.
    ///
    /// # Errors
    ///
    /// As [`std::process::Command::spawn`]: `NotFound` if there is no such program, for one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Stdio;
    /// use evbase::process::Command;
    /// use futures::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut child = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    ///     let mut stdin = child.stdin.take().unwrap();
    ///     stdin.write_all(b"two\none\n").await?;
    ///     stdin.close().await?;
    ///     let mut sorted = String::new();
    ///     child.stdout.take().unwrap().read_to_string(&mut sorted).await?;
    ///     assert_eq!(sorted, "one\ntwo\n");
    ///     assert!(child.wait().await?.success());
    ///     Ok::<(), std::io::Error>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn(&mut self) -> io::Result<Child> {
        Child::spawn(&mut self.std, self.kill_on_drop)
    }

    /// Starts the process at this call, and waits for its end when it is awaited. Its standard streams are this process's, if
    /// nothing else was said; pipes are closed, since nobody could use them.
    ///
    /// Not cancel-safe: dropping the future drops the [`Child`], whose status is lost. It runs on, unless
    /// [`kill_on_drop`](Command::kill_on_drop) says otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Command::spawn) and of [`Child::wait`].
    pub fn status(&mut self) -> impl Future<Output = io::Result<ExitStatus>> + Send + use<> {
        let child = self.spawn();
        async move {
            coop::unit().await;
            let mut child = child?;
            // What would read or write them is not there: it shall not wait for that.
            (child.stdin, child.stdout, child.stderr) = (None, None, None);
            child.wait().await
        }
    }

    /// Starts the process at this call, and when it is awaited, collects what it writes and waits for its end. If nothing else was
    /// said, stdout and stderr are captured, and stdin is empty.
    ///
    /// Not cancel-safe: dropping the future drops what was read, and the [`Child`], as with [`status`](Command::status).
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Command::spawn) and of [`Child::wait_with_output`].
    pub fn output(&mut self) -> impl Future<Output = io::Result<Output>> + Send + use<> {
        if !self.stdin {
            self.std.stdin(Stdio::null());
        }
        if !self.stdout {
            self.std.stdout(Stdio::piped());
        }
        if !self.stderr {
            self.std.stderr(Stdio::piped());
        }
        let child = self.spawn();
        // For the next child it is as if nothing had been said.
        if !self.stdin {
            self.std.stdin(Stdio::inherit());
        }
        if !self.stdout {
            self.std.stdout(Stdio::inherit());
        }
        if !self.stderr {
            self.std.stderr(Stdio::inherit());
        }
        async move {
            coop::unit().await;
            child?.wait_with_output().await
        }
    }
}

/// Its stdin is kept: [`output`](Command::output) sets none. Where its stdout and stderr went doesn't count for `output`: it captures
/// them unless they are set [here](Command::stdout), and they are this process's from then on.
impl From<std::process::Command> for Command {
    fn from(std: std::process::Command) -> Self {
        Self {
            std,
            stdin: true,
            stdout: false,
            stderr: false,
            kill_on_drop: false,
        }
    }
}
