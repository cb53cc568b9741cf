//! The loom models can fail: each of these mistakes, put into a copy of the source, is found by the model that is there to
//! find it.
//!
//! `cargo test --test mutants -- --ignored --nocapture`; `EVBASE_MUTANT=text` takes only those whose name contains it.

#![cfg(not(any(evbase_loom, evbase_tsan, evbase_asan)))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;
use std::{env, fs};

struct Mutant {
    name: &'static str,
    file: &'static str,
    /// Stands there once.
    from: &'static str,
    to: &'static str,
    model: &'static str,
}

const GATE: &str = "src/executor/gate.rs";
const INBOX: &str = "src/executor/inbox.rs";
const STATE: &str = "src/executor/state.rs";
const TASK: &str = "src/executor/task.rs";
const JOIN: &str = "src/executor/join.rs";
const EXECUTOR: &str = "src/executor/mod.rs";
const WAITERS: &str = "src/runtime/waiters.rs";
const BINDING: &str = "src/runtime/binding.rs";

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a push publishes nothing",
        file: GATE,
        from: "compare_exchange_weak(word, published, Release, Acquire)",
        to: "compare_exchange_weak(word, published, Relaxed, Acquire)",
        model: "no_message_is_lost_and_home_does_not_oversleep",
    },
    Mutant {
        name: "home takes messages without seeing them",
        file: GATE,
        from: "word = self.word.fetch_and(STOP_BITS, Acquire);",
        to: "word = self.word.fetch_and(STOP_BITS, Relaxed);",
        model: "no_message_is_lost_and_home_does_not_oversleep",
    },
    Mutant {
        name: "home parks on a message that has just come",
        file: GATE,
        from: "if word & HEAD != 0 || word & STOP_BITS != seen.0 {",
        to: "if word & STOP_BITS != seen.0 {",
        model: "no_message_is_lost_and_home_does_not_oversleep",
    },
    Mutant {
        name: "home parks on a stop that has just come",
        file: GATE,
        from: "if word & HEAD != 0 || word & STOP_BITS != seen.0 {",
        to: "if word & HEAD != 0 {",
        model: "a_stop_wakes_home_and_every_message_is_delivered_or_comes_back",
    },
    Mutant {
        name: "a push doesn't ring",
        file: GATE,
        from: "Ok(_) => return Ok(MustRing(word & PARKED != 0)),",
        to: "Ok(_) => return Ok(MustRing(false)),",
        model: "no_message_is_lost_and_home_does_not_oversleep",
    },
    Mutant {
        name: "a stop doesn't ring",
        file: GATE,
        from: "Ok(_) => return (Stops(word & STOP_BITS), MustRing(word & PARKED != 0)),",
        to: "Ok(_) => return (Stops(word & STOP_BITS), MustRing(false)),",
        model: "a_stop_wakes_home_and_every_message_is_delivered_or_comes_back",
    },
    Mutant {
        name: "a stop doesn't see a home that listens",
        file: INBOX,
        from: "self.asked.fetch_or(level.bits(), Release);\n        // Home that begins to listen sees the stop, or this sees home.\n        fence(SeqCst);",
        to: "self.asked.fetch_or(level.bits(), Release);",
        model: "a_home_that_listens_hears_each_stop",
    },
    Mutant {
        name: "a home that listens doesn't see a stop",
        file: INBOX,
        from: "self.listening.store(listening, Relaxed);\n        fence(SeqCst);",
        to: "self.listening.store(listening, Relaxed);",
        model: "a_home_that_listens_hears_each_stop",
    },
    Mutant {
        name: "the gate is sealed over a message",
        file: GATE,
        from: "if word & HEAD != 0 {\n                return word & HEAD == SEALED;\n            }",
        to: "if word & HEAD == SEALED {\n                return true;\n            }",
        model: "a_stop_wakes_home_and_every_message_is_delivered_or_comes_back",
    },
    Mutant {
        name: "a push doesn't mind the seal",
        file: GATE,
        from: "if head == SEALED || (admission == Admission::Work && word & STOP != 0) {",
        to: "if admission == Admission::Work && word & STOP != 0 {",
        model: "a_descriptor_dropped_abroad_meets_the_end",
    },
    Mutant {
        name: "the last cause wins",
        file: GATE,
        from: "StopLevel::Drop if word & STOP == 0 => STOP | DROPPED,",
        to: "StopLevel::Drop => STOP | DROPPED,",
        model: "the_first_cause_wins",
    },
    Mutant {
        name: "a failed delivery is forgotten",
        file: INBOX,
        from: "Err(unsafe { Box::from_raw(message) }.closure)",
        to: "std::mem::forget(message); Ok(())",
        model: "a_stop_wakes_home_and_every_message_is_delivered_or_comes_back",
    },
    Mutant {
        name: "a wake-up publishes nothing",
        file: STATE,
        from: "match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {\n                Ok(_) => return word & POSTED == 0,",
        to: "match self.0.compare_exchange_weak(word, next, Acquire, Relaxed) {\n                Ok(_) => return word & POSTED == 0,",
        model: "wake_ups_of_two_threads_and_the_last_drop",
    },
    Mutant {
        name: "a second post doesn't wait for the first one's link",
        file: STATE,
        from: "match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {\n                Ok(_) => return word & POSTED == 0,",
        to: "match self.0.compare_exchange_weak(word, next, Release, Relaxed) {\n                Ok(_) => return word & POSTED == 0,",
        model: "wake_ups_of_two_threads_and_the_last_drop",
    },
    Mutant {
        name: "a delivery doesn't see what the wake-ups published",
        file: STATE,
        from: "self.0.fetch_sub(POSTED + REFERENCE, AcqRel) / REFERENCE == 1",
        to: "self.0.fetch_sub(POSTED + REFERENCE, Release) / REFERENCE == 1",
        model: "wake_ups_of_two_threads_and_the_last_drop",
    },
    Mutant {
        name: "a reference goes without a trace",
        file: STATE,
        from: "if self.0.fetch_sub(REFERENCE, Release) / REFERENCE != 1 {",
        to: "if self.0.fetch_sub(REFERENCE, Relaxed) / REFERENCE != 1 {",
        model: "a_completed_task_is_delivered_while_its_last_waker_goes",
    },
    Mutant {
        name: "who is alone doesn't look at what the others did",
        file: STATE,
        from: "if self.0.load(Acquire) / REFERENCE == 1 {\n            return true;",
        to: "if self.0.load(Relaxed) / REFERENCE == 1 {\n            return true;",
        model: "a_completed_task_is_delivered_while_its_last_waker_goes",
    },
    Mutant {
        name: "a delivered task is touched after its reference went",
        file: EXECUTOR,
        from: "                Run::Done | Run::Failed => {\n                    if task.state().deliver() {\n                        task.free();\n                    }\n                }\n",
        to: "",
        model: "a_completed_task_is_delivered_while_its_last_waker_goes",
    },
    Mutant {
        name: "a completion publishes nothing",
        file: STATE,
        from: "match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {\n                Ok(_) if quiet => return None,",
        to: "match self.0.compare_exchange_weak(word, next, Acquire, Relaxed) {\n                Ok(_) if quiet => return None,",
        model: "whoever_joins_is_woken",
    },
    Mutant {
        name: "a completion doesn't see the waker in the join cell",
        file: STATE,
        from: "match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {\n                Ok(_) if quiet => return None,",
        to: "match self.0.compare_exchange_weak(word, next, Release, Relaxed) {\n                Ok(_) if quiet => return None,",
        model: "whoever_joins_is_woken",
    },
    Mutant {
        name: "an output is taken unseen",
        file: STATE,
        from: "self.0.load(Acquire) & COMPLETE != 0",
        to: "self.0.load(Relaxed) & COMPLETE != 0",
        model: "whoever_joins_is_woken",
    },
    Mutant {
        name: "the join cell is given away unseen",
        file: STATE,
        from: "match self.0.compare_exchange_weak(word, change(word), AcqRel, Acquire) {",
        to: "match self.0.compare_exchange_weak(word, change(word), Relaxed, Relaxed) {",
        model: "whoever_joins_is_woken",
    },
    Mutant {
        name: "a handle that registers doesn't see the completion",
        file: JOIN,
        from: "            if state.give_join_waker() {\n                return true;\n            }",
        to: "            state.give_join_waker();\n            if true {\n                return true;\n            }",
        model: "whoever_joins_is_woken",
    },
    Mutant {
        name: "an output that nobody takes stays",
        file: TASK,
        from: "            if !completed.joined {\n                guard::run(|| (self.vtable().drop_output)(self));\n            }\n",
        to: "",
        model: "a_handle_dropped_while_its_task_completes",
    },
    Mutant {
        name: "whoever waits for the end is forgotten",
        file: WAITERS,
        from: "State::Happened(value) => (Some(*value), Some(waker)),",
        to: "State::Happened(_) => (None, Some(waker)),",
        model: "everyone_who_waits_for_the_end_is_told",
    },
    Mutant {
        name: "two threads become home",
        file: BINDING,
        from: "None if self.is_home(me) => Claim::Home,",
        to: "None if self.is_bound() => Claim::Home,",
        model: "one_thread_becomes_home_and_gets_the_base",
    },
];

