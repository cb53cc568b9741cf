//! A runtime that is watched: a task that blocks, a busy one and an idle one; who stalls the loop, what all are waiting for, and how
//! long things take.
//!
//! Run it with `cargo run --example watch`.

use std::time::{Duration, Instant};

use evbase::{Builder, task, time, yield_now};

/// The bug to be found: it blocks the loop.
async fn blocks() {
    task::set_name("the one that blocks");
    loop {
        time::sleep(Duration::from_millis(300)).await;
        std::thread::sleep(Duration::from_millis(120));
    }
}

async fn is_busy() {
    loop {
        let until = Instant::now() + Duration::from_micros(200);
        while Instant::now() < until {}
        yield_now().await;
        time::sleep(Duration::from_millis(1)).await;
    }
}

async fn is_idle() {
    std::future::pending::<()>().await;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Builder::new()
        .measure()
        // While it lasts: on a thread of its own, since home can't.
        .on_stall(Duration::from_millis(50), |stall| println!("stall: {stall}"))
        .build()?;
    drop(runtime.spawn_local(blocks())?);
    for _ in 0..3 {
        drop(runtime.spawn_local(is_busy())?);
    }
    for _ in 0..1000 {
        drop(runtime.spawn_local(is_idle())?);
    }
    runtime.block_on(time::sleep(Duration::from_secs(1)))?;

    println!("\n{}", runtime.dump()?);
    let metrics = runtime.metrics();
    println!("busy {:.0?}, waited {:.0?}", metrics.busy, metrics.waited);
    println!("polls:\n{}", metrics.poll_times);
    println!("passes:\n{}", metrics.pass_times);
    println!("timers, late by:\n{}", metrics.timer_lag);
    Ok(())
}
