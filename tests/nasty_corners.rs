//! Corners that nobody plans to visit, each of them a test: what a runtime does when user code runs where it is least
//! expected, or keeps what it should have given back.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::mem::forget;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Drops, OnDrop, alone, parked, poll_once, rounds, until, watched};
use evbase::io::AsyncFd;
use evbase::{AbortHandle, Builder, Cause, JoinHandle, RunError, Runtime, Shutdown, Spawner, spawn_local, yield_now};

/// Descriptors that have the numbers of a runtime that is gone: whoever writes to one of those numbers, closes it, or
/// changes what a queue knows of it, is found out.
mod a_thousand_descriptors {
    use super::*;

    struct Pair {
        ends: [AsyncFd<UnixStream>; 2],
    }

    fn pairs(count: usize) -> Vec<Pair> {
        let ends = |(one, other)| [AsyncFd::new(one).unwrap(), AsyncFd::new(other).unwrap()];
        (0..count)
            .map(|_| Pair {
                ends: ends(UnixStream::pair().unwrap()),
            })
            .collect()
    }

    fn ends(pairs: &[Pair]) -> impl Iterator<Item = &AsyncFd<UnixStream>> {
        pairs.iter().flat_map(|pair| &pair.ends)
    }

    /// Registers them all, and finds them silent.
    async fn are_silent(pairs: &[Pair]) {
        for fd in ends(pairs) {
            poll_fn(|cx| {
                assert!(fd.poll_read_ready(cx).is_pending(), "{fd:?} was written to, or closed");
                Poll::Ready(())
            })
            .await;
        }
    }

    /// A byte goes each way, and the loop hears of it.
    async fn are_heard_of(pairs: &[Pair]) {
        for Pair { ends } in pairs {
            for [from, to] in [[&ends[0], &ends[1]], [&ends[1], &ends[0]]] {
                let mut byte = [0; 2];
                from.get_ref().write_all(b"x").unwrap();
                assert_eq!(to.read_with(|mut io| io.read(&mut byte)).await.unwrap(), 1);
            }
        }
    }

    /// Everything that a runtime gives out, in use.
    struct Outliving {
        spawner: Spawner,
        shutdown: Shutdown,
        tasks: Vec<JoinHandle<()>>,
        aborts: Vec<AbortHandle>,
        wakers: Vec<Waker>,
        fds: Vec<AsyncFd<UnixStream>>,
        sleeps: Vec<evbase::time::Sleep>,
        peers: Vec<UnixStream>,
    }

    impl Outliving {
        fn of(runtime: &Runtime) -> Self {
            let spawner = runtime.spawner();
            let (send, wakers) = mpsc::channel();
            let waiting = || {
                let send = send.clone();
                spawner.spawn(poll_fn(move |cx| {
                    send.send(cx.waker().clone()).unwrap();
                    Poll::<()>::Pending
                }))
            };
            let tasks: Vec<_> = (0..8).map(|_| waiting()).collect();
            let (fds, peers): (Vec<_>, Vec<_>) = (0..8).map(|_| UnixStream::pair().unwrap()).unzip();
            let registered = spawner.spawn(async move {
                let fds: Vec<_> = fds.into_iter().map(|fd| AsyncFd::new(fd).unwrap()).collect();
                let mut sleeps: Vec<_> = (1000..1008)
                    .map(|s| evbase::time::sleep(Duration::from_secs(s)))
                    .collect();
                poll_fn(|cx| {
                    assert!(fds.iter().all(|fd| fd.poll_read_ready(cx).is_pending()));
                    assert!(
                        sleeps
                            .iter_mut()
                            .all(|sleep| common::poll_with(sleep, cx.waker()).is_pending())
                    );
                    Poll::Ready(())
                })
                .await;
                (fds, sleeps)
            });
            let (fds, sleeps) = registered.wait().unwrap().unwrap();
            Self {
                shutdown: runtime.shutdown_handle(),
                aborts: tasks.iter().map(JoinHandle::abort_handle).collect(),
                wakers: wakers.try_iter().collect(),
                tasks,
                fds,
                sleeps,
                spawner,
                peers,
            }
        }

