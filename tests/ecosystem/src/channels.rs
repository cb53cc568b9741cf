use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use evbase::{Builder, Runtime, spawn_local};
use futures::channel::{mpsc, oneshot};
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};

use crate::watchdog::rounds;
use crate::{on_a_loop, watchdog};

const COUNT: u64 = 1000;

#[test]
fn channels_join_two_loops_and_a_thread_without_one() {
    rounds(20, |_| {
        let (numbers, doubler) = async_channel::bounded::<u64>(4);
        let (mut doubled, mut results) = mpsc::channel::<u64>(4);
        let (total, end) = oneshot::channel();
        let middle = Builder::new().start("middle").unwrap();
        middle.spawner().spawn(async move {
            while let Ok(number) = doubler.recv().await {
                doubled.send(2 * number).await.unwrap();
            }
        });
        let last = Builder::new().start("last").unwrap();
        last.spawner().spawn(async move {
            let mut sum = 0;
            while let Some(number) = results.next().await {
                sum += number;
            }
            total.send(sum).unwrap();
        });
        thread::scope(|scope| {
            for _ in 0..3 {
                let numbers = numbers.clone();
                scope.spawn(move || (0..COUNT).for_each(|number| numbers.send_blocking(number).unwrap()));
            }
        });
        drop(numbers);
        assert_eq!(futures::executor::block_on(end).unwrap(), 3 * COUNT * (COUNT - 1));
    });
}

#[test]
fn tokios_locks_and_channels_join_loops() {
    rounds(20, |_| {
        let counter = Arc::new(tokio::sync::Mutex::new(0));
        let permits = Arc::new(tokio::sync::Semaphore::new(2));
        let (seen, mut watched) = tokio::sync::watch::channel(0);
        let (news, _) = tokio::sync::broadcast::channel::<u64>(16);
        let loops: Vec<Runtime> = (0..3)
            .map(|n| Builder::new().start(format!("loop {n}")).unwrap())
            .collect();
        let mut tasks = Vec::new();
        for at in loops.iter().chain(&loops) {
            let (counter, permits, seen) = (counter.clone(), permits.clone(), seen.clone());
            let mut heard = news.subscribe();
            tasks.push(at.spawner().spawn(async move {
                for _ in 0..50 {
                    let _permit = permits.acquire().await.unwrap();
                    let mut counter = counter.lock().await;
                    // Others ask for the lock meanwhile.
                    evbase::yield_now().await;
                    *counter += 1;
                    seen.send_replace(*counter);
                }
                heard.recv().await.unwrap()
            }));
        }
        futures::executor::block_on(watched.wait_for(|count| *count == 300)).unwrap();
        news.send(42).unwrap();
        assert!(tasks.into_iter().all(|task| task.wait().unwrap().unwrap() == 42));
    });
}

#[test]
fn what_is_not_send_goes_through_a_channel_of_one_loop() {
    on_a_loop(async || {
        let (mut sender, receiver) = mpsc::channel::<Rc<u64>>(1);
        let kept = Rc::new(());
        let sending = spawn_local({
            let kept = kept.clone();
            async move {
                for number in 0..COUNT {
                    sender.send(Rc::new(number)).await.unwrap();
                }
                drop(kept);
            }
        });
        let lock = futures::lock::Mutex::new(0);
        let adding = FuturesUnordered::new();
        let mut receiver = receiver;
        while let Some(number) = receiver.next().await {
            let lock = &lock;
            adding.push(async move { *lock.lock().await += *number });
        }
        adding.collect::<()>().await;
        assert_eq!(lock.into_inner(), COUNT * (COUNT - 1) / 2);
        sending.await?;
        assert_eq!(Rc::strong_count(&kept), 1);
        Ok(())
    });
}

#[test]
fn a_loop_that_stops_with_waiters_on_a_channel_loses_nobody_elses_message() {
    watchdog::rounds(50, |_| {
        let (sender, receiver) = async_channel::unbounded::<u64>();
        let stopped = Builder::new().start("stopped").unwrap();
        let waiting = receiver.clone();
        let first = stopped.spawner().spawn(async move { waiting.recv().await });
        let shutdown = stopped.shutdown();
        let sending = thread::spawn(move || sender.send_blocking(7).unwrap());
        shutdown.wait().unwrap();
        sending.join().unwrap();
        // Either the task had it before the stop, or whoever asks next gets it.
        let taken = first.wait().unwrap();
        let left = receiver.try_recv().ok();
        assert_eq!(left.is_none(), taken.is_ok());
    });
}
