//! One step of a deployment that has begun.

mod back;
mod fail;
mod forward;
mod want;

use api::{
    Span, Timestamp,
    deploy::{Action, Course, Deployment, MOMENTS_MAX, Moment, Phase, Plan, Service, Standing, Strategy},
    time::after,
};

use super::{
    ACTOR, JUDGE_EVERY, Seen, Step, TIMEOUT,
    fleet::Fleet,
    judge::{self, observation},
    rewind,
};

/// What a deployment that goes forward is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The number of replicas is changed.
    Scale,
    /// Replicas are replaced within bounds.
    Roll,
    /// This step of a canary, from 0.
    Canary(usize),
    /// A second set comes up.
    Fill,
    /// The second set has the requests; the old one is kept.
    Kept,
    /// The old set goes.
    Clear,
    /// All of the old are stopped.
    Stop,
    /// The new are started where the old were.
    Start,
    /// The new revision is there as a whole, and is watched.
    Watch,
}

/// The stages that a deployment passes through.
pub(super) fn stages(deployment: &Deployment) -> Vec<Stage> {
    let plan = &deployment.plan;
    match (plan.action, plan.strategy) {
        (Action::Scale, _) => vec![Stage::Scale],
        (_, Strategy::Immediate) => vec![Stage::Stop, Stage::Start, Stage::Watch],
        (Action::Rollback, _) | (_, Strategy::Rolling) => vec![Stage::Roll, Stage::Watch],
        (_, Strategy::Canary) => {
            let steps = (0..deployment.canary_steps.len()).map(Stage::Canary);
            steps.chain([Stage::Roll, Stage::Watch]).collect()
        }
        (_, Strategy::BlueGreen) => vec![Stage::Fill, Stage::Kept, Stage::Clear],
    }
}

/// The stage under way.
pub(super) fn stage(deployment: &Deployment) -> Stage {
    let stages = stages(deployment);
    let step = usize::try_from(deployment.step).unwrap_or(usize::MAX);
    stages[step.min(stages.len() - 1)]
}

/// Whether a step of a canary is under way.
pub(super) fn in_canary(deployment: &Deployment) -> bool {
    deployment.course == Course::Forward && matches!(stage(deployment), Stage::Canary(_))
}

/// Where a deployment stands that has begun and hasn't ended.
pub(super) fn phase(deployment: &Deployment) -> Phase {
    if deployment.phase.ended() {
        return deployment.phase;
    }
    if matches!(deployment.course, Course::Back { .. }) {
        return Phase::Rolling;
    }
    if deployment.hold.is_some() {
        return Phase::Paused;
    }
    match stage(deployment) {
        Stage::Canary(_) => Phase::Canary,
        Stage::Roll if !deployment.canary_steps.is_empty() => Phase::Promoting,
        Stage::Kept | Stage::Clear | Stage::Watch => Phase::Promoting,
        Stage::Scale | Stage::Roll | Stage::Fill | Stage::Stop | Stage::Start => Phase::Rolling,
    }
}

/// How long a plan may take: its time, and the waits that it asks for itself.
pub(crate) fn time(plan: &Plan) -> Span {
    let batch = plan
        .rolling
        .max_surge
        .saturating_add(plan.rolling.max_unavailable)
        .max(1);
    let rests = plan
        .rolling
        .pause_between
        .millis()
        .saturating_mul(u64::from(plan.replicas.div_ceil(batch)));
    let switch = plan
        .blue_green
        .as_ref()
        .filter(|_| plan.strategy == Strategy::BlueGreen);
    let switch = switch.map_or(0, |plan| {
        plan.check_for.millis().saturating_add(plan.keep_old_for.millis())
    });
    let waits = [
        plan.timeout.unwrap_or(TIMEOUT).millis(),
        rests,
        switch,
        judge::planned_waits(plan),
        observation(plan).millis(),
    ];
    Span(waits.into_iter().fold(0, u64::saturating_add))
}

/// `v2.1`, or `revision 3`.
pub(super) fn called(service: &Service, revision: u32) -> String {
    let version = service.revision(revision).and_then(|revision| revision.version.clone());
    version.unwrap_or_else(|| format!("revision {revision}"))
}

/// Has a deployment say something.
pub(super) fn say(deployment: &mut Deployment, said: &mut Vec<Moment>, message: String, actor: &str, now: Timestamp) {
    let moment = Moment {
        at: now,
        phase: deployment.phase,
        message: message.clone(),
        actor: actor.to_owned(),
    };
    deployment.message = Some(message);
    deployment.timeline.push(moment.clone());
    if deployment.timeline.len() > MOMENTS_MAX {
        // How it began is kept.
        deployment.timeline.remove(1);
    }
    said.push(moment);
}

