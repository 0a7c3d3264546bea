//! Each strategy's way, forward and back.

use api::{
    ErrorCode, Span,
    deploy::{
        Action, Autoscale, Basis, Course, Deployment, Numbers, Outcome, Phase, Plan, Purpose, Rolling, Schedule,
        Standing, Strategy,
    },
    time::after,
};
use rollout::drive::{self, DRAIN, Due, State};

use super::world::{World, blue_green, canary, ended, errors, hopeless, plan, start};

const REST: Span = Span::secs(1);

fn rolling(replicas: u32, max_unavailable: u32, max_surge: u32, pause_between: Span) -> Plan {
    Plan {
        rolling: Rolling {
            max_unavailable,
            max_surge,
            pause_between,
        },
        ..plan(Strategy::Rolling, replicas)
    }
}

fn weights(world: &World) -> Vec<(u32, u32)> {
    world
        .service
        .weights
        .iter()
        .map(|(revision, weight)| (*revision, *weight))
        .collect()
}

/// Sets the state of all replicas of a revision.
fn become_(world: &mut World, revision: u32, state: State) {
    for pod in world
        .pods
        .values_mut()
        .filter(|pod| pod.revision == revision && !pod.stopping)
    {
        pod.state = state.clone();
    }
}

#[test]
fn a_rolling_update_keeps_its_bounds() {
    // Replicas, unavailable, surge -> fewest ready, most that exist.
    for (n, unavailable, surge, fewest, most) in [
        (1, 0, 1, 1, 2),
        (1, 1, 0, 0, 1),
        (1, 1, 1, 1, 2),
        (1, 0, 0, 1, 2),
        (3, 0, 1, 3, 4),
        (3, 1, 0, 2, 3),
        (3, 1, 1, 2, 4),
        (3, 3, 0, 0, 3),
        (3, 3, 3, 3, 6),
        (4, 1, 2, 3, 6),
        (10, 0, 10, 10, 20),
        (10, 3, 2, 7, 12),
    ] {
        let mut world = World::new(n);
        world.deploy(rolling(n, unavailable, surge, Span(0)));
        let (mut least, mut greatest) = (n, 0);
        for _ in 0..2000 {
            if world.last().phase.ended() {
                break;
            }
            // One at a time comes up or goes, which is the slowest order there is.
            let now = world.now;
            let pod = world
                .pods
                .values_mut()
                .find(|pod| pod.stopping || !matches!(pod.state, State::Ready { .. }));
            if let Some(pod) = pod {
                pod.state = if pod.stopping {
                    ended("stopped")
                } else {
                    State::Ready { since: now }
                };
            }
            world.run();
            world.now = after(world.now, REST);
            world.run();
            least = least.min(world.ready(1) + world.ready(2));
            greatest = greatest.max(world.service.members.len() as u32);
        }
        let bounds = format!("{n} replicas, {unavailable} unavailable, {surge} surge");
        assert_eq!(
            world.last().phase,
            Phase::Complete,
            "{bounds}: {:?}",
            world.last().message
        );
        assert_eq!((least, greatest), (fewest, most), "{bounds}");
        assert_eq!((world.ready(1), world.ready(2)), (0, n), "{bounds}");
        assert_eq!(world.service.stable, Some(2), "{bounds}");
        assert_eq!(world.service.revision(2).unwrap().standing, Standing::Good);
    }
}

#[test]
fn batches_rest() {
    let mut world = World::new(4);
    let begun = world.now;
    world.deploy(rolling(4, 0, 2, Span::secs(60)));
    world.pass(Span::secs(50));
    assert_eq!((world.ready(1), world.ready(2)), (2, 2), "a batch of two, then a rest");
    assert_eq!(weights(&world), [(1, 2), (2, 2)]);
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    let took = world.last().finished_at.unwrap().as_second() - begun.as_second();
    assert!(
        (60..90).contains(&took),
        "one rest between two batches, none after the last: {took} s"
    );
}

#[test]
fn what_is_not_ready_goes_first_and_nothing_is_made_worse() {
    let mut world = World::new(3);
    let now = world.now;
    let why = "connection refused".to_owned();
    for pod in world.pods.values_mut().take(2) {
        pod.state = State::Unready {
            since: now,
            why: why.clone(),
        };
    }
    world.deploy(rolling(3, 1, 1, Span(0)));
    assert_eq!(world.ready(1), 1, "the one that is ready stays");
    world.breathe(|revision| revision == 2);
    world.breathe(|revision| revision == 2);
    assert_eq!(world.ready(1), 1);
    for _ in 0..100 {
        world.breathe(|revision| revision == 2);
    }
    assert_eq!(world.last().phase, Phase::Complete, "{:?}", world.last().message);
}

