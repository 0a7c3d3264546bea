//! What keeps a deployment from its end, and what is done then.

use api::{
    ApiError, ErrorCode,
    deploy::{Hold, Phase},
};

use super::{
    super::{
        ACTOR, RESTARTS_MAX, State,
        fleet::Fleet,
        judge::{self, Wait},
    },
    Stage, Turn, stage, turn_back,
};

impl Turn {
    /// Why the new revision can't be good.
    pub(super) fn failure(&self) -> Option<(String, ApiError)> {
        let revision = self.deployment.revision?;
        let called = self.called(revision);
        if let Some(verdict) = judge::breach(&self.deployment) {
            let why = verdict.message.clone();
            let error = ApiError::conflict(format!("{called} was rolled back: {why}"));
            let error = error.hint(self.hint(ErrorCode::Conflict));
            return Some((why, error));
        }
        let failed = |code: Option<ErrorCode>, message: String| {
            let code = code.unwrap_or(ErrorCode::Conflict);
            let error = ApiError::new(code, message.clone()).hint(self.hint(code));
            Some((message, error))
        };
        let fail = |code: Option<ErrorCode>, what: String, why: &str| {
            let (message, error) = failed(code, format!("{called} fails health checks: {what}"))?;
            Some((message, error.cause(why)))
        };
        let lost = || self.fleet.lost.iter().filter(|loss| loss.revision == revision);
        if let Some(loss) = lost().find(|loss| loss.hopeless) {
            return failed(loss.code, format!("{called} can't be started: {}", loss.why));
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
            State::Failing {
                why,
                code: code @ Some(ErrorCode::ImageNotFound),
                restarts,
            } if *restarts >= RESTARTS_MAX => failed(
                *code,
                format!("{called} can't be started, tried {restarts} times: {why}"),
            ),
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

    /// What helps.
    fn hint(&self, code: ErrorCode) -> String {
        let id = &self.deployment.id;
        match code {
            ErrorCode::ImageNotFound => format!(
                "see that the image is there and that the nodes reach its registry, then: `clawbernetes deploy retry {id}`"
            ),
            _ => format!("see `clawbernetes deploy status {id}`"),
        }
    }

    /// Turns round by itself.
    pub(super) fn go_back(&mut self, why: &str, error: ApiError) {
        self.deployment.error = Some(error);
        turn_back(&mut self.deployment, why, ACTOR, false, self.now);
        let message = match self.deployment.from.map(|from| self.called(from)) {
            Some(from) => format!("goes back to {from}: {why}"),
            None => format!("is given up, and there is nothing to go back to: {why}"),
        };
        self.say(message);
    }

    /// Its time is over. `before`: the fleet before anything was done to go on.
    pub(super) fn overdue(&mut self, before: Fleet) {
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
        let deadline = self.deployment.deadline.unwrap_or(self.now);
        match stage(&self.deployment) {
            Stage::Canary(_)
                if settled >= wanted
                    && matches!(judge::wait(&self.deployment, self.now), Wait::Soon(_))
                    && self.soon(deadline) => {}
            Stage::Canary(_) | Stage::Fill if settled >= wanted => {
                self.ask(&self.deployment.message.clone().unwrap_or_default());
            }
            Stage::Watch | Stage::Kept if self.unsound(revision).is_none() => {
                if let Some(why) = self.untold(deadline) {
                    let called = self.called(revision);
                    self.ask(&format!("whether {called} is good can't be told: {why}"));
                }
            }
            Stage::Clear => {}
            Stage::Roll | Stage::Start if settled >= wanted => {}
            _ => {
                let (code, why) = self.unfit(revision);
                let called = self.called(revision);
                let message = format!(
                    "{called} fails health checks: {settled} of {wanted} replicas are ready, and its time is over"
                );
                let hint = format!("{}; `--timeout` gives it more time", self.hint(code));
                let error = ApiError::new(code, message.clone()).cause(why.clone()).hint(hint);
                self.fleet = before;
                self.go_back(&format!("{message} ({why})"), error);
            }
        }
    }

    /// Has it wait for a person.
    fn ask(&mut self, why: &str) {
        self.deployment.hold = Some(Hold {
            by: ACTOR.to_owned(),
            why: format!("waits for a person: {why}"),
            at: self.now,
        });
        self.say(format!("its time is over, so it waits for a person: {why}"));
    }

    /// What keeps replicas of a revision from being ready.
    pub(super) fn unfit(&self, revision: u32) -> (ErrorCode, String) {
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
        waits.or_else(ill).unwrap_or_else(|| {
            (
                ErrorCode::TimedOut,
                "those that came are ready, and the others had no turn yet".to_owned(),
            )
        })
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
        self.fleet.drain(self.deployment.immediate);
        let message = format!("{settled} of {n} replicas came up in time; {kept} are kept");
        self.deployment.error = Some(ApiError::new(code, message.clone()).cause(why));
        self.end(Phase::Failed, message);
    }
}
