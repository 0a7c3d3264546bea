//! Numbers of replicas that follow a load.

use api::{
    Span, Timestamp,
    deploy::{Autoscale, Load},
    time::after,
};
use proptest::prelude::*;
use rollout::autoscale::{EVERY, Errors, History, Input, Scaling, Seen, decide};

use crate::random::Random;

const TARGET: f64 = 70.0;

fn bounds(min: u32, max: u32) -> Autoscale {
    Autoscale {
        min,
        max,
        load: Some(Load::Cpu),
        target: TARGET,
    }
}

fn start() -> Timestamp {
    "2026-02-16T12:00:00Z".parse().unwrap()
}

fn at(seconds: u64) -> Timestamp {
    after(start(), Span::secs(seconds))
}

fn ready(load: f64) -> Seen {
    Seen {
        ready: true,
        load: Some(load),
    }
}

fn input<'a>(bounds: &'a Autoscale, wanted: u32, replicas: &'a [Seen]) -> Input<'a> {
    Input {
        bounds,
        wanted,
        replicas,
        errors: &[],
        deciding: false,
    }
}

/// One decision of an autoscaler that has always called for as many as there are.
fn once(bounds: &Autoscale, wanted: u32, replicas: &[Seen]) -> u32 {
    decide(&input(bounds, wanted, replicas), &History::default(), start()).replicas
}

/// What it comes to when the load stays as it is for 20 minutes, spread over all replicas.
fn settled(bounds: &Autoscale, wanted: u32, total: f64) -> u32 {
    let (mut wanted, mut history) = (wanted, History::default());
    for tick in 0..80 {
        let seen = vec![ready(total / f64::from(wanted)); wanted as usize];
        let scaling = decide(&input(bounds, wanted, &seen), &history, at(tick * 15));
        (wanted, history) = (scaling.replicas, scaling.history);
    }
    wanted
}

#[test]
fn as_many_as_bring_the_mean_to_its_target() {
    let bounds = bounds(1, 100);
    // replicas, load of each -> replicas at once
    for (wanted, load, expected) in [
        (4, 70.0, 4),
        (4, 76.0, 4),
        (4, 77.5, 5),
        (4, 105.0, 6),
        (4, 140.0, 8),
        (10, 105.0, 15),
        (4, 64.0, 4),
        (4, 10.0, 4),
        (1, 500.0, 5),
    ] {
        assert_eq!(
            once(&bounds, wanted, &vec![ready(load); wanted as usize]),
            expected,
            "{wanted} at {load}"
        );
    }
    // total load, in replicas at their target -> what it settles at
    for (wanted, total, expected) in [(4, 1.0, 1), (4, 2.2, 3), (10, 6.0, 6), (1, 50.0, 46), (4, 4.3, 4)] {
        let settled = settled(&bounds, wanted, total * TARGET);
        assert!(
            f64::from(settled) * 1.1 >= total && settled <= expected.max(wanted.min(total.ceil() as u32)) + 4,
            "{wanted} for {total}: {settled}"
        );
        if total < f64::from(wanted) {
            assert_eq!(settled, expected, "{wanted} for {total}");
        }
    }
}

#[test]
fn decisions_say_why() {
    let limits = bounds(2, 6);
    let why = |wanted: u32, load: f64| {
        let seen = vec![ready(load); wanted as usize];
        decide(&input(&limits, wanted, &seen), &History::default(), start()).why
    };
    assert_eq!(why(4, 77.5), "CPU use is 77.5 of 70 aimed at: that calls for 5");
    assert_eq!(
        why(4, 140.0),
        "CPU use is 140 of 70 aimed at: that calls for 8; the bounds are 2 to 6"
    );
    assert_eq!(
        why(4, 20.0),
        "CPU use is 20 of 70 aimed at: that calls for 2; 4 were called for within 5m"
    );
    assert_eq!(why(9, 70.0), "9 replicas are outside of the bounds 2 to 6");
}