        /// Uses and drops all of it; each descriptor of its own that closes leaves a number to one more pair.
        fn use_up(self, more: &mut Vec<Pair>) {
            let Self { tasks, wakers, .. } = self;
            assert_eq!((tasks.len(), wakers.len()), (8, 8));
            for waker in wakers {
                let again = waker.clone();
                waker.wake_by_ref();
                waker.wake();
                drop(again);
            }
            self.aborts.iter().for_each(AbortHandle::abort);
            for task in tasks {
                task.abort();
                assert!(task.wait().unwrap().unwrap_err().is_cancelled());
            }
            assert!(self.spawner.try_spawn(async {}).is_err());
            self.shutdown.request();
            self.shutdown.request_now();
            for (n, mut sleep) in self.sleeps.into_iter().enumerate() {
                sleep.reset(Instant::now() + Duration::from_secs(n as u64));
            }
            for (fd, peer) in self.fds.into_iter().zip(self.peers) {
                let polled = fd
                    .poll_read_ready(&mut Context::from_waker(Waker::noop()))
                    .map_err(drop);
                assert!(matches!(polled, Poll::Ready(Err(()))));
                drop((fd, peer));
                more.extend(pairs(1));
            }
        }
    }

    fn reuse_the_numbers_of(runtime: impl Fn() -> Runtime, use_up: impl Fn(Outliving, &mut Vec<Pair>)) {
        let other = Runtime::new().unwrap();
        let before = numbers();
        let runtime = runtime();
        let own: Vec<_> = numbers()
            .into_iter()
            .filter(|number| !before.contains(number))
            .collect();
        let outliving = Outliving::of(&runtime);
        let end = runtime.shutdown_handle();
        drop(runtime);
        end.terminated().wait().unwrap();
        drop(end);
        let is_open = numbers();
        let free: Vec<_> = own.into_iter().filter(|number| !is_open.contains(number)).collect();
        assert!(!free.is_empty(), "the kernel queue is closed");
        let mut pairs = pairs(500);
        let is_open = numbers();
        assert!(
            free.iter().all(|number| is_open.contains(number)),
            "the numbers are used again"
        );
        other.block_on(are_silent(&pairs)).unwrap();
        use_up(outliving, &mut pairs);
        assert_eq!(pairs.len(), 508);
        other.turn(Some(Duration::ZERO)).unwrap();
        other.block_on(are_silent(&pairs)).unwrap();
        other.block_on(are_heard_of(&pairs)).unwrap();
        drop((pairs, other));
        let left = numbers();
        assert!(left.iter().all(|number| before.contains(number)), "{left:?}");
    }

    fn numbers() -> Vec<i32> {
        // SAFETY: F_GETFD takes no pointer, and answers EBADF for a number that is not open.
        (0..2048)
            .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1)
            .collect()
    }

    fn more_than_a_thousand() {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both calls read or write the local for their length.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            limit.rlim_cur = limit.rlim_cur.max(2048).min(limit.rlim_max);
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        }
    }

    #[test]
    fn that_reuse_the_numbers_of_a_runtime_whose_home_is_here_are_left_alone_by_what_outlives_it() {
        alone(|| {
            more_than_a_thousand();
            reuse_the_numbers_of(|| Runtime::new().unwrap().also_bound(), Outliving::use_up);
        });
    }

    #[test]
    fn that_reuse_the_numbers_of_a_runtime_whose_home_is_gone_are_left_alone_by_what_outlives_it() {
        alone(|| {
            more_than_a_thousand();
            reuse_the_numbers_of(|| Builder::new().start("home").unwrap(), Outliving::use_up);
        });
    }

    #[test]
    fn that_reuse_the_numbers_of_a_runtime_are_left_alone_by_what_is_used_on_a_third_thread() {
        alone(|| {
            more_than_a_thousand();
            let elsewhere = |outliving: Outliving, pairs: &mut Vec<Pair>| {
                thread::scope(|scope| scope.spawn(|| outliving.use_up(pairs)).join().unwrap());
            };
            reuse_the_numbers_of(|| Runtime::new().unwrap().also_bound(), elsewhere);
            reuse_the_numbers_of(|| Builder::new().start("home").unwrap(), elsewhere);
        });
    }

    trait AlsoBound {
        fn also_bound(self) -> Self;
    }

    impl AlsoBound for Runtime {
        fn also_bound(self) -> Self {
            self.block_on(async {}).unwrap();
            self
        }
    }
}

