//! A child process.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Output};
use std::task::{Context, Poll};

use futures_io::AsyncRead;

use super::exit::{self, Process, Watch};
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};
use super::reaper;

/// A child process, made by [`Command::spawn`](super::Command::spawn).
///
/// It may be moved, awaited and dropped on any thread. [`wait`](Child::wait) is awaited in any loop of evbase's, also in another
/// one than before; each pipe belongs to the loop that polls it first.
///
/// Dropped, the child runs on, unless [`kill_on_drop`](super::Command::kill_on_drop) says otherwise. It is reaped when it ends: see
/// the [module](super) for who does it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use evbase::process::Command;
///
/// let runtime = evbase::Runtime::new()?;
/// runtime.block_on(async {
///     let mut child = Command::new("sleep").arg("1000").spawn()?;
///     let waited = evbase::time::timeout(Duration::from_millis(10), child.wait()).await;
///     if waited.is_err() {
///         // It takes too long. (A SIGTERM is sent by `libc::kill` to its `id`.)
///         child.kill().await?;
///     }
///     assert!(!child.wait().await?.success());
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Child {
    /// The pipe to its standard input, if the command asked for one. Take it to close it early.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its standard output, if the command asked for one.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its standard error, if the command asked for one.
    pub stderr: Option<ChildStderr>,
    handle: Handle,
}

/// What is left when the pipes have been taken out of a [`Child`].
struct Handle {
    /// `None` only while it is being dropped.
    process: Option<Process>,
    watch: Option<Watch>,
    kill_on_drop: bool,
}

impl Child {
    pub(super) fn spawn(command: &mut std::process::Command, kill_on_drop: bool) -> io::Result<Self> {
        let mut process = Process::spawn(command)?;
        let std = process.std_mut();
        let (stdin, stdout, stderr) = (std.stdin.take(), std.stdout.take(), std.stderr.take());
        let handle = Handle {
            process: Some(process),
            watch: None,
            kill_on_drop,
        };
        Ok(Self {
            stdin: stdin.map(ChildStdin::new).transpose()?,
            stdout: stdout.map(ChildStdout::new).transpose()?,
            stderr: stderr.map(ChildStderr::new).transpose()?,
            handle,
        })
    }

    /// The number of the process, to send it signals for one: as long as it has not been waited for to its end. Then the number may
    /// be another process's.
    pub fn id(&self) -> Option<u32> {
        self.handle.process.as_ref().and_then(Process::id)
    }

    /// Waits for the child to end, and gives its status; the same again when it is called afterwards.
    ///
    /// First closes its standard input, if that wasn't taken: the child shall not wait for more of it while it is waited for.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// `ECHILD` if somebody else has reaped it (as the kernel does when SIGCHLD is ignored). Outside of a runtime; in the child of a
    /// fork; what the operating system says when it has no descriptor left: then wait again.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::process::Command;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
    /// let status = runtime.block_on(child.wait())??;
    /// assert_eq!(status.code(), Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let Handle { process, watch, .. } = &mut self.handle;
        exit::wait(expect(process), watch).await
    }

    /// The status of the child, if it has ended. Reaps it, and waits for nothing; on any thread, with a runtime or without one.
    /// Doesn't close its standard input.
    ///
    /// # Errors
    ///
    /// `ECHILD`, and in the child of a fork, as for [`wait`](Child::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::process::Command;
    ///
    /// let mut child = Command::new("sleep").arg("1000").kill_on_drop(true).spawn()?;
    /// assert!(child.try_wait()?.is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        expect(&mut self.handle.process).try_wait()
    }

    /// Kills the child, by SIGKILL, which it can't ignore, and doesn't wait for its end. Does nothing if its end was waited for.
    ///
    /// # Errors
    ///
    /// `EPERM` if it runs as another user; in the child of a fork.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    /// use evbase::process::Command;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let mut children = [1000, 2000].map(|seconds| Command::new("sleep").arg(seconds.to_string()).spawn());
    /// // All at once, and only then it waits for them.
    /// for child in children.iter_mut().flatten() {
    ///     child.start_kill()?;
    /// }
    /// for child in children {
    ///     let status = runtime.block_on(child?.wait())??;
    ///     assert_eq!(status.signal(), Some(libc::SIGKILL));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_kill(&mut self) -> io::Result<()> {
        expect(&mut self.handle.process).kill()
    }

    /// Kills the child, as [`start_kill`](Child::start_kill), and [waits](Child::wait) for its end. Cancel-safe: the first poll kills it.
    ///
    /// # Errors
    ///
    /// Those of both.
    ///
    /// # Examples
    ///
    /// ```
    /// use evbase::process::Command;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let mut child = Command::new("sleep").arg("1000").spawn()?;
    /// runtime.block_on(child.kill())??;
    /// // It has been reaped: its number may be another process's.
    /// assert_eq!(child.id(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn kill(&mut self) -> io::Result<()> {
        self.start_kill()?;
        self.wait().await.map(drop)
    }

    /// Closes the child's standard input, reads its output to the end, and waits for it to end. What isn't a pipe, or was taken, is
    /// empty in the result.
    ///
    /// Not cancel-safe: dropping the future drops what was read, and the child.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Child::wait), and of reading from the pipes, as for [`ChildStdout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Stdio;
    /// use evbase::process::Command;
    ///
    /// let runtime = evbase::Runtime::new()?;
    /// let child = Command::new("sh").args(["-c", "echo out; echo err >&2"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    /// let output = runtime.block_on(child.wait_with_output())??;
    /// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        self.stdin = None;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        // Both at once: a child that fills the one pipe doesn't go on to close the other.
        let (stdout, stderr) = both(read_to_end(stdout), read_to_end(stderr)).await;
        let (stdout, stderr) = (stdout?, stderr?);
        let status = self.wait().await?;
        Ok(Output { status, stdout, stderr })
    }
}

fn expect(process: &mut Option<Process>) -> &mut Process {
    process.as_mut().expect("evbase: the process is there until the drop")
}

async fn read_to_end(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else {
        return Ok(bytes);
    };
    let mut filled = 0;
    loop {
        if bytes.len() - filled < READ_AT_ONCE {
            bytes.resize(bytes.len().max(READ_AT_ONCE) * 2, 0);
        }
        let read = poll_fn(|cx| Pin::new(&mut pipe).poll_read(cx, &mut bytes[filled..])).await?;
        filled += read;
        if read == 0 {
            bytes.truncate(filled);
            return Ok(bytes);
        }
    }
}

/// The room that a read has at least, in bytes.
const READ_AT_ONCE: usize = 1024;

/// The results of both futures, which run at the same time.
async fn both<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    fn poll<F: Future>(future: Pin<&mut F>, result: &mut Option<F::Output>, cx: &mut Context<'_>) {
        if result.is_none() {
            if let Poll::Ready(output) = future.poll(cx) {
                *result = Some(output);
            }
        }
    }
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut results = (None, None);
    poll_fn(|cx| {
        poll(one.as_mut(), &mut results.0, cx);
        poll(other.as_mut(), &mut results.1, cx);
        match (results.0.take(), results.1.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            some => {
                results = some;
                Poll::Pending
            }
        }
    })
    .await
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            if self.kill_on_drop {
                // If that is refused, it runs on.
                let _ = process.kill();
            }
            reaper::leave(process, self.watch.take());
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}
