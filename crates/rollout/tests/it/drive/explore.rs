//! States that small worlds can come to: from each of them the deployment ends.
//!
//! From a deployment that has just begun, what may happen to replicas, verdicts, acts and time happens in one order after
//! another, the nearest and the furthest states in turn, until [`STATES`] were found; those that differ in names only count
//! once. Small worlds have more states than that: what is looked at is a part of them, the same in every run. Each event of a
//! state that is looked at is tried, and [`World::run`] checks each step. Then each such state is continued in four ways, of
//! which each must come to an end: all goes well; the new revision never becomes ready; there is no room for anything new; and
//! all goes well but nobody judges and no person comes (then it may wait for a person).

use std::collections::{BTreeMap, HashSet, VecDeque};

use api::{
    Span,
    deploy::{Action, Comparison, Course, Outcome, Phase, Plan, Rolling, Strategy},
    time::{after, between},
};
use rollout::drive::{self, State};

use super::world::{World, blue_green, canary, ended, errors, hopeless, plan};

/// States looked at in each world; `EXPLORE_STATES` says otherwise.
const STATES: usize = 120;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// To the next time that something is due.
    Due,
    /// Past every deadline.
    Late,
    /// The first replica in such a state, of those of a revision: the others are like it.
    Pod(usize, Change),
    /// Conditions for going on, and for going back, are found so.
    Judged(Outcome, Outcome),
    Promote,
    PromoteTo,
    Force,
    Pause,
    Resume,
    Back,
    BackNow,
    Another,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Ready,
    Unready,
    Waiting,
    Failing,
    Ended,
    Hopeless,
    Stopped,
}

/// A state without its names and with times relative to now.
fn key(world: &World) -> String {
    use std::fmt::Write;
    let rel = |time: Option<api::Timestamp>| {
        time.map_or(i64::MIN, |time| {
            (time.as_millisecond() - world.now.as_millisecond()).clamp(-4_000_000, 4_000_000)
        })
    };
    let mut pods: Vec<String> = Vec::new();
    for member in &world.service.members {
        let pod = &world.pods[&member.workload];
        let state = match &pod.state {
            State::Ready { since } => format!("ready {}", between(*since, world.now) >= drive::MIN_READY),
            State::Unready { .. } => "unready".to_owned(),
            other => format!("{other:?}"),
        };
        // What it drains for is over after a while.
        let retiring = member
            .retiring
            .map(|since| between(since, world.now).min(drive::DRAIN).millis());
        pods.push(format!("{} {state} {} {retiring:?}", member.revision, pod.stopping));
    }
    pods.sort();
    let mut key = format!(
        "{pods:?} {:?} {:?} {}",
        world.service.stable, world.service.weights, world.service.replicas
    );
    for (revision, setback) in &world.service.setbacks {
        let _ = write!(
            key,
            " {revision}:{}:{}",
            setback.failures,
            rel(Some(setback.until)).max(0)
        );
    }
    if let Some(of) = world.under_way() {
        let back = matches!(of.course, Course::Back { .. });
        let shares: Vec<f64> = of.canary_steps.iter().map(|step| step.percentage).collect();
        let verdicts: Vec<_> = of
            .verdicts
            .iter()
            .map(|verdict| {
                (
                    verdict.outcome,
                    verdict.evidence.purpose,
                    rel(Some(verdict.evidence.from)),
                    rel(Some(verdict.evidence.to)),
                )
            })
            .collect();
        let _ = write!(
            key,
            " {:?} {} {back} {} {:?} {:?} {} {:?} {} {:?} {shares:?} {verdicts:?} {:?} {}",
            of.phase,
            of.step,
            rel(of.step_since),
            of.revision,
            of.from,
            of.moved,
            rel(of.moved_at),
            of.hold.is_some(),
            of.promotion.as_ref().map(|word| (word.force, word.percentage)),
            matches!(of.course, Course::Back { immediate: true, .. }),
            rel(of.deadline).max(-1),
        );
        let _ = write!(key, " {}", of.vouched.is_some());
    }
    key
}

