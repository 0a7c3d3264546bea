//! What changes as a deployment goes on, on lines of their own.

use api::{
    Timestamp,
    deploy::{Moment, Outcome, Purpose, Verdict},
    op::{DeploymentStatus, RevisionReplicas},
};

use super::{
    super::cells::{clock, span_of},
    status::{outcome, share},
    words::revision,
};

/// What is new since the last time, as lines with the time before each.
pub(crate) fn changes(before: Option<&DeploymentStatus>, after: &DeploymentStatus, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for moment in new_moments(before, after) {
        lines.push(format!(
            "{}  {:<11}  {}  ({})",
            clock(moment.at),
            moment.phase,
            moment.message,
            moment.actor
        ));
    }
    for verdict in &after.verdicts {
        if before.and_then(|before| found(before, verdict)) != Some(verdict.outcome) {
            lines.push(format!(
                "{}  {:<11}  {} {}, {}",
                clock(verdict.at),
                "analysis",
                purpose(verdict),
                outcome(verdict.outcome),
                verdict.message
            ));
        }
    }
    let told = standing(after);
    if !told.is_empty() && before.map(standing).as_ref() != Some(&told) {
        lines.push(format!("{}  {:<11}  {told}", clock(now), after.summary.phase));
    }
    lines
}

/// The moments that weren't there the last time. Old ones may have been dropped since.
fn new_moments<'a>(before: Option<&DeploymentStatus>, after: &'a DeploymentStatus) -> &'a [Moment] {
    let last = before.and_then(|before| before.timeline.last());
    let known = last.and_then(|last| after.timeline.iter().rposition(|moment| moment == last));
    match known {
        Some(position) => &after.timeline[position + 1..],
        None => &after.timeline,
    }
}

/// What the same condition came to the last time.
fn found(before: &DeploymentStatus, verdict: &Verdict) -> Option<Outcome> {
    let same = |other: &&Verdict| {
        other.evidence.condition == verdict.evidence.condition && other.evidence.purpose == verdict.evidence.purpose
    };
    before.verdicts.iter().rfind(same).map(|other| other.outcome)
}

/// What a verdict is for. Its message names the condition.
fn purpose(verdict: &Verdict) -> &'static str {
    match verdict.evidence.purpose {
        Purpose::Promote => "to go on:",
        Purpose::Rollback => "to go back:",
    }
}

/// Replicas, shares of the requests, step: all of a standing that is worth a line when it changes.
fn standing(status: &DeploymentStatus) -> String {
    let revision = |one: &RevisionReplicas| {
        let name = revision(one.version.as_deref(), Some(one.revision)).unwrap_or_default();
        match one.traffic_percent {
            Some(_) => format!(
                "{name} {}/{} ready, {} of the requests",
                one.ready,
                one.total,
                share(one.traffic_percent)
            ),
            None => format!("{name} {}/{} ready", one.ready, one.total),
        }
    };
    let mut parts: Vec<String> = status.revisions.iter().map(revision).collect();
    // A job runs or has ended: its phase says it.
    if let (true, false, Some(ready)) = (parts.is_empty(), status.plan.batch, status.summary.ready) {
        parts.push(format!("{ready}/{} ready", status.summary.replicas));
    }
    if let Some(step) = &status.step {
        parts.push(format!("step {} of {}: {}", step.number, step.of, step.what));
    }
    if let Some(waits) = &status.waits_for {
        parts.push(format!("waits for: {waits}"));
    }
    parts.join("; ")
}

/// Where a deployment stands, on one line.
pub(crate) fn sentence(status: &DeploymentStatus) -> String {
    let summary = &status.summary;
    let mut text = format!("{} ({}) {}", summary.id, summary.workload, summary.phase);
    let told = standing(status);
    if !told.is_empty() {
        text.push_str(&format!(": {told}"));
    }
    if let Some(left) = status.remaining {
        text.push_str(&format!("; about {} left", span_of(left)));
    }
    text
}