#[test]
fn two_runtimes_that_await_each_others_end_close_when_one_is_asked_to() {
    rounds(100, |round| {
        let make = || Arc::new(Runtime::new().unwrap());
        let (a, b) = (make(), make());
        let (a_end, b_end) = (a.shutdown_handle(), b.shutdown_handle());
        let run = |runtime: &Arc<Runtime>, other: &Shutdown| {
            let (runtime, other) = (runtime.clone(), other.clone());
            thread::spawn(move || runtime.block_on(async move { other.terminated().await.cause }))
        };
        let (in_a, in_b) = (run(&a, &b_end), run(&b, &a_end));
        until(|| a.home().is_some() && b.home().is_some());
        if round % 2 == 0 {
            // Only one: the other's root gets what it waits for.
            a_end.request();
            let ended = in_a.join().unwrap();
            assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
            assert_eq!(in_b.join().unwrap().unwrap(), Cause::Requested);
        } else {
            a_end.request();
            b_end.request();
            // Whoever is first ends the other's wait, and with it that one's run: its thread may exit before the request.
            for ended in [in_a.join().unwrap(), in_b.join().unwrap()] {
                assert!(matches!(ended, Ok(_) | Err(RunError::Stopped)), "{ended:?}");
            }
            let cause = b_end.terminated().wait().unwrap().cause;
            assert!(matches!(cause, Cause::Requested | Cause::HomeExited));
        }
        assert_eq!(a_end.terminated().wait().unwrap().cause, Cause::Requested);
    });
}

#[test]
fn two_runtimes_wait_for_each_other_a_hundred_deep() {
    fn at_depth(depth: usize, here: Spawner, there: Spawner) -> futures::future::BoxFuture<'static, usize> {
        Box::pin(async move {
            if depth == 0 {
                return 0;
            }
            let next = at_depth(depth - 1, there.clone(), here);
            1 + there.spawn(next).await.unwrap()
        })
    }
    rounds(20, |_| {
        let (a, b) = (Builder::new().start("a").unwrap(), Builder::new().start("b").unwrap());
        let bottom = a.spawner().spawn(at_depth(100, a.spawner(), b.spawner()));
        assert_eq!(bottom.wait().unwrap().unwrap(), 100);
    });
}

#[test]
fn a_panic_hook_may_use_the_runtime_in_whose_task_the_panic_is() {
    alone(|| {
        thread_local! {
            static HELD: RefCell<Option<(Rc<Runtime>, JoinHandle<()>)>> = const { RefCell::new(None) };
        }
        static HOOKS: AtomicUsize = AtomicUsize::new(0);
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("on purpose") {
                return default(info);
            }
            let (runtime, handle) = HELD.take().unwrap();
            assert!(matches!(runtime.block_on(async {}), Err(RunError::Nested)));
            drop(spawn_local(async {
                HOOKS.fetch_add(1, SeqCst);
            }));
            let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
            assert!(poll_once(&mut sleep).is_pending());
            handle.abort();
            drop(handle);
            HOOKS.fetch_add(1, SeqCst);
        }));
        let runtime = Rc::new(Runtime::new().unwrap());
        for round in 1..=100 {
            let waits = runtime.spawn_local(pending::<()>()).unwrap();
            HELD.set(Some((runtime.clone(), waits)));
            let panics = runtime.spawn_local(async { panic!("on purpose") });
            let error: evbase::JoinError = runtime.block_on(panics.unwrap()).unwrap().unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"on purpose"));
            runtime.block_on(yield_now()).unwrap();
            assert_eq!(HOOKS.load(SeqCst), 2 * round);
        }
        let report = Rc::into_inner(runtime).unwrap().shutdown().wait().unwrap();
        assert_eq!((report.panicked, report.completed, report.cancelled), (100, 100, 100));
    });
}

