//! What must not compile, because it would break one of the rules that keep this sound: each file of
//! `tests/must_not_compile` says which, and what the compiler says of it is beside it.
//!
//! `TRYBUILD=overwrite cargo test --test must_not_compile` writes the messages anew.

// As in Cargo.toml.
#![cfg(not(any(evbase_pipe_notify, evbase_millisecond_waits, evbase_libkqueue)))]
#![cfg(feature = "net")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const CASES: &str = "tests/must_not_compile";

#[test]
fn what_breaks_a_rule_does_not_compile() {
    let cases = if compiler_is_the_one_of_the_messages() {
        PathBuf::from(CASES)
    } else {
        // Another compiler has other words. It still has to refuse each file: of copies, the messages are written, not
        // compared.
        let copies = copies();
        // SAFETY: this is the only test of its process, and its only thread that looks at the environment.
        unsafe { env::set_var("TRYBUILD", "overwrite") };
        copies
    };
    let count = sources(&cases).len();
    assert!(count >= 20, "{count} cases in {}", cases.display());
    trybuild::TestCases::new().compile_fail(cases.join("*.rs"));
}

/// The compiler whose words are in the files: the one that the package is developed with.
const MESSAGES_OF: &str = "1.95";

fn compiler_is_the_one_of_the_messages() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.starts_with(&format!("rustc {MESSAGES_OF}."))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn copies() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("must_not_compile");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    for source in sources(Path::new(CASES)) {
        fs::copy(&source, dir.join(source.file_name().unwrap())).unwrap();
    }
    dir
}
