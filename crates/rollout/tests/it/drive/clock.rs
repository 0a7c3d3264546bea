//! The clock is set while a deployment is under way.

use api::{
    Span,
    deploy::{Outcome, Phase, Schedule, Strategy},
    time,
};
use rollout::drive::{self, State};

use super::world::{World, canary, plan};

/// Sets the clock back; who carries steps out tells of replicas that are ready what it would be now.
fn set_back(world: &mut World, by: Span) {
    world.now = time::before(world.now, by);
    for pod in world.pods.values_mut() {
        if let State::Ready { since } = &mut pod.state {
            *since = time::before(*since, by);
        }
    }
}

const HOUR: Span = Span::secs(3600);

#[test]
fn a_canary_whose_clock_is_set_back_is_judged_and_goes_on() {
    let mut world = World::new(2);
    world.pass(Span::secs(7200));
    world.deploy(canary(2, &[(10.0, 1)], true));
    world.pass(Span::secs(30));
    assert_eq!(world.last().verdicts.len(), 2);
    let deadline = world.last().deadline.unwrap();

    set_back(&mut world, HOUR);
    assert!(world.run());
    let of = world.last();
    let said = &of.timeline.last().unwrap().message;
    // An hour less the time since something was last noted.
    assert_eq!(
        said,
        "the clock was set back, by 59m51s at least: its times go back with it"
    );
    assert_eq!(of.verdicts, [], "they are of other times");
    assert_eq!(of.deadline, Some(time::before(deadline, Span::secs(3591))));
    assert!(of.step_since.unwrap() <= world.now);

    assert_eq!(world.questions().len(), 2, "it isn't blind");
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
    assert!(
        world.service.members.iter().all(|member| member.revision == 2),
        "the old ones could drain"
    );
}

#[test]
fn a_breach_counts_though_the_clock_was_set_back() {
    let mut world = World::new(2);
    world.pass(Span::secs(7200));
    world.deploy(canary(2, &[(10.0, 1)], true));
    world.pass(Span::secs(30));
    set_back(&mut world, HOUR);
    world.run();
    world.pass(Span::secs(2));
    world.judge(Outcome::Insufficient, Outcome::Fail);
    world.run();
    world.settle();
    assert_eq!(world.last().phase, Phase::RolledBack);
}

#[test]
fn what_begins_after_the_clock_was_set_back_has_its_whole_time() {
    let mut world = World::new(2);
    world.pass(Span::secs(7200));
    set_back(&mut world, Span::secs(7200));
    let now = world.now;
    world.deploy(plan(Strategy::Rolling, 2));
    let of = world.last();
    assert_eq!(of.started_at, Some(now));
    assert!(of.deadline.unwrap() >= time::after(now, Span::secs(600)));
    assert!(world.service.members.iter().all(|member| member.since <= now));
    world.settle();
    assert_eq!(world.last().phase, Phase::Complete);
}

#[test]
fn what_begins_late_says_so() {
    for (late, said) in [
        (0, "revision 2 begins"),
        (4, "revision 2 begins"),
        (90, "revision 2 begins, 1m30s late"),
    ] {
        let mut world = World::new(1);
        let mut later = plan(Strategy::Rolling, 1);
        later.schedule = Some(Schedule {
            at: Some(world.now),
            timezone: None,
            after: None,
        });
        let asked = world.ask(later);
        let now = time::after(world.now, Span::secs(late));
        let step = drive::begin(&asked, &world.service, None, None, now).unwrap();
        assert_eq!(step.said[0].message, said);
    }
}