/// What may happen.
fn events(world: &World) -> Vec<Event> {
    let mut events = Vec::new();
    if world.due.is_some() {
        events.extend([Event::Due, Event::Late]);
    }
    let mut seen = HashSet::new();
    for (i, (id, pod)) in world.pods.iter().enumerate() {
        let retiring = world
            .service
            .members
            .iter()
            .any(|member| member.workload == *id && member.retiring.is_some());
        let kind = match &pod.state {
            State::Ready { .. } => "ready".to_owned(),
            other => format!("{other:?}"),
        };
        if !seen.insert((pod.revision, kind, pod.stopping, retiring)) {
            continue;
        }
        let changes: &[Change] = match (&pod.state, pod.stopping) {
            (State::Ended { .. }, _) => &[],
            (_, true) => &[Change::Stopped],
            (State::Ready { .. }, false) => &[Change::Unready, Change::Ended],
            (State::Unready { .. } | State::Failing { .. }, false) => &[Change::Ready],
            (State::Waiting { .. }, false) => &[Change::Ready],
            (State::Starting, false) => &[Change::Ready, Change::Waiting, Change::Failing, Change::Hopeless],
        };
        events.extend(changes.iter().map(|change| Event::Pod(i, *change)));
    }
    let Some(of) = world.under_way() else {
        return events;
    };
    if !world.questions().is_empty() {
        events.extend([
            Event::Judged(Outcome::Pass, Outcome::Pass),
            Event::Judged(Outcome::Insufficient, Outcome::Insufficient),
            Event::Judged(Outcome::Pass, Outcome::Fail),
        ]);
    }
    events.extend([
        Event::Promote,
        Event::PromoteTo,
        Event::Force,
        Event::Pause,
        Event::Resume,
        Event::Back,
        Event::BackNow,
    ]);
    if world.deployments.len() < 3 && of.plan.action != Action::Scale {
        events.push(Event::Another);
    }
    events
}

/// The world after an event and the step that follows. `None`: it can't happen.
fn happen(world: &World, event: Event) -> Option<World> {
    let mut world = world.clone();
    let now = world.now;
    let acted = match event {
        Event::Due => {
            world.now = world.due?;
            true
        }
        Event::Late => {
            world.now = after(now, Span::secs(3600));
            true
        }
        Event::Pod(i, change) => {
            let pod = world.pods.values_mut().nth(i)?;
            pod.state = match change {
                Change::Ready => State::Ready { since: now },
                Change::Unready => State::Unready {
                    since: now,
                    why: "500".into(),
                },
                Change::Waiting => State::Waiting { why: "full".into() },
                Change::Failing => State::Failing {
                    why: "exit code 1".into(),
                    code: None,
                    restarts: 3,
                },
                Change::Ended => ended("exit code 1"),
                Change::Hopeless => hopeless(),
                Change::Stopped => ended("stopped"),
            };
            true
        }
        Event::Judged(promote, rollback) => {
            world.judge(promote, rollback);
            true
        }
        Event::Promote => world.act(|of, now| drive::promote(of, "ada", None, false, now)),
        Event::PromoteTo => world.act(|of, now| drive::promote(of, "ada", Some(60.0), true, now)),
        Event::Force => world.act(|of, now| drive::promote(of, "ada", None, true, now)),
        Event::Pause => world.act(|of, now| drive::pause(of, "ada", None, now)),
        Event::Resume => world.act(|of, now| drive::resume(of, "ada", now)),
        Event::Back => world.act(|of, now| drive::roll_back(of, "wrong", "ada", false, now)),
        Event::BackNow => world.act(|of, now| drive::roll_back(of, "wrong", "ada", true, now)),
        Event::Another => {
            let replicas = world.service.replicas;
            world.deploy(plan(Strategy::Rolling, replicas));
            return Some(world);
        }
    };
    acted.then(|| {
        world.run();
        world
    })
}

/// How a state is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// All goes well, and a person promotes what waits for one.
    Well,
    /// The revision that is brought in never becomes ready; a person gives up what waits for one.
    Ill,
    /// What isn't ready never finds room.
    Full,
    /// All goes well, but nobody judges and nobody comes.
    Alone,
}

/// Whether a deployment comes to its end on its own way, or to a person that doesn't come. States that are known to are in
/// `ends`.
fn ends(world: &World, fate: Fate, ends: &mut BTreeMap<Fate, HashSet<String>>) {
    let mut world = world.clone();
    let mut passed = Vec::new();
    for _ in 0..600 {
        let key = key(&world);
        if ends.entry(fate).or_default().contains(&key) {
            break;
        }
        passed.push(key);
        let Some(of) = world.under_way() else {
            break;
        };
        let (new, held) = (of.revision, of.hold.is_some());
        if held && fate == Fate::Alone {
            break;
        }
        if held {
            match fate {
                Fate::Well if world.act(|of, now| drive::promote(of, "ada", None, true, now)) => {}
                Fate::Well => assert!(world.act(|of, now| drive::resume(of, "ada", now)), "{:?}", world.last()),
                _ => assert!(
                    world.act(|of, now| drive::roll_back(of, "late", "ada", false, now)),
                    "{:?}",
                    world.last()
                ),
            }
        }
        let now = world.now;
        for pod in world.pods.values_mut() {
            let well = match fate {
                Fate::Well | Fate::Alone => true,
                Fate::Ill => Some(pod.revision) != new,
                Fate::Full => false,
            };
            match &pod.state {
                State::Ended { .. } => {}
                _ if pod.stopping => pod.state = ended("stopped"),
                State::Ready { .. } => {}
                _ if well => pod.state = State::Ready { since: now },
                State::Waiting { .. } => {}
                _ => pod.state = State::Waiting { why: "full".into() },
            }
        }
        if fate != Fate::Alone {
            world.judge(Outcome::Pass, Outcome::Pass);
        }
        if !world.run() {
            // Where a person alone can end it, and comes.
            let person = fate == Fate::Well && world.due.is_none_or(|due| due > after(world.now, Span::secs(5)));
            if person && world.act(|of, now| drive::promote(of, "ada", None, true, now)) {
                continue;
            }
            world.now = world.due.unwrap_or_else(|| {
                panic!(
                    "{fate:?}: nothing is due, and it hasn't ended: {:?}\n{:?}",
                    world.under_way(),
                    world.pods
                )
            });
        }
    }
    let known = ends.entry(fate).or_default();
    let end = passed.last().is_none_or(|last| known.contains(last)) || passed.len() < 600;
    assert!(
        end,
        "{fate:?}: it doesn't end: {:?}\n{:?}\n{:?}",
        world.under_way(),
        world.service.members,
        world.pods
    );
    known.extend(passed);
}