#[test]
fn a_canary_gets_exactly_its_share_and_goes_on_when_it_is_found_good() {
    let mut world = World::new(3);
    world.deploy(canary(3, &[(10.0, 1), (50.0, 2)], true));
    assert_eq!(world.last().phase, Phase::Canary);
    assert_eq!(weights(&world), [(1, 10_000)], "nothing before its replica is ready");
    world.breathe(|_| true);
    world.breathe(|_| true);
    assert_eq!(weights(&world), [(1, 9000), (2, 1000)]);
    assert_eq!((world.ready(1), world.ready(2)), (3, 1), "the old ones are whole");
    world.pass(Span::secs(100));
    assert_eq!(weights(&world), [(1, 9000), (2, 1000)], "each step lasts its time");
    world.pass(Span::secs(60));
    assert_eq!(weights(&world), [(1, 5000), (2, 5000)]);
    assert_eq!((world.ready(1), world.ready(2)), (3, 2));
    let step = drive::step_view(world.last(), &world.service).unwrap();
    assert_eq!((step.number, step.of), (2, 4));
    assert_eq!(step.until, step.since.map(|since| after(since, Span::secs(120))));
    let share = |world: &World| {
        let all: u32 = world.service.weights.values().sum();
        f64::from(world.service.weights.get(&2).copied().unwrap_or(0)) / f64::from(all)
    };
    let mut was = share(&world);
    for _ in 0..200 {
        world.breathe(|_| true);
        assert!(
            share(&world) >= was,
            "the share never falls: {was} {:?}",
            world.service.weights
        );
        was = share(&world);
    }
    assert_eq!(world.last().phase, Phase::Complete, "{:?}", world.last().message);
    assert_eq!(weights(&world), [(2, 10_000)]);
    assert_eq!(world.ready(2), 3);
    // What each step was promoted on is on record, and is of that step.
    let passed = world
        .last()
        .verdicts
        .iter()
        .filter(|verdict| verdict.evidence.purpose == Purpose::Promote);
    let windows: Vec<_> = passed
        .map(|verdict| (verdict.evidence.from, verdict.evidence.to))
        .collect();
    let [first, second] = windows[..] else {
        panic!("{windows:?}");
    };
    assert!(first.1 <= second.0, "{windows:?}");
    assert!(
        world
            .last()
            .timeline
            .iter()
            .any(|moment| moment.message.contains("takes over"))
    );
}

#[test]
fn only_a_pass_promotes_and_what_cannot_be_told_waits_for_a_person() {
    for outcome in [Outcome::Insufficient, Outcome::Error, Outcome::Fail] {
        let mut world = World::new(3);
        world.deploy(canary(3, &[(10.0, 1)], true));
        let now = world.now;
        become_(&mut world, 2, State::Ready { since: now });
        for _ in 0..200 {
            world.judge(outcome, Outcome::Insufficient);
            world.run();
            world.now = after(world.now, Span::secs(10));
        }
        let last = world.last();
        assert_eq!(last.phase, Phase::Paused, "{outcome:?}");
        let hold = last.hold.as_ref().unwrap();
        assert!(hold.why.starts_with("waits for a person"), "{hold:?}");
        assert_eq!(weights(&world), [(1, 9000), (2, 1000)], "it stays as it is");
        assert_eq!(last.error, None, "it hasn't failed");
        assert!(
            drive::promote(last, "ada", None, false, world.now).is_err(),
            "{outcome:?}"
        );
        assert!(world.act(|last, now| drive::promote(last, "ada", None, true, now)));
        world.settle();
        assert_eq!(world.last().phase, Phase::Complete);
    }
}

fn watched(plan: Plan) -> Plan {
    Plan {
        rollback_conditions: vec![errors(0.01, api::deploy::Comparison::Above)],
        ..plan
    }
}

/// A canary that goes on after its time, unless it is found bad.
fn timed_canary() -> Plan {
    let mut plan = canary(3, &[(10.0, 1)], true);
    plan.canary.as_mut().unwrap().promote_conditions.clear();
    plan
}

#[test]
fn what_cannot_be_judged_is_never_called_good_and_waits_for_a_person() {
    for plan in [
        watched(plan(Strategy::Rolling, 3)),
        timed_canary(),
        watched(blue_green(3, true)),
        watched(plan(Strategy::Immediate, 3)),
    ] {
        for found in [
            Some((Outcome::Pass, Outcome::Insufficient)),
            Some((Outcome::Pass, Outcome::Error)),
            None,
        ] {
            let case = format!("{}, {found:?}", plan.strategy);
            let mut world = World::new(3);
            world.found = found;
            let begun = world.now;
            world.deploy(plan.clone());
            for _ in 0..2000 {
                if world.last().hold.is_some() || world.last().phase.ended() {
                    break;
                }
                world.breathe(|_| true);
            }
            let last = world.last();
            assert_eq!(last.phase, Phase::Paused, "{case}: {:#?}", last.timeline);
            assert!(
                world.now >= after(begun, Span::secs(600)),
                "{case}: it has its whole time"
            );
            let hold = last.hold.as_ref().unwrap();
            let why = match found {
                Some((_, outcome)) => format!("errors: {outcome:?}"),
                None => "judged yet".to_owned(),
            };
            assert!(
                hold.why.starts_with("waits for a person") && hold.why.contains(&why),
                "{case}: {hold:?}"
            );
            assert_eq!(world.service.stable, Some(1), "{case}");
            assert_eq!(world.service.revision(2).unwrap().standing, Standing::New, "{case}");
            if last.plan.strategy == Strategy::Canary {
                assert_eq!(weights(&world), [(1, 9000), (2, 1000)], "it stays as it is");
            }
            let refused = drive::promote(last, "ada", None, false, world.now).unwrap_err();
            assert!(refused.hint.unwrap().contains("--force"), "{case}");
            // It can go back, and by force goes on to its end without asking once more.
            let mut back = world.clone();
            assert!(back.act(|last, now| drive::roll_back(last, "no traffic", "ada", false, now)));
            back.settle();
            assert_eq!((back.last().phase, back.ready(1)), (Phase::RolledBack, 3), "{case}");
            assert!(world.act(|last, now| drive::promote(last, "ada", None, true, now)));
            world.settle();
            assert_eq!((world.last().phase, world.ready(2)), (Phase::Complete, 3), "{case}");
        }
    }
}

