//! The loom models can fail: each mistake in `tests/mutants`, a patch of the source, is found by the model that its text names.
//!
//! `cargo test --test mutants -- --ignored --nocapture`; `EVBASE_MUTANT=text` takes only those whose name contains it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;
use std::{env, fs, io};

struct Mutant {
    name: String,
    patch: PathBuf,
    /// The one that has to find it.
    model: String,
}

/// All there are; or those that `EVBASE_MUTANT` names.
fn mutants() -> Vec<Mutant> {
    let only = env::var("EVBASE_MUTANT").unwrap_or_default();
    let patches = fs::read_dir(root().join("tests/mutants")).unwrap();
    let mut mutants: Vec<_> = patches
        .map(|entry| {
            let patch = entry.unwrap().path();
            let name = patch.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&patch).unwrap();
            let model = text.lines().find_map(|line| line.strip_prefix("model: "));
            let model = model.unwrap_or_else(|| panic!("{name} names no model")).to_owned();
            Mutant { name, patch, model }
        })
        .filter(|mutant| mutant.name.contains(&only))
        .collect();
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!mutants.is_empty(), "there is no mutant whose name contains '{only}'");
    mutants
}

/// A model that takes no time, on a source without a mistake.
const SOUND: &str = "executor::post_models::a_reset_that_meets_the_end_is_freed";

#[test]
fn every_mistake_fits_the_source() {
    for mutant in mutants() {
        mutant.apply(root(), &["--check"], &["--dry-run"]);
    }
}

#[test]
#[ignore = "some minutes"]
fn every_mistake_is_found_by_its_model() {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let _ = fs::remove_dir_all(copy.join("src"));
    for part in ["src", "examples", "Cargo.toml", "Cargo.lock", "README.md"] {
        copy_to(Path::new(part), &copy);
    }
    leave_out_tests(&copy.join("Cargo.toml"));
    assert!(!is_found(&copy, SOUND), "without a mistake");
    let mut missed = Vec::new();
    for mutant in mutants() {
        let start = Instant::now();
        mutant.apply(&copy, &[], &[]);
        let found = is_found(&copy, &mutant.model);
        mutant.apply(&copy, &["--reverse"], &["--reverse"]);
        println!(
            "{:>6}  {:50} {:75} {:5.1} s",
            if found { "found" } else { "MISSED" },
            mutant.name,
            mutant.model,
            start.elapsed().as_secs_f32()
        );
        if !found {
            missed.push(mutant.name);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Whether the model fails.
fn is_found(copy: &Path, model: &str) -> bool {
    let built = cargo(copy, &["--no-run"]);
    assert!(built.status.success(), "it is no program: {}", text(&built.stderr));
    let ran = cargo(copy, &["--", "--exact", model]);
    assert!(
        text(&ran.stdout).contains("running 1 test"),
        "there is no model {model}"
    );
    !ran.status.success()
}

fn cargo(copy: &Path, arguments: &[&str]) -> Output {
    // What the models depend on is built already, if they were run.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("loom");
    Command::new(env!("CARGO"))
        .args(["test", "--release", "--lib", "--target-dir"])
        .arg(target)
        // Most of the time is spent in building, as mistakes are found soon. What the crate depends on stays optimised.
        .args(["--config", "profile.release.package.evbase.opt-level=0"])
        .args(arguments)
        .current_dir(copy)
        .env("RUSTFLAGS", "--cfg evbase_loom")
        // One mistake at a time: little changes.
        .env("CARGO_INCREMENTAL", "1")
        .output()
        .unwrap()
}

impl Mutant {
    /// By git or, where there is none, by patch; each has its own options.
    fn apply(&self, directory: &Path, git: &[&str], patch: &[&str]) {
        let applied = Command::new("git")
            .arg("apply")
            .args(git)
            .arg(&self.patch)
            .current_dir(directory)
            // A copy is no part of the repository that it lies in.
            .env("GIT_CEILING_DIRECTORIES", directory.parent().unwrap())
            .output();
        let applied = match applied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Command::new("patch")
                .args(["--strip=1", "--fuzz=0", "--input"])
                .arg(&self.patch)
                .args(patch)
                .current_dir(directory)
                .output(),
            applied => applied,
        };
        let applied = applied.expect("git or patch");
        assert!(
            applied.status.success(),
            "{} doesn't fit the source any more: {}{}",
            self.patch.display(),
            text(&applied.stdout),
            text(&applied.stderr)
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy_to(from: &Path, directory: &Path) {
    let to = directory.join(from);
    if from.is_dir() {
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            copy_to(&entry.unwrap().path(), directory);
        }
    } else if from.exists() {
        fs::copy(from, to).unwrap();
    }
}

/// The copy has no tests but the models: those that the manifest names are taken out of it.
fn leave_out_tests(manifest: &Path) {
    let text = fs::read_to_string(manifest).unwrap();
    let tables: Vec<_> = text
        .split("\n\n")
        .filter(|table| !table.starts_with("[[test]]"))
        .collect();
    fs::write(manifest, tables.join("\n\n")).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
