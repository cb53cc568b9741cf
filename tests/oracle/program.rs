//! Programs: what each thread does, made up from a seed. Slots are shared by all threads of a program.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::support::Random;

/// How many slots there are of each kind.
pub(crate) const SLOTS: usize = 4;

/// All that a seed says.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) grace: Duration,
    pub(crate) event_interval: u32,
    pub(crate) home: HomeKind,
    pub(crate) home_operations: Vec<HomeOp>,
    pub(crate) last: Last,
    pub(crate) threads: Vec<Vec<Op>>,
    pub(crate) ending: Ending,
    /// How long the main thread lets home go on before that.
    pub(crate) linger: Duration,
    /// What is left in the slots outlives the runtime.
    pub(crate) slots_outlive: bool,
}

/// Who becomes home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HomeKind {
    /// A thread that `Builder::start` makes.
    Started,
    /// A thread of the program, before the others begin.
    BindsFirst,
    /// Whoever comes first; perhaps nobody.
    Anybody,
}

/// What a home thread of the program does, outside of the loop.
#[derive(Debug)]
pub(crate) enum HomeOp {
    Turn { micros: u64 },
    BlockOn(Arc<TaskSpec>),
    SpawnLocal { spec: Arc<TaskSpec>, keep: Option<usize> },
    PollTerminated,
    Do(Op),
}

/// How a home thread of the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Run,
    WaitForTermination,
    BlockOnForEver,
    DropsTheRuntime,
    Exits,
}

/// What the main thread does when the others are done, or wait for the end. In any case it asks for the end afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Request,
    RequestNow,
    Drop,
    Shutdown,
}

/// What any thread can do, and tasks and destructors as well.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Spawn {
        spec: Arc<TaskSpec>,
        how: How,
        keep: Option<usize>,
    },
    Wake {
        waker: usize,
        how: WakeHow,
    },
    CloneWaker {
        from: usize,
        to: usize,
    },
    DropWaker(usize),
    Abort(usize),
    Join(usize),
    PollJoin(usize),
    Detach(usize),
    Request,
    RequestNow,
    WaitForTermination {
        micros: Option<u64>,
    },
    DropRuntime {
        shutdown: bool,
    },
    RuntimeIntoTask,
    UseRuntime(Use),
    NewPair(usize),
    Write {
        pair: usize,
        bytes: usize,
    },
    ReadBack(usize),
    HalfClose(usize),
    ClosePeer(usize),
    DropFd(usize),
    IntoInner(usize),
    Dup(usize),
    CloseDups,
    ResetSleep {
        sleep: usize,
        micros: u64,
    },
    DropSleep(usize),
    /// Into a thread-local, which is dropped when the thread exits.
    Keep(Kept),
    Metrics,
    Pause(u32),
    Fork,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Spawn,
    TrySpawn,
    /// A future so large that it is boxed on its way.
    SpawnLarge,
    SpawnWith,
    TrySpawnWith,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum WakeHow {
    ByRef,
    ByValue,
    /// Twice, by a clone and by itself.
    Twice,
}

/// Calls that are home's alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    Turn,
    BlockOn,
    Enter,
    SpawnLocal,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Waker(usize),
    Handle(usize),
    Sleep(usize),
    Fd(usize),
}

/// A task, or the future of a `block_on`.
#[derive(Debug, Default)]
pub(crate) struct TaskSpec {
    pub(crate) steps: Vec<Step>,
    /// The closure of a `spawn_with` panics, and there is no future.
    pub(crate) closure_panics: bool,
    pub(crate) on_drop: Vec<OnDrop>,
    /// It comes to its end by itself.
    pub(crate) is_finite: bool,
}

impl TaskSpec {
    /// It does nothing but sleep, once.
    pub(crate) fn is_one_sleep(&self) -> bool {
        matches!(self.steps[..], [Step::Sleep { .. }])
    }
}