#[test]
fn what_was_promoted_by_force_still_goes_back_on_a_breach() {
    let mut world = World::new(3);
    world.deploy(timed_canary());
    world.found = Some((Outcome::Pass, Outcome::Insufficient));
    world.until(|world| world.service.weights.contains_key(&2));
    assert!(world.act(|last, now| drive::promote(last, "ada", None, true, now)));
    world.until(|world| world.ready(2) == 3);
    world.now = after(world.now, Span::secs(5));
    world.judge(Outcome::Pass, Outcome::Fail);
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
}

#[test]
fn a_source_that_goes_away_at_the_end_counts_as_little_as_one_that_was_never_there() {
    let mut world = World::new(2);
    world.deploy(watched(blue_green(2, true)));
    world.until(|world| world.service.weights.contains_key(&2));
    world.pass(Span::secs(120));
    assert_eq!(world.last().verdicts[0].outcome, Outcome::Pass, "it was found good");
    world.found = Some((Outcome::Pass, Outcome::Error));
    world.pass(Span::secs(300));
    assert_eq!(world.last().phase, Phase::Promoting, "the old set is kept for 300 s");
    world.found = Some((Outcome::Pass, Outcome::Pass));
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete, "it is back, in time");
}

#[test]
fn a_gateway_that_was_away_past_the_deadline_judges_before_it_asks_a_person() {
    let mut world = World::new(2);
    world.deploy(watched(plan(Strategy::Rolling, 2)));
    world.until(|world| world.last().phase == Phase::Promoting);
    world.now = after(world.now, Span::secs(3600));
    world.run();
    assert_eq!(world.last().phase, Phase::Promoting);
    world.judge(Outcome::Pass, Outcome::Pass);
    world.run();
    assert_eq!(world.last().phase, Phase::Complete);
}

#[test]
fn a_breached_condition_brings_the_old_revision_back_on_every_way() {
    for plan in [
        watched(plan(Strategy::Rolling, 3)),
        canary(3, &[(10.0, 1)], true),
        watched(blue_green(3, true)),
        watched(plan(Strategy::Immediate, 3)),
    ] {
        let strategy = plan.strategy;
        let mut world = World::new(3);
        world.deploy(plan);
        for _ in 0..100 {
            world.breathe(|_| true);
            if world.ready(2) > 0 && world.service.weights.contains_key(&2) && !world.questions().is_empty() {
                break;
            }
        }
        world.judge(Outcome::Pass, Outcome::Fail);
        world.run();
        let last = world.last().clone();
        let Course::Back { why, .. } = &last.course else {
            panic!("{strategy}: {:#?}", last.timeline);
        };
        assert_eq!(why, "errors: Fail", "the sentence that decided");
        assert_eq!(world.service.revision(2).unwrap().standing, Standing::Bad);
        if world.ready(1) == 3 {
            assert_eq!(weights(&world), [(1, 10_000)], "{strategy}");
        }
        world.settle();
        assert_eq!(world.last().phase, Phase::RolledBack, "{strategy}");
        assert_eq!((world.ready(1), world.ready(2)), (3, 0), "{strategy}");
        assert_eq!(weights(&world), [(1, 10_000)]);
        assert_eq!(world.service.stable, Some(1));
    }
}

#[test]
fn what_is_watched_is_complete_only_after_it_was_watched() {
    let mut world = World::new(2);
    let begun = world.now;
    world.deploy(Plan {
        rollback_conditions: vec![errors(0.01, api::deploy::Comparison::Above)],
        ..plan(Strategy::Rolling, 2)
    });
    world.settle();
    let last = world.last();
    assert_eq!(last.phase, Phase::Complete);
    assert!(last.finished_at.unwrap().as_second() - begun.as_second() >= 60);

    // The gateway slept through the time: it isn't complete before its conditions were judged.
    world.deploy(Plan {
        rollback_conditions: vec![errors(0.01, api::deploy::Comparison::Above)],
        ..plan(Strategy::Rolling, 2)
    });
    world.until(|world| world.last().step > 0);
    world.now = after(world.now, Span::secs(300));
    world.run();
    assert_eq!(world.last().phase, Phase::Promoting);
    world.judge(Outcome::Pass, Outcome::Fail);
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
}

