//! Imports go one way: adapters -> runtime -> home -> observe -> executor and base, which don't know each other. Beside the
//! adapters are `task`, which knows runtime and executor, and `tracing`, which has what users have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The code of a layer, without comments and tests: each line with where it is.
fn code(layer: &Path, lines: &mut Vec<(String, String)>) {
    if layer.ends_with("tests.rs") || layer.ends_with("models.rs") {
        return;
    }
    if layer.is_dir() {
        for entry in fs::read_dir(layer).unwrap() {
            code(&entry.unwrap().path(), lines);
        }
        return;
    }
    let text = fs::read_to_string(layer).unwrap();
    let without_tests = text.lines().take_while(|line| *line != "mod tests {");
    for (number, line) in without_tests.enumerate() {
        let code = line.split("//").next().unwrap().to_owned();
        lines.push((format!("{}:{}", layer.display(), number + 1), code));
    }
}

/// What a line names of the crate: by `crate::name`, or `crate::{name, ..}`.
fn named(line: &str) -> Vec<&str> {
    let names = line.split("crate::").skip(1);
    names
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(several) => several.split(',').map(str::trim).collect(),
            None => vec![rest],
        })
        .collect()
}

/// Of the crate, a layer names only `others`; and nothing of `unknown`.
fn assert_knows(layers: &[&str], others: &[&str], unknown: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut lines = Vec::new();
    layers.iter().for_each(|layer| code(&source.join(layer), &mut lines));
    assert!(lines.len() > 50, "{layers:?}");
    for (place, line) in lines {
        for named in named(&line) {
            let mut known = layers
                .iter()
                .map(|layer| layer.trim_end_matches(".rs"))
                .chain(others.iter().copied());
            assert!(
                known.any(|layer| named.starts_with(layer)),
                "{place} imports more than {others:?}: {line}"
            );
        }
        for word in unknown {
            assert!(!line.contains(word), "{place} knows of {word:?}: {line}");
        }
    }
}

#[test]
fn the_base_knows_nothing_of_the_rest_and_no_future_waker_or_task() {
    assert_knows(
        &["base"],
        &["random"],
        &["Future", "std::future", "std::task", "Waker", "futures"],
    );
}

#[test]
fn the_executor_knows_no_base_and_no_descriptor() {
    assert_knows(
        &["executor"],
        &["random", "sync"],
        &["std::os", "libc", "RawFd", "OwnedFd", "Instant", "std::io"],
    );
}

#[test]
fn what_observes_knows_no_runtime() {
    assert_knows(&["observe"], &["executor", "base", "sync"], &[]);
}

#[test]
fn home_knows_no_handle() {
    assert_knows(&["home"], &["observe", "executor", "base", "random", "sync"], &[]);
}

#[test]
fn the_runtime_knows_no_adapter() {
    assert_knows(&["runtime"], &["home", "observe", "executor", "base", "sync"], &[]);
}

#[test]
fn the_adapters_know_the_runtime_and_no_executor() {
    assert_knows(
        &[
            "io",
            "time",
            "net",
            "process",
            "signal.rs",
            "unblock.rs",
            "hyper.rs",
            "tokio.rs",
        ],
        &["runtime", "home", "base"],
        &["crate::executor", "crate::observe"],
    );
}

#[test]
fn tasks_know_the_runtime_and_the_executor_and_no_adapter() {
    assert_knows(&["task"], &["runtime", "executor"], &[]);
}

#[test]
fn spans_know_what_users_know() {
    assert_knows(&["tracing.rs"], &["End", "Observer", "TaskId", "TaskInfo"], &[]);
}

/// Which files of a folder each of them imports: by `super::file`, or `super::{file, ..}`.
fn imports(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut code_of = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "mod" {
            let mut lines = Vec::new();
            code(&path, &mut lines);
            let lines: String = lines.into_iter().map(|(_, line)| line).collect();
            code_of.insert(name, lines);
        }
    }
    let imported_by = |code: &String| {
        let words = code
            .split("super::")
            .skip(1)
            .flat_map(|rest| match rest.strip_prefix('{') {
                Some(several) => several.split('}').next().unwrap().split(',').collect(),
                None => vec![rest],
            });
        let name = |word: &str| {
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            word.trim().split(end).next().unwrap().to_owned()
        };
        words
            .map(name)
            .filter(|name| code_of.contains_key(name))
            .collect::<BTreeSet<_>>()
    };
    code_of
        .iter()
        .map(|(name, code)| (name.clone(), imported_by(code)))
        .collect()
}

#[test]
fn no_more_than_three_files_import_each_other_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = 0;
    for entry in fs::read_dir(source).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let imports = imports(&folder);
        arrows += imports.values().map(BTreeSet::len).sum::<usize>();
        let reached_from = |file: &String| {
            let mut reached = BTreeSet::new();
            let mut rest = vec![file];
            while let Some(file) = rest.pop() {
                rest.extend(imports[file].iter().filter(|file| reached.insert((*file).clone())));
            }
            reached
        };
        for file in imports.keys() {
            let reached = reached_from(file);
            let circle: Vec<_> = reached
                .iter()
                .filter(|other| reached_from(other).contains(file))
                .collect();
            assert!(circle.len() <= 3, "{}: {circle:?}", folder.display());
        }
    }
    assert!(arrows > 100, "{arrows}");
}
