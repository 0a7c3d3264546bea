//! Which conditions are to be judged, and what verdicts mean for the deployment.

use api::{
    Span, Timestamp,
    deploy::{Condition, Course, Deployment, Outcome, Phase, Plan, Purpose, Strategy, VERDICTS_MAX, Verdict},
    time::{after, before, between},
};

use super::{OBSERVE_LEAST, Seen, State, VERDICT_FRESH, turn};

/// Longest window of a condition that names none.
const WINDOW_MOST: Span = Span::secs(3600);

/// A condition that is to be judged now. [`Seen::verdicts`] takes the answer, whenever it comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The condition.
    pub condition: Condition,
    /// What it is for.
    pub purpose: Purpose,
    /// From when.
    pub from: Timestamp,
    /// Until when: now.
    pub to: Timestamp,
    /// The new revision.
    pub subject: u32,
    /// The revision to compare it with. `None`: there is none, or none of its replicas is ready.
    pub baseline: Option<u32>,
}

/// How long a revision that was rolled out whole is watched before it is called good: the longest window of the conditions
/// that bring the old one back, at least [`OBSERVE_LEAST`]; 0 without such conditions.
#[must_use]
pub fn observation(plan: &Plan) -> Span {
    let windows = plan
        .rollback_conditions
        .iter()
        .map(|condition| condition.window.unwrap_or(OBSERVE_LEAST));
    windows.max().map_or(Span(0), |longest| longest.max(OBSERVE_LEAST))
}

/// What is to be judged now: those conditions that bring the old revision back as soon as any replica of the new one was
/// ready, and as long as the deployment lasts; those for going on as long as a canary's step lasts.
#[must_use]
pub fn questions(seen: &Seen<'_>) -> Vec<Question> {
    let deployment = seen.deployment;
    let (Some(subject), Course::Forward) = (deployment.revision, &deployment.course) else {
        return Vec::new();
    };
    if deployment.phase.ended() || deployment.phase == Phase::Pending {
        return Vec::new();
    }
    let plan = &deployment.plan;
    let ready = |revision: u32| {
        let member = |of: &api::WorkloadId| seen.service.members.iter().find(|member| member.workload == *of);
        let mut ready = seen.replicas.iter().filter_map(|replica| match replica.state {
            State::Ready { since } if member(&replica.workload)?.revision == revision => Some(since),
            _ => None,
        });
        ready.by_ref().next().map(|first| ready.fold(first, Timestamp::min))
    };
    let begun = deployment.started_at.unwrap_or(seen.now);
    // An earlier deployment may have had this revision: only what happened in this one counts.
    let exposed = ready(subject).map(|since| since.max(begun));
    let baseline = deployment
        .from
        .filter(|from| *from != subject && ready(*from).is_some());
    let window = |condition: &Condition, since: Timestamp| {
        let window = condition.window.unwrap_or(WINDOW_MOST);
        since.max(before(seen.now, window))
    };
    let mut questions = Vec::new();
    let mut ask = |condition: &Condition, purpose: Purpose, since: Timestamp| {
        let from = window(condition, since);
        if from < seen.now {
            questions.push(Question {
                condition: condition.clone(),
                purpose,
                from,
                to: seen.now,
                subject,
                baseline,
            });
        }
    };
    // The step's own time where it names no window, as all windows do that have none.
    if exposed.is_some() || deployment.step_since.is_some() || deployment.step > 0 {
        for condition in &plan.rollback_conditions {
            let since = match condition.window {
                Some(_) => begun,
                None => deployment.step_since.or(exposed).unwrap_or(begun),
            };
            ask(condition, Purpose::Rollback, since);
        }
    }
    if let (Some(since), true) = (deployment.step_since, turn::in_canary(deployment))
        && let Some(canary) = &plan.canary
    {
        for condition in &canary.promote_conditions {
            ask(condition, Purpose::Promote, since);
        }
    }
    questions
}

/// Takes verdicts into the record: the latest of each condition, and what earlier steps of a canary were promoted on. Those
/// of another deployment's time are left out.
pub(super) fn take(deployment: &mut Deployment, verdicts: &[Verdict]) {
    let Some(begun) = deployment.started_at else {
        return;
    };
    for verdict in verdicts {
        let same = |other: &Verdict| {
            other.evidence.condition == verdict.evidence.condition && other.evidence.purpose == verdict.evidence.purpose
        };
        let known = is_asked(&deployment.plan, verdict);
        // A breach counts however late it is told of, and whatever is found later.
        let newer =
            |other: &Verdict| is_breach(other) || other.evidence.to >= verdict.evidence.to && !is_breach(verdict);
        let older = deployment.verdicts.iter().any(|other| same(other) && newer(other));
        if !known || older || verdict.evidence.from < begun {
            continue;
        }
        // What an earlier step was promoted on stays on record.
        let decided = |other: &Verdict| {
            other.evidence.purpose == Purpose::Promote
                && deployment.step_since.is_none_or(|since| other.evidence.from < since)
        };
        deployment.verdicts.retain(|other| !same(other) || decided(other));
        deployment.verdicts.push(verdict.clone());
    }
    let surplus = deployment.verdicts.len().saturating_sub(VERDICTS_MAX);
    deployment.verdicts.drain(..surplus);
}

