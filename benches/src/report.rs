//! Medians, spread and ratios, as lines on the terminal and as results.md.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use crate::measure::quantile;
use crate::peers::Name;
use crate::workloads::{FAMILIES, Family, Figure, Member};

/// What a cell's process answered.
pub type Outcome = Result<Vec<(String, f64)>, String>;

/// All that was measured.
#[derive(Default)]
pub struct Results {
    /// By workload, peer and key; one figure a repetition.
    figures: BTreeMap<(&'static str, Name, String), Vec<f64>>,
    unavailable: BTreeMap<(&'static str, Name), String>,
}

/// One figure of one cell, over the repetitions.
#[derive(Clone, Copy)]
pub struct Summary {
    pub peer: Name,
    pub median: f64,
    min: f64,
    max: f64,
}

impl Results {
    pub fn add(&mut self, member: &Member, peer: Name, outcome: Outcome) {
        match outcome {
            Ok(fields) => {
                for (key, number) in fields {
                    self.figures.entry((member.name, peer, key)).or_default().push(number);
                }
            }
            Err(reason) => {
                self.unavailable.insert((member.name, peer), reason);
            }
        }
    }

    pub fn is_unavailable(&self, member: &Member, peer: Name) -> bool {
        self.unavailable.contains_key(&(member.name, peer))
    }

    fn get(&self, workload: &'static str, figure: &Figure, peer: Name) -> Option<Summary> {
        let mut figures = self.figures.get(&(workload, peer, figure.key.to_owned()))?.clone();
        Some(Summary {
            peer,
            median: quantile(&mut figures, 0.5),
            min: figures[0],
            max: figures[figures.len() - 1],
        })
    }

    /// Whether the peer left something undone: then it is shown, but nobody is compared with it.
    fn leaks(&self, member: &Member, peer: Name) -> bool {
        let leaked = self.figures.get(&(member.name, peer, "leaked".to_owned()));
        leaked.is_some_and(|figures| figures.iter().any(|&leaked| leaked > 0.0))
    }

    /// All that have this figure.
    fn row(&self, member: &Member, figure: &Figure) -> Vec<Summary> {
        let get = |peer| self.get(member.name, figure, peer);
        Name::ALL.into_iter().filter_map(get).collect()
    }

    /// evbase, the best of its peers, and the limit, if they were measured.
    pub fn compare(&self, member: &Member, figure: &Figure) -> (Option<Summary>, Option<Summary>, Option<Summary>) {
        let row = self.row(member, figure);
        let evbase = row.iter().find(|summary| summary.peer == Name::Evbase).copied();
        let best = row
            .iter()
            .filter(|summary| summary.peer != Name::Evbase && !summary.peer.is_limit())
            .filter(|summary| !self.leaks(member, summary.peer))
            .min_by(|a, b| a.median.total_cmp(&b.median))
            .copied();
        // Where there is a raw loop, it is the limit; else the bare executor.
        let limit = row.iter().rfind(|summary| summary.peer.is_limit()).copied();
        (evbase, best, limit)
    }

    /// A line for each figure of each peer.
    pub fn lines(&self, family: &Family, member: &Member) -> String {
        let mut text = String::new();
        for figure in family.figures {
            let (_, best, limit) = self.compare(member, figure);
            for summary in self.row(member, figure) {
                let times = |other: Option<Summary>, of: &str| match other {
                    Some(other) if other.median != 0.0 => format!("{:8.2} x {of}", summary.median / other.median),
                    _ => String::new(),
                };
                let line = format!(
                    "{:23} {:13} {:>9} {:15} {:>9} - {:>9} {:>20} {}",
                    member.name,
                    summary.peer.text(),
                    number(summary.median),
                    figure.unit,
                    number(summary.min),
                    number(summary.max),
                    times(best, best.map_or("", |best| best.peer.text())),
                    times(limit, limit.map_or("", |limit| limit.peer.text())),
                );
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        for ((workload, _), reason) in &self.unavailable {
            if *workload == member.name {
                let _ = writeln!(text, "{workload:23} not available: {reason}");
            }
        }
        text
    }

    pub fn markdown(&self, repetitions: usize) -> String {
        let mut text = format!(
            "# evbase and its peers\n\nMade by `cargo run --release` in `benches/`; don't edit.\n\n{}\nEach cell is a process \
             of its own. The loop under test is pinned to one core, its counterpart to the other. Peers take turns; the \
             figures are medians of {repetitions} repetitions. Less is better everywhere. Compare within a row only: on a \
             shared machine, differences under 25% in ring and echo, and 15% elsewhere, are not established.\n\n\
             \"best\" is the best of the peers, without those that leak and the limits: \"raw\", a bare epoll loop, and \"bare\", async-task \
             with a queue and an eventfd. Where evbase loses, its ratio is **bold**.\n\n![evbase / best peer](results.svg)\n",
            machine(),
        );
        self.losses(&mut text);
        self.tables(&mut text);
        self.growth(&mut text);
        text.push_str("\n## What is timed\n\n");
        for family in FAMILIES.iter().filter(|family| !family.what.is_empty()) {
            let _ = writeln!(text, "- **{}**: {}", family.name, family.what);
        }
        if !self.unavailable.is_empty() {
            text.push_str("\n## Not available\n\n");
            let mut cells: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
            for ((workload, _), reason) in &self.unavailable {
                cells.entry(reason).or_default().push(workload);
            }
            for (reason, workloads) in cells {
                let _ = writeln!(text, "- {reason} ({})", workloads.join(", "));
            }
        }
        text.push_str(
            "\n## Every cell\n\nMedian, smallest and largest, ratios to the best peer and to the limit.\n\n```text\n",
        );
        for family in FAMILIES {
            for member in family.members {
                text.push_str(&self.lines(family, member));
            }
        }
        text.push_str("```\n");
        text
    }

    /// Wins and losses, said plainly.
    fn losses(&self, text: &mut String) {
        let (mut wins, mut losses) = (0, Vec::new());
        for (member, figure) in rows() {
            let (Some(evbase), Some(best), _) = self.compare(member, figure) else {
                continue;
            };
            if evbase.median <= best.median {
                wins += 1;
            } else {
                losses.push(format!(
                    "{} ({}, {}): {} against {} of {}",
                    member.title,
                    member.name,
                    figure.unit,
                    number(evbase.median),
                    number(best.median),
                    best.peer.text()
                ));
            }
        }
        let _ = writeln!(
            text,
            "\nevbase is level with the best peer or ahead of it in {wins} rows, and behind in {}:\n",
            losses.len()
        );
        for loss in losses {
            let _ = writeln!(text, "- {loss}");
        }
    }

    fn tables(&self, text: &mut String) {
        let peers = Name::ALL.map(Name::text).join(" | ");
        let _ = writeln!(text, "\n## Medians\n\n| workload | unit | {peers} | / best | / limit |");
        let _ = writeln!(text, "|---|---|{}", "--:|".repeat(Name::ALL.len() + 2));
        for (member, figure) in rows() {
            let cells = Name::ALL.map(|peer| match self.get(member.name, figure, peer) {
                Some(summary) if self.leaks(member, peer) => format!("{} (leaks)", number(summary.median)),
                Some(summary) => number(summary.median),
                None if self.is_unavailable(member, peer) => "n/a".into(),
                None => String::new(),
            });
            let (evbase, best, limit) = self.compare(member, figure);
            let ratio = |other: Option<Summary>| match (evbase, other) {
                (Some(evbase), Some(other)) if other.median != 0.0 => evbase.median / other.median,
                _ => f64::NAN,
            };
            let (to_best, to_limit) = (ratio(best), ratio(limit));
            let show = |ratio: f64| {
                if ratio.is_nan() {
                    String::new()
                } else {
                    format!("{ratio:.2}")
                }
            };
            let bold = if to_best > 1.0 { "**" } else { "" };
            let _ = writeln!(
                text,
                "| {} (`{}`) | {} | {} | {bold}{}{bold} | {} |",
                member.title,
                member.name,
                figure.unit,
                cells.join(" | "),
                show(to_best),
                show(to_limit)
            );
        }
    }

    fn growth(&self, text: &mut String) {
        let peers = Name::ALL.map(Name::text).join(" | ");
        let _ = writeln!(
            text,
            "\n## Growth\n\nWhat an operation costs with a thousand times as much about, over what it costs with a \
             thousandth: 1 is what one wants.\n\n| from | to | {peers} |"
        );
        let _ = writeln!(text, "|---|---|{}", "--:|".repeat(Name::ALL.len()));
        for family in FAMILIES {
            let Some((small, large)) = family.growth else {
                continue;
            };
            let cells = Name::ALL.map(|peer| {
                let get = |workload| self.get(workload, &family.figures[0], peer);
                match (get(small), get(large)) {
                    (Some(small), Some(large)) => format!("{:.2}", large.median / small.median),
                    _ => String::new(),
                }
            });
            let _ = writeln!(text, "| `{small}` | `{large}` | {} |", cells.join(" | "));
        }
    }
}

/// Every figure of every workload.
pub fn rows() -> impl Iterator<Item = (&'static Member, &'static Figure)> {
    FAMILIES
        .iter()
        .flat_map(|family| family.members.iter().map(move |member| (family, member)))
        .flat_map(|(family, member)| family.figures.iter().map(move |figure| (member, figure)))
}

/// Three significant digits, or all before the point.
fn number(number: f64) -> String {
    match number.abs() {
        100.0.. | 0.0 => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Where and with what this was measured.
fn machine() -> String {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        output.map_or_else(
            |_| "?".into(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let cpuinfo = file("/proc/cpuinfo");
    let of_cpu = |key: &str| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(key)?
                    .trim_start()
                    .strip_prefix(':')?
                    .trim()
                    .to_owned(),
            )
        };
        cpuinfo.lines().find_map(value)
    };
    let cpu = match (of_cpu("model name"), of_cpu("cpu family"), of_cpu("model")) {
        // A virtual machine may not say which one it is.
        (Some(name), Some(family), Some(model)) => format!("{name}, family {family}, model {model}"),
        (name, ..) => name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
    };
    let versions: Vec<_> = PEER_CRATES
        .iter()
        .map(|name| format!("{name} {}", locked_version(name).unwrap_or("?")))
        .chain(option_env!("LIBEVENT_VERSION").map(|version| format!("libevent {version}")))
        .chain(option_env!("LIBUV_VERSION").map(|version| format!("libuv {version}")))
        .collect();
    format!(
        "| | |\n|---|---|\n| date | {} |\n| kernel | Linux {} |\n| CPU | {} x {cpu} |\n| load afterwards | {} |\n| compiler | {}, \
         thin LTO, one codegen unit |\n| evbase | {} |\n| peers | {} |\n",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        // What comes after the version is the builder's.
        file("/proc/sys/kernel/osrelease").split('-').next().unwrap_or("?"),
        crate::measure::cores().len(),
        file("/proc/loadavg"),
        env!("RUSTC_VERSION"),
        said("git", &["describe", "--always", "--dirty"]),
        versions.join(", "),
    )
}

const PEER_CRATES: &[&str] = &[
    "tokio",
    "async-executor",
    "async-io",
    "monoio",
    "compio",
    "glommio",
    "calloop",
    "async-task",
    "async-channel",
];

/// The version in Cargo.lock.
fn locked_version(name: &str) -> Option<&'static str> {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = include_str!("../Cargo.lock").split_once(&entry)?;
    rest.split('"').next()
}
