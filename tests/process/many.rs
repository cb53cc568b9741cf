//! Thousands of short children.

use std::process::Stdio;
use std::time::Duration;

use evbase::process::Command;
use evbase::time::sleep;
use evbase::{Builder, Runtime};

use super::{Children, children};
use crate::support::{alone_within, held};

/// So many at a time, until there were `all`: awaited, dropped at once, awaited with output, killed.
fn short_children(all: usize) {
    let before = held();
    let runtime = Runtime::new().unwrap();
    let elsewhere = Builder::new().start("home").unwrap();
    let work = async {
        let worker = |first: usize| async move {
            for n in (first..all).step_by(20) {
                let mut command = Command::new("true");
                match n % 4 {
                    0 => assert!(command.status().await.unwrap().success()),
                    1 => drop(command.spawn().unwrap()),
                    2 => assert!(command.stdin(Stdio::piped()).output().await.unwrap().stdout.is_empty()),
                    _ => command.spawn().unwrap().kill().await.unwrap(),
                }
            }
        };
        let tasks: Vec<_> = (0..10).map(|first| elsewhere.spawner().spawn(worker(first))).collect();
        futures::future::join_all((10..20).map(worker)).await;
        for task in tasks {
            task.await.unwrap();
        }
        while children() != Children::None {
            sleep(Duration::from_millis(1)).await;
        }
    };
    runtime.block_on(work).unwrap();
    drop(runtime);
    elsewhere.shutdown().wait().unwrap();
    crate::support::until(|| held() == before);
}

#[test]
fn five_hundred_short_children_leave_no_zombie_and_no_descriptor() {
    alone_within(Duration::from_secs(100), || short_children(500));
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_short_children_leave_no_zombie_and_no_descriptor() {
    alone_within(Duration::from_secs(2000), || short_children(10_000));
}