fn is_asked(plan: &Plan, verdict: &Verdict) -> bool {
    let condition = &verdict.evidence.condition;
    match verdict.evidence.purpose {
        Purpose::Rollback => plan.rollback_conditions.contains(condition),
        Purpose::Promote => plan
            .canary
            .as_ref()
            .is_some_and(|canary| canary.promote_conditions.contains(condition)),
    }
}

/// The latest verdict on a condition.
fn latest<'a>(deployment: &'a Deployment, condition: &Condition, purpose: Purpose) -> Option<&'a Verdict> {
    let mut verdicts = deployment.verdicts.iter().rev();
    verdicts.find(|verdict| verdict.evidence.condition == *condition && verdict.evidence.purpose == purpose)
}

fn is_breach(verdict: &Verdict) -> bool {
    verdict.evidence.purpose == Purpose::Rollback && verdict.outcome == Outcome::Fail
}

/// The verdict that brings the old revision back.
pub(super) fn breach(deployment: &Deployment) -> Option<&Verdict> {
    deployment.verdicts.iter().find(|verdict| is_breach(verdict))
}

/// What a canary's step waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wait {
    /// It may go on.
    Nothing,
    /// Its time; it ends then.
    Time(Timestamp),
    /// A judgement: what is known of it so far.
    Judgement(String),
    /// A person, always.
    Person(&'static str),
}

/// What keeps a canary's step from being promoted by itself.
pub(super) fn wait(deployment: &Deployment, now: Timestamp) -> Wait {
    let (Some(since), Some(canary)) = (deployment.step_since, &deployment.plan.canary) else {
        return Wait::Judgement("its replicas to become ready".to_owned());
    };
    if !canary.auto_promote {
        return Wait::Person("the plan asks for it");
    }
    if canary.promote_conditions.is_empty() && canary.promote_after.is_none() {
        return Wait::Person("the plan names neither a time nor a condition to go on by");
    }
    let end = after(since, canary.promote_after.unwrap_or_default());
    if now < end {
        return Wait::Time(end);
    }
    for condition in &canary.promote_conditions {
        match latest(deployment, condition, Purpose::Promote) {
            Some(verdict) if verdict.evidence.from < since || verdict.evidence.to < end => {
                return Wait::Judgement("this step hasn't been judged yet".to_owned());
            }
            Some(verdict) if between(verdict.evidence.to, now) > VERDICT_FRESH => {
                return Wait::Judgement("the latest judgement is too old".to_owned());
            }
            Some(verdict) if verdict.outcome == Outcome::Pass => {}
            Some(verdict) => return Wait::Judgement(verdict.message.clone()),
            None => return Wait::Judgement("this step hasn't been judged yet".to_owned()),
        }
    }
    Wait::Nothing
}

/// What speaks against going on by a person's word: a condition for going on that doesn't pass, or one for going back that is
/// breached.
pub(super) fn objection(deployment: &Deployment) -> Option<String> {
    if let Some(verdict) = breach(deployment) {
        return Some(verdict.message.clone());
    }
    if !turn::in_canary(deployment) {
        return None;
    }
    let canary = deployment.plan.canary.as_ref()?;
    let since = deployment.step_since;
    canary
        .promote_conditions
        .iter()
        .find_map(|condition| match latest(deployment, condition, Purpose::Promote) {
            Some(verdict) if since.is_none_or(|since| verdict.evidence.from < since) => {
                Some("this step hasn't been judged yet".to_owned())
            }
            Some(verdict) if verdict.outcome == Outcome::Pass => None,
            Some(verdict) => Some(verdict.message.clone()),
            None => Some("this step hasn't been judged yet".to_owned()),
        })
}

/// Whether the conditions that bring the old revision back were looked at once more at `end` or later.
pub(super) fn watched_until(deployment: &Deployment, end: Timestamp) -> bool {
    let mut conditions = deployment.plan.rollback_conditions.iter();
    conditions.all(|condition| {
        latest(deployment, condition, Purpose::Rollback).is_some_and(|verdict| verdict.evidence.to >= end)
    })
}

/// The waits of a canary's steps that the plan asks for itself.
pub(super) fn planned_waits(plan: &Plan) -> u64 {
    match (&plan.canary, plan.strategy) {
        (Some(canary), Strategy::Canary) if canary.auto_promote => canary
            .promote_after
            .map_or(0, Span::millis)
            .saturating_mul(canary.steps.len() as u64),
        _ => 0,
    }
}
