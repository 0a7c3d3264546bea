//! One step of a deployment that has begun.

use api::{
    ApiError, ErrorCode, Span, Timestamp,
    deploy::{
        Action, CanaryStep, Course, Deployment, Hold, MOMENTS_MAX, Moment, Phase, Plan, Service, Standing, Strategy,
    },
    time::after,
};

use super::{
    ACTOR, JUDGE_EVERY, RESTARTS_MAX, Seen, State, Step, TIMEOUT,
    fleet::{Bounds, Fleet},
    judge::{self, Wait, observation},
    weigh::{Shares, weights},
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
pub(super) fn time(plan: &Plan) -> Span {
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
        fleet: Fleet::seen(seen),
        said: Vec::new(),
    };
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

    // Forward.

    fn forward(&mut self) {
        if let Some((why, error)) = self.failure() {
            self.go_back(&why, error);
            return;
        }
        let late =
            self.deployment.hold.is_none() && self.deployment.deadline.is_some_and(|deadline| deadline <= self.now);
        let before = late.then(|| self.fleet.clone());
        // Each round passes a stage, and there are but a few.
        loop {
            self.act();
            self.fleet.drain(self.deployment.immediate);
            if self.deployment.hold.is_some() || !self.advance() {
                break;
            }
            if self.deployment.phase.ended() {
                return;
            }
            // What the stage that is over still wanted.
            self.fleet.start_none();
        }
        if let Some(before) = before {
            self.overdue(before);
        }
    }

    /// Why the new revision can't be good.
    fn failure(&self) -> Option<(String, ApiError)> {
        let revision = self.deployment.revision?;
        let called = self.called(revision);
        let hint = format!("see `clawbernetes deploy status {}`", self.deployment.id);
        if let Some(verdict) = judge::breach(&self.deployment) {
            let why = verdict.message.clone();
            let error = ApiError::conflict(format!("{called} was rolled back: {why}")).hint(hint);
            return Some((why, error));
        }
        let fail = |code: Option<ErrorCode>, what: String, why: &str| {
            let message = format!("{called} fails health checks: {what}");
            let error = ApiError::new(code.unwrap_or(ErrorCode::Conflict), message.clone())
                .cause(why)
                .hint(&hint);
            Some((message, error))
        };
        let lost = || self.fleet.lost.iter().filter(|loss| loss.revision == revision);
        if let Some(loss) = lost().find(|loss| loss.hopeless) {
            return fail(loss.code, loss.why.clone(), &loss.why);
        }
        let failures = self
            .fleet
            .service
            .setbacks
            .get(&revision)
            .map_or(0, |setback| setback.failures);
        if let Some(loss) = lost().next_back()
            && failures >= RESTARTS_MAX
        {
            return fail(loss.code, format!("{failures} replicas ended: {}", loss.why), &loss.why);
        }
        self.fleet.of(revision).find_map(|(member, state)| match state {
            State::Failing { why, code, restarts } if *restarts >= RESTARTS_MAX => fail(
                *code,
                format!(
                    "{} ended, and was started again {restarts} times: {why}",
                    member.workload
                ),
                why,
            ),
            _ => None,
        })
    }

    /// Turns round by itself.
    fn go_back(&mut self, why: &str, error: ApiError) {
        self.deployment.error = Some(error);
        turn_back(&mut self.deployment, why, ACTOR, false, self.now);
        let message = match self.deployment.from.map(|from| self.called(from)) {
            Some(from) => format!("goes back to {from}: {why}"),
            None => format!("is given up, and there is nothing to go back to: {why}"),
        };
        self.say(message);
    }

    /// The bounds of a rolling replacement.
    fn bounds(&self) -> Bounds {
        let n = self.replicas();
        let rolling = &self.deployment.plan.rolling;
        let hasty = self.deployment.plan.action == Action::Rollback;
        let surge = match rolling.max_surge {
            0 if rolling.max_unavailable == 0 => 1,
            surge => surge,
        };
        let least = u32::from(surge > 0).min(n);
        Bounds {
            cap: if hasty { u32::MAX } else { n.saturating_add(surge) },
            whole: n,
            floor: n.saturating_sub(rolling.max_unavailable).max(least),
            patient: self
                .deployment
                .from
                .filter(|from| Some(*from) != self.deployment.revision),
        }
    }

    /// How many of the new revision a rolling replacement is up to, and whether a batch is under way: all of them at once
    /// within the bounds; with rests, a batch more after each rest.
    fn batch(&mut self, revision: u32) -> (u32, bool) {
        let n = self.replicas();
        let rolling = self.deployment.plan.rolling.clone();
        let settled = self.fleet.settled(revision);
        let living = self.fleet.living(revision).min(n);
        if self.deployment.hold.is_some() {
            return (living, false);
        }
        if rolling.pause_between.is_zero() || self.deployment.plan.action == Action::Rollback {
            return (n, settled < n);
        }
        let batch = rolling.max_surge.saturating_add(rolling.max_unavailable).max(1);
        let goal = self.deployment.moved.saturating_add(batch).min(n);
        if settled >= goal && goal > self.deployment.moved {
            self.deployment.moved = goal;
            self.deployment.moved_at = Some(self.now);
        }
        let rested = self
            .deployment
            .moved_at
            .map(|moved| after(moved, rolling.pause_between));
        if let Some(rested) = rested.filter(|rested| *rested > self.now && self.deployment.moved < n) {
            self.fleet.look(rested);
            return (self.deployment.moved.max(living), false);
        }
        let goal = self.deployment.moved.saturating_add(batch).min(n).max(living);
        (goal, settled < goal)
    }

    /// Wants what the stage under way needs.
    fn act(&mut self) {
        let n = self.replicas();
        let old = self.deployment.from;
        let new = self.deployment.revision;
        let stage = stage(&self.deployment);
        let whole_set = |cap: u32, whole: u32| Bounds {
            cap,
            whole,
            floor: whole,
            patient: None,
        };
        let (Some(revision), false) = (new, stage == Stage::Scale) else {
            let stable = self.fleet.service.stable;
            let want: Vec<_> = stable.into_iter().map(|stable| (stable, n)).collect();
            self.fleet.balance(&want, whole_set(u32::MAX, n));
            self.weigh(Shares::All(stable));
            return;
        };
        // The way back, where it isn't the way forward.
        let old = old.filter(|old| *old != revision);
        let shares = match stage {
            Stage::Roll | Stage::Scale => {
                let (goal, moving) = self.batch(revision);
                let mut bounds = self.bounds();
                if !moving {
                    bounds.floor = bounds.whole;
                }
                let mut want = vec![(revision, goal)];
                want.extend(old.map(|old| (old, n - goal.min(n))));
                self.fleet.balance(&want, bounds);
                if self.deployment.step_since.is_none() && self.fleet.settled(revision) > 0 {
                    self.deployment.step_since = Some(self.now);
                }
                match (self.deployment.plan.action, self.deployment.canary_steps.last()) {
                    (Action::Rollback, _) => Shares::All(new),
                    (_, Some(step)) => Shares::AtLeast(revision, step.percentage),
                    (_, None) => Shares::Even,
                }
            }
            Stage::Canary(i) => {
                let step = self.deployment.canary_steps[i].clone();
                let part = step.replicas.max(1);
                let kept = if old.is_some() { self.replicas_old() } else { 0 };
                let want: Vec<_> = old
                    .map(|old| (old, kept))
                    .into_iter()
                    .chain([(revision, part)])
                    .collect();
                self.fleet
                    .balance(&want, whole_set(kept.saturating_add(part), kept.max(1)));
                if self.deployment.step_since.is_none() && self.fleet.settled(revision) >= part {
                    self.deployment.step_since = Some(self.now);
                    if self.deployment.hold.is_none() {
                        self.say(format!(
                            "{} gets {} % of the requests",
                            self.called(revision),
                            step.percentage
                        ));
                    }
                }
                // The share of a step is given when its replicas are there to bear it.
                let percentage = match (self.deployment.step_since, i.checked_sub(1)) {
                    (Some(_), _) => step.percentage,
                    (None, Some(before)) => self.deployment.canary_steps[before].percentage,
                    (None, None) => 0.0,
                };
                Shares::Part(revision, percentage)
            }
            Stage::Fill | Stage::Kept => {
                let kept = if old.is_some() { self.replicas_old() } else { 0 };
                let want: Vec<_> = old.map(|old| (old, kept)).into_iter().chain([(revision, n)]).collect();
                let cap = kept.saturating_add(n);
                self.fleet.balance(&want, whole_set(cap, kept.max(1)));
                if stage == Stage::Fill {
                    let whole = self.fleet.settled(revision) >= n;
                    let since = self.deployment.step_since.filter(|_| whole);
                    self.deployment.step_since = since.or(whole.then_some(self.now));
                }
                Shares::All(if stage == Stage::Kept { new } else { old.or(new) })
            }
            Stage::Clear | Stage::Watch => {
                self.fleet.balance(
                    &[(revision, n)],
                    Bounds {
                        patient: old,
                        ..whole_set(n.saturating_add(self.fleet.living_others(new)), n)
                    },
                );
                Shares::All(new)
            }
            Stage::Stop => {
                if self.deployment.hold.is_none() {
                    self.fleet.clear(new);
                }
                Shares::Even
            }
            Stage::Start => {
                self.fleet.balance(&[(revision, n)], whole_set(n, n));
                Shares::All(new)
            }
        };
        self.weigh(shares);
    }

    fn weigh(&mut self, shares: Shares) {
        self.fleet.service.weights = weights(&self.fleet, shares);
    }

    /// Passes to the next stage where the one under way is done. False: it isn't.
    fn advance(&mut self) -> bool {
        let n = self.replicas();
        let Some(revision) = self.deployment.revision else {
            return self.scaled();
        };
        let settled = self.fleet.settled(revision);
        let called = self.called(revision);
        let ready = format!("{settled} of {n} replicas of {called} are ready");
        match stage(&self.deployment) {
            Stage::Scale => return self.scaled(),
            Stage::Roll => {
                if settled < n || self.fleet.living_others(Some(revision)) > 0 || self.fleet.drains() {
                    self.note(ready);
                    return false;
                }
                self.next(Some(self.now));
                self.watch_begins(revision);
            }
            Stage::Canary(i) => return self.canary(i, revision),
            Stage::Fill => {
                let Some(since) = self.deployment.step_since else {
                    self.note(ready);
                    return false;
                };
                let plan = self.deployment.plan.blue_green.clone();
                let (check_for, auto) = plan.map_or((Span(0), true), |plan| (plan.check_for, plan.auto_switch));
                let word = self.deployment.promotion.clone();
                let checked = after(since, check_for);
                if checked > self.now && !word.as_ref().is_some_and(|word| word.force) {
                    self.fleet.look(checked);
                    self.note(format!(
                        "all replicas of {called} are ready; they are watched for {check_for}"
                    ));
                    return false;
                }
                if !auto && word.is_none() {
                    self.note(format!(
                        "all replicas of {called} are ready; waits for `deploy promote` to switch"
                    ));
                    return false;
                }
                self.deployment.promotion = None;
                self.next(Some(self.now));
                self.say(format!("all requests go to {called}"));
            }
            Stage::Kept => {
                let kept = self
                    .deployment
                    .plan
                    .blue_green
                    .as_ref()
                    .map_or(Span(0), |plan| plan.keep_old_for);
                let old = self.deployment.from.filter(|from| *from != revision);
                let kept = old.map_or(Span(0), |_| kept);
                if !self.watched(kept.max(observation(&self.deployment.plan)), revision) {
                    return false;
                }
                self.next(None);
            }
            Stage::Clear => {
                if self.fleet.living_others(Some(revision)) > 0 || self.fleet.drains() {
                    self.note("the old replicas go".to_owned());
                    return false;
                }
                self.complete();
            }
            Stage::Stop => {
                if self.fleet.others_exist(Some(revision)) {
                    self.note("the old replicas stop".to_owned());
                    return false;
                }
                self.next(None);
            }
            Stage::Start => {
                if settled < n {
                    self.note(ready);
                    return false;
                }
                self.next(Some(self.now));
                self.watch_begins(revision);
            }
            Stage::Watch => {
                if !self.watched(observation(&self.deployment.plan), revision) {
                    return false;
                }
                self.complete();
            }
        }
        true
    }

    fn next(&mut self, since: Option<Timestamp>) {
        self.deployment.step += 1;
        self.deployment.step_since = since;
        self.deployment.phase = phase(&self.deployment);
    }

    fn watch_begins(&mut self, revision: u32) {
        let time = observation(&self.deployment.plan);
        if !time.is_zero() {
            self.say(format!(
                "all replicas run {}; it is watched for {time}",
                self.called(revision)
            ));
        }
    }

    /// Whether the new revision is there, has been watched for `time`, and was judged at the end of it.
    fn watched(&mut self, time: Span, revision: u32) -> bool {
        let word = self.deployment.promotion.take();
        let end = after(self.deployment.step_since.unwrap_or(self.now), time);
        let late = self.deployment.deadline.is_some_and(|deadline| deadline <= self.now);
        if let Some(why) = self.unsound(revision) {
            self.note(why);
            self.deployment.promotion = word;
            return false;
        }
        if word.is_some() {
            return true;
        }
        if end > self.now {
            self.fleet.look(end);
            self.note(format!("{} is watched until {end}", self.called(revision)));
            return false;
        }
        let begun = self.deployment.step_since.unwrap_or(self.now);
        let judged_at = after(begun, observation(&self.deployment.plan));
        if judge::watched_until(&self.deployment, judged_at) {
            return true;
        }
        if late {
            self.say("its conditions weren't judged at the end, and its time is over".to_owned());
        } else {
            self.note("its conditions are judged a last time".to_owned());
        }
        late
    }

    /// Why the new revision, once whole, isn't fit to be called good: one of its replicas isn't well, or too few are there.
    /// Those that only wait for another place speak for nothing.
    fn unsound(&self, revision: u32) -> Option<String> {
        let ill = self.fleet.of(revision).find_map(|(member, state)| match state {
            State::Unready { why, .. } | State::Failing { why, .. } | State::Ended { why, .. } => {
                Some(format!("{} isn't ready: {why}", member.workload))
            }
            State::Waiting { .. } | State::Starting | State::Ready { .. } => None,
        });
        let settled = self.fleet.settled(revision);
        let least = self
            .replicas()
            .saturating_sub(self.deployment.plan.rolling.max_unavailable)
            .max(1);
        ill.or_else(|| (settled < least).then(|| format!("{settled} of {} replicas are ready", self.replicas())))
    }

    fn canary(&mut self, i: usize, revision: u32) -> bool {
        let called = self.called(revision);
        let step = self.deployment.canary_steps[i].clone();
        if let Some(word) = self.deployment.promotion.take() {
            match word.percentage {
                None => {
                    self.deployment.step = u32::try_from(self.deployment.canary_steps.len()).unwrap_or(u32::MAX);
                    self.roll_on(revision);
                    say(
                        &mut self.deployment,
                        &mut self.said,
                        format!("{called} is promoted"),
                        &word.by,
                        self.now,
                    );
                }
                Some(percentage) => {
                    let replicas = replicas_for(percentage, self.replicas()).max(step.replicas);
                    let old = if self.deployment.from.is_some() {
                        self.replicas_old()
                    } else {
                        0
                    };
                    let effective_percentage = f64::from(replicas) * 100.0 / f64::from(old + replicas);
                    let steps = &mut self.deployment.canary_steps;
                    let later = steps.split_off(i + 1);
                    steps.push(CanaryStep {
                        percentage,
                        replicas,
                        effective_percentage,
                    });
                    steps.extend(later.into_iter().filter(|step| step.percentage > percentage));
                    self.next(None);
                    let message = format!("{called} is promoted to {percentage} %");
                    say(&mut self.deployment, &mut self.said, message, &word.by, self.now);
                }
            }
            return true;
        }
        let settled = self.fleet.settled(revision);
        if settled < step.replicas.max(1) {
            self.note(format!(
                "{settled} of {} replicas of {called} are ready",
                step.replicas.max(1)
            ));
            return false;
        }
        match judge::wait(&self.deployment, self.now) {
            Wait::Nothing => {
                if i + 1 == self.deployment.canary_steps.len() {
                    self.deployment.step += 1;
                    self.roll_on(revision);
                    self.say(format!("{called} was found good, and takes over"));
                } else {
                    self.next(None);
                }
                true
            }
            Wait::Time(end) => {
                self.fleet.look(end);
                self.note(format!(
                    "{called} gets {} % of the requests until {end} at least",
                    step.percentage
                ));
                false
            }
            Wait::Judgement(what) => {
                self.note(format!(
                    "{called} gets {} % of the requests; not promoted yet: {what}",
                    step.percentage
                ));
                false
            }
            Wait::Person(why) => {
                self.note(format!(
                    "{called} gets {} % of the requests; waits for `deploy promote`: {why}",
                    step.percentage
                ));
                false
            }
        }
    }

    /// From a canary to the rest: what is there of it is a batch that is done.
    fn roll_on(&mut self, revision: u32) {
        self.deployment.step_since = None;
        self.deployment.moved = self.fleet.living(revision).min(self.replicas());
        self.deployment.moved_at = None;
        self.deployment.phase = phase(&self.deployment);
    }

    /// Ends a change of the number of replicas where it is done.
    fn scaled(&mut self) -> bool {
        let n = self.replicas();
        let stable = self.fleet.service.stable;
        let settled = stable.map_or(0, |stable| self.fleet.settled(stable));
        let living = stable.map_or(0, |stable| self.fleet.living(stable));
        let fewer = n <= self.deployment.replicas_before;
        let short = settled < n && !fewer;
        if short || living > n || self.fleet.living_others(stable) > 0 || self.fleet.drains() {
            self.note(format!("{settled} of {n} replicas are ready"));
            return false;
        }
        self.complete();
        true
    }

    /// Its time is over. `before`: the fleet before anything was done to go on.
    fn overdue(&mut self, before: Fleet) {
        let n = self.replicas();
        let Some(revision) = self.deployment.revision else {
            self.fleet = before;
            self.give_up_scaling();
            return;
        };
        let settled = self.fleet.settled(revision);
        let wanted = match stage(&self.deployment) {
            Stage::Canary(i) => self.deployment.canary_steps[i].replicas.max(1),
            _ => n,
        };
        match stage(&self.deployment) {
            Stage::Canary(_) | Stage::Fill if settled >= wanted => {
                let why = self.deployment.message.clone().unwrap_or_default();
                self.deployment.hold = Some(Hold {
                    by: ACTOR.to_owned(),
                    why: format!("waits for a person: {why}"),
                    at: self.now,
                });
                self.say(format!("its time is over, so it waits for a person: {why}"));
            }
            Stage::Watch | Stage::Kept if self.unsound(revision).is_none() => {}
            Stage::Clear => {}
            Stage::Roll | Stage::Start if settled >= wanted => {}
            _ => {
                let (code, why) = self.unfit(revision);
                let called = self.called(revision);
                let message = format!(
                    "{called} fails health checks: {settled} of {wanted} replicas are ready, and its time is over"
                );
                let error = ApiError::new(code, message.clone()).cause(why.clone()).hint(format!(
                    "see `clawbernetes deploy status {}`; `--timeout` gives it more time",
                    self.deployment.id
                ));
                self.fleet = before;
                self.go_back(&format!("{message} ({why})"), error);
            }
        }
    }

    /// What keeps replicas of a revision from being ready.
    fn unfit(&self, revision: u32) -> (ErrorCode, String) {
        let of = || self.fleet.of(revision).map(|(_, state)| state);
        let waits = of().find_map(|state| match state {
            State::Waiting { why } => Some((ErrorCode::NoGpusAvailable, why.clone())),
            _ => None,
        });
        let ill = || {
            of().find_map(|state| match state {
                State::Failing { why, code, .. } => Some((code.unwrap_or(ErrorCode::TimedOut), why.clone())),
                State::Unready { why, .. } => Some((ErrorCode::TimedOut, why.clone())),
                State::Starting => Some((ErrorCode::TimedOut, "it is still starting".to_owned())),
                State::Waiting { .. } | State::Ready { .. } | State::Ended { .. } => None,
            })
        };
        waits
            .or_else(ill)
            .unwrap_or_else(|| (ErrorCode::TimedOut, "there was no room for more".to_owned()))
    }

    /// Keeps as many replicas as came up, at least as many as there were.
    fn give_up_scaling(&mut self) {
        let n = self.replicas();
        let stable = self.fleet.service.stable;
        let settled = stable.map_or(0, |stable| self.fleet.settled(stable));
        let (code, why) = stable.map_or((ErrorCode::TimedOut, String::new()), |stable| self.unfit(stable));
        let kept = settled.max(self.deployment.replicas_before).min(n);
        self.fleet.service.replicas = kept;
        self.act();
        self.fleet.drain(false);
        let message = format!("{settled} of {n} replicas came up in time; {kept} are kept");
        self.deployment.error = Some(ApiError::new(code, message.clone()).cause(why));
        self.end(Phase::Failed, message);
    }

    // Back.

    fn back(&mut self) {
        let Course::Back { why, immediate, .. } = self.deployment.course.clone() else {
            return;
        };
        let plan = self.deployment.plan.clone();
        let old = self.deployment.from;
        let new = self.deployment.revision.filter(|new| Some(*new) != old);
        if old.is_some() && self.fleet.service.replicas == plan.replicas.max(1) {
            self.fleet.service.replicas = self.deployment.replicas_before.max(1);
        }
        if let Some(new) = new.and_then(|new| self.fleet.service.revisions.iter_mut().find(|of| of.number == new)) {
            new.standing = Standing::Bad;
        }
        let n = self.replicas();
        let Some(old) = old else {
            self.fleet.clear(None);
            self.fleet.drain(immediate);
            if self.fleet.drains() {
                return;
            }
            self.fleet.service.weights.clear();
            self.end(
                Phase::Failed,
                format!("nothing is left running, and there was nothing to go back to: {why}"),
            );
            return;
        };
        if plan.strategy == Strategy::Immediate && plan.action != Action::Scale {
            self.fleet.clear(Some(old));
            let cap = if self.fleet.others_exist(Some(old)) { 0 } else { n };
            self.fleet.balance(
                &[(old, n)],
                Bounds {
                    cap,
                    whole: n,
                    floor: 0,
                    patient: None,
                },
            );
        } else {
            // All at once. Those of the new revision get no requests once one of the old is ready: they may go to make room.
            let floor = match self.fleet.settled(old) {
                _ if immediate => 0,
                0 => n.saturating_sub(plan.rolling.max_unavailable.max(1)).max(1),
                _ => 1,
            };
            let bounds = Bounds {
                cap: u32::MAX,
                whole: n,
                floor,
                patient: None,
            };
            self.fleet.balance(&[(old, n)], bounds);
        }
        self.fleet.drain(immediate);
        self.weigh(Shares::All(Some(old)));
        let settled = self.fleet.settled(old);
        let called = self.called(old);
        let gone = self.fleet.living_others(Some(old)) == 0 && self.fleet.living(old) == n && !self.fleet.drains();
        if settled >= n && gone {
            let message = match plan.action {
                Action::Scale => format!("back to {n} replicas: {why}"),
                Action::Deploy | Action::Update | Action::Rollback => format!("{called} is back: {why}"),
            };
            self.end(Phase::RolledBack, message);
        } else if self.deployment.deadline.is_some_and(|deadline| deadline <= self.now) {
            let message = format!("{settled} of {n} replicas of {called} are back, and its time is over: {why}");
            let (code, cause) = self.unfit(old);
            let error = ApiError::new(code, message.clone()).cause(cause);
            self.deployment.error = Some(error);
            self.end(Phase::Failed, message);
        } else {
            self.note(format!(
                "goes back to {called}, {settled} of {n} replicas are ready: {why}"
            ));
        }
    }

    // The end.

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
