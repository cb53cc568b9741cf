//! Counts instructions (by callgrind), allocations and system calls (by strace) for each operation, and compares them with
//! `counts.md`.
//!
//! ```console
//! $ cargo run --release               # prints the table; fails if a figure is more than 2% above the one in counts.md
//! $ cargo run --release -- --write    # writes counts.md
//! ```
//!
//! Times differ from machine to machine and from run to run; these figures are the same for the same compiler. Each operation is run
//! n and 2n times, in processes of their own, and what the second run has more is divided by n: what starts and ends a process, and what
//! makes and frees a runtime, is not in it. The processes are called by a relative path, with an environment of their own, since the
//! stack begins below both, and what a copy costs depends on its alignment; and glibc copies with SSE2, whatever the processor has.
//! 18% of what creates a runtime depended on these.

mod workloads;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, fs};

use workloads::WORKLOADS;

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// By how much a figure may grow unnoticed.
const TOLERANCE: f64 = 1.02;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.md");

/// Which of its functions glibc takes, and from which size on, is the processor's affair otherwise.
const PLAIN_COPIES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-SSSE3,-ERMS,-FSRM:\
    glibc.cpu.x86_rep_movsb_threshold=1000000:glibc.cpu.x86_rep_stosb_threshold=1000000:\
    glibc.cpu.x86_non_temporal_threshold=1000000";

/// Instructions, allocations, system calls.
type Figures = [f64; 3];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match &args[..] {
        [name, count] if name != "--write" => {
            let workload = WORKLOADS
                .iter()
                .find(|workload| workload.name == name)
                .expect("a workload");
            let before = ALLOCATIONS.load(Relaxed);
            (workload.run)(count.parse().expect("a number"));
            println!("{}", ALLOCATIONS.load(Relaxed) - before);
            return ExitCode::SUCCESS;
        }
        [] => {}
        [write] if write == "--write" => {}
        _ => panic!("usage: counts [--write]"),
    }
    let measured: Vec<(&str, Figures)> = WORKLOADS
        .iter()
        .map(|workload| (workload.name, measure(workload)))
        .collect();
    let table = table(&measured);
    println!("{table}");
    if !args.is_empty() {
        fs::write(TABLE, table).expect("counts.md can be written");
        return ExitCode::SUCCESS;
    }
    let budgets = budgets();
    let mut failures = Vec::new();
    for (workload, (name, figures)) in WORKLOADS.iter().zip(&measured) {
        match budgets.get(*name) {
            None => failures.push(format!("{name} is not in counts.md: write it anew")),
            // What grew is there each time; what the kernel or another process did is not.
            Some(budget) => {
                if !grown(name, figures, budget).is_empty() {
                    failures.extend(grown(name, &measure(workload), budget));
                }
            }
        }
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("more than counts.md says, twice:\n{}", failures.join("\n"));
    ExitCode::FAILURE
}

/// Says which of an operation's figures have grown.
fn grown(name: &str, figures: &Figures, budget: &Figures) -> Vec<String> {
    let what = ["instructions", "allocations", "system calls"];
    let compared = what.iter().zip(figures).zip(budget);
    compared
        // The table's figures are rounded.
        .filter(|((_, now), was)| **now > **was * TOLERANCE + 0.02)
        .map(|((what, now), was)| format!("{name}: {now:.2} {what} an operation, {was:.2} in counts.md"))
        .collect()
}

fn measure(workload: &workloads::Workload) -> Figures {
    let difference = |of: fn(&str, usize) -> f64, count: usize| {
        let (once, twice) = (of(workload.name, count), of(workload.name, 2 * count));
        (twice - once) / (count * workload.operations) as f64
    };
    [
        difference(instructions, workload.count),
        difference(allocations, workload.count),
        // strace is slow, and what it counts varies less.
        difference(system_calls, workload.count / 10),
    ]
}

fn ourselves(wrapper: &[&str], name: &str, count: usize) -> (String, String) {
    let ours = env::current_exe().expect("this program");
    let folder = ours.parent().expect("a file is in a folder");
    let ours = ours.file_name().and_then(OsStr::to_str).expect("its name is text");
    let ours = format!("./{ours}");
    let mut words = wrapper.to_vec();
    let count = count.to_string();
    words.extend([&*ours, name, &count]);
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env_clear()
        .env("GLIBC_TUNABLES", PLAIN_COPIES)
        .output();
    let output =
        output.unwrap_or_else(|error| panic!("{} can't be run: {error}; install valgrind and strace", words[0]));
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

fn instructions(name: &str, count: usize) -> f64 {
    let wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let (_, said) = ourselves(&wrapper, name, count);
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    line.expect("callgrind's count").1.trim().parse().expect("a number")
}

fn allocations(name: &str, count: usize) -> f64 {
    ourselves(&[], name, count).0.trim().parse().expect("a number")
}

fn system_calls(name: &str, count: usize) -> f64 {
    // Memory comes when it comes.
    let wrapper = [
        "strace",
        "-f",
        "-c",
        "-e",
        "trace=!brk,mmap,munmap,mremap,madvise,futex",
    ];
    let (_, said) = ourselves(&wrapper, name, count);
    let total = said
        .lines()
        .find(|line| line.ends_with(" total"))
        .expect("strace's total");
    total
        .split_whitespace()
        .nth(3)
        .expect("the count")
        .parse()
        .expect("a number")
}

fn table(measured: &[(&str, Figures)]) -> String {
    let mut table = String::from(
        "# What an operation costs\n\n\
         Written by `cargo run --release -- --write` in `benches/counts`, which says what is counted, and fails without `--write` if a\n\
         figure has grown by more than 2%.\n\n\
         | operation | instructions | allocations | system calls |\n|---|--:|--:|--:|\n",
    );
    for (name, [instructions, allocations, calls]) in measured {
        table += &format!("| {name} | {instructions:.1} | {allocations:.2} | {calls:.2} |\n");
    }
    table
}

/// The figures in `counts.md`.
fn budgets() -> BTreeMap<String, Figures> {
    let table = fs::read_to_string(TABLE).expect("counts.md");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.to_owned();
        let figures: Vec<f64> = cells.filter_map(|cell| cell.parse().ok()).collect();
        Some((name, figures.try_into().ok()?))
    });
    rows.collect()
}
