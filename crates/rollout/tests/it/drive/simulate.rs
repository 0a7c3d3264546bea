//! Deployments in a fleet where things go wrong: replicas take their time and die, nodes are lost, there is no room, verdicts
//! come late, people change their minds, clocks jump, and the gateway is killed between any two steps. Each run follows from
//! its seed. [`World::run`] checks every step; at the end nothing goes wrong any more, and the service must come to rest with
//! one revision, whole.

use api::{
    ErrorCode, Span, Timestamp,
    deploy::{Action, Comparison, Outcome, Phase, Plan, Rolling, Strategy, Verdict},
    time::after,
};
use rollout::drive::{self, State};

use crate::random::Random;

use super::world::{World, answer, blue_green, canary, ended, errors, hopeless, plan};

/// Runs; `SIMULATE_SEEDS` says otherwise.
const SEEDS: u64 = 150;

/// What a revision is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    /// Its image isn't there.
    Missing,
    /// Ends and is started again.
    Crashes,
    /// Ends.
    Ends,
    /// Never answers its checks.
    Silent,
    /// Runs, and answers wrongly.
    Wrong,
}

struct Run {
    world: World,
    random: Random,
    /// By revision.
    natures: Vec<Nature>,
    /// Replicas that there is room for.
    room: usize,
    /// Verdicts on their way.
    late: Vec<Verdict>,
}

impl Run {
    fn nature(&mut self, revision: u32) -> Nature {
        while self.natures.len() <= revision as usize {
            let nature = self.random.pick(&[
                Nature::Good,
                Nature::Good,
                Nature::Good,
                Nature::Missing,
                Nature::Crashes,
                Nature::Ends,
                Nature::Silent,
                Nature::Wrong,
            ]);
            self.natures.push(nature);
        }
        self.natures[revision as usize]
    }

    fn plan(&mut self) -> Plan {
        let n = 1 + self.random.below(5) as u32;
        let rolling = Rolling {
            max_unavailable: self.random.below(3) as u32,
            max_surge: self.random.below(3) as u32,
            pause_between: Span::secs(self.random.pick(&[0, 0, 20])),
        };
        let auto = self.random.once_in(2);
        let mut plan = match self.random.below(7) {
            0 => canary(n, &[(10.0, 1)], auto),
            1 => canary(n, &[(5.0, 1), (50.0, n.div_ceil(2))], auto),
            2 => blue_green(n, auto),
            3 => plan(Strategy::Immediate, n),
            4 => Plan {
                action: Action::Scale,
                ..plan(Strategy::Rolling, n)
            },
            5 if self.world.service.revisions.len() > 1 => {
                let revisions = &self.world.service.revisions;
                let to = revisions[self.random.below(revisions.len() as u64) as usize].number;
                Plan {
                    action: Action::Rollback,
                    to_revision: Some(to),
                    ..plan(Strategy::Rolling, n)
                }
            }
            _ => plan(Strategy::Rolling, n),
        };
        plan.rolling = rolling;
        if self.random.once_in(2) {
            plan.rollback_conditions = vec![errors(0.01, Comparison::Above)];
        }
        plan
    }

    /// What happens to replicas in a while.
    fn live(&mut self) {
        let now = self.world.now;
        let lost_node = self.random.once_in(60);
        let ids: Vec<_> = self.world.pods.keys().cloned().collect();
        let used = |world: &World| {
            let placed = world
                .pods
                .values()
                .filter(|pod| !matches!(pod.state, State::Waiting { .. } | State::Ended { .. }));
            placed.count()
        };
        for id in ids {
            let pod = self.world.pods[&id].clone();
            let nature = self.nature(pod.revision);
            let full = used(&self.world) > self.room;
            let roll = self.random.below(100);
            let state = match pod.state {
                State::Ended { .. } => continue,
                _ if pod.stopping => {
                    if roll < 40 {
                        ended("stopped")
                    } else {
                        continue;
                    }
                }
                _ if lost_node && roll < 50 => State::Ended {
                    why: "its node is lost".into(),
                    code: Some(ErrorCode::NodeUnreachable),
                    hopeless: false,
                },
                State::Starting if full => State::Waiting { why: "full".into() },
                State::Waiting { .. } if used(&self.world) < self.room => State::Starting,
                State::Waiting { .. } => continue,
                State::Starting | State::Failing { .. } | State::Unready { .. } if roll < 50 => match nature {
                    Nature::Good | Nature::Wrong => State::Ready { since: now },
                    Nature::Missing => hopeless(),
                    Nature::Ends => ended("exit code 1"),
                    Nature::Silent => State::Unready {
                        since: now,
                        why: "no answer".into(),
                    },
                    Nature::Crashes => {
                        let restarts = match pod.state {
                            State::Failing { restarts, .. } => restarts + 1,
                            _ => 1,
                        };
                        State::Failing {
                            why: "exit code 1".into(),
                            code: None,
                            restarts,
                        }
                    }
                },
                State::Ready { .. } if roll == 0 => ended("exit code 137"),
                State::Ready { .. } if roll < 3 => State::Unready {
                    since: now,
                    why: "500".into(),
                },
                state => state,
            };
            let in_flight = self.random.below(4) * self.random.below(2);
            let pod = self.world.pods.get_mut(&id).unwrap();
            pod.state = state;
            pod.in_flight = in_flight;
        }
    }

