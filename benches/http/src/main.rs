//! What a request of HTTP costs: the router of `examples/http.rs`, served by that example on evbase, and on tokio's current_thread
//! runtime by `axum::serve` ("axum"), which sets no timeouts, and by hyper with the timeouts that the example has ("tokio").
//!
//! ```text
//! cargo run --release                  # wrk -c64 -d10, five times each, in turns
//! cargo run --release -- 60 1          # wrk -c64 -d60, once each
//! cargo run --release -- serve evbase  # only a server, on a free port
//! ```
//!
//! The server is pinned to the last core, wrk to the first. CPU is the server's, user and system, divided by the requests that
//! wrk counted. Memory is what the server grew by between the middle of a run and its end.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io, mem, thread};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

#[path = "../../../examples/http.rs"]
#[allow(dead_code, reason = "its main")]
mod example;

const SERVERS: [&str; 3] = ["evbase", "axum", "tokio"];
const CONNECTIONS: usize = 64;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", server] => serve(server),
        [] => compare(10, 5),
        [seconds, repetitions] => compare(seconds.parse()?, repetitions.parse()?),
        _ => Err("usage: [SECONDS REPETITIONS] | serve evbase|axum|tokio".into()),
    }
}

fn serve(server: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    match server {
        "evbase" => println!("{}", example::run(listener)?),
        "axum" => on_tokio(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, example::router()).await
        })?,
        "tokio" => on_tokio(serve_with_timeouts(listener))?,
        _ => return Err(format!("there is no server {server:?}, but: {SERVERS:?}").into()),
    }
    Ok(())
}

fn on_tokio(server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(server)
}

async fn serve_with_timeouts(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(example::router());
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

fn compare(seconds: u64, repetitions: usize) -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    let mut figures = SERVERS.map(|_| Vec::new());
    for _ in 0..repetitions {
        for (server, figures) in SERVERS.iter().zip(&mut figures) {
            let figure = measure(server, seconds, cores - 1)?;
            println!(
                "{server:8} {:7.0} requests/s  {:5.2} us CPU/request  {:+} KiB",
                figure.rate, figure.cpu, figure.growth
            );
            figures.push(figure);
        }
    }
    println!("\nmedians of {repetitions}, wrk -c{CONNECTIONS} -d{seconds}");
    for (server, figures) in SERVERS.iter().zip(&figures) {
        let median = |of: fn(&Figure) -> f64| {
            let mut sorted: Vec<f64> = figures.iter().map(of).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        println!(
            "{server:8} {:7.0} requests/s  {:5.2} us CPU/request",
            median(|figure| figure.rate),
            median(|figure| figure.cpu)
        );
    }
    Ok(())
}

struct Figure {
    /// Requests a second.
    rate: f64,
    /// Microseconds of the server's a request.
    cpu: f64,
    /// KiB.
    growth: i64,
}

/// Ends its server when it goes.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(server: &str, seconds: u64, core: usize) -> Result<Figure> {
    let mut child = Command::new("taskset")
        .args(["-c", &core.to_string()])
        .arg(env::current_exe()?)
        .args(["serve", server])
        .stdout(Stdio::piped())
        .spawn()
        .map(Server)?;
    let mut addr = String::new();
    BufReader::new(child.0.stdout.take().ok_or("no output")?).read_line(&mut addr)?;
    let url = format!("http://{}/json", addr.trim());

    wrk(&url, 1)?;
    let pid = child.0.id();
    let before = cpu(pid)?;
    let half = thread::spawn(move || {
        thread::sleep(Duration::from_millis(seconds * 500));
        resident(pid).map_err(|error| error.to_string())
    });
    let requests = wrk(&url, seconds)?;
    let used = cpu(pid)? - before;
    let half = half.join().map_err(|_| "the watcher of the memory panicked")??;
    Ok(Figure {
        rate: requests as f64 / seconds as f64,
        cpu: used.as_secs_f64() * 1e6 / requests as f64,
        growth: resident(pid)? - half,
    })
}

/// The requests that were answered, all of them well.
fn wrk(url: &str, seconds: u64) -> Result<u64> {
    let output = Command::new("taskset")
        .args(["-c", "0", "wrk", "-t1"])
        .args([format!("-c{CONNECTIONS}"), format!("-d{seconds}"), url.into()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() || text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("{}: {text}", output.status).into());
    }
    let line = text.lines().find(|line| line.contains("requests in"));
    let count = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or(text.clone())?;
    Ok(count.parse()?)
}

/// CPU time of a process, user and system.
fn cpu(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    let mut time: libc::timespec;
    // SAFETY: a timespec is plain memory, for which zeroes are valid; both pointers are to locals.
    let failed = unsafe {
        time = mem::zeroed();
        libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0
    };
    if failed {
        return Err(format!("no CPU clock of process {pid}").into());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// KiB of memory that a process has.
fn resident(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)).ok_or("no VmRSS")?;
    Ok(number.parse()?)
}