#[test]
fn blue_green_switches_at_once_and_back_at_once() {
    let mut world = World::new(3);
    world.deploy(blue_green(3, true));
    world.breathe(|_| true);
    world.pass(Span::secs(8));
    assert_eq!(weights(&world), [(1, 10_000)], "it is watched before it is switched to");
    assert_eq!((world.ready(1), world.ready(2)), (3, 3));
    world.pass(Span::secs(5));
    assert_eq!(weights(&world), [(2, 10_000)]);
    assert_eq!(world.last().phase, Phase::Promoting);
    assert_eq!(world.ready(1), 3, "the old set is kept");
    let mut other = world.clone();
    assert!(other.act(|last, now| drive::roll_back(last, "slow", "ada", false, now)));
    other.run();
    assert_eq!(weights(&other), [(1, 10_000)]);
    other.settle();
    assert_eq!(other.last().phase, Phase::RolledBack);
    assert_eq!((other.ready(1), other.ready(2)), (3, 0));

    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    assert_eq!((world.ready(1), world.ready(2)), (0, 3));

    // By hand.
    world.deploy(blue_green(3, false));
    world.pass(Span::secs(60));
    assert_eq!(weights(&world), [(2, 10_000)]);
    assert!(world.act(|last, now| drive::promote(last, "ada", None, false, now)));
    world.run();
    assert_eq!(weights(&world), [(3, 10_000)]);
    // The old set needn't be kept on.
    assert!(world.act(|last, now| drive::promote(last, "ada", None, false, now)));
    world.pass(Span::secs(5));
    assert_eq!(world.last().phase, Phase::Complete);
}

#[test]
fn the_check_of_a_second_set_begins_anew_where_it_is_not_whole() {
    let mut world = World::new(2);
    world.deploy(blue_green(2, true));
    world.breathe(|_| true);
    world.pass(Span::secs(8));
    let now = world.now;
    let pod = world.pods.values_mut().find(|pod| pod.revision == 2).unwrap();
    pod.state = State::Unready {
        since: now,
        why: "500".into(),
    };
    world.run();
    world.pass(Span::secs(8));
    assert_eq!(weights(&world), [(1, 10_000)]);
    world.pass(Span::secs(5));
    assert_eq!(weights(&world), [(2, 10_000)]);
}

#[test]
fn immediate_stops_all_and_then_starts() {
    let mut world = World::new(2);
    world.deploy(plan(Strategy::Immediate, 2));
    assert_eq!(world.ready(1), 0);
    assert_eq!(world.pods.values().filter(|pod| pod.revision == 2).count(), 0);
    world.pass(Span::secs(1));
    world.breathe(|_| true);
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    assert_eq!(world.ready(2), 2);
    // The image isn't there: the old ones are started again.
    world.deploy(plan(Strategy::Immediate, 2));
    world.until(|world| world.pods.values().any(|pod| pod.revision == 3));
    become_(&mut world, 3, hopeless());
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
    assert_eq!(world.ready(2), 2);
}

#[test]
fn a_revision_that_cannot_run_never_touches_the_old_one() {
    let failing = State::Failing {
        why: "exit code 1".into(),
        code: None,
        restarts: 3,
    };
    for strategy in [
        rolling(3, 0, 1, Span(0)),
        canary(3, &[(10.0, 1)], true),
        blue_green(3, true),
    ] {
        for (state, code, what) in [
            (hopeless(), ErrorCode::ImageNotFound, "can't be started"),
            (failing.clone(), ErrorCode::Conflict, "fails health checks"),
        ] {
            let mut world = World::new(3);
            world.deploy(strategy.clone());
            become_(&mut world, 2, state);
            world.run();
            assert_eq!(world.ready(1), 3);
            assert_eq!(weights(&world), [(1, 10_000)]);
            world.settle();
            let last = world.last();
            assert_eq!(last.phase, Phase::RolledBack);
            assert_eq!(last.error.as_ref().unwrap().code, code);
            assert!(last.error.as_ref().unwrap().message.contains(what));
            assert_eq!(world.service.members.len(), 3);
        }
    }
}

#[test]
fn waiting_for_gpus_is_no_failure_until_the_deadline() {
    let mut world = World::new(2);
    world.deploy(plan(Strategy::Rolling, 2));
    become_(
        &mut world,
        2,
        State::Waiting {
            why: "2 nodes: no free GPU".into(),
        },
    );
    world.now = after(world.now, Span::secs(599));
    world.run();
    assert_eq!(world.last().course, Course::Forward);
    world.now = after(world.now, Span::secs(1));
    world.run();
    let error = world.last().error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::NoGpusAvailable);
    assert_eq!(error.cause.as_deref(), Some("2 nodes: no free GPU"));
    assert!(error.hint.is_some());
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
    assert_eq!(world.ready(1), 2);
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing_running() {
    for strategy in [
        plan(Strategy::Rolling, 2),
        canary(2, &[(10.0, 1)], true),
        blue_green(2, true),
        plan(Strategy::Immediate, 2),
    ] {
        let mut world = World::empty(2);
        world.deploy(strategy);
        become_(&mut world, 1, hopeless());
        world.run();
        world.settle();
        let last = world.last();
        assert_eq!(last.phase, Phase::Failed);
        assert_eq!(last.error.as_ref().unwrap().code, ErrorCode::ImageNotFound);
        assert!(world.service.members.is_empty() && world.pods.is_empty());
        // It is tried once more, and comes.
        let id = api::DeploymentId::new("dep-again");
        let again = drive::retry(world.last(), id, "ada", None, world.now).unwrap();
        world.deploy((*again.plan).clone());
        for _ in 0..200 {
            world.breathe(|_| true);
        }
        assert_eq!(world.last().phase, Phase::Complete, "{:?}", world.last().message);
        assert_eq!(world.service.stable, Some(2));
    }
}

