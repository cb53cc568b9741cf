//! The wheel against its promises, and against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Moves time on, and takes everything that is due.
fn fire<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
    wheel.expire(now, |_| {});
    std::iter::from_fn(|| wheel.pop_expired().map(|(_, key, payload)| (key, payload)))
        .map(|(_, payload)| payload)
        .collect()
}

/// Walks all lists, and checks every invariant of the module's header that a walk can check.
fn check<T>(wheel: &Wheel<T>) {
    let mut linked = 0;
    for number in 0..wheel.slots.len() {
        let (level, digit) = (number / SLOTS, number % SLOTS);
        let slot = wheel.slots[number];
        let occupied = wheel.occupied[level] >> digit & 1 == 1;
        let dirty = wheel.dirty[level] >> digit & 1 == 1;
        assert_eq!(occupied, slot.head != NONE);
        assert!(occupied || !dirty);
        let (mut index, mut previous, mut earliest, mut wake) = (slot.head, NONE, u64::MAX, u64::MAX);
        while index != NONE {
            let timer = wheel.nodes[index].timer;
            assert_eq!((usize::from(timer.slot), timer.previous), (number, previous));
            let (tick, elapsed) = (
                timer.deadline.max(wheel.elapsed) >> TICK_BITS,
                wheel.elapsed >> TICK_BITS,
            );
            assert_eq!((level_of(elapsed, tick), digit_of(tick, level)), (level, digit));
            earliest = earliest.min(timer.deadline);
            wake = wake.min(timer.grid.round_up(timer.deadline));
            (previous, index) = (index, timer.next);
            linked += 1;
        }
        if occupied {
            assert!(slot.earliest <= earliest && slot.wake <= wake);
            assert!(dirty || (slot.earliest, slot.wake) == (earliest, wake));
            assert!(wheel.start_of(level, digit) <= slot.wake.max(wheel.elapsed));
        }
    }
    for level in 0..LEVELS {
        assert_eq!(wheel.levels >> level & 1 == 1, wheel.occupied[level] != 0);
    }
    let waiting = wheel
        .nodes
        .iter()
        .filter(|(_, node)| node.timer.slot == EXPIRED)
        .count();
    assert_eq!(linked + waiting, wheel.len());
}

#[test]
fn a_key_is_eight_bytes_and_a_node_forty() {
    assert_eq!(size_of::<TimerKey>(), 8);
    #[cfg(target_pointer_width = "64")]
    assert_eq!(size_of::<Node<std::task::Waker>>(), 40);
}

#[test]
fn a_wheel_that_was_never_used_has_allocated_nothing() {
    let wheel = Wheel::<u64>::new();
    assert_eq!(
        (wheel.slots.capacity(), wheel.nodes.capacity(), wheel.expired.capacity()),
        (0, 0, 0)
    );
}

#[test]
fn a_timer_fires_at_its_nanosecond_and_not_before() {
    for deadline in [1, 1023, 1024, 1025, 65_535, 65_536, SECOND, u64::MAX - 1, u64::MAX] {
        let mut wheel = Wheel::new();
        wheel.arm(deadline, Grid::EXACT, ());
        assert_eq!(wheel.next_wake(), Some(deadline));
        assert!(fire(&mut wheel, deadline - 1).is_empty());
        assert_eq!(wheel.next_wake(), Some(deadline));
        assert_eq!(fire(&mut wheel, deadline).len(), 1);
        assert_eq!((wheel.next_wake(), wheel.len()), (None, 0));
    }
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let mut wheel = Wheel::new();
    assert!(fire(&mut wheel, 5 * SECOND).is_empty());
    wheel.arm(5 * SECOND + 1, Grid::EXACT, "soon");
    wheel.arm(3, Grid::EXACT, "long ago");
    assert_eq!(wheel.next_wake(), Some(3));
    assert_eq!(fire(&mut wheel, 5 * SECOND), ["long ago"]);
    assert_eq!(fire(&mut wheel, 5 * SECOND + 1), ["soon"]);
}

#[test]
fn timers_fire_in_the_order_of_deadlines_then_of_arming() {
    let mut wheel = Wheel::new();
    // Stamps wrap around in the midst of this.
    wheel.next_stamp = u32::MAX - 3;
    for (payload, deadline) in [7, 5, 5, 9 * SECOND, 5, 7, 2_000, 5].into_iter().enumerate() {
        wheel.arm(deadline, Grid::EXACT, payload);
    }
    assert_eq!(fire(&mut wheel, 10 * SECOND), [1, 2, 4, 7, 0, 5, 6, 3]);
}

