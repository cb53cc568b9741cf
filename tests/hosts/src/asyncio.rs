//! Python's asyncio, by `add_reader`: the script is the host, and the program.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scenarios::all_scenarios;

/// The library that the script loads, which Cargo makes from `asyncio_library.rs`.
fn library() -> PathBuf {
    let name = format!(
        "{}asyncio{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let here = std::env::current_exe().unwrap();
    let target = here.parent().and_then(Path::parent).unwrap();
    target.join("examples").join(name)
}

fn run(scenario: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/asyncio_host.py");
    let ended = Command::new("python3")
        .arg(script)
        .arg(library())
        .arg(scenario)
        .output();
    let ended = ended.expect("python3 is one of the hosts: install it");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}:\n{said}", ended.status);
}

macro_rules! in_python {
    ($($name:ident)+) => { $(
        #[test]
        fn $name() {
            crate::watched(|| run(stringify!($name)));
        }
    )+ };
}

all_scenarios!(in_python!);