#[test]
fn a_first_deployment_serves_as_soon_as_one_is_ready() {
    let mut world = World::empty(2);
    world.deploy(canary(2, &[(10.0, 1)], true));
    world.breathe(|_| true);
    world.breathe(|_| true);
    assert_eq!(weights(&world), [(1, 10_000)], "there is nobody else");
}

#[test]
fn going_back_to_a_revision_is_hasty() {
    let mut world = World::new(3);
    world.deploy(plan(Strategy::Rolling, 3));
    world.settle();
    assert_eq!(weights(&world), [(2, 10_000)]);
    world.deploy(Plan {
        action: Action::Rollback,
        to_revision: Some(1),
        ..plan(Strategy::Rolling, 3)
    });
    assert_eq!(
        world.pods.values().filter(|pod| pod.revision == 1).count(),
        3,
        "all at once"
    );
    let now = world.now;
    world.pods.values_mut().find(|pod| pod.revision == 1).unwrap().state = State::Ready { since: now };
    world.run();
    assert_eq!(weights(&world), [(1, 3333), (2, 6667)], "one of three bears a third");
    assert_eq!(world.ready(2), 3);
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    assert_eq!((world.service.stable, world.service.revisions.len()), (Some(1), 2));
    assert_eq!(world.service.revision(2).unwrap().standing, Standing::Bad);
}

#[test]
fn what_comes_back_gets_no_more_than_it_can_bear() {
    // Ten replicas, all new, and watched; 8 of them are enough.
    let mut whole = World::new(10);
    whole.deploy(watched(rolling(10, 2, 3, Span(0))));
    whole.until(|world| world.last().phase == Phase::Promoting && world.service.members.len() == 10);
    whole.now = after(whole.now, Span::secs(5));
    let breach = |world: &mut World, failed: u64| {
        world.judge(Outcome::Pass, Outcome::Fail);
        for verdict in &mut world.verdicts {
            verdict.evidence.subject.failed = Some(failed);
        }
        world.run();
    };
    let comes = |world: &mut World, n: usize| {
        let now = world.now;
        let back = world.pods.values_mut().filter(|pod| pod.revision == 1 && !pod.stopping);
        for pod in back.take(n) {
            pod.state = State::Ready { since: now };
        }
        world.run();
    };
    let mut world = whole.clone();
    breach(&mut world, 2);
    assert_eq!(weights(&world), [(2, 10_000)], "nobody else is there");
    for (ready, share) in [(1, 1250), (2, 2500), (6, 7500)] {
        comes(&mut world, ready);
        assert_eq!(weights(&world), [(1, share), (2, 10_000 - share)], "{ready}");
    }
    comes(&mut world, 8);
    assert_eq!(weights(&world), [(1, 10_000)]);
    // One that goes doesn't turn all of it round again.
    let lost = world.pods.values_mut().find(|pod| pod.revision == 1).unwrap();
    lost.state = ended("exit code 137");
    world.run();
    assert!(world.service.weights.get(&1).is_some_and(|share| *share >= 8750));
    world.settle();
    assert_eq!((world.last().phase, world.ready(1)), (Phase::RolledBack, 10));
    // What fails more than one in twenty gets nothing any more as soon as anybody else is there; nor does it in an emergency.
    let mut world = whole.clone();
    breach(&mut world, 60);
    comes(&mut world, 1);
    assert_eq!(weights(&world), [(1, 10_000)]);
    let mut world = whole;
    assert!(world.act(|last, now| drive::roll_back(last, "nonsense", "ada", true, now)));
    world.run();
    comes(&mut world, 1);
    assert_eq!(weights(&world), [(1, 10_000)]);
}

#[test]
fn going_back_at_once_leaves_the_last_healthy_copy() {
    let mut world = World::new(2);
    world.deploy(watched(rolling(2, 1, 0, Span(0))));
    world.until(|world| world.last().phase == Phase::Promoting);
    assert!(world.act(|last, now| drive::roll_back(last, "nonsense", "ada", true, now)));
    world.run();
    // There is no room for any more.
    for _ in 0..5 {
        let now = world.now;
        let room = world.ready(2) < 2;
        for pod in world.pods.values_mut() {
            pod.state = match pod.state {
                _ if pod.stopping => ended("stopped"),
                State::Starting if room => State::Unready {
                    since: now,
                    why: "503".into(),
                },
                State::Starting => State::Waiting { why: "full".into() },
                ref other => other.clone(),
            };
        }
        world.run();
        world.now = after(world.now, Span::secs(31));
    }
    assert_eq!(world.ready(2), 1, "{}", world.tell());
    world.settle();
    assert_eq!((world.last().phase, world.ready(1)), (Phase::RolledBack, 2));
}