#[test]
fn a_far_timer_wakes_nobody_before_its_time() {
    let mut wheel = Wheel::new();
    wheel.arm(3600 * SECOND, Grid::EXACT, ());
    assert_eq!(wheel.next_wake(), Some(3600 * SECOND));
    // Nor does another one that fires in between.
    wheel.arm(SECOND, Grid::EXACT, ());
    assert_eq!(wheel.next_wake(), Some(SECOND));
    assert_eq!(fire(&mut wheel, SECOND).len(), 1);
    assert_eq!(wheel.next_wake(), Some(3600 * SECOND));
}

#[test]
fn the_next_deadline_is_exact_after_the_first_timer_was_disarmed() {
    let mut wheel = Wheel::new();
    let first = wheel.arm(SECOND, Grid::EXACT, "first");
    let second = wheel.arm(SECOND + 10_000, Grid::EXACT, "second");
    wheel.arm(SECOND + 20_000, Grid::EXACT, "third");
    assert_eq!(wheel.disarm(first), Some("first"));
    assert_eq!(wheel.next_wake(), Some(SECOND + 10_000));
    assert!(wheel.reset(second, 9 * SECOND, Grid::EXACT));
    assert_eq!(wheel.next_wake(), Some(SECOND + 20_000));
    check(&wheel);
}

#[test]
fn among_very_many_timers_a_disarmed_first_one_costs_one_early_wake() {
    let mut wheel = Wheel::new();
    let first = wheel.arm(SECOND, Grid::EXACT, 0);
    for n in 1..=2 * RESCAN as u64 {
        wheel.arm(SECOND + 1_000_000 + n, Grid::EXACT, n);
    }
    wheel.disarm(first);
    assert_eq!(wheel.next_wake(), Some(SECOND));
    assert!(fire(&mut wheel, SECOND).is_empty());
    assert_eq!(wheel.next_wake(), Some(SECOND + 1_000_001));
    check(&wheel);
}

#[test]
fn a_stale_key_finds_nothing() {
    let mut wheel = Wheel::new();
    let disarmed = wheel.arm(1, Grid::EXACT, "disarmed");
    assert_eq!(wheel.get(disarmed), Some(&"disarmed"));
    assert_eq!(wheel.disarm(disarmed), Some("disarmed"));
    let fired = wheel.arm(2, Grid::EXACT, "fired");
    assert_eq!(fire(&mut wheel, 2), ["fired"]);
    let tenant = wheel.arm(3, Grid::EXACT, "tenant");
    assert_eq!((disarmed.index(), fired.index()), (tenant.index(), tenant.index()));
    for stale in [disarmed, fired] {
        assert!(wheel.get(stale).is_none() && wheel.get_mut(stale).is_none());
        assert!(!wheel.reset(stale, 9, Grid::EXACT) && wheel.disarm(stale).is_none());
    }
    *wheel.get_mut(tenant).unwrap() = "changed";
    assert_eq!(fire(&mut wheel, 3), ["changed"]);
}

#[test]
fn a_timer_that_is_due_can_still_be_disarmed_or_reset() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (1..=4).map(|n| wheel.arm(n, Grid::EXACT, n)).collect();
    wheel.expire(10, |_| {});
    assert_eq!(wheel.len(), 4);
    assert_eq!(wheel.disarm(keys[0]), Some(1));
    assert!(wheel.reset(keys[1], 20, Grid::EXACT));
    assert_eq!((wheel.next_wake(), wheel.len()), (Some(3), 3));
    check(&wheel);
    assert_eq!(fire(&mut wheel, 10), [3, 4]);
    assert_eq!(wheel.next_wake(), Some(20));
    assert_eq!(fire(&mut wheel, 20), [2]);
}

#[test]
fn one_timer_after_the_other_is_kept_at_one_place() {
    let mut wheel = Wheel::new();
    for round in 0..1000 {
        let key = wheel.arm(round, Grid::EXACT, ());
        assert_eq!(key.index(), 0);
        wheel.disarm(key);
    }
    assert!(wheel.nodes.capacity() <= 64);
}

#[test]
fn the_memory_of_cancelled_timers_goes_back_while_one_stays() {
    const MANY: usize = 100_000;
    for stays in [0, MANY / 2, MANY - 1] {
        let mut wheel = Wheel::new();
        let mut keys: Vec<_> = (0..MANY as u64).map(|n| wheel.arm(n, Grid::EXACT, n)).collect();
        let kept = keys.remove(stays);
        for key in &keys {
            assert!(wheel.disarm(*key).is_some());
        }
        assert!(wheel.nodes.capacity() <= 1024, "{stays}: {}", wheel.nodes.capacity());
        // Keys from before don't find timers that have their nodes.
        for n in 0..MANY as u64 {
            wheel.arm(n, Grid::EXACT, n);
        }
        assert!(keys.iter().all(|key| wheel.get(*key).is_none()));
        assert_eq!(wheel.get(kept), Some(&(stays as u64)));
        check(&wheel);
        assert_eq!(wheel.clear().len(), MANY + 1);
    }
}