    /// Questions are answered, and the answers come when they come.
    fn judge(&mut self) {
        for question in self.world.questions() {
            let outcome = match self.nature(question.subject) {
                Nature::Wrong => self.random.pick(&[Outcome::Fail, Outcome::Insufficient]),
                _ => self
                    .random
                    .pick(&[Outcome::Pass, Outcome::Pass, Outcome::Insufficient, Outcome::Error]),
            };
            self.late.push(answer(question, outcome, outcome));
        }
        while !self.late.is_empty() && !self.random.once_in(3) {
            let i = self.random.below(self.late.len() as u64) as usize;
            let verdict = self.late.swap_remove(i);
            self.world.verdicts.push(verdict);
        }
    }

    fn people(&mut self) {
        let force = self.random.once_in(2);
        let share = self.random.pick(&[None, None, Some(30.0), Some(70.0)]);
        match self.random.below(120) {
            0..3 => self.world.act(|of, now| drive::promote(of, "ada", share, force, now)),
            3 => self.world.act(|of, now| drive::pause(of, "ada", None, now)),
            4..7 => self.world.act(|of, now| drive::resume(of, "ada", now)),
            7 => self
                .world
                .act(|of, now| drive::roll_back(of, "wrong", "ada", force, now)),
            8 | 9 => {
                let plan = self.plan();
                let asked = self.world.ask(plan);
                let under_way = self.world.under_way().cloned();
                drive::begin(&asked, &self.world.service, under_way.as_ref(), None, self.world.now)
                    .map(|step| self.world.begin(asked, step))
                    .is_ok()
            }
            // The number follows the load.
            10 => {
                self.world.service.replicas = 1 + self.random.below(5) as u32;
                true
            }
            _ => false,
        };
    }

    /// The gateway dies, and what it knows is what it wrote.
    fn kill(&mut self) {
        fn again<T: serde::Serialize + serde::de::DeserializeOwned>(record: &T) -> T {
            serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap()
        }
        let world = &mut self.world;
        let (service, deployments) = (again(&world.service), world.deployments.iter().map(again).collect());
        assert_eq!((&service, &deployments), (&world.service, &world.deployments));
        (world.service, world.deployments) = (service, deployments);
        world.due = Some(world.now);
        self.late.clear();
    }

    fn round(&mut self) {
        self.live();
        self.judge();
        self.people();
        if self.random.once_in(20) {
            self.kill();
            // It is away for a while; meanwhile the rest goes on.
            self.world.now = after(self.world.now, Span::secs(self.random.below(120)));
            self.world.verdicts.clear();
            return;
        }
        self.world.run();
        let span = match self.random.below(100) {
            0 => Span::secs(3600),
            1..40 => Span(self.random.below(2000)),
            _ => Span::secs(self.random.below(20)),
        };
        self.world.now = after(self.world.now, span);
    }

    /// From now on all is as it should be.
    fn calm(&mut self) {
        self.room = usize::MAX;
        let mut silent = 0;
        for _ in 0..2000 {
            let held = self.world.under_way().is_some_and(|of| of.hold.is_some());
            if held {
                assert!(
                    self.world
                        .act(|of, now| drive::roll_back(of, "over", "ada", false, now))
                );
            }
            let natures = self.natures.clone();
            let stable = self.world.service.stable;
            let well = |revision: u32| {
                let nature = natures.get(revision as usize).copied().unwrap_or(Nature::Good);
                Some(revision) == stable || matches!(nature, Nature::Good | Nature::Wrong)
            };
            let before = self.world.now;
            let did = self.world.breathe(well);
            silent = if did { 0 } else { silent + 1 };
            let waits = self.world.under_way().is_some();
            // By hand: nothing is due but its deadline.
            if !did && self.world.now == before && !waits && self.world.due.is_none() {
                return;
            }
        }
        panic!("it never comes to rest: {}", self.world.tell());
    }
}

fn run(seed: u64) -> Vec<Phase> {
    let mut random = Random(seed);
    let mut run = Run {
        world: World::new(1 + random.below(4) as u32),
        natures: vec![Nature::Good, Nature::Good],
        room: 3 + random.below(10) as usize,
        late: Vec::new(),
        random,
    };
    let plan = run.plan();
    let asked = run.world.ask(plan);
    let step = drive::begin(&asked, &run.world.service, None, None, run.world.now).unwrap();
    run.world.begin(asked, step);
    for _ in 0..150 {
        run.round();
    }
    run.calm();
    let world = &run.world;
    let n = world.service.replicas;
    let stable = world.service.stable.unwrap();
    assert_eq!(
        (world.ready(stable), world.service.members.len() as u32),
        (n, n),
        "{}",
        world.tell()
    );
    assert_eq!(
        world.service.weights.keys().copied().collect::<Vec<_>>(),
        [stable],
        "{}",
        world.tell()
    );
    let begun = |of: &Timestamp| *of <= world.now;
    assert!(
        world
            .deployments
            .iter()
            .all(|of| of.phase.ended() && of.finished_at.as_ref().is_some_and(begun))
    );
    world.deployments.iter().map(|of| of.phase).collect()
}

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn whatever_goes_wrong_each_deployment_ends_and_the_service_is_whole() {
    let seeds = std::env::var("SIMULATE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let first = std::env::var("SIMULATE_FIRST").map_or(0, |first| first.parse().expect("a seed"));
    let mut ends = std::collections::BTreeMap::new();
    for seed in first..first + seeds {
        let seed = Seed(seed);
        for phase in run(seed.0) {
            *ends.entry(phase).or_insert(0) += 1;
        }
    }
    assert_eq!(ends.len(), 3, "all ends are reached: {ends:?}");
}