#[test]
fn after_a_panic_that_left_block_on_the_thread_is_outside_of_every_loop_and_context() {
    rounds(100, |round| {
        let (runtime, other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _outer = other.enter().unwrap();
            drop(runtime.block_on(async {
                let _inner = other.enter().unwrap();
                if round % 2 == 0 {
                    yield_now().await;
                }
                resume_unwind(Box::new("on purpose"))
            }));
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert!(Spawner::try_current().is_none());
        assert_eq!(other.block_on(async { 1 }).unwrap(), 1);
        assert_eq!(
            runtime
                .block_on(async { spawn_local(async { 2 }).await })
                .unwrap()
                .unwrap(),
            2
        );
        assert_eq!(runtime.shutdown().wait().unwrap().completed, 1);
    });
}

#[test]
fn another_executor_polls_timers_and_descriptors_under_an_enter_guard() {
    rounds(50, |_| {
        let runtime = Runtime::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let deadline = Instant::now() + Duration::from_micros(500);
        let mut pool = futures::executor::LocalPool::new();
        let done = Rc::new(Cell::new(0));
        let (slept, read) = (done.clone(), done.clone());
        let guard = runtime.enter().unwrap();
        let spawner = pool.spawner();
        use futures::task::LocalSpawnExt;
        spawner
            .spawn_local(async move {
                evbase::time::sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
                slept.set(slept.get() + 1);
            })
            .unwrap();
        spawner
            .spawn_local(async move {
                let mut byte = [0];
                fd.read_with(|mut io| io.read(&mut byte)).await.unwrap();
                read.set(read.get() + 1);
            })
            .unwrap();
        pool.run_until_stalled();
        theirs.write_all(b"x").unwrap();
        // Our loop waits, and wakes the other executor's wakers.
        while done.get() < 2 {
            runtime.turn(None).unwrap();
            pool.run_until_stalled();
        }
        drop(guard);
    });
}

#[test]
fn a_task_that_awaits_its_own_handle_waits_until_it_is_cancelled_and_is_freed() {
    rounds(200, |round| {
        let runtime = Runtime::new().unwrap();
        let place = Rc::new(Cell::new(None::<JoinHandle<()>>));
        let (own, drops) = (place.clone(), Drops::new());
        let probe = drops.local_probe();
        let handle = runtime.spawn_local(async move {
            let _probe = probe;
            let ended = own.take().unwrap().await;
            unreachable!("it has awaited its own end: {ended:?}");
        });
        let handle = handle.unwrap();
        let abort = handle.abort_handle();
        place.set(Some(handle));
        for _ in 0..3 {
            runtime.block_on(yield_now()).unwrap();
        }
        assert_eq!(drops.count(), 0);
        if round % 2 == 0 {
            abort.abort();
            runtime.block_on(yield_now()).unwrap();
            drops.assert_on(thread::current().id(), 1);
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.cancelled, report.panicked), (1, 0));
        drops.assert_on(thread::current().id(), 1);
        assert!(abort.is_finished());
    });
}