#[test]
fn a_good_revision_that_somebody_does_not_want_back_stays_good() {
    let back = |world: &mut World| {
        world.deploy(Plan {
            action: Action::Rollback,
            to_revision: Some(1),
            ..plan(Strategy::Rolling, 2)
        });
        world.breathe(|_| true);
    };
    let mut world = World::new(2);
    world.deploy(plan(Strategy::Rolling, 2));
    world.settle();
    back(&mut world);
    assert!(world.act(|last, now| drive::roll_back(last, "no, stay", "ada", false, now)));
    world.settle();
    assert_eq!((world.last().phase, world.service.stable), (Phase::RolledBack, Some(2)));
    assert_eq!(world.service.revision(1).unwrap().standing, Standing::Good);
    // What doesn't run any more is bad.
    back(&mut world);
    become_(&mut world, 1, hopeless());
    world.run();
    world.settle();
    assert_eq!(world.service.revision(1).unwrap().standing, Standing::Bad);
}

#[test]
fn going_back_makes_room_where_there_is_none() {
    let mut world = World::new(2);
    world.deploy(rolling(2, 1, 0, Span(0)));
    world.settle();
    world.deploy(rolling(2, 1, 0, Span(0)));
    world.until(|world| world.ready(3) >= 1);
    world.breathe(|_| true);
    assert!(world.act(|last, now| drive::roll_back(last, "wrong", "ada", false, now)));
    world.run();
    // There is room for two, ever.
    for _ in 0..60 {
        let used = world
            .pods
            .values()
            .filter(|pod| matches!(pod.state, State::Ready { .. }))
            .count();
        let (mut free, now) = (2usize.saturating_sub(used), world.now);
        for pod in world.pods.values_mut() {
            if pod.stopping {
                pod.state = ended("stopped");
            } else if !matches!(pod.state, State::Ready { .. }) {
                pod.state = if free > 0 {
                    State::Ready { since: now }
                } else {
                    State::Waiting { why: "full".into() }
                };
                free = free.saturating_sub(1);
            }
        }
        world.run();
        world.now = after(world.now, REST);
    }
    assert_eq!(world.last().phase, Phase::RolledBack, "{:?}", world.last().message);
    assert_eq!(world.ready(2), 2);
}

#[test]
fn the_number_of_replicas_goes_up_and_down() {
    let scale = |n: u32| Plan {
        action: Action::Scale,
        ..plan(Strategy::Rolling, n)
    };
    let mut world = World::new(2);
    world.deploy(scale(5));
    world.settle();
    assert_eq!((world.last().phase, world.ready(1)), (Phase::Complete, 5));
    world.deploy(scale(1));
    assert_eq!(world.ready(1), 1);
    world.settle();
    assert_eq!((world.last().phase, world.service.members.len()), (Phase::Complete, 1));
    assert_eq!(world.service.revisions.len(), 1);
    world.deploy(scale(0));
    assert_eq!(world.service.replicas, 1, "never fewer than one");
    world.settle();
    // Not all come up: what came is kept, and the rest isn't waited for.
    world.deploy(scale(4));
    let now = world.now;
    let mut starting: Vec<_> = world
        .pods
        .values_mut()
        .filter(|pod| pod.state == State::Starting)
        .collect();
    assert_eq!(starting.len(), 3);
    starting.remove(0).state = State::Ready { since: now };
    for pod in starting {
        pod.state = State::Waiting {
            why: "no free GPU".into(),
        };
    }
    world.now = after(world.now, Span::secs(600));
    world.run();
    let last = world.last();
    assert_eq!(last.phase, Phase::Failed);
    assert_eq!(last.error.as_ref().unwrap().code, ErrorCode::NoGpusAvailable);
    world.settle();
    assert_eq!(
        (world.service.replicas, world.ready(1), world.service.members.len()),
        (2, 2, 2)
    );
}

#[test]
fn scaling_does_not_cost_a_canary() {
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1)], true));
    let asked = world.ask(Plan {
        action: Action::Scale,
        ..plan(Strategy::Rolling, 4)
    });
    let error = drive::begin(&asked, &world.service, world.under_way(), None, world.now).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.hint.unwrap().contains("deploy rollback dep-"));
}

#[test]
fn another_deployment_takes_over_with_the_good_revision_as_its_way_back() {
    let mut world = World::new(3);
    world.deploy(plan(Strategy::Rolling, 3));
    world.until(|world| world.ready(2) >= 2);
    world.deploy(canary(3, &[(10.0, 1)], true));
    let superseded = &world.deployments[world.deployments.len() - 2];
    assert_eq!(superseded.phase, Phase::Failed);
    assert_eq!(superseded.message, Some(format!("superseded by {}", world.last().id)));
    assert_eq!(world.last().from, Some(1));
    world.until(|world| world.service.weights.contains_key(&3));
    assert_eq!((world.ready(1), world.ready(2), world.ready(3)), (3, 0, 1));
    become_(&mut world, 3, hopeless());
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
    assert_eq!((world.ready(1), world.service.members.len()), (3, 3));
}