#[test]
fn the_memory_of_timers_that_fired_goes_back_while_one_stays() {
    let mut wheel = Wheel::new();
    wheel.arm(9 * SECOND, Grid::EXACT, 0);
    for n in 1..=100_000 {
        wheel.arm(n, Grid::EXACT, n);
    }
    assert_eq!(fire(&mut wheel, SECOND).len(), 100_000);
    assert!(wheel.nodes.capacity() <= 1024 && wheel.expired.capacity() <= KEEP);
    check(&wheel);
}

#[test]
fn clear_gives_back_every_payload_the_due_ones_too() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..10_000_u64).map(|n| wheel.arm(n * n, Grid::EXACT, n)).collect();
    wheel.disarm(keys[5000]);
    wheel.expire(1_000_000, |_| {});
    let mut payloads = wheel.clear();
    payloads.sort_unstable();
    assert!(payloads.into_iter().eq((0..10_000).filter(|n| *n != 5000)));
    assert_eq!((wheel.len(), wheel.next_wake()), (0, None));
    check(&wheel);
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Anything from a nanosecond to centuries, with every order of magnitude as likely as any other.
    fn span(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }

    /// The same, up to some minutes.
    fn short_span(&mut self) -> u64 {
        let bits = 26 + self.below(38);
        self.next() >> bits
    }

    fn grid(&mut self) -> Grid {
        match self.below(2) {
            0 => Grid::EXACT,
            // Those of the rule: up to two milliseconds, among them the one that is no power of two.
            _ => Grid::up_to(self.next() >> 43),
        }
    }
}

/// The model: a sorted map from deadline and age to payload.
#[derive(Default)]
struct Model {
    timers: BTreeMap<(u64, u64), u64>,
    grids: BTreeMap<u64, Grid>,
    keys: Vec<(TimerKey, u64, u64)>,
}

impl Model {
    fn first_wake(&self) -> Option<u64> {
        self.timers
            .iter()
            .map(|((deadline, age), _)| self.grids[age].round_up(*deadline))
            .min()
    }
}

fn compare_with_the_model(seed: u64, operations: usize, most: usize, span: fn(&mut Random) -> u64) {
    let mut random = Random(seed);
    let mut wheel = Wheel::new();
    let mut model = Model::default();
    let mut now = 0_u64;
    let mut age = 0;
    for operation in 0..operations {
        match random.below(10) {
            0..=3 if model.timers.len() < most => {
                let deadline = match random.below(8) {
                    0 => now.saturating_sub(span(&mut random)),
                    1 => now,
                    _ => now.saturating_add(span(&mut random)),
                };
                age += 1;
                let grid = random.grid();
                let key = wheel.arm(deadline, grid, age);
                model.timers.insert((deadline, age), age);
                model.grids.insert(age, grid);
                model.keys.push((key, deadline, age));
            }
            0..=5 if !model.keys.is_empty() => {
                let index = random.below(model.keys.len() as u64) as usize;
                let (key, deadline, age) = model.keys.swap_remove(index);
                let expected = model.timers.remove(&(deadline, age));
                assert_eq!(wheel.get(key).copied(), expected);
                assert_eq!(wheel.disarm(key), expected);
            }
            6 | 7 if !model.keys.is_empty() => {
                let index = random.below(model.keys.len() as u64) as usize;
                let (key, old, age) = model.keys[index];
                let new = now.saturating_add(span(&mut random));
                let grid = random.grid();
                let expected = model.timers.remove(&(old, age));
                assert_eq!(wheel.reset(key, new, grid), expected.is_some());
                if let Some(payload) = expected {
                    model.timers.insert((new, age), payload);
                    model.grids.insert(age, grid);
                    model.keys[index].1 = new;
                }
            }
            _ => {
                // To just before, at, or just after the next deadline or wake-up, or anywhere.
                let first = match random.below(2) {
                    0 => model.timers.keys().next().map_or(now, |(deadline, _)| *deadline),
                    _ => model.first_wake().unwrap_or(now),
                };
                let to = match random.below(5) {
                    0 => first.saturating_sub(1),
                    1 => first,
                    2 => first.saturating_add(1),
                    _ => now.saturating_add(span(&mut random) / 4),
                };
                now = now.max(to);
                let later = if now == u64::MAX {
                    BTreeMap::new()
                } else {
                    model.timers.split_off(&(now + 1, 0))
                };
                let due: Vec<_> = std::mem::replace(&mut model.timers, later).into_values().collect();
                assert_eq!(fire(&mut wheel, now), due, "seed {seed}, operation {operation}");
            }
        }
        let bound = wheel.next_wake();
        if most > RESCAN && operation % 16 != 0 {
            // The model's walk is slow.
            continue;
        }
        let first = model.first_wake();
        assert_eq!(bound.is_some(), first.is_some());
        assert!(bound <= first);
        if most <= RESCAN {
            assert_eq!(bound, first, "the wait is exact");
        }
        assert_eq!(wheel.len(), model.timers.len());
        if operation % 1000 == 0 {
            check(&wheel);
            model.keys.retain(|(key, ..)| wheel.get(*key).is_some());
        }
    }
    check(&wheel);
    assert_eq!(wheel.clear().len(), model.timers.len());
}

