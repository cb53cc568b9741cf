//! A small supervisor: keeps children alive, and stops them all at Ctrl-C.
//!
//! ```text
//! cargo run --example children -- 'echo up; sleep 2; exit 3' 'ping -i 5 127.0.0.1'
//! ```
//!
//! Each argument is a script for the shell. One that ends is started again a second later. Ctrl-C sends each child a SIGTERM; what
//! has not ended when the grace period is over, or at a second Ctrl-C, is killed.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::time::Duration;
use std::{env, io};

use evbase::process::{Child, Command};
use evbase::time::sleep;
use evbase::{Builder, Requested, Shutdown};
use futures::future::{Either, select};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut scripts: Vec<String> = env::args().skip(1).collect();
    if scripts.is_empty() {
        scripts = [
            "exec sleep 1000",
            "sleep 2; exit 3",
            "trap '' TERM; while :; do sleep 1; done",
        ]
        .map(String::from)
        .to_vec();
    }
    let runtime = Builder::new().grace(Duration::from_secs(3)).build()?;
    let _guard = runtime.shutdown_handle().on_signals(&[libc::SIGINT, libc::SIGTERM])?;
    for script in scripts {
        drop(runtime.spawn_local(async move {
            if let Err(error) = supervise(&script).await {
                eprintln!("`{script}` is given up: {error}");
            }
        })?);
    }
    println!("{}", runtime.run()?);
    Ok(())
}

async fn supervise(script: &str) -> io::Result<()> {
    let mut stop = Shutdown::current().requested();
    loop {
        let mut command = Command::new("sh");
        command.args(["-c", script]).kill_on_drop(true);
        // In a group of its own: the terminal sends Ctrl-C to this process only.
        command.as_std_mut().process_group(0);
        let mut child = command.spawn()?;
        println!("`{script}` is process {}", child.id().unwrap_or_default());
        let Some(status) = unless(&mut stop, child.wait()).await else {
            terminate(&child);
            println!("`{script}` has ended as told: {}", child.wait().await?);
            return Ok(());
        };
        println!("`{script}` has ended: {}", status?);
        if unless(&mut stop, sleep(Duration::from_secs(1))).await.is_none() {
            return Ok(());
        }
    }
}

/// The output of the future, or `None` if the stop comes before.
async fn unless<F: Future>(stop: &mut Requested, future: F) -> Option<F::Output> {
    match select(stop, pin!(future)).await {
        Either::Left(_) => None,
        Either::Right((output, _)) => Some(output),
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = child.id() {
        // SAFETY: takes no pointer. Nobody has reaped the child, so the number is still its own. To the whole group that it leads.
        unsafe { libc::kill(-pid.cast_signed(), libc::SIGTERM) };
    }
}