#[test]
fn deployments_wait_for_their_time_or_miss_it() {
    let at = after(start(), Span::secs(3600));
    let schedule = Schedule {
        at: Some(at),
        timezone: None,
        after: None,
    };
    let later = |seconds| after(at, Span::secs(seconds));
    assert_eq!(drive::due(Some(&schedule), None, start()), Due::Later(Some(at)));
    assert_eq!(drive::due(Some(&schedule), None, at), Due::Now);
    assert_eq!(drive::due(Some(&schedule), None, later(300)), Due::Now);
    assert!(
        matches!(drive::due(Some(&schedule), None, later(301)), Due::Never(error) if error.message.contains("missed its time"))
    );
    let chained = Schedule {
        at: None,
        timezone: None,
        after: Some(api::DeploymentId::new("dep-1")),
    };
    assert_eq!(drive::due(Some(&chained), Some(Phase::Canary), at), Due::Later(None));
    assert_eq!(drive::due(Some(&chained), Some(Phase::Complete), at), Due::Now);
    for over in [Some(Phase::Failed), Some(Phase::RolledBack), None] {
        assert!(
            matches!(drive::due(Some(&chained), over, at), Due::Never(_)),
            "{over:?}"
        );
    }

    let mut world = World::new(2);
    world.now = start();
    world.deploy(Plan {
        schedule: Some(schedule.clone()),
        ..plan(Strategy::Rolling, 2)
    });
    assert_eq!(world.last().phase, Phase::Pending);
    assert_eq!(world.due, Some(at));
    assert_eq!(world.service.revisions.len(), 1);
    let mut missed = world.clone();
    world.now = at;
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    missed.now = later(301);
    missed.run();
    assert_eq!(missed.last().phase, Phase::Failed);
    assert!(missed.last().message.as_ref().unwrap().contains("missed its time"));
    assert_eq!(missed.service.stable, Some(1));
}

#[test]
fn a_plan_that_waited_begins_on_what_it_was_made_on_or_not_at_all() {
    let mut world = World::new(3);
    let at = after(world.now, Span::secs(3600));
    let on = |replicas: Numbers, plan: Plan| Plan {
        schedule: Some(Schedule {
            at: Some(at),
            timezone: None,
            after: None,
        }),
        basis: Some(Basis {
            revision: Some(1),
            replicas,
            bounds: Numbers::Kept,
        }),
        ..plan
    };
    let begins = |world: &mut World| {
        let waits = world.deployments.iter().find(|of| of.phase == Phase::Pending);
        let id = waits.unwrap().id.clone();
        world.now = at;
        world.run();
        world.deployments.iter().find(|of| of.id == id).unwrap().clone()
    };
    let refused = |of: &Deployment, words: &str| {
        let error = of.error.as_ref().unwrap();
        assert_eq!((of.phase, error.code), (Phase::Failed, ErrorCode::Conflict), "{error}");
        assert!(error.message.contains(words) && error.hint.is_some(), "{error}");
    };
    world.deploy(on(Numbers::Kept, canary(3, &[(50.0, 2)], true)));

    // What nobody said is as it is by then.
    let mut scaled = world.clone();
    scaled.service.replicas = 12;
    scaled.service.autoscale = Some(Autoscale {
        min: 3,
        max: 20,
        load: None,
        target: 0.0,
    });
    scaled.pass(Span::secs(60));
    let bounds = scaled.service.autoscale.clone();
    let begun = begins(&mut scaled);
    assert_eq!((begun.plan.replicas, begun.canary_steps[0].replicas), (12, 6));
    assert!(begun.message.is_some());
    assert_eq!((scaled.service.replicas, &scaled.service.autoscale), (12, &bounds));
    scaled.settle();
    assert_eq!((scaled.last().phase, scaled.ready(2)), (Phase::Complete, 12));

    // Another revision came in meanwhile: what it changed would be lost.
    let mut other = world.clone();
    other.deploy(plan(Strategy::Rolling, 3));
    other.until(|world| world.service.stable == Some(2));
    refused(&begins(&mut other), "revision 1 then, revision 2 now");
    other.settle();
    assert_eq!((other.service.stable, other.ready(2)), (Some(2), 3));

    // "two more", of as many as there are no more; "five" is five.
    for (numbers, is) in [(Numbers::ChangeOf(3), None), (Numbers::Said, Some(5))] {
        let mut world = World::new(3);
        world.deploy(on(
            numbers,
            Plan {
                action: Action::Scale,
                ..plan(Strategy::Rolling, 5)
            },
        ));
        let mut same = world.clone();
        begins(&mut same);
        assert_eq!(same.service.replicas, 5);
        world.service.replicas = 4;
        let scale = begins(&mut world);
        match is {
            Some(is) => assert_eq!(world.service.replicas, is),
            None => refused(&scale, "3 replicas then, 4 replicas now"),
        }
    }

    // Nor does a second try bring back what was before.
    let mut failed = World::new(3);
    failed.deploy(Plan {
        schedule: None,
        ..on(Numbers::Kept, plan(Strategy::Rolling, 3))
    });
    become_(&mut failed, 2, hopeless());
    failed.run();
    failed.settle();
    let again = |world: &World| {
        let id = api::DeploymentId::new("dep-again");
        let old = world
            .deployments
            .iter()
            .find(|of| of.phase == Phase::RolledBack)
            .unwrap();
        let again = drive::retry(old, id, "ada", None, world.now).unwrap();
        drive::begin(&again, &world.service, None, None, world.now)
    };
    assert!(again(&failed).is_ok());
    failed.deploy(plan(Strategy::Rolling, 3));
    failed.settle();
    assert_eq!(failed.service.stable, Some(3));
    assert_eq!(again(&failed).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn replicas_answer_what_they_have_before_they_stop() {
    let mut world = World::new(1);
    world.deploy(plan(Strategy::Immediate, 1));
    let stopping = |world: &World| world.pods.values().filter(|pod| pod.stopping).count();
    world.pods.values_mut().for_each(|pod| pod.in_flight = 2);
    world.now = after(world.now, Span::secs(29));
    world.run();
    assert_eq!(stopping(&world), 0);
    let mut answered = world.clone();
    answered.pods.values_mut().for_each(|pod| pod.in_flight = 0);
    answered.run();
    assert_eq!(stopping(&answered), 1);
    world.now = after(start(), DRAIN);
    world.now = world.now.max(after(world.service.members[0].retiring.unwrap(), DRAIN));
    world.run();
    assert_eq!(stopping(&world), 1);
}

#[test]
fn a_service_without_a_deployment_is_kept_as_it_is() {
    let mut world = World::new(3);
    let count = |world: &World| world.service.members.len();
    // One whose node is lost is replaced at once, and again: it isn't its fault.
    for _ in 0..5 {
        world.pods.values_mut().next().unwrap().state = State::Ended {
            why: "its node is lost".into(),
            code: Some(ErrorCode::NodeUnreachable),
            hopeless: false,
        };
        world.run();
        assert_eq!(count(&world), 3);
        world.breathe(|_| true);
    }
    assert!(world.service.setbacks.is_empty());
    // One that ends by itself is replaced after a rest, which grows.
    let mut rest = 10;
    for _ in 0..6 {
        world.pods.values_mut().next().unwrap().state = ended("exit code 1");
        world.run();
        assert_eq!(count(&world), 2);
        world.now = after(world.now, Span::secs(rest - 1));
        world.run();
        assert_eq!(count(&world), 2, "after {rest} s");
        world.now = after(world.now, Span::secs(1));
        world.run();
        assert_eq!(count(&world), 3);
        world.breathe(|_| true);
        rest = (rest * 2).min(300);
    }
    world.settle();
    assert!(
        world.service.setbacks.is_empty(),
        "forgiven after a while: {:?}",
        world.service.setbacks
    );
    assert_eq!((world.ready(1), count(&world)), (3, 3));
}

#[test]
fn the_time_left_is_told_where_it_is_known() {
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1)], true));
    let left = |world: &World| {
        let replicas = world.seen_replicas();
        drive::remaining(world.last(), &world.seen(world.last(), &replicas))
    };
    assert_eq!(left(&world), None, "nothing is known of how long replicas take");
    world.now = after(world.now, Span::secs(20));
    let now = world.now;
    become_(&mut world, 2, State::Ready { since: now });
    world.now = after(world.now, Span::secs(1));
    world.run();
    // The step's 120 s, one more replica at 20 s, and the least time of watching.
    assert_eq!(left(&world), Some(Span::secs(120 + 20 + 60)));
    world.pass(Span::secs(60));
    assert_eq!(left(&world), Some(Span::secs(60 + 20 + 60)));
    assert!(world.act(|last, now| drive::pause(last, "ada", None, now)));
    assert_eq!(left(&world), None);
}