#[test]
fn a_task_whose_output_is_its_own_waker_is_freed_with_its_output() {
    rounds(200, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let drops = Drops::new();
        let probe = drops.probe();
        let mut output = Some(probe);
        let own_waker = poll_fn(move |cx| Poll::Ready((cx.waker().clone(), output.take())));
        let handle = runtime.spawner().spawn(own_waker);
        match round % 3 {
            // Nobody wants the output: home drops it, and with it a reference to the task that it lies in.
            0 => drop(handle),
            1 => {
                until(|| handle.is_finished());
                drop(handle);
            }
            _ => {
                let (waker, probe) = handle.wait().unwrap().unwrap();
                waker.wake_by_ref();
                waker.wake();
                drop(probe);
            }
        }
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(report.completed + report.cancelled, 1);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_destructor_of_a_future_wakes_its_own_task_at_home_and_abroad() {
    rounds(100, |round| {
        let runtime = Runtime::new().unwrap();
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let mine = wakers.clone();
        let drops = Drops::new();
        let (probe, polls) = (drops.local_probe(), Rc::new(Cell::new(0)));
        let guard = OnDrop(move || {
            let wakers = wakers.lock().unwrap().clone();
            wakers.iter().for_each(Waker::wake_by_ref);
            thread::spawn(move || wakers.into_iter().for_each(Waker::wake))
                .join()
                .unwrap();
        });
        let (count, completes) = (polls.clone(), round % 3 == 0);
        let task = runtime.spawn_local(poll_fn(move |cx| {
            let _ = (&guard, &probe);
            count.set(count.get() + 1);
            mine.lock().unwrap().push(cx.waker().clone());
            if completes { Poll::Ready(()) } else { Poll::Pending }
        }));
        let task = task.unwrap();
        runtime.block_on(yield_now()).unwrap();
        if round % 3 == 1 {
            task.abort();
            runtime.block_on(yield_now()).unwrap();
        }
        if round % 3 < 2 {
            drops.assert_on(thread::current().id(), 1);
        }
        // What the destructor's wake-ups have left behind polls nothing.
        runtime.turn(Some(Duration::ZERO)).unwrap();
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(polls.get(), 1);
        assert_eq!(report.completed, u64::from(completes));
        assert_eq!(report.completed + report.cancelled, 1);
        drops.assert_on(thread::current().id(), 1);
    });
}

#[test]
fn tasks_whose_destructors_abort_each_other_in_a_ring_are_dropped_once() {
    rounds(100, |round| {
        let runtime = Runtime::new().unwrap();
        let drops = Drops::new();
        let handles = Rc::new(RefCell::new(Vec::<JoinHandle<()>>::new()));
        for n in 0..5 {
            let (all, probe) = (handles.clone(), drops.local_probe());
            let guard = OnDrop(move || {
                let all = all.borrow();
                all[(n + 1) % 5].abort();
                all[n].abort();
            });
            let task = runtime.spawn_local(async move {
                let _held = (guard, probe);
                pending::<()>().await;
            });
            handles.borrow_mut().push(task.unwrap());
        }
        if round % 2 == 0 {
            runtime.block_on(yield_now()).unwrap();
        }
        handles.borrow()[2].abort();
        // Each destructor's abort arrives, at last that of the one it began with.
        while drops.count() < 5 {
            runtime.block_on(yield_now()).unwrap();
        }
        drops.assert_on(thread::current().id(), 5);
        handles.take();
        assert_eq!(runtime.shutdown().wait().unwrap().cancelled, 5);
    });
}

#[test]
fn a_task_drops_its_own_handle_while_it_is_polled() {
    rounds(200, |_| {
        let runtime = Runtime::new().unwrap();
        let place = Rc::new(Cell::new(None::<JoinHandle<common::DropProbe>>));
        let (own, drops) = (place.clone(), Drops::new());
        let output = drops.probe();
        let handle = runtime.spawn_local(async move {
            drop(own.take().unwrap());
            output
        });
        place.set(Some(handle.unwrap()));
        runtime.block_on(yield_now()).unwrap();
        // Nobody is left to take the output.
        drops.assert_on(thread::current().id(), 1);
        assert_eq!(runtime.metrics().completed, 1);
    });
}

/// A descriptor whose destructor does something first.
struct Busy {
    _before: OnDrop<Box<dyn FnMut() + Send + Sync>>,
    stream: UnixStream,
}

impl AsFd for Busy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Busy {
    /// Registered with the runtime, whose home is this thread or runs.
    fn registered(runtime: &Runtime, before: impl FnMut() + Send + Sync + 'static) -> (AsyncFd<Self>, UnixStream) {
        let (stream, theirs) = UnixStream::pair().unwrap();
        let busy = Self {
            _before: OnDrop(Box::new(before)),
            stream,
        };
        let fd = AsyncFd::new(busy).unwrap();
        // In an array: a descriptor is a future's output here, not a future.
        let polled = runtime.spawner().spawn(async move {
            assert!(poll_fn(|cx| Poll::Ready(fd.poll_read_ready(cx).is_pending())).await);
            [fd]
        });
        let [fd] = polled.wait().unwrap().unwrap();
        (fd, theirs)
    }
}

fn is_closed(peer: &UnixStream) {
    assert_eq!({ peer }.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_destructor_of_what_an_async_fd_holds_may_use_the_runtime_where_it_runs() {
    rounds(100, |round| {
        let started = round % 2 == 0;
        let runtime = if started {
            parked(Builder::new())
        } else {
            Runtime::new().unwrap()
        };
        if !started {
            runtime.block_on(async {}).unwrap();
        }
        let home = runtime.home().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (tell, spawner) = (told.clone(), runtime.spawner());
        // Another descriptor goes with it: that one is dropped, and deregistered, inside of this destructor.
        let (inner, inner_peer) = Busy::registered(&runtime, || {});
        let mut inner = Some(inner);
        let (fd, peer) = Busy::registered(&runtime, move || {
            drop(inner.take());
            let spawned = spawner.try_spawn(async {}).is_ok();
            let _ = Spawner::try_current();
            tell.lock().unwrap().push((thread::current().id(), spawned));
        });
        let in_closing = round % 4 > 1;
        if in_closing {
            let held = runtime.spawner().spawn(async move {
                let _held = fd;
                pending::<()>().await;
            });
            runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
            drop(held);
        } else {
            drop(fd);
            if !started {
                assert_eq!(told.lock().unwrap().len(), 1, "at home it is dropped at once");
            }
        }
        runtime.shutdown().wait().unwrap();
        is_closed(&peer);
        is_closed(&inner_peer);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, home);
        if in_closing {
            assert!(!told[0].1, "a runtime that closes takes no task");
        }
    });
}

#[test]
fn the_destructor_of_what_an_async_fd_holds_may_panic_on_its_way_home() {
    common::quiet_panics();
    rounds(100, |_| {
        let runtime = parked(Builder::new());
        let (fd, peer) = Busy::registered(&runtime, || panic!("on purpose"));
        // Abroad it is no panic: the destructor runs at home, which goes on.
        drop(fd);
        is_closed(&peer);
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.panicked, report.cause), (0, Cause::Dropped));
    });
}

#[test]
fn the_destructor_of_an_output_a_payload_or_an_unrun_closure_may_use_the_runtime() {
    rounds(100, |round| {
        let runtime = Builder::new().start("home").unwrap();
        let home = runtime.home().unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let meddler = || {
            let (tell, spawner, shutdown) = (told.clone(), runtime.spawner(), runtime.shutdown_handle());
            OnDrop(move || {
                // Under a borrow of home's own, or a lock, one of these would panic or hang.
                assert_eq!(thread::current().id(), home);
                drop(spawn_local(async {}));
                drop(spawner.spawn(async {}));
                let aborted = spawn_local(pending::<()>());
                aborted.abort();
                assert!(poll_once(&mut { aborted }).is_pending());
                let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
                assert!(poll_once(&mut sleep).is_pending());
                assert!(poll_once(&mut shutdown.requested()).is_pending());
                assert!(poll_once(&mut shutdown.terminated()).is_pending());
                tell.fetch_add(1, SeqCst);
            })
        };
        // Each of them is dropped at home: nobody else has a handle.
        let release = common::hold(&runtime);
        let output = meddler();
        drop(runtime.spawner().spawn(async move { output }));
        let payload = meddler();
        drop(runtime.spawner().spawn(async move { resume_unwind(Box::new(payload)) }));
        let closure = meddler();
        let unrun = runtime.spawner().spawn_with(move || {
            let _closure = &closure;
            unreachable!("it was aborted");
            #[allow(unreachable_code)]
            async {}
        });
        unrun.abort();
        if round % 2 == 0 {
            drop(unrun);
        }
        release.open();
        until(|| told.load(SeqCst) == 3);
        // Two for each of them, one for this, and the one that held home; a third for each was aborted.
        runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
        until(|| runtime.metrics().alive() == 0);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.cancelled, report.panicked), (6 + 1 + 2, 4, 1));
    });
}

