//! From stage to stage.

use api::{Span, Timestamp, deploy::CanaryStep, time::after};

use super::{
    super::{
        State, VERDICT_FRESH,
        judge::{self, Doubt, Wait, observation},
    },
    Stage, Turn, phase, replicas_for, say, stage,
};

impl Turn {
    /// Wants what the stage under way needs, and passes on as long as stages are done.
    pub(super) fn forward(&mut self) {
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
                if !self.watched(revision) {
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
                if !self.watched(revision) {
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

    /// Whether the new revision is there, has been watched for its time, and was found good at the end of it; or somebody
    /// says that it is.
    fn watched(&mut self, revision: u32) -> bool {
        let word = self.deployment.promotion.take();
        let end = after(self.deployment.step_since.unwrap_or(self.now), self.watch_time());
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
            self.note(format!("{} is watched until {end:.0}", self.called(revision)));
            return false;
        }
        match self.doubt() {
            None => true,
            Some(Doubt::Unjudged(_)) => {
                self.note("its conditions are judged a last time".to_owned());
                false
            }
            Some(Doubt::Judged(what)) => {
                self.note(format!("{} isn't called good yet: {what}", self.called(revision)));
                false
            }
        }
    }

    /// Why the new revision, once it was watched, isn't known to be good. `None`: it is.
    fn doubt(&self) -> Option<Doubt> {
        let since = self.deployment.step_since.unwrap_or(self.now);
        let end = after(since, observation(&self.deployment.plan));
        judge::unproven(&self.deployment, since, end, self.now)
    }

    /// Past its deadline: why a person has to say whether the new revision is good. `None`: it is still watched, or judged
    /// within a moment.
    pub(super) fn untold(&mut self, deadline: Timestamp) -> Option<String> {
        let since = self.deployment.step_since?;
        let end = after(since, self.watch_time());
        if end > self.now {
            return None;
        }
        match self.doubt()? {
            Doubt::Judged(what) => Some(what),
            Doubt::Unjudged(what) => (!self.soon(end.max(deadline))).then_some(what),
        }
    }

    /// Whether a judgement that was to be there at `end` may still come: shortly after that. Whoever comes much later was
    /// away, and waits as long once more.
    pub(super) fn soon(&mut self, end: Timestamp) -> bool {
        let mut until = after(end, VERDICT_FRESH);
        if after(until, VERDICT_FRESH) <= self.now {
            self.deployment.deadline = Some(self.now);
            until = after(self.now, VERDICT_FRESH);
        }
        self.fleet.look(until);
        until > self.now
    }

    /// How long the new revision is watched once all requests go to it: as long as its conditions say, and while an old set
    /// is kept.
    fn watch_time(&self) -> Span {
        let plan = &self.deployment.plan;
        let old = self
            .deployment
            .from
            .filter(|from| Some(*from) != self.deployment.revision);
        let kept = plan
            .blue_green
            .as_ref()
            .filter(|_| old.is_some() && stage(&self.deployment) == Stage::Kept);
        observation(plan).max(kept.map_or(Span(0), |plan| plan.keep_old_for))
    }

    /// Why the new revision, once whole, isn't fit to be called good: one of its replicas isn't well, or too few are there.
    /// Those that only wait for another place speak for nothing.
    pub(super) fn unsound(&self, revision: u32) -> Option<String> {
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
        let few = || {
            let waits = self.fleet.of(revision).find_map(|(_, state)| match state {
                State::Waiting { why } => Some(format!(": {why}")),
                _ => None,
            });
            format!(
                "{settled} of {} replicas are ready{}",
                self.replicas(),
                waits.unwrap_or_default()
            )
        };
        ill.or_else(|| (settled < least).then(few))
    }

    fn canary(&mut self, i: usize, revision: u32) -> bool {
        let called = self.called(revision);
        let step = self.deployment.canary_steps[i].clone();
        if let Some(word) = self.deployment.promotion.take() {
            match word.percentage {
                None => {
                    self.deployment.vouched = word.force.then(|| word.by.clone());
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
                    "{called} gets {} % of the requests until {end:.0} at least",
                    step.percentage
                ));
                false
            }
            Wait::Soon(what) | Wait::Judgement(what) => {
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
}