/// Turns a deployment round.
pub(super) fn turn_back(deployment: &mut Deployment, why: &str, by: &str, immediate: bool, now: Timestamp) {
    deployment.course = Course::Back {
        why: why.to_owned(),
        by: by.to_owned(),
        immediate,
    };
    deployment.hold = None;
    deployment.promotion = None;
    deployment.step_since = None;
    deployment.deadline = Some(after(now, deployment.plan.timeout.unwrap_or(TIMEOUT)));
    deployment.phase = phase(deployment);
}

/// How many replicas of `of` a share of the requests stands for, at least one.
pub(super) fn replicas_for(percentage: f64, of: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=of before"
    )]
    let replicas = (percentage * f64::from(of) / 100.0)
        .ceil()
        .clamp(1.0, f64::from(of.max(1))) as u32;
    replicas
}

pub(super) fn turn(seen: &Seen<'_>) -> Step {
    let mut turn = Turn {
        now: seen.now,
        deployment: seen.deployment.clone(),
        fleet: Fleet::new(seen.service, seen.replicas, seen.now),
        said: Vec::new(),
    };
    if let Some(by) = rewind::deployment(&mut turn.deployment, seen.now) {
        let by = Span::secs(by.millis() / 1000);
        turn.say(format!(
            "the clock was set back, by {by} at least: its times go back with it"
        ));
    }
    if turn.deployment.course == Course::Forward {
        judge::take(&mut turn.deployment, seen.verdicts);
        turn.forward();
    }
    // What goes back from now on begins with it in the same step.
    if turn.deployment.course != Course::Forward {
        turn.back();
    }
    if !turn.deployment.phase.ended() {
        turn.deployment.phase = phase(&turn.deployment);
        if let Some(deadline) = turn.deployment.deadline.filter(|_| turn.deployment.hold.is_none()) {
            turn.fleet.look(deadline);
        }
        if turn.watches() {
            turn.fleet.look(after(turn.now, JUDGE_EVERY));
        }
    }
    let mut step = turn.fleet.finish(seen.service);
    step.said = turn.said;
    if turn.deployment != *seen.deployment {
        step.deployment = Some(turn.deployment);
    }
    step
}

struct Turn {
    now: Timestamp,
    deployment: Deployment,
    fleet: Fleet,
    said: Vec<Moment>,
}

impl Turn {
    fn say(&mut self, message: String) {
        self.deployment.phase = phase(&self.deployment);
        say(&mut self.deployment, &mut self.said, message, ACTOR, self.now);
    }

    /// What it is about, without a place in the timeline.
    fn note(&mut self, message: String) {
        if self.deployment.message.as_ref() != Some(&message) {
            self.deployment.message = Some(message);
        }
    }

    fn called(&self, revision: u32) -> String {
        called(&self.fleet.service, revision)
    }

    /// Replicas that are wanted.
    fn replicas(&self) -> u32 {
        self.fleet.service.replicas.max(1)
    }

    /// Replicas that the old set has while it is kept whole: as many as before, unless the number was changed since.
    fn replicas_old(&self) -> u32 {
        let plan = self.deployment.plan.replicas.max(1);
        match self.fleet.service.replicas {
            replicas if replicas == plan => self.deployment.replicas_before.max(1),
            replicas => replicas.max(1),
        }
    }

    /// Whether conditions are judged.
    fn watches(&self) -> bool {
        let plan = &self.deployment.plan;
        let judged = !plan.rollback_conditions.is_empty()
            || plan
                .canary
                .as_ref()
                .is_some_and(|canary| !canary.promote_conditions.is_empty());
        judged && self.deployment.course == Course::Forward && self.deployment.revision.is_some()
    }

    fn complete(&mut self) {
        let n = self.replicas();
        let message = match self.deployment.revision {
            Some(revision) => {
                let from = self.deployment.from;
                let back = self.deployment.plan.action == Action::Rollback;
                for known in &mut self.fleet.service.revisions {
                    if known.number == revision {
                        known.standing = Standing::Good;
                    } else if back && from == Some(known.number) && revision < known.number {
                        known.standing = Standing::Bad;
                    }
                }
                self.fleet.service.stable = Some(revision);
                format!("{n} replicas run {}", self.called(revision))
            }
            None => format!("{n} replicas"),
        };
        self.end(Phase::Complete, message);
    }

    fn end(&mut self, phase: Phase, message: String) {
        self.deployment.phase = phase;
        self.deployment.finished_at = Some(self.now);
        self.deployment.hold = None;
        self.deployment.promotion = None;
        self.fleet.service.deployment = None;
        say(&mut self.deployment, &mut self.said, message, ACTOR, self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stands_for_replicas_rounded_up_and_never_for_none() {
        for (percentage, of, replicas) in [
            (10.0, 1, 1),
            (10.0, 10, 1),
            (10.0, 11, 2),
            (0.1, 1000, 1),
            (50.0, 3, 2),
            (99.9, 3, 3),
            (100.0, 3, 3),
            (250.0, 3, 3),
            (0.0, 3, 1),
            (50.0, 0, 1),
        ] {
            assert_eq!(replicas_for(percentage, of), replicas, "{percentage} % of {of}");
        }
    }
}