/// What a task does.
#[derive(Debug)]
pub(crate) enum Step {
    Yield,
    Sleep {
        micros: u64,
    },
    SleepReset {
        micros: u64,
        then: u64,
    },
    /// Puts its waker into a slot, and waits until it was polled so often.
    WaitForWakes {
        slot: usize,
        polls: u32,
    },
    Await(usize),
    Child {
        spec: Arc<TaskSpec>,
        keep: Option<usize>,
    },
    Read {
        pair: usize,
        bytes: usize,
        how: ReadHow,
        then: Then,
    },
    WriteBack {
        pair: usize,
        bytes: usize,
    },
    /// Arms a timer, and puts it into a slot.
    GiveSleep {
        slot: usize,
        micros: u64,
    },
    AwaitSleep(usize),
    Requested,
    Panic,
    Do(Op),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadHow {
    ReadWith,
    Guard,
    /// As with a guard, but the guard learns of a `WouldBlock` only later.
    LateGuard,
    AsyncRead,
}

/// What becomes of the descriptor after a read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Keep,
    Drop,
}

/// What a future's destructor does.
#[derive(Debug)]
pub(crate) enum OnDrop {
    Panic,
    SpawnLocal(Arc<TaskSpec>),
    Do(Op),
}

/// What a program does more of than of other things, so that its operations meet.
#[derive(Clone, Copy)]
enum Theme {
    None,
    Wakes,
    Sockets,
    Timers,
    Joins,
}

/// Makes programs up.
struct Maker {
    random: Random,
    theme: Theme,
    /// How many in a thousand operations ask for the end.
    stops: u64,
    forks: bool,
    /// The thread must come to its end by itself.
    bounded: bool,
}

impl Program {
    pub(crate) fn new(seed: u64, forks: bool) -> Self {
        let mut random = Random::new(seed);
        // The first numbers of close seeds are close.
        (0..8).for_each(|_| {
            random.next();
        });
        let stops = [0, 0, 0, 10, 10, 60][random.below(6) as usize];
        let theme = match random.below(if forks { 4 } else { 7 }) {
            0..2 => Theme::Sockets,
            2..4 => Theme::Wakes,
            4 => Theme::Timers,
            5 => Theme::Joins,
            _ => Theme::None,
        };
        let mut make = Maker {
            random,
            theme,
            stops,
            forks,
            bounded: false,
        };
        let home = match make.below(10) {
            0..4 => HomeKind::Started,
            4..8 => HomeKind::BindsFirst,
            _ => HomeKind::Anybody,
        };
        let last = match make.below(10) {
            0..3 => Last::Run,
            3..6 => Last::WaitForTermination,
            6..8 => Last::BlockOnForEver,
            8 => Last::DropsTheRuntime,
            _ => Last::Exits,
        };
        let ends = matches!(last, Last::DropsTheRuntime | Last::Exits);
        make.bounded = ends;
        let home_operations = match home {
            HomeKind::Started => Vec::new(),
            _ => (0..make.below(9)).map(|_| make.home_op()).collect(),
        };
        make.bounded = false;
        let threads = 1 + make.below(4);
        let grace = match make.below(6) {
            // Where somebody must end without being asked to, nothing may wait for ever.
            0 if home == HomeKind::Started || home == HomeKind::BindsFirst && !ends => Duration::MAX,
            0..2 => Duration::from_micros(make.below(1500)),
            _ => Duration::ZERO,
        };
        Self {
            grace,
            event_interval: [1, 2, 7, 64][make.below(4) as usize],
            home,
            home_operations,
            last,
            threads: (0..threads).map(|_| make.thread()).collect(),
            ending: match make.below(4) {
                0 => Ending::Request,
                1 => Ending::RequestNow,
                2 => Ending::Drop,
                _ => Ending::Shutdown,
            },
            linger: match make.below(3) {
                0 => Duration::from_micros(make.below(1500)),
                _ => Duration::ZERO,
            },
            slots_outlive: make.chance(50),
        }
    }

    /// Whether home drives the runtime until it is asked to stop, so that what can happen must happen.
    pub(crate) fn serves(&self) -> bool {
        match self.home {
            HomeKind::Started => true,
            HomeKind::BindsFirst => !self.home_comes_to_an_end(),
            HomeKind::Anybody => false,
        }
    }