#[test]
fn a_promotion_stands_on_a_verdict_of_the_whole_step() {
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1), (50.0, 1)], true));
    let now = world.now;
    become_(&mut world, 2, State::Ready { since: now });
    world.now = after(world.now, Span::secs(1));
    world.run();
    let since = world.last().step_since.unwrap();
    let judged_at = |world: &mut World, seconds: u64| {
        world.now = after(since, Span::secs(seconds));
        world.judge(Outcome::Pass, Outcome::Pass);
        world.run();
    };
    judged_at(&mut world, 100);
    world.now = after(since, Span::secs(130));
    world.run();
    assert_eq!(
        world.last().step,
        0,
        "what it was judged on ends before the step's time"
    );
    judged_at(&mut world, 131);
    assert_eq!(world.last().step, 1);
    // The verdict on the first step says nothing about the second.
    let begun = world.last().step_since.unwrap();
    world.now = after(begun, Span::secs(121));
    world.run();
    assert_eq!(world.last().step, 1);
    // A verdict that passed is not for ever.
    world.now = after(begun, Span::secs(125));
    world.judge(Outcome::Pass, Outcome::Pass);
    let passed = std::mem::take(&mut world.verdicts);
    world.now = after(begun, Span::secs(125 + 61));
    world.verdicts = passed;
    world.run();
    assert_eq!(world.last().step, 1, "too old");
    world.judge(Outcome::Pass, Outcome::Pass);
    world.run();
    assert_eq!(world.last().step, 2);
}

#[test]
fn a_revision_that_failed_gets_no_share_of_what_follows() {
    let mut world = World::new(3);
    world.deploy(plan(Strategy::Rolling, 3));
    world.until(|world| world.ready(2) == 1 && world.ready(1) == 2);
    assert!(world.act(|last, now| drive::roll_back(last, "wrong", "ada", false, now)));
    world.run();
    assert!(world.ready(2) > 0);
    world.deploy(canary(3, &[(10.0, 1)], true));
    assert!(world.ready(2) > 0, "it goes when the old set is whole");
    assert_eq!(weights(&world), [(1, 10_000)]);
}
