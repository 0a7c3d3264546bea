//! A clock that was set back. What was to happen at a time would wait until it comes once more, and what is measured since
//! then would have been measured since a time to come: so the times of record are set back as well, by as much as is known:
//! the last of them is now.

use api::{
    Span, Timestamp,
    deploy::{Deployment, Outcome, Purpose, Service, Verdict},
    time::{before, between},
};

use super::SETBACK_MOST;

/// Less than this isn't worth it: it passes.
const LEAST: Span = Span::secs(1);

fn behind(moments: impl Iterator<Item = Option<Timestamp>>, now: Timestamp) -> Option<Span> {
    let latest = moments.flatten().max()?;
    Some(between(now, latest)).filter(|by| *by > LEAST)
}

/// A breach counts whenever it was found.
fn stays(verdict: &Verdict) -> bool {
    verdict.evidence.purpose == Purpose::Rollback && verdict.outcome == Outcome::Fail
}

/// Sets a deployment's times back where they have yet to come, and says by how much. Its verdicts are of other times: they
/// are asked for anew.
pub(super) fn deployment(of: &mut Deployment, now: Timestamp) -> Option<Span> {
    let verdicts = of.verdicts.iter().filter(|verdict| !stays(verdict));
    let moments = [
        of.started_at,
        of.step_since,
        of.moved_at,
        of.hold.as_ref().map(|hold| hold.at),
        verdicts.map(|verdict| verdict.evidence.to).max(),
    ];
    let by = behind(moments.into_iter(), now)?;
    let hold = of.hold.as_mut().map(|hold| &mut hold.at);
    let times = [
        &mut of.started_at,
        &mut of.step_since,
        &mut of.moved_at,
        &mut of.deadline,
    ];
    for time in times.into_iter().filter_map(Option::as_mut).chain(hold) {
        *time = before(*time, by);
    }
    of.verdicts.retain(stays);
    Some(by)
}

/// Sets a service's times back where they have yet to come.
pub(super) fn service(of: &mut Service, now: Timestamp) {
    let members = of.members.iter();
    let members = members.flat_map(|member| [Some(member.since), member.retiring, member.stopped]);
    let setbacks = of
        .setbacks
        .values()
        .map(|setback| Some(before(setback.until, SETBACK_MOST)));
    let Some(by) = behind(members.chain(setbacks), now) else {
        return;
    };
    for member in &mut of.members {
        member.since = before(member.since, by);
        for time in [&mut member.retiring, &mut member.stopped].into_iter().flatten() {
            *time = before(*time, by);
        }
    }
    for setback in of.setbacks.values_mut() {
        setback.until = before(setback.until, by);
    }
}