    /// Whether the home thread ends without being asked to.
    pub(crate) fn home_comes_to_an_end(&self) -> bool {
        self.home != HomeKind::Started && matches!(self.last, Last::DropsTheRuntime | Last::Exits)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            grace,
            event_interval,
            home,
            ending,
            linger,
            slots_outlive,
            ..
        } = self;
        writeln!(
            f,
            "home {home:?}, grace {grace:?}, event interval {event_interval}, slots outlive {slots_outlive}"
        )?;
        if *home != HomeKind::Started {
            writeln!(f, "the home thread:")?;
            self.home_operations.iter().try_for_each(|op| writeln!(f, "  {op:?}"))?;
            writeln!(f, "  at last: {:?}", self.last)?;
        }
        for ops in &self.threads {
            writeln!(f, "a thread:")?;
            ops.iter().try_for_each(|op| writeln!(f, "  {op:?}"))?;
        }
        write!(f, "ending: {ending:?} after {linger:?}")
    }
}

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    /// True in so many of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn slot(&mut self) -> usize {
        self.below(SLOTS as u64) as usize
    }

    fn keep(&mut self) -> Option<usize> {
        let slot = self.slot();
        self.chance(65).then_some(slot)
    }

    /// How long a timer is armed for.
    fn micros(&mut self) -> u64 {
        match self.below(20) {
            0 => 0,
            1 => 3_600_000_000,
            // Long enough to share a wake-up with others.
            2 if self.chance(20) => 34_000 + self.below(20_000),
            2..5 => self.below(3000),
            _ => self.below(400),
        }
    }

    fn home_op(&mut self) -> HomeOp {
        let finite = self.bounded;
        match self.below(10) {
            0..3 => HomeOp::Turn {
                micros: self.below(500),
            },
            3..5 => {
                let finite = finite || self.chance(66);
                HomeOp::BlockOn(Arc::new(self.spec(2, finite)))
            }
            5..8 => HomeOp::SpawnLocal {
                spec: Arc::new(self.spec(2, false)),
                keep: self.keep(),
            },
            8 => HomeOp::PollTerminated,
            _ => HomeOp::Do(self.op(2)),
        }
    }

    fn thread(&mut self) -> Vec<Op> {
        let first = match self.theme {
            Theme::Sockets => vec![Op::NewPair(self.close_slot())],
            _ => Vec::new(),
        };
        let most = if self.chance(15) { 150 } else { 22 };
        let count = 3 + self.below(most);
        first.into_iter().chain((0..count).map(|_| self.op(2))).collect()
    }

    /// One of two slots only.
    fn close_slot(&mut self) -> usize {
        self.below(2) as usize
    }

    fn spawn(&mut self, spec: TaskSpec, keep: Option<usize>) -> Op {
        Op::Spawn {
            spec: Arc::new(spec),
            how: match self.below(10) {
                0..3 => How::Spawn,
                3..5 => How::TrySpawn,
                5 => How::SpawnLarge,
                6..9 => How::SpawnWith,
                _ => How::TrySpawnWith,
            },
            keep,
        }
    }

    /// An operation of the program's theme.
    fn themed_op(&mut self, depth: u32) -> Option<Op> {
        let slot = self.close_slot();
        let op = match (self.theme, self.below(100)) {
            (Theme::None, _) => return None,
            (Theme::Wakes, 0..70) => Op::Wake {
                waker: slot,
                how: WakeHow::ByRef,
            },
            (Theme::Wakes, _) => {
                let steps = (0..1 + self.below(3))
                    .map(|_| Step::WaitForWakes {
                        slot,
                        polls: 1 + self.random.below(12) as u32,
                    })
                    .collect();
                self.spawn_steps(steps)
            }
            (Theme::Sockets, 0..40) => Op::Write {
                pair: slot,
                bytes: 1 + self.below(300) as usize,
            },
            (Theme::Sockets, 40..85) => {
                let mut steps: Vec<_> = (0..1 + self.below(2)).map(|_| self.io_step()).collect();
                if self.forks && self.chance(10) {
                    steps.insert(1, Step::Do(Op::Fork));
                }
                self.spawn_steps(steps)
            }
            (Theme::Sockets, 85..93) => Op::ReadBack(slot),
            (Theme::Sockets, 93..95) => Op::NewPair(slot),
            (Theme::Sockets, 95) => Op::HalfClose(slot),
            (Theme::Sockets, 96) => Op::ClosePeer(slot),
            (Theme::Sockets, _) => Op::DropFd(slot),
            (Theme::Timers, 0..50) => {
                let micros = self.below(1200);
                self.spawn_steps(vec![Step::Sleep { micros }])
            }
            (Theme::Timers, 50..75) => {
                let micros = self.micros();
                let step = match self.below(2) {
                    0 => Step::GiveSleep { slot, micros },
                    _ => Step::AwaitSleep(slot),
                };
                self.spawn_steps(vec![step])
            }
            (Theme::Timers, _) => Op::ResetSleep {
                sleep: slot,
                micros: self.micros(),
            },
            (Theme::Joins, 0..30) => {
                let spec = self.spec(depth, true);
                self.spawn(spec, Some(slot))
            }
            (Theme::Joins, 30..45) => self.spawn_steps(vec![Step::Await(slot)]),
            (Theme::Joins, 45..65) if !self.bounded => Op::Join(slot),
            (Theme::Joins, 65..85) => Op::PollJoin(slot),
            (Theme::Joins, _) => Op::Abort(slot),
        };
        Some(op)
    }

    fn spawn_steps(&mut self, steps: Vec<Step>) -> Op {
        let is_finite = steps.iter().all(Step::is_finite);
        let keep = self.chance(25).then(|| self.close_slot());
        let spec = TaskSpec {
            steps,
            is_finite,
            ..TaskSpec::default()
        };
        self.spawn(spec, keep)
    }

    /// A read or a write.
    fn io_step(&mut self) -> Step {
        let pair = self.close_slot();
        if self.chance(15) {
            return Step::WriteBack {
                pair,
                bytes: self.below(300_000) as usize,
            };
        }
        Step::Read {
            pair,
            bytes: 1 + self.below(3000) as usize,
            how: self.read_how(),
            then: if self.chance(20) { Then::Drop } else { Then::Keep },
        }
    }

    fn read_how(&mut self) -> ReadHow {
        match self.below(4) {
            0 => ReadHow::ReadWith,
            1 => ReadHow::Guard,
            2 => ReadHow::LateGuard,
            _ => ReadHow::AsyncRead,
        }
    }

    fn op(&mut self, depth: u32) -> Op {
        if self.below(1000) < self.stops {
            return match self.below(6) {
                0..2 => Op::Request,
                2 => Op::RequestNow,
                3 => Op::DropRuntime { shutdown: false },
                4 => Op::DropRuntime { shutdown: true },
                _ => Op::RuntimeIntoTask,
            };
        }
        if self.forks && self.chance(4) {
            return Op::Fork;
        }
        if self.chance(60) {
            if let Some(op) = self.themed_op(depth) {
                return op;
            }
        }
        let slot = self.slot();
        match self.below(100) {
            0..24 => {
                let finite = self.chance(40);
                let (spec, keep) = (self.spec(depth, finite), self.keep());
                self.spawn(spec, keep)
            }
            24..37 => Op::Wake {
                waker: slot,
                how: match self.below(4) {
                    0..2 => WakeHow::ByRef,
                    2 => WakeHow::ByValue,
                    _ => WakeHow::Twice,
                },
            },
            37..40 => Op::CloneWaker {
                from: slot,
                to: self.slot(),
            },
            40..43 => Op::DropWaker(slot),
            43..50 => Op::Abort(slot),
            50..54 if !self.bounded => Op::Join(slot),
            54..57 => Op::PollJoin(slot),
            57..59 => Op::Detach(slot),
            59 if !self.bounded => {
                let bounded = self.chance(70);
                Op::WaitForTermination {
                    micros: bounded.then(|| self.random.below(300)),
                }
            }
            60..62 => Op::UseRuntime(match self.below(4) {
                0 => Use::Turn,
                1 => Use::BlockOn,
                2 => Use::Enter,
                _ => Use::SpawnLocal,
            }),
            62..66 => Op::NewPair(slot),
            66..76 => Op::Write {
                pair: slot,
                bytes: 1 + self.below(200) as usize,
            },
            76..79 => Op::ReadBack(slot),
            79 => Op::HalfClose(slot),
            80 => Op::ClosePeer(slot),
            81..83 => Op::DropFd(slot),
            83 => Op::IntoInner(slot),
            84 => Op::Dup(slot),
            85 => Op::CloseDups,
            86..89 => Op::ResetSleep {
                sleep: slot,
                micros: self.micros(),
            },
            89 => Op::DropSleep(slot),
            90..92 => Op::Keep(match self.below(4) {
                0 => Kept::Waker(slot),
                1 => Kept::Handle(slot),
                2 => Kept::Sleep(slot),
                _ => Kept::Fd(slot),
            }),
            92 => Op::Metrics,
            _ => {
                let scale = self.below(12);
                Op::Pause(self.below(1 << scale) as u32)
            }
        }
    }

    fn spec(&mut self, depth: u32, finite: bool) -> TaskSpec {
        let steps: Vec<Step> = match self.below(10) {
            0 => Vec::new(),
            1 => vec![Step::Sleep {
                micros: self.below(900),
            }],
            _ => (0..1 + self.below(4)).map(|_| self.step(depth, finite)).collect(),
        };
        let is_finite = steps.iter().all(Step::is_finite);
        let on_drop = match self.below(10) {
            0..7 => Vec::new(),
            7 => vec![OnDrop::Panic],
            _ => {
                let mut all = vec![match self.below(2) {
                    0 if depth > 0 => OnDrop::SpawnLocal(Arc::new(self.spec(depth - 1, false))),
                    _ => OnDrop::Do(self.op_of_a_destructor(depth)),
                }];
                if self.chance(20) {
                    all.push(OnDrop::Panic);
                }
                all
            }
        };
        TaskSpec {
            steps,
            closure_panics: self.chance(3),
            on_drop,
            is_finite,
        }
    }

    /// What never waits.
    fn op_of_a_destructor(&mut self, depth: u32) -> Op {
        loop {
            let op = self.op(depth.saturating_sub(1));
            match op {
                Op::Join(_)
                | Op::WaitForTermination { .. }
                | Op::UseRuntime(_)
                | Op::Fork
                | Op::ReadBack(_)
                | Op::Pause(_) => {}
                Op::Spawn { .. } | Op::RuntimeIntoTask if depth == 0 => {}
                op => return op,
            }
        }
    }

    fn step(&mut self, depth: u32, finite: bool) -> Step {
        let slot = self.slot();
        match self.below(if finite { 50 } else { 100 }) {
            0..12 => Step::Yield,
            12..22 => Step::Sleep {
                micros: self.below(600),
            },
            22..26 => Step::SleepReset {
                micros: self.micros(),
                then: self.below(800),
            },
            26..32 if depth > 0 => Step::Child {
                spec: Arc::new(self.spec(depth - 1, finite)),
                keep: self.keep(),
            },
            32..35 => Step::Panic,
            35..38 => Step::GiveSleep {
                slot,
                micros: self.micros(),
            },
            38..50 => Step::Do(self.op(depth.saturating_sub(1))),
            50..66 => Step::WaitForWakes {
                slot,
                polls: 1 + self.below(3) as u32,
            },
            66..74 => Step::Await(slot),
            74..88 => Step::Read {
                pair: slot,
                bytes: 1 + self.below(600) as usize,
                how: self.read_how(),
                then: if self.chance(40) { Then::Drop } else { Then::Keep },
            },
            88..92 => Step::WriteBack {
                pair: slot,
                bytes: self.below(400_000) as usize,
            },
            92..96 => Step::AwaitSleep(slot),
            96..99 => Step::Requested,
            _ => Step::Yield,
        }
    }
}

impl Step {
    fn is_finite(&self) -> bool {
        match self {
            Self::Yield
            | Self::Sleep { .. }
            | Self::Child { .. }
            | Self::GiveSleep { .. }
            | Self::SleepReset { .. }
            | Self::Panic
            | Self::Do(_) => true,
            Self::WaitForWakes { .. }
            | Self::Await(_)
            | Self::Read { .. }
            | Self::WriteBack { .. }
            | Self::AwaitSleep(_)
            | Self::Requested => false,
        }
    }
}