#[test]
fn a_random_walk_agrees_with_a_sorted_map() {
    for seed in 1..=8 {
        compare_with_the_model(seed * 0x9e37_79b9, 40_000, 20, Random::span);
        compare_with_the_model(seed * 0x9e37_79b9, 40_000, 100, Random::short_span);
        compare_with_the_model(seed * 0x9e37_79b9, 40_000, 3000, Random::short_span);
    }
}

#[test]
fn timers_on_a_grid_share_a_wake_up_and_delay_nobody() {
    let mut wheel = Wheel::new();
    let grid = Grid::up_to(1 << 16);
    for deadline in [65_537, 70_000, 131_000, 131_072] {
        wheel.arm(deadline, grid, deadline);
    }
    assert_eq!(wheel.next_wake(), Some(131_072));
    // An exact one among them wakes by itself, and takes along what is due.
    wheel.arm(100_000, Grid::EXACT, 100_000);
    assert_eq!(wheel.next_wake(), Some(100_000));
    assert_eq!(fire(&mut wheel, 65_536), Vec::<u64>::new());
    assert_eq!(fire(&mut wheel, 100_000), [65_537, 70_000, 100_000]);
    assert_eq!(wheel.next_wake(), Some(131_072));
    assert_eq!(fire(&mut wheel, 131_072), [131_000, 131_072]);
    // Where time ends, it isn't rounded down.
    wheel.arm(u64::MAX - 1, grid, u64::MAX - 1);
    assert_eq!(wheel.next_wake(), Some(u64::MAX - 1));
}

#[test]
fn no_wake_finds_nothing_due_unless_a_bound_stood_in_for_a_deadline() {
    let mut random = Random(42);
    let mut wheel = Wheel::new();
    for n in 0..10_000 {
        wheel.arm(random.below(SECOND), Grid::EXACT, n);
    }
    let (mut wakes, mut fired) = (0, 0);
    while let Some(deadline) = wheel.next_wake() {
        let due = fire(&mut wheel, deadline).len();
        assert!(due > 0);
        wakes += 1;
        fired += due;
    }
    assert_eq!(fired, 10_000);
    assert!(wakes <= fired);
}

/// Not a check but a measurement: `cargo test --release -- --ignored --nocapture costs`.
#[test]
#[ignore = "a measurement"]
fn costs() {
    use std::hint::black_box;
    use std::time::Instant;

    let mut random = Random(7);
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..10_000)
        .map(|n| wheel.arm(30 * SECOND + random.below(SECOND), Grid::EXACT, n))
        .collect();

    const ROUNDS: u64 = 5_000_000;
    let start = Instant::now();
    for n in 0..ROUNDS {
        let key = wheel.arm(30 * SECOND + (n * 7919) % SECOND, Grid::EXACT, n);
        black_box(wheel.disarm(key));
    }
    println!(
        "arm + disarm, 10k alive: {:.1} ns",
        start.elapsed().as_nanos() as f64 / ROUNDS as f64
    );

    let start = Instant::now();
    for n in 0..ROUNDS {
        let key = keys[random.below(10_000) as usize];
        black_box(wheel.reset(key, 30 * SECOND + (n * 7919) % SECOND, Grid::EXACT));
    }
    println!(
        "reset of a random one of 10k: {:.1} ns",
        start.elapsed().as_nanos() as f64 / ROUNDS as f64
    );

    let mut wheel = Wheel::new();
    let start = Instant::now();
    for n in 0..100_000 {
        wheel.arm(random.below(SECOND), Grid::EXACT, n);
    }
    println!("arm 100k: {:?}", start.elapsed());
    let start = Instant::now();
    let (mut now, mut turns) = (0, 0);
    while let Some(deadline) = wheel.next_wake() {
        // As a loop would that comes around every 20 us at most.
        now = deadline.max(now + 20_000);
        black_box(fire(&mut wheel, now));
        turns += 1;
    }
    println!("fire 100k in one second, {turns} turns: {:?}", start.elapsed());
}
