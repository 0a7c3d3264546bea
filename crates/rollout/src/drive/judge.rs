//! Which conditions are to be judged, and what verdicts mean for the deployment.

use api::{
    Span, Timestamp,
    deploy::{Condition, Course, Deployment, Outcome, Phase, Plan, Purpose, Signal, Strategy, VERDICTS_MAX, Verdict},
    time::{after, before, between},
};

use super::{
    OBSERVE_LEAST, Seen, State, VERDICT_FRESH,
    turn::{self, Stage},
};
use crate::analysis;

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

/// Whether the new revision was brought back because it fails often, whatever its bound was.
pub(super) fn fails_often(deployment: &Deployment) -> bool {
    deployment
        .verdicts
        .iter()
        .filter(|verdict| is_breach(verdict))
        .any(|verdict| {
            let sample = &verdict.evidence.subject;
            let failed = sample
                .failed
                .filter(|_| verdict.evidence.condition.metric == Signal::ErrorRate);
            failed.is_some_and(|failed| analysis::fails_often(failed, sample.count))
        })
}

/// What a canary's step waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wait {
    /// It may go on.
    Nothing,
    /// Its time; it ends then.
    Time(Timestamp),
    /// A judgement that comes soon: what there is so far.
    Soon(String),
    /// A better judgement: what the present one says.
    Judgement(String),
    /// A person, always.
    Person(&'static str),
}

/// What keeps a canary's step from being promoted by itself.
pub(super) fn wait(deployment: &Deployment, now: Timestamp) -> Wait {
    let (Some(since), Some(canary)) = (deployment.step_since, &deployment.plan.canary) else {
        return Wait::Soon("its replicas have yet to become ready".to_owned());
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
    match unproven(deployment, since, end, now) {
        Some(Doubt::Unjudged(what)) => Wait::Soon(what),
        Some(Doubt::Judged(what)) => Wait::Judgement(what),
        None => Wait::Nothing,
    }
}

/// Why what a stage shows isn't known to be good.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Doubt {
    /// It has yet to be judged, and will be soon.
    Unjudged(String),
    /// A condition was judged, and didn't pass: why.
    Judged(String),
}

/// Why a stage that began at `since` can't go on by itself at `now`: only where each condition passed on what there was until
/// `end` at least, those for going back too, it is known to be good. What couldn't be told is no pass.
pub(super) fn unproven(deployment: &Deployment, since: Timestamp, end: Timestamp, now: Timestamp) -> Option<Doubt> {
    conditions(deployment).find_map(|(condition, purpose)| {
        let unjudged = |what: &str| Some(Doubt::Unjudged(what.to_owned()));
        match of_stage(deployment, condition, purpose, since) {
            Some(verdict) if verdict.evidence.to < end => unjudged("it hasn't been judged to its end yet"),
            Some(verdict) if between(verdict.evidence.to, now) > VERDICT_FRESH => {
                unjudged("the latest judgement is too old")
            }
            Some(verdict) if verdict.outcome == Outcome::Pass => None,
            Some(verdict) => Some(Doubt::Judged(verdict.message.clone())),
            None => unjudged(UNJUDGED),
        }
    })
}

const UNJUDGED: &str = "this step hasn't been judged yet";

/// The conditions that count in the stage under way: those for going back, unless somebody vouched for what can't be told;
/// in a canary those for going on as well, first.
fn conditions(deployment: &Deployment) -> impl Iterator<Item = (&Condition, Purpose)> {
    let plan = &deployment.plan;
    let canary = plan.canary.as_ref().filter(|_| turn::in_canary(deployment));
    let on = canary.into_iter().flat_map(|canary| &canary.promote_conditions);
    let back = plan.rollback_conditions.iter().filter(|_| deployment.vouched.is_none());
    on.map(|condition| (condition, Purpose::Promote))
        .chain(back.map(|condition| (condition, Purpose::Rollback)))
}

/// The latest verdict on a condition, if it speaks of the stage that began at `since`. One for going back may look back as far
/// as its window says.
fn of_stage<'a>(
    deployment: &'a Deployment,
    condition: &Condition,
    purpose: Purpose,
    since: Timestamp,
) -> Option<&'a Verdict> {
    let looks_back = purpose == Purpose::Rollback && condition.window.is_some();
    latest(deployment, condition, purpose)
        .filter(|verdict| verdict.evidence.to >= since && (looks_back || verdict.evidence.from >= since))
}

/// What speaks against going on by a person's word: a condition that is breached, or, where a canary or a revision that is
/// watched is judged, one that doesn't pass.
pub(super) fn objection(deployment: &Deployment) -> Option<String> {
    if let Some(verdict) = breach(deployment) {
        return Some(verdict.message.clone());
    }
    match turn::stage(deployment) {
        Stage::Canary(_) | Stage::Kept | Stage::Watch => {}
        // What gets no requests yet can't be judged.
        Stage::Fill | Stage::Scale | Stage::Roll | Stage::Clear | Stage::Stop | Stage::Start => return None,
    }
    let mut conditions = conditions(deployment);
    conditions.find_map(|(condition, purpose)| {
        let verdict = deployment
            .step_since
            .and_then(|since| of_stage(deployment, condition, purpose, since));
        match verdict {
            Some(verdict) if verdict.outcome == Outcome::Pass => None,
            Some(verdict) => Some(verdict.message.clone()),
            None => Some(UNJUDGED.to_owned()),
        }
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