#[test]
fn it_grows_by_steps_and_shrinks_by_halves() {
    let bounds = bounds(1, 200);
    let (mut wanted, mut history) = (3, History::default());
    let mut path = Vec::new();
    let run =
        |from: u64, ticks: u64, total: f64, wanted: &mut u32, history: &mut History, path: &mut Vec<(u64, u32)>| {
            for tick in 0..ticks {
                let seen = vec![ready(total / f64::from(*wanted)); *wanted as usize];
                let Scaling {
                    replicas,
                    history: next,
                    ..
                } = decide(&input(&bounds, *wanted, &seen), history, at(from + tick * 5));
                if replicas != *wanted {
                    path.push((tick * 5, replicas));
                }
                (*wanted, *history) = (replicas, next);
            }
        };
    run(0, 24, 100.0 * TARGET, &mut wanted, &mut history, &mut path);
    assert_eq!(path, [(0, 7), (15, 14), (30, 28), (45, 56), (60, 100)]);
    path.clear();
    run(120, 240, 10.0 * TARGET, &mut wanted, &mut history, &mut path);
    // What was called for until 115 s counts until its slot is 300 s old.
    assert_eq!(path, [(300, 50), (360, 25), (420, 13), (480, 10)]);
}

#[test]
fn what_is_not_known_moves_nothing() {
    let bounds = bounds(1, 100);
    let dark = Seen {
        ready: true,
        load: None,
    };
    let starting = Seen {
        ready: false,
        load: Some(300.0),
    };
    let broken = Seen {
        ready: true,
        load: Some(f64::NAN),
    };
    let below = Seen {
        ready: true,
        load: Some(-5.0),
    };
    for unknown in [dark, starting, broken, below] {
        // Idle for growing: 2 of 4 at 120 need 3.4.
        let seen = [ready(120.0), ready(120.0), unknown, unknown];
        assert_eq!(once(&bounds, 4, &seen), 4);
        let seen = [ready(250.0), ready(250.0), unknown, unknown];
        assert_eq!(once(&bounds, 4, &seen), 8);
        // At their target for shrinking: 2 of 4 at 10 need 2.3 in all, not 0.6.
        let (mut wanted, mut history) = (4, History::default());
        for tick in 0..80 {
            let seen = [ready(10.0), ready(10.0), unknown, unknown];
            let scaling = decide(&input(&bounds, wanted, &seen), &history, at(tick * 15));
            (wanted, history) = (scaling.replicas, scaling.history);
        }
        assert_eq!(wanted, 3);
        // Nothing at all.
        let scaling = decide(&input(&bounds, 4, &[unknown; 4]), &history, at(2000));
        assert_eq!(
            (scaling.replicas, scaling.why.as_str()),
            (4, "CPU use of no replica is known")
        );
    }
    // Fewer seen than wanted are as good as not measured.
    assert_eq!(once(&bounds, 4, &[ready(120.0), ready(120.0)]), 4);
    assert_eq!(once(&bounds, 4, &[]), 4);
}

#[test]
fn a_surge_is_no_growth() {
    let bounds = bounds(1, 100);
    for surge in 0..=4u32 {
        // The same load on more replicas for half an hour.
        let (mut wanted, mut history) = (4, History::default());
        for tick in 0..120 {
            let there = wanted + surge;
            let seen = vec![ready(4.0 * TARGET / f64::from(there)); there as usize];
            let scaling = decide(&input(&bounds, wanted, &seen), &history, at(tick * 15));
            (wanted, history) = (scaling.replicas, scaling.history);
            assert_eq!(wanted, 4, "surge {surge}");
        }
    }
    // Half of them of another revision, and so left out.
    let seen = vec![ready(TARGET); 2];
    let mut history = History::default();
    for tick in 0..120 {
        let scaling = decide(&input(&bounds, 4, &seen), &history, at(tick * 15));
        assert_eq!(scaling.replicas, 4);
        history = scaling.history;
    }
}

