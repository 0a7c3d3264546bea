//! What a stage wants: how many replicas of each revision, and their shares of the requests.

use api::{deploy::Action, time::after};

use super::{
    super::{
        fleet::Bounds,
        weigh::{Shares, weights},
    },
    Stage, Turn, stage,
};

impl Turn {
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
    pub(super) fn act(&mut self) {
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
                    (Action::Rollback, _) if self.deployment.immediate => Shares::All(new),
                    (Action::Rollback, _) => Shares::Towards(revision, old, self.enough()),
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

    /// Replicas that can bear all requests: those that a rolling replacement leaves ready at least.
    pub(super) fn enough(&self) -> u32 {
        let n = self.replicas();
        n.saturating_sub(self.deployment.plan.rolling.max_unavailable).max(1)
    }

    pub(super) fn weigh(&mut self, shares: Shares) {
        self.fleet.service.weights = weights(&self.fleet, shares);
    }
}
