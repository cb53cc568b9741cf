//! Tasks as spans: made, entered and exited with each poll, and closed.

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use evbase::tracing::Spans;
use evbase::{Builder, spawn_local, task, yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::watched;

/// Writes down what it is told of spans.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    fields: Arc<Mutex<HashMap<u64, HashMap<String, String>>>>,
    last: Arc<AtomicU64>,
}

struct Fields<'a>(&'a mut HashMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Log {
    fn add(&self, what: &str, id: &Id) {
        self.lines.lock().unwrap().push(format!("{what} {}", id.into_u64()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.last.fetch_add(1, SeqCst) + 1;
        let mut fields = HashMap::new();
        fields.insert("name".to_owned(), span.metadata().name().to_owned());
        span.record(&mut Fields(&mut fields));
        self.fields.lock().unwrap().insert(id, fields);
        let id = Id::from_u64(id);
        self.add("new", &id);
        id
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut all = self.fields.lock().unwrap();
        values.record(&mut Fields(all.get_mut(&id.into_u64()).unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.lines.lock().unwrap().push("event".into());
    }

    fn enter(&self, id: &Id) {
        self.add("enter", id);
    }

    fn exit(&self, id: &Id) {
        self.add("exit", id);
    }

    fn try_close(&self, id: Id) -> bool {
        self.add("close", &id);
        true
    }
}

#[test]
fn a_task_is_a_span_that_is_entered_with_each_poll() {
    watched(|| {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            let runtime = Builder::new().observe(Spans::new()).build().unwrap();
            let line = line!() + 1;
            let handle = runtime.spawn_local(speaks()).unwrap();
            let id = handle.id();
            runtime.block_on(handle).unwrap().unwrap();
            let fields = log.fields.lock().unwrap()[&1].clone();
            assert_eq!(fields["name"], "runtime.spawn");
            assert_eq!(fields["task.id"], id.to_string());
            assert_eq!(fields["task.name"], "\"the speaker\"");
            assert_eq!(fields["loc.line"], line.to_string());
            assert!(fields["fn"].contains("speaks"), "{fields:?}");
        });
        let lines = log.lines.lock().unwrap();
        assert_eq!(
            *lines,
            ["new 1", "enter 1", "exit 1", "enter 1", "event", "exit 1", "close 1"]
        );
    });
}

async fn speaks() {
    task::set_name("the speaker");
    yield_now().await;
    tracing::info!("inside");
}

#[test]
fn every_span_is_closed_however_its_task_ends() {
    watched(|| {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), || {
            let runtime = Builder::new().observe(Spans::new()).build().unwrap();
            runtime
                .block_on(async {
                    for _ in 0..10 {
                        drop(spawn_local(pending::<()>()));
                        drop(spawn_local(async { std::panic::resume_unwind(Box::new("on purpose")) }));
                        spawn_local(async {}).await.unwrap();
                        spawn_local(pending::<()>()).abort();
                    }
                    yield_now().await;
                })
                .unwrap();
            drop(runtime);
        });
        let lines = log.lines.lock().unwrap();
        let count = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!((count("new"), count("close")), (40, 40));
        assert_eq!(count("enter"), count("exit"));
    });
}