#[test]
fn it_is_withheld_while_a_deployment_decides_and_where_one_revision_fails() {
    let limits = bounds(1, 10);
    let seen = vec![ready(140.0); 4];
    let busy = Input {
        deciding: true,
        ..input(&limits, 4, &seen)
    };
    assert_eq!(decide(&busy, &History::default(), start()).replicas, 4);
    // Even outside of the bounds: the deployment's numbers stand.
    let busy = Input { wanted: 12, ..busy };
    assert_eq!(decide(&busy, &History::default(), start()).replicas, 12);

    let of = |revision, failed, of| Errors { revision, failed, of };
    for (errors, expected) in [
        (vec![of(1, 0, 900), of(2, 50, 100)], 4),
        (vec![of(2, 50, 100), of(1, 0, 900)], 4),
        (vec![of(1, 0, 900), of(2, 2, 100)], 8),
        (vec![of(1, 450, 900), of(2, 50, 100)], 8),
        // One alone may be overloaded: that is what more of it are for.
        (vec![of(2, 50, 100)], 8),
        (vec![of(1, 0, 0), of(2, 50, 100)], 8),
        (vec![of(1, 0, 3), of(2, 50, 100)], 8),
        (vec![of(1, 0, 900), of(2, 500, 100)], 8),
        (vec![], 8),
    ] {
        let failing = Input {
            errors: &errors,
            ..input(&limits, 4, &seen)
        };
        let scaling = decide(&failing, &History::default(), start());
        assert_eq!(scaling.replicas, expected, "{errors:?}: {}", scaling.why);
        assert_eq!(scaling.why.contains("revision 2 alone"), expected == 4);
    }
}

#[test]
fn without_a_load_only_the_bounds_are_kept() {
    let plain = Autoscale {
        load: None,
        target: 0.0,
        ..bounds(2, 6)
    };
    for (wanted, expected) in [(1, 2), (2, 2), (4, 4), (6, 6), (9, 6)] {
        assert_eq!(once(&plain, wanted, &[]), expected);
    }
    // Bounds that make no sense still leave one.
    let odd = Autoscale {
        min: 0,
        max: 0,
        ..plain
    };
    assert_eq!(once(&odd, 0, &[]), 1);
    let aimless = Autoscale {
        target: 0.0,
        ..bounds(1, 9)
    };
    assert_eq!(once(&aimless, 4, &[ready(500.0); 4]), 4);
}

#[test]
fn after_a_gap_it_is_calm_anew() {
    let limits = bounds(1, 10);
    let idle = |wanted: u32| vec![ready(5.0); wanted as usize];
    let mut history = History::default();
    for tick in 0..20 {
        let scaling = decide(&input(&limits, 4, &idle(4)), &history, at(tick * 15));
        history = scaling.history;
    }
    // Two minutes in the dark: what was called for meanwhile isn't known, so as many as there are were.
    let scaling = decide(&input(&limits, 4, &idle(4)), &history, at(285 + 120));
    assert_eq!(scaling.replicas, 4);
    history = scaling.history;
    let mut first = None;
    for tick in 1..40 {
        let scaling = decide(&input(&limits, 4, &idle(4)), &history, at(405 + tick * 15));
        history = scaling.history;
        if scaling.replicas < 4 {
            first = Some(tick * 15);
            break;
        }
    }
    assert!(first.is_some_and(|after| after >= 285), "{first:?}");
}

#[test]
fn what_a_person_asked_for_is_left_alone_for_a_while() {
    let limits = bounds(1, 20);
    let (mut wanted, mut history) = (4, History::default());
    let mut shrunk = None;
    for tick in 0..80 {
        // Somebody expects more to come.
        if tick == 40 {
            wanted = 12;
        }
        let seen = vec![ready(4.0 * TARGET / f64::from(wanted)); wanted as usize];
        let scaling = decide(&input(&limits, wanted, &seen), &history, at(tick * 15));
        if tick >= 40 && scaling.replicas < wanted {
            shrunk.get_or_insert((tick - 40) * 15);
        }
        (wanted, history) = (scaling.replicas, scaling.history);
    }
    assert!(shrunk.is_some_and(|after| (300..330).contains(&after)), "{shrunk:?}");
    assert_eq!(wanted, 4);
}