fn explore(name: &str, world: World) {
    let mut known = HashSet::from([key(&world)]);
    let mut front = VecDeque::from([(world, Vec::new())]);
    let mut ending = BTreeMap::new();
    let most = std::env::var("EXPLORE_STATES").map_or(STATES, |most| most.parse().expect("a number of states"));
    let mut phases: BTreeMap<Phase, u32> = BTreeMap::new();
    // Wide and deep in turn.
    let mut deep = false;
    while let Some((world, path)) = if deep { front.pop_back() } else { front.pop_front() } {
        deep = !deep;
        let context = Context(name, &path);
        for fate in [Fate::Well, Fate::Ill, Fate::Full, Fate::Alone] {
            ends(&world, fate, &mut ending);
        }
        *phases.entry(world.last().phase).or_default() += 1;
        for event in events(&world) {
            let mut path: Vec<Event> = path.clone();
            path.push(event);
            let context = Context(name, &path);
            if let Some(next) = happen(&world, event)
                && known.len() < most
                && known.insert(key(&next))
            {
                front.push_back((next, path.clone()));
            }
            drop(context);
        }
        drop(context);
    }
    assert!(known.len() > 50, "{name}: {} states", known.len());
    assert!(phases.len() > 2, "{name}: {phases:?}");
}

/// Says which way led to a failure.
struct Context<'a>(&'a str, &'a [Event]);

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} after {:?}", self.0, self.1);
        }
    }
}

fn watched(plan: Plan) -> Plan {
    Plan {
        rollback_conditions: vec![errors(0.01, Comparison::Above)],
        ..plan
    }
}

fn rolling(n: u32, max_unavailable: u32, max_surge: u32, pause_between: Span) -> Plan {
    Plan {
        rolling: Rolling {
            max_unavailable,
            max_surge,
            pause_between,
        },
        ..plan(Strategy::Rolling, n)
    }
}

fn explore_updates(name: &str, plan: impl Fn(u32) -> Plan) {
    for n in 1..=3 {
        let mut world = World::new(n);
        world.deploy(plan(n));
        explore(&format!("{name}, {n} replicas"), world);
    }
}

#[test]
fn rolling_updates_end() {
    explore_updates("surge", |n| rolling(n, 0, 1, Span(0)));
    explore_updates("no surge", |n| rolling(n, 1, 0, Span(0)));
}

#[test]
fn rolling_updates_with_rests_end() {
    explore_updates("rests", |n| watched(rolling(n, 1, 1, Span::secs(30))));
}

#[test]
fn canaries_end() {
    explore_updates("one step", |n| canary(n, &[(10.0, 1)], true));
}

#[test]
fn canaries_by_hand_end() {
    explore_updates("two steps by hand", |n| canary(n, &[(10.0, 1), (50.0, 2)], false));
}

#[test]
fn second_sets_end() {
    explore_updates("by itself", |n| watched(blue_green(n, true)));
    explore_updates("by hand", |n| blue_green(n, false));
}

#[test]
fn immediate_updates_end() {
    explore_updates("immediate", |n| watched(plan(Strategy::Immediate, n)));
}

#[test]
fn changes_of_the_number_end() {
    for (from, to) in [(1, 3), (3, 1), (2, 3)] {
        let mut world = World::new(from);
        world.deploy(Plan {
            action: Action::Scale,
            ..plan(Strategy::Rolling, to)
        });
        explore(&format!("from {from} to {to}"), world);
    }
}

#[test]
fn ways_back_end() {
    for n in 1..=3 {
        let mut world = World::new(n);
        world.deploy(plan(Strategy::Rolling, n));
        world.settle();
        world.deploy(Plan {
            action: Action::Rollback,
            to_revision: Some(1),
            ..plan(Strategy::Rolling, n)
        });
        explore(&format!("back, {n} replicas"), world);
    }
}

#[test]
fn first_deployments_end() {
    for first in [
        plan(Strategy::Rolling, 2),
        canary(2, &[(10.0, 1)], true),
        blue_green(2, true),
        plan(Strategy::Immediate, 2),
    ] {
        let mut world = World::empty(2);
        let name = format!("first, {}", first.strategy);
        world.deploy(first);
        explore(&name, world);
    }
}