#[test]
fn an_output_whose_destructor_panics_panics_where_its_handle_is_dropped_and_harms_nobody() {
    common::quiet_panics();
    rounds(100, |_| {
        let runtime = Builder::new().start("home").unwrap();
        let handle = runtime.spawner().spawn(async { OnDrop(|| panic!("on purpose")) });
        until(|| handle.is_finished());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(handle))).is_err());
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!((report.completed, report.panicked), (1, 0));
    });
}

#[test]
fn a_guard_of_a_runtime_that_was_closed_is_a_context_that_refuses() {
    rounds(100, |_| {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter().unwrap();
        runtime.shutdown_handle().request();
        // In passing, this closes what was asked to stop on this thread.
        drop(Runtime::new().unwrap());
        assert_eq!(runtime.run().unwrap().cause, Cause::Requested);
        assert!(Shutdown::current().is_requested());
        assert!(Spawner::current().try_spawn(async {}).is_err());
        let mut refused = spawn_local(async {});
        assert!(matches!(poll_once(&mut refused), Poll::Ready(Err(error)) if error.is_cancelled()));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let fd = AsyncFd::new(ours).unwrap();
        let polled = fd.poll_read_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(error)) if error.to_string().contains("closed")));
        drop(guard);
        assert!(Spawner::try_current().is_none());
    });
}

