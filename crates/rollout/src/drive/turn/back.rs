//! The way back.

use api::{
    ApiError,
    deploy::{Action, Course, Phase, Standing, Strategy},
};

use super::{
    super::{ACTOR, fleet::Bounds, judge, weigh::Shares},
    Turn,
};

impl Turn {
    /// Wants the old set whole and nothing else; without one, nothing at all.
    pub(super) fn back(&mut self) {
        let Course::Back { why, by, immediate } = self.deployment.course.clone() else {
            return;
        };
        let plan = self.deployment.plan.clone();
        let old = self.deployment.from;
        let new = self.deployment.revision.filter(|new| Some(*new) != old);
        if old.is_some() && self.fleet.service.replicas == plan.replicas.max(1) {
            self.fleet.service.replicas = self.deployment.replicas_before.max(1);
        }
        if let Some(new) = new.and_then(|new| self.fleet.service.revisions.iter_mut().find(|of| of.number == new)) {
            // One that was good, and that somebody doesn't want back after all, is none the worse for it.
            if by == ACTOR || new.standing == Standing::New {
                new.standing = Standing::Bad;
            }
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
        // What fails often is worse than what is slow for want of replicas.
        let hasty = immediate || judge::fails_often(&self.deployment);
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
            // All at once. Those of the new revision go to make room, as far as what is left can bear the requests; in haste all
            // but the last that is ready.
            let floor = match self.fleet.settled(old) {
                1.. if hasty => 1,
                _ => n.saturating_sub(plan.rolling.max_unavailable.max(1)).max(1),
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
        self.weigh(if hasty {
            Shares::All(Some(old))
        } else {
            Shares::Towards(old, new, self.enough())
        });
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
}
