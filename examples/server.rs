//! The main job: a TCP line server on one loop, fed by another thread, ended by Ctrl-C.
//!
//! ```text
//! cargo run --release --example server -- --port 7000
//! ```
//!
//! Each connection is a task with state that is not `Send`. Another thread spawns a job into the loop every second. The
//! first Ctrl-C stops accepting, and gives the connections a grace period to finish; a second one ends them now. What was
//! freed, and on which thread, is printed at the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;
use std::{env, io, thread};

use evbase::net::{TcpListener, TcpStream};
use evbase::{Builder, Runtime, Shutdown};
use futures::future::{Either, select};
use futures::io::BufReader;
use futures::{AsyncBufReadExt, AsyncWriteExt};

const USAGE: &str = "usage: server [--port PORT] [--grace SECONDS]";

fn main() -> ExitCode {
    match parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    port: u16,
    grace: Duration,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        port: 7000,
        grace: Duration::from_secs(10),
    };
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or_else(|| format!("{arg} needs a number\n{USAGE}"))?;
            value
                .parse::<u16>()
                .map_err(|_| format!("{arg}: {value:?} is no number from 0 to 65535\n{USAGE}"))
        };
        match arg.as_str() {
            "--port" => options.port = number()?,
            "--grace" => options.grace = Duration::from_secs(number()?.into()),
            _ => return Err(format!("unknown option {arg:?}\n{USAGE}").into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().grace(options.grace).build()?;
    let shutdown = runtime.shutdown_handle();
    let _signals = shutdown.on_signals(&[libc::SIGINT, libc::SIGTERM])?;
    let ticker = start_ticker(&runtime);

    // Returns when all is closed: what it gives is the error of a listener that could not be made.
    let served = runtime.block_on(serve(options, shutdown.clone()));
    if let Ok(Err(error)) = served {
        return Err(error);
    }
    let report = runtime.shutdown().wait()?;
    ticker.join().map_err(|_| "the ticker panicked")?;

    println!("{report}");
    for ((what, thread), count) in FREED.lock().unwrap().iter() {
        println!("freed on thread {thread}: {count} x {what}");
    }
    Ok(())
}

/// Another thread, which gives the loop a job every second, until the runtime is closed.
fn start_ticker(runtime: &Runtime) -> thread::JoinHandle<()> {
    let (spawner, terminated) = (runtime.spawner(), runtime.shutdown_handle().terminated());
    let tick = Duration::from_secs(1);
    thread::spawn(move || {
        while let Ok(None) = terminated.wait_timeout(tick) {
            // The closure travels; what it makes, and it may be anything, stays at home.
            let job = || async {
                let _freed = Freed("job");
                STATS.with(|stats| {
                    if stats.lines.get() > stats.reported.get() {
                        println!("{} connections, {} lines", stats.open.get(), stats.lines.get());
                        stats.reported.set(stats.lines.get());
                    }
                });
            };
            if spawner.try_spawn_with(job).is_err() {
                break;
            }
        }
    })
}

#[derive(Default)]
struct Stats {
    open: Cell<u64>,
    lines: Cell<u64>,
    reported: Cell<u64>,
}

thread_local! {
    static STATS: Rc<Stats> = Rc::default();
}

async fn serve(options: &Options, shutdown: Shutdown) -> Result<(), Box<dyn Error>> {
    let port = options.port;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("port {port} is taken: choose another one with --port")
            }
            _ => format!("can't listen on port {port}: {error}"),
        })?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}; talk to it with: nc {} {}", addr.ip(), addr.port());
    println!(
        "Ctrl-C ends it when the connections have finished, or after {:?}; twice, at once",
        options.grace
    );
    let freed = Freed("listener");

    let mut requested = shutdown.requested();
    loop {
        match select(pin!(listener.accept()), &mut requested).await {
            Either::Left((Ok((stream, _)), _)) => drop(evbase::spawn_local(connection(stream, shutdown.clone()))),
            Either::Left((Err(error), _)) => {
                // Out of descriptors, perhaps: the listener stays usable, but not at once.
                eprintln!("server: can't accept a connection: {error}");
                evbase::time::sleep(Duration::from_millis(100)).await;
            }
            Either::Right(((), _)) => break,
        }
    }
    drop((listener, freed));
    STATS.with(|stats| println!("no new connections; waiting for {}", stats.open.get()));
    Ok(())
}

/// One connection: repeats each line with its number, until the other side closes.
async fn connection(stream: TcpStream, shutdown: Shutdown) {
    let stats = STATS.with(Rc::clone);
    stats.open.set(stats.open.get() + 1);
    // Not Send, and shared by two futures of this task.
    let lines = Rc::new(RefCell::new(0));
    let _freed = Freed("connection");

    let talk = async {
        let mut reader = BufReader::new(&stream).lines();
        while let Some(line) = futures::StreamExt::next(&mut reader).await {
            *lines.borrow_mut() += 1;
            stats.lines.set(stats.lines.get() + 1);
            let reply = format!("{}: {}\n", lines.borrow(), line?);
            (&stream).write_all(reply.as_bytes()).await?;
        }
        Ok::<(), io::Error>(())
    };
    let mut talk = pin!(talk);
    let ended = match select(talk.as_mut(), shutdown.requested()).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), _)) => {
            let warning = format!("closing soon, after {} lines\n", lines.borrow());
            let _ = (&stream).write_all(warning.as_bytes()).await;
            talk.await
        }
    };
    if let Err(error) = ended {
        eprintln!("server: a connection failed: {error}");
    }
    stats.open.set(stats.open.get() - 1);
}

/// Notes the thread on which it was dropped.
struct Freed(&'static str);

static FREED: Mutex<BTreeMap<(&str, String), u64>> = Mutex::new(BTreeMap::new());

impl Drop for Freed {
    fn drop(&mut self) {
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        *FREED.lock().unwrap().entry((self.0, name)).or_default() += 1;
    }
}