/// A service whose load is spread over its ready replicas, with what goes wrong in measuring it.
struct Plant {
    random: Random,
    bounds: Autoscale,
    wanted: u32,
    /// When each became, or becomes, ready.
    replicas: Vec<u64>,
    noise: f64,
    lost: f64,
    history: History,
    now: u64,
}

impl Plant {
    fn new(seed: u64, bounds: Autoscale, wanted: u32, noise: f64, lost: f64) -> Self {
        Self {
            random: Random(seed),
            bounds,
            wanted,
            replicas: vec![0; wanted as usize],
            noise,
            lost,
            history: History::default(),
            now: 0,
        }
    }

    /// Decides once; `keep`: how the history is kept until the next time.
    fn tick(&mut self, total: f64, keep: impl Fn(History) -> History) -> u32 {
        let up = self.replicas.iter().filter(|since| **since <= self.now).count().max(1);
        let mut seen = Vec::new();
        for since in &self.replicas {
            let wobble = 1.0 + self.noise * (2.0 * self.random.share() - 1.0);
            let known = !self.random.chance(self.lost);
            let ready = *since <= self.now;
            let load = if ready { total / up as f64 * wobble } else { 0.0 };
            seen.push(Seen {
                ready,
                load: known.then_some(load),
            });
        }
        let scaling = decide(&input(&self.bounds, self.wanted, &seen), &self.history, at(self.now));
        self.history = keep(scaling.history);
        self.wanted = scaling.replicas;
        // The newest go first, and what is new needs half a minute.
        self.replicas.truncate(self.wanted as usize);
        self.replicas.resize(self.wanted as usize, self.now + 30);
        self.now += EVERY.millis() / 1000;
        self.wanted
    }
}

#[test]
fn constant_load_is_followed_and_then_left_alone() {
    for seed in 0..100u64 {
        let need = 1.0 + (seed % 23) as f64 * 0.83;
        let first = 1 + (seed % 7) as u32 * 4;
        let mut plant = Plant::new(seed, bounds(1, 100), first, 0.08, 0.02);
        for _ in 0..120 {
            plant.tick(need * TARGET, |history| history);
        }
        // Within tolerance from below, and no more than what noise and rounding explain.
        let settled = plant.wanted;
        assert!(
            f64::from(settled) * 1.1 >= need * 0.92,
            "seed {seed}: {settled} for {need}"
        );
        assert!(
            f64::from(settled) <= (need * 1.2).ceil() + 1.0,
            "seed {seed}: {settled} for {need}"
        );
        let mut path = vec![settled];
        for _ in 0..480 {
            let wanted = plant.tick(need * TARGET, |history| history);
            if path.last() != Some(&wanted) {
                path.push(wanted);
            }
        }
        // In two hours at most one step, never there and back again.
        assert!(path.len() <= 2, "seed {seed}: {path:?} for {need}");
    }
}

#[test]
fn a_load_that_moves_is_followed() {
    for seed in 0..50u64 {
        let mut plant = Plant::new(seed, bounds(1, 100), 4, 0.05, 0.02);
        for need in [4.0, 30.0, 30.0, 3.0, 12.0, 90.0, 1.0] {
            for _ in 0..100 {
                plant.tick(need * TARGET, |history| history);
            }
            let settled = f64::from(plant.wanted);
            assert!(settled * 1.1 >= need * 0.95, "seed {seed}: {settled} for {need}");
            assert!(
                settled <= (need * 1.15).ceil() + 1.0,
                "seed {seed}: {settled} for {need}"
            );
        }
    }
}