#[test]
fn what_is_forgotten_is_never_dropped_and_holds_nobody_up() {
    rounds(50, |_| {
        let shutdown = thread::spawn(|| {
            let runtime: &'static Runtime = Box::leak(Box::new(Runtime::new().unwrap()));
            let shutdown = runtime.shutdown_handle();
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let fd: &'static AsyncFd<_> = Box::leak(Box::new(AsyncFd::new(ours).unwrap()));
            runtime
                .block_on(async {
                    let mut task = spawn_local(async { OnDrop(|| ()) });
                    let mut sleep = evbase::time::sleep(Duration::from_secs(1000));
                    let mut requested = Shutdown::current().requested();
                    let mut terminated = Shutdown::current().terminated();
                    let mut readable = Box::pin(fd.readable());
                    poll_fn(|cx| {
                        assert!(common::poll_with(&mut task, cx.waker()).is_pending());
                        assert!(common::poll_with(&mut sleep, cx.waker()).is_pending());
                        assert!(common::poll_with(&mut requested, cx.waker()).is_pending());
                        assert!(common::poll_with(&mut terminated, cx.waker()).is_pending());
                        assert!(readable.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    forget((task, sleep, requested, terminated, readable));
                })
                .unwrap();
            drop(runtime.spawn_local(pending::<()>()));
            forget(runtime.enter().unwrap());
            forget(runtime.spawn_local(pending::<()>()));
            assert!(
                Spawner::try_current().is_some(),
                "the context of a forgotten guard stays"
            );
            shutdown
        })
        .join()
        .unwrap();
        // The exit of the thread has closed it all the same.
        let report = shutdown.terminated().wait().unwrap();
        assert_eq!(report.cause, Cause::HomeExited);
        assert_eq!((report.completed, report.cancelled), (0, 3));
    });
}

#[test]
fn a_guard_in_a_thread_local_may_be_dropped_after_the_exit_of_home() {
    thread_local! {
        static GUARD: RefCell<Option<evbase::EnterGuard<'static>>> = const { RefCell::new(None) };
    }
    rounds(50, |round| {
        let runtime: &'static Runtime = Box::leak(Box::new(Runtime::new().unwrap()));
        thread::spawn(move || {
            if round % 2 == 0 {
                // Destroyed after the runtime's own guard of the thread, which is younger.
                GUARD.with(|_| ());
            }
            let guard = runtime.enter().unwrap();
            GUARD.set(Some(guard));
            drop(spawn_local(pending::<()>()));
        })
        .join()
        .unwrap();
        let report = runtime.run().unwrap();
        assert_eq!((report.cause, report.cancelled), (Cause::HomeExited, 1));
        // SAFETY: leaked above, and the thread that has borrowed it is gone.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(runtime).cast_mut()) });
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_home_that_is_stopped_and_continued_in_its_sleep_sleeps_on() {
    alone(|| {
        let runtime = parked(Builder::new());
        let parent = std::process::id();
        let in_state = |state: char| {
            let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with(state)
        };
        let mut sleeping = runtime.spawner().spawn(evbase::time::sleep(Duration::from_secs(1000)));
        runtime.spawner().spawn(async {}).wait().unwrap().unwrap();
        let code = common::fork(|| {
            for _ in 0..50 {
                // SAFETY: stops the parent, and continues it.
                unsafe { libc::kill(parent.cast_signed(), libc::SIGSTOP) };
                until(|| in_state('T'));
                // SAFETY: as above.
                unsafe { libc::kill(parent.cast_signed(), libc::SIGCONT) };
                until(|| !in_state('T'));
            }
        });
        assert_eq!(code, 0);
        assert!(poll_once(&mut sleeping).is_pending());
        assert_eq!(runtime.spawner().spawn(async { 1 }).wait().unwrap().unwrap(), 1);
        let report = runtime.shutdown().wait().unwrap();
        assert_eq!(
            (report.cause, report.completed, report.cancelled),
            (Cause::Dropped, 3, 1)
        );
    });
}

#[test]
fn a_runtime_is_made_used_and_dropped_in_a_destructor_while_a_panic_unwinds() {
    rounds(100, |_| {
        let unwound = catch_unwind(|| {
            let _guard = OnDrop(|| {
                assert!(thread::panicking());
                let runtime = Runtime::new().unwrap();
                assert_eq!(
                    runtime
                        .block_on(async { spawn_local(async { 1 }).await })
                        .unwrap()
                        .unwrap(),
                    1
                );
                let panics = runtime.block_on(async { spawn_local(async { resume_unwind(Box::new(2)) }).await });
                assert!(panics.unwrap().map(|(): ()| ()).unwrap_err().is_panic());
                let started = Builder::new().start("home").unwrap();
                assert_eq!(started.spawner().spawn(async { 3 }).wait().unwrap().unwrap(), 3);
                watched(|| started.shutdown().wait().unwrap());
            });
            resume_unwind(Box::new("on purpose"));
        });
        assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
    });
}
