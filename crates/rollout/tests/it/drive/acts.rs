//! What a person may do, and when.

use api::{
    ErrorCode, Span,
    deploy::{Course, Outcome, Phase, Strategy},
    time::after,
};
use rollout::drive;

use super::world::{World, blue_green, canary, plan};

#[test]
fn a_canary_is_promoted_step_by_step_or_whole() {
    let mut world = World::new(4);
    world.deploy(canary(4, &[(10.0, 1), (25.0, 1), (60.0, 3)], false));
    world.pass(Span::secs(700));
    assert_eq!(world.last().phase, Phase::Paused, "nobody came within its time");
    for bad in [10.0, 5.0, 100.0, f64::NAN, -1.0] {
        let error = drive::promote(world.last(), "ada", Some(bad), true, world.now).unwrap_err();
        assert_eq!(
            (error.code, error.field.as_deref()),
            (ErrorCode::InvalidArgument, Some("percentage")),
            "{bad}"
        );
    }
    assert!(world.act(|last, now| drive::promote(last, "ada", Some(40.0), false, now)));
    assert_eq!(world.last().hold, None);
    world.run();
    world.pass(Span::secs(20));
    let shares: Vec<f64> = world.last().canary_steps.iter().map(|step| step.percentage).collect();
    assert_eq!(shares, [10.0, 40.0, 60.0], "what lies below is passed over");
    assert_eq!(world.service.weights.get(&2), Some(&4000));
    assert_eq!(world.ready(2), 2, "40 % of 4 replicas, rounded up");
    assert!(world.act(|last, now| drive::promote(last, "ada", None, false, now)));
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    assert_eq!(world.ready(2), 4);
}

#[test]
fn nothing_is_promoted_against_a_verdict_without_force() {
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1)], true));
    world.breathe(|_| true);
    world.breathe(|_| true);
    world.now = after(world.now, Span::secs(5));
    world.judge(Outcome::Fail, Outcome::Pass);
    world.run();
    let error = drive::promote(world.last(), "ada", None, false, world.now).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("errors: Fail"), "{error}");
    assert!(error.hint.unwrap().contains("--force"));
    assert!(drive::promote(world.last(), "ada", None, true, world.now).is_ok());
    world.now = after(world.now, Span::secs(5));
    world.judge(Outcome::Pass, Outcome::Pass);
    world.run();
    assert!(drive::promote(world.last(), "ada", None, false, world.now).is_ok());
}

#[test]
fn there_is_nothing_to_promote_where_it_goes_on_by_itself() {
    let mut world = World::new(2);
    assert_eq!(
        drive::promote(world.last(), "ada", None, false, world.now)
            .unwrap_err()
            .code,
        ErrorCode::Conflict
    );
    world.deploy(plan(Strategy::Rolling, 2));
    assert!(drive::promote(world.last(), "ada", None, true, world.now).is_err());
    let mut world = World::new(2);
    world.deploy(blue_green(2, false));
    assert!(drive::promote(world.last(), "ada", Some(50.0), true, world.now).is_err());
}

#[test]
fn a_pause_stops_the_clock_and_keeps_what_is_there() {
    let mut world = World::new(3);
    world.deploy(plan(Strategy::Rolling, 3));
    world.breathe(|_| true);
    world.breathe(|_| true);
    let ready = (world.ready(1), world.ready(2));
    assert!(world.act(|last, now| drive::pause(last, "ada", Some("lunch"), now)));
    assert!(drive::pause(world.last(), "bob", None, world.now).is_err());
    world.run();
    world.pass(Span::secs(20));
    assert!(world.ready(1) + world.ready(2) >= 3, "{ready:?}");
    // One is lost meanwhile.
    let id = world.service.members[0].workload.clone();
    world.pods.get_mut(&id).unwrap().state = super::world::ended("exit code 1");
    world.run();
    world.pass(Span::secs(10_000));
    assert_eq!(world.last().phase, Phase::Paused, "its time doesn't run");
    assert!(world.ready(1) + world.ready(2) >= 3);
    assert!(world.act(|last, now| drive::resume(last, "ada", now)));
    assert!(drive::resume(world.last(), "ada", world.now).is_err());
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
}