#[test]
fn a_restart_at_any_time_changes_nothing() {
    for seed in 0..50u64 {
        let total = |tick: u64| (8.0 + 6.0 * (tick as f64 / 20.0).sin()) * TARGET;
        let path = |keep: fn(History) -> History| {
            let mut plant = Plant::new(seed, bounds(2, 12), 4, 0.1, 0.05);
            (0..300).map(|tick| plant.tick(total(tick), keep)).collect::<Vec<_>>()
        };
        let written = path(|history| serde_json::from_str(&serde_json::to_string(&history).unwrap()).unwrap());
        assert_eq!(path(|history| history), written, "seed {seed}");
        assert!(written.iter().any(|wanted| *wanted != written[0]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn bounds_are_never_left(
        seed in any::<u64>(),
        min in 0u32..20,
        max in 0u32..60,
        wanted in 0u32..80,
        target in prop_oneof![Just(0.0), Just(f64::NAN), 0.1..1000.0f64],
    ) {
        let limits = Autoscale { min, max, load: Some(Load::RequestRate), target };
        let (least, most) = (min.max(1), max.max(min).max(1));
        let mut random = Random(seed);
        let (mut wanted, mut history) = (wanted, History::default());
        let mut now = 0;
        for _ in 0..40 {
            let there = (random.share() * 70.0) as usize;
            let seen: Vec<Seen> = (0..there)
                .map(|_| Seen {
                    ready: random.chance(0.9),
                    load: random.chance(0.9).then(|| match random.share() {
                        x if x < 0.05 => f64::NAN,
                        x if x < 0.1 => f64::INFINITY,
                        x if x < 0.15 => 1e300,
                        x => x * 3000.0 - 300.0,
                    }),
                })
                .collect();
            let before = wanted;
            let scaling = decide(&input(&limits, wanted, &seen), &history, at(now));
            prop_assert!((least..=most).contains(&scaling.replicas), "{:?}", scaling);
            prop_assert!(!scaling.why.is_empty());
            if (least..=most).contains(&before) {
                prop_assert!(scaling.replicas <= (before * 2).max(before + 4));
                prop_assert!(scaling.replicas >= before.div_ceil(2));
            }
            prop_assert!(serde_json::to_string(&scaling.history).unwrap().len() < 8_000);
            (wanted, history) = (scaling.replicas, scaling.history);
            now += (random.share() * 30.0) as u64;
        }
    }

    #[test]
    fn hiding_a_measurement_never_moves_it_further(
        loads in prop::collection::vec(0.0..300.0f64, 1..20),
        hidden in prop::collection::vec(any::<bool>(), 20),
    ) {
        let limits = bounds(1, 1000);
        let wanted = loads.len() as u32;
        let all: Vec<Seen> = loads.iter().map(|load| ready(*load)).collect();
        let some: Vec<Seen> = all
            .iter()
            .zip(&hidden)
            .map(|(seen, hidden)| if *hidden { Seen { load: None, ..*seen } } else { *seen })
            .collect();
        let after_calm = |seen: &[Seen]| {
            let mut history = History::default();
            for tick in 0..30 {
                let scaling = decide(&input(&limits, wanted, seen), &history, at(tick * 15));
                history = scaling.history;
                if scaling.replicas != wanted {
                    return scaling.replicas;
                }
            }
            wanted
        };
        // Growing: what is hidden could only have added to it.
        let (full, partial) = (after_calm(&all), after_calm(&some));
        if partial > wanted {
            prop_assert!(full >= partial, "{} of {}", partial, full);
        }
        // Shrinking: with every hidden one at its target it would shrink as far.
        if partial < wanted {
            let at_target: Vec<Seen> = some.iter().map(|seen| Seen { load: seen.load.or(Some(TARGET)), ..*seen }).collect();
            prop_assert_eq!(after_calm(&at_target), partial);
        }
    }
}