#[test]
#[ignore = "some minutes"]
fn every_mistake_is_found_by_its_model() {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let _ = fs::remove_dir_all(copy.join("src"));
    for part in ["src", "examples", "Cargo.toml", "Cargo.lock", "README.md"] {
        copy_to(Path::new(part), &copy);
    }
    let only = env::var("EVBASE_MUTANT").unwrap_or_default();
    let mut survivors = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.contains(&only)) {
        let path = copy.join(mutant.file);
        let source = fs::read_to_string(mutant.file).unwrap();
        assert_eq!(
            source.matches(mutant.from).count(),
            1,
            "{}: {}",
            mutant.name,
            mutant.from
        );
        fs::write(&path, source.replace(mutant.from, mutant.to)).unwrap();
        let built = cargo(&copy, &["--no-run"]);
        assert!(built.status.success(), "{}: {}", mutant.name, text(&built.stderr));
        let start = Instant::now();
        let ran = cargo(&copy, &[mutant.model]);
        fs::write(&path, source).unwrap();
        let found = !ran.status.success();
        println!(
            "{:>7}  {:55} {} ({:.1} s)",
            if found { "found" } else { "MISSED" },
            mutant.name,
            mutant.model,
            start.elapsed().as_secs_f32()
        );
        assert!(
            found || text(&ran.stdout).contains("1 passed"),
            "no such model: {}",
            mutant.model
        );
        if !found {
            survivors.push(mutant.name);
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

fn cargo(copy: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(["test", "--release", "--lib", "--target-dir", "target"])
        .args(arguments)
        .current_dir(copy)
        .env("RUSTFLAGS", "--cfg evbase_loom")
        .output()
        .unwrap()
}

fn copy_to(from: &Path, directory: &PathBuf) {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
