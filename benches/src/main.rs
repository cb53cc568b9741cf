//! What evbase costs, beside its peers.
//!
//! ```console
//! $ cargo run --release                        # everything; writes results.md and results.svg
//! $ cargo run --release -- ring                # a family of workloads, or one, for all peers
//! $ cargo run --release -- ring-500-100 tokio  # one cell
//! $ cargo run --release -- --list              # their names
//! ```
//!
//! Each cell is a process of its own: this program runs itself again with `--cell WORKLOAD PEER`, which prints one line of
//! `key=value` figures. Peers take turns within each repetition, so that what else happens on the machine hits them alike.

mod load;
mod measure;
mod memory;
mod peers;
mod plot;
mod report;
mod workloads;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use measure::Core;
use peers::Name;
use report::{Outcome, Results};
use workloads::{FAMILIES, Family, Member};

const USAGE: &str = "\
usage: cargo run --release -- [OPTIONS] [WORKLOAD [PEER]]

  WORKLOAD    a workload or a family of them; all if there is none
  PEER        one peer; all if there is none
  --reps N    repetitions (5)
  --quick     shorter cells, one repetition: to see that everything runs
  --list      names the workloads and the peers";

struct Options {
    repetitions: usize,
    budget_ms: u64,
    workload: Option<String>,
    peer: Option<Name>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => list(),
        ["--cell", workload, peer] => cell(workload, peer),
        ["--load", port, connections] => match (port.parse(), connections.parse()) {
            (Ok(port), Ok(connections)) => load::run(port, connections),
            _ => return usage(),
        },
        _ => match options(&arguments) {
            Some(options) => drive(&options),
            None => return usage(),
        },
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}

fn list() {
    for family in FAMILIES {
        for member in family.members {
            println!("{:23} {}", member.name, member.title);
        }
    }
    println!("\npeers: {}", Name::ALL.map(Name::text).join(" "));
}

/// Runs one cell in this process.
fn cell(workload: &str, peer: &str) {
    let (_, member) = workloads::find(workload).expect("a workload of --list");
    let peer = Name::by_text(peer).expect("a peer of --list");
    measure::pin(Core::Loop);
    // A cell that hangs is killed by SIGALRM.
    // SAFETY: sets a timer of this process.
    unsafe { libc::alarm(CELL_SECONDS) };
    workloads::finish(peer, peer.check().and_then(|()| (member.cell)(peer)));
}

const CELL_SECONDS: u32 = 120;

fn options(arguments: &[&str]) -> Option<Options> {
    let mut options = Options {
        repetitions: 5,
        budget_ms: 500,
        workload: None,
        peer: None,
    };
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--reps" => options.repetitions = arguments.next()?.parse().ok().filter(|&reps| reps > 0)?,
            "--quick" => (options.repetitions, options.budget_ms) = (1, 50),
            _ if argument.starts_with('-') => return None,
            _ if options.workload.is_none() => {
                let is_meant = |(family, member): (&Family, &Member)| [family.name, member.name].contains(&argument);
                selected(None).any(is_meant).then_some(())?;
                options.workload = Some(argument.to_owned());
            }
            _ if options.peer.is_none() => options.peer = Some(Name::by_text(argument)?),
            _ => return None,
        }
    }
    Some(options)
}

/// All workloads, or those of that name, or of the family of that name.
fn selected(name: Option<&str>) -> impl Iterator<Item = (&'static Family, &'static Member)> {
    FAMILIES
        .iter()
        .flat_map(|family| family.members.iter().map(move |member| (family, member)))
        .filter(move |(family, member)| name.is_none_or(|name| [family.name, member.name].contains(&name)))
}

fn drive(options: &Options) {
    measure::cores();
    let mut results = Results::default();
    for (family, member) in selected(options.workload.as_deref()) {
        let mut peers: Vec<Name> = family.peers.to_vec();
        peers.retain(|&peer| options.peer.is_none_or(|only| only == peer));
        for repetition in 0..options.repetitions {
            for &peer in &peers {
                progress(&format!(
                    "{} {} ({}/{})",
                    member.name,
                    peer.text(),
                    repetition + 1,
                    options.repetitions
                ));
                if !results.is_unavailable(member, peer) {
                    results.add(member, peer, run(member, peer, options.budget_ms));
                }
            }
            // Who goes first, goes last the next time.
            let first = peers.remove(0);
            peers.push(first);
        }
        progress("");
        print!("{}", results.lines(family, member));
    }
    if options.workload.is_none() && options.peer.is_none() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let write = |file: &str, text: String| {
            let path = directory.join(file);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            println!("wrote {}", path.display());
        };
        write("results.md", results.markdown(options.repetitions));
        write("results.svg", plot::svg(&results));
    }
}

/// What is being done, on a line that the next one overwrites.
fn progress(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
    }
}

/// Runs one cell in a process of its own.
fn run(member: &Member, peer: Name, budget_ms: u64) -> Outcome {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--cell", member.name, peer.text()])
        .env(measure::BUDGET_VARIABLE, budget_ms.to_string())
        .output()
        .expect("this program runs");
    let line = String::from_utf8_lossy(&output.stdout);
    if let Some(reason) = line.trim().strip_prefix("unavailable=") {
        return Err(reason.to_owned());
    }
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = stderr
            .lines()
            .find(|line| !line.trim().is_empty() && !line.contains("panicked at"));
        return Err(format!(
            "{}: {}: {}",
            peer.text(),
            output.status,
            said.unwrap_or("it said nothing")
        ));
    }
    let field = |field: &str| {
        let (key, number) = field.split_once('=')?;
        Some((key.to_owned(), number.parse().ok()?))
    };
    line.split_whitespace()
        .map(field)
        .collect::<Option<Vec<_>>>()
        .filter(|fields| !fields.is_empty())
        .ok_or_else(|| format!("{}: unreadable answer: {line}", peer.text()))
}