#[test]
fn a_breach_brings_back_what_is_paused() {
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1)], true));
    world.breathe(|_| true);
    world.breathe(|_| true);
    assert!(world.act(|last, now| drive::pause(last, "ada", None, now)));
    world.now = after(world.now, Span::secs(5));
    world.judge(Outcome::Pass, Outcome::Fail);
    world.run();
    assert!(matches!(world.last().course, Course::Back { .. }));
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
}

#[test]
fn going_back_is_said_once_and_may_be_made_immediate() {
    let mut world = World::new(2);
    world.deploy(blue_green(2, false));
    world.breathe(|_| true);
    world.breathe(|_| true);
    assert!(world.act(|last, now| drive::roll_back(last, "slow", "ada", false, now)));
    world.pods.values_mut().for_each(|pod| pod.in_flight = 3);
    world.run();
    let stopping = |world: &World| world.pods.values().filter(|pod| pod.stopping).count();
    assert_eq!(stopping(&world), 0, "they answer first");
    assert!(drive::roll_back(world.last(), "slow", "ada", false, world.now).is_err());
    assert!(drive::pause(world.last(), "ada", None, world.now).is_err());
    assert!(drive::promote(world.last(), "ada", None, true, world.now).is_err());
    assert!(drive::retry(world.last(), api::DeploymentId::new("dep-x"), "ada", None, world.now).is_err());
    assert!(world.act(|last, now| drive::roll_back(last, "slow", "ada", true, now)));
    world.run();
    assert_eq!(stopping(&world), 2);
    world.settle();
    let last = world.last();
    assert_eq!(last.phase, Phase::RolledBack);
    assert!(matches!(&last.course, Course::Back { why, by, immediate: true } if why == "slow" && by == "ada"));
    assert!(drive::roll_back(last, "slow", "ada", false, world.now).is_err());
    assert!(drive::retry(last, api::DeploymentId::new("dep-x"), "ada", None, world.now).is_ok());
}

#[test]
fn what_waits_for_its_time_is_called_off() {
    let mut world = World::new(2);
    let mut scheduled = plan(Strategy::Rolling, 2);
    scheduled.schedule = Some(api::deploy::Schedule {
        at: Some(after(world.now, Span::secs(3600))),
        timezone: None,
        after: None,
    });
    world.deploy(scheduled);
    let last = world.last();
    assert!(drive::pause(last, "ada", None, world.now).is_err());
    let off = drive::roll_back(last, "not tonight", "ada", false, world.now).unwrap();
    assert_eq!(off.phase, Phase::Failed);
    assert!(off.error.unwrap().message.contains("not tonight"));
}

#[test]
fn a_hold_adds_its_time_to_the_deadline() {
    let mut world = World::new(2);
    world.deploy(plan(Strategy::Rolling, 2));
    let deadline = world.last().deadline.unwrap();
    world.now = after(world.now, Span::secs(50));
    assert!(world.act(|last, now| drive::pause(last, "ada", None, now)));
    world.now = after(deadline, Span::secs(100));
    let held = api::time::between(world.last().hold.as_ref().unwrap().at, world.now);
    assert!(world.act(|last, now| drive::resume(last, "ada", now)));
    assert_eq!(world.last().deadline, Some(after(deadline, held)));
    // One that is held because its time was over gets all of it again.
    let mut world = World::new(2);
    world.deploy(canary(2, &[(10.0, 1)], false));
    world.pass(Span::secs(700));
    assert_eq!(world.last().phase, Phase::Paused);
    assert!(world.act(|last, now| drive::resume(last, "ada", now)));
    assert_eq!(world.last().deadline, Some(after(world.now, Span::secs(660))));
    world.run();
    assert_eq!(world.last().phase, Phase::Canary);
}

#[test]
fn what_a_canary_has_counts_as_the_first_batch() {
    let mut world = World::new(3);
    let mut rested = canary(3, &[(10.0, 1)], false);
    rested.rolling.pause_between = Span::secs(60);
    world.deploy(rested);
    world.until(|world| world.service.weights.contains_key(&2));
    assert!(world.act(|last, now| drive::promote(last, "ada", None, true, now)));
    world.pass(Span::secs(30));
    assert_eq!(world.ready(2), 2, "the next goes at once, the last after a rest");
    world.pass(Span::secs(60));
    assert_eq!(world.ready(2), 3);
}
