//! How a deployment stands.

use api::{
    Span, Timestamp,
    deploy::{self, Action, Evidence, Moment, Outcome, Purpose, Verdict},
    op::{DeploymentStatus, DeploymentSummary, ReplicaView, RevisionReplicas, StepView},
    time,
};

use super::{
    super::{
        Grid, Page, Render,
        cells::{ago, clock, dash, moment, or_dash, span_of},
    },
    words::{autoscale, measured, percent, replicas, revision, scheduled},
};

/// Moments that a live view shows: the latest.
const MOMENTS_LIVE: usize = 6;

impl Render for DeploymentStatus {
    fn render(&self, page: &mut Page) {
        head(self, page);
        checks(page, &self.checks);
        verdicts(page, &self.verdicts);
        timeline(page, &self.timeline);
        if !self.plan.warnings.is_empty() {
            page.line("");
        }
        for warning in &self.plan.warnings {
            page.line(format!("warning: {warning}"));
        }
    }

    fn names(&self) -> Vec<String> {
        vec![self.summary.id.to_string()]
    }
}

/// A deployment as a live view shows it: times told from now, what is long ago left out, and what may be cut at the end.
pub(crate) struct Ongoing<'a> {
    /// As the gateway told it last.
    pub(crate) status: &'a DeploymentStatus,
    /// How long ago that was.
    pub(crate) age: Span,
}

impl Ongoing<'_> {
    /// Draws it.
    pub(crate) fn render(&self, page: &mut Page) {
        let mut status = self.status.clone();
        // An estimate that has run out says nothing any more.
        let left = status
            .remaining
            .map(|left| left.millis().saturating_sub(self.age.millis()));
        status.remaining = left.filter(|left| *left > 0).map(Span);
        head(&status, page);
        verdicts(page, &status.verdicts);
        let skipped = status.timeline.len().saturating_sub(MOMENTS_LIVE);
        timeline(page, &status.timeline[skipped..]);
        checks(page, &status.checks);
    }
}

/// What it is about, what went wrong, and how far it is.
fn head(status: &DeploymentStatus, page: &mut Page) {
    page.fields(about(status, page.now()));
    if let Some(error) = &status.error {
        page.line("");
        page.line(crate::failure::render(error, false).trim_end());
    }
    revisions(page, &status.revisions);
}

fn timeline(page: &mut Page, moments: &[Moment]) {
    if moments.is_empty() {
        return;
    }
    page.heading("TIMELINE");
    let mut grid = Grid::new(["TIME", "AGO", "PHASE", "BY", "MESSAGE"]).lesser(["AGO"]);
    for moment in moments {
        grid.row([
            clock(moment.at),
            time::relative(moment.at, page.now()),
            moment.phase.name().to_owned(),
            moment.actor.clone(),
            moment.message.clone(),
        ]);
    }
    page.grid(&grid);
}

/// What it brings in the place of what.
fn brings(summary: &DeploymentSummary) -> String {
    if summary.action == Action::Scale {
        return format!("scale to {}", replicas(summary.replicas));
    }
    let to = revision(summary.version.as_deref(), summary.revision);
    let named = match (&summary.version, summary.revision) {
        (Some(_), Some(number)) => format!(" (revision {number})"),
        _ => String::new(),
    };
    let from = summary
        .from
        .filter(|from| Some(*from) != summary.revision)
        .map(|from| format!(", in place of revision {from}"))
        .unwrap_or_default();
    match to {
        Some(to) => format!("{}: {to}{named}{from}", summary.action.name()),
        None => summary.action.name().to_owned(),
    }
}

fn about(status: &DeploymentStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let DeploymentStatus { summary, plan, .. } = status;
    let target = if plan.batch { "Batch job" } else { "Service" };
    let mut fields = vec![
        ("Id", summary.id.to_string()),
        (target, format!("{}/{}", summary.namespace, summary.workload)),
        ("Asked for", format!("\"{}\"", status.intent)),
    ];
    if let Some(model) = &status.read_by {
        fields.push(("Read by", format!("the model {model}")));
    }
    fields.push(("By", format!("{}, {}", summary.by, moment(summary.created_at, now))));
    if let Some(reason) = &summary.reason {
        fields.push(("Reason", reason.clone()));
    }
    fields.push(("Action", brings(summary)));
    if let Some(bounds) = &plan.autoscale {
        fields.push(("Autoscaling", autoscale(bounds)));
    }
    if let Some(strategy) = summary.strategy {
        fields.push(("Strategy", strategy.name().to_owned()));
    }
    fields.push(("Phase", summary.phase.name().to_owned()));
    if let Some(message) = status
        .message
        .as_ref()
        .filter(|said| status.waits_for.as_ref() != Some(said))
    {
        fields.push(("Message", message.clone()));
    }
    if let Some(step) = &status.step {
        fields.push(("Step", stepped(step, now)));
    }
    // When it begins is told below.
    let waits_for_its_time = summary.started_at.is_none() && plan.schedule.is_some() && !summary.phase.ended();
    if let Some(waits) = status.waits_for.as_ref().filter(|_| !waits_for_its_time) {
        fields.push(("Waits for", waits.clone()));
    }
    if let (false, Some(ready)) = (plan.batch, summary.ready) {
        fields.push(("Ready", format!("{ready} of {}", replicas(summary.replicas))));
    }
    match (summary.started_at, &plan.schedule) {
        (None, Some(schedule)) if waits_for_its_time => fields.push(("Begins", scheduled(schedule, now))),
        _ => fields.push(("Began", ago(summary.started_at, now))),
    }
    if summary.finished_at.is_some() {
        fields.push(("Ended", ago(summary.finished_at, now)));
    } else if !waits_for_its_time {
        fields.push(("Time left", estimate(status.remaining)));
    }
    if !waits_for_its_time {
        fields.push(("Duration", dash(lasted(summary, now).map(span_of))));
    }
    if let Some(job) = &status.job {
        fields.push(("Workload", job.to_string()));
    }
    if let Some(address) = &status.address {
        fields.push(("Address", address.clone()));
    }
    fields
}

/// `about 4m`, or that nobody knows.
fn estimate(remaining: Option<Span>) -> String {
    remaining.map_or_else(|| "not known".to_owned(), |left| format!("about {}", span_of(left)))
}

/// From its beginning to its end, or to now. `None`: not begun.
pub(super) fn lasted(summary: &DeploymentSummary, now: Timestamp) -> Option<Span> {
    let began = summary.started_at?;
    Some(time::between(began, summary.finished_at.unwrap_or(now)))
}

/// `1 of 2: 10% of the requests; all there for 4m, ends in 11m`.
fn stepped(step: &StepView, now: Timestamp) -> String {
    let mut text = format!("{} of {}: {}", step.number, step.of, step.what);
    if let Some(since) = step.since {
        text.push_str(&format!("; all there for {}", span_of(time::between(since, now))));
    }
    match step.until {
        Some(until) if until > now => text.push_str(&format!(", ends {}", time::relative(until, now))),
        _ => {}
    }
    text
}

/// A share of the requests, or a dash where nothing is proxied.
pub(super) fn share(traffic: Option<f64>) -> String {
    dash(traffic.map(percent))
}

/// The replicas of each revision.
pub(super) fn revisions(page: &mut Page, revisions: &[RevisionReplicas]) {
    if revisions.is_empty() {
        return;
    }
    page.heading("REVISIONS");
    let mut grid = Grid::new(["REVISION", "VERSION", "STANDING", "READY", "REQUESTS"]);
    for one in revisions {
        let standing = match one.standing {
            deploy::Standing::New => "new",
            deploy::Standing::Good => "good",
            deploy::Standing::Bad => "bad",
        };
        grid.row([
            one.revision.to_string(),
            dash(one.version.as_deref()),
            standing.to_owned(),
            format!("{}/{}", one.ready, one.total),
            share(one.traffic_percent),
        ]);
    }
    page.grid(&grid);
}

/// Every replica, and its health.
pub(super) fn checks(page: &mut Page, checks: &[ReplicaView]) {
    if checks.is_empty() {
        return;
    }
    page.heading("HEALTH CHECKS");
    let mut grid = Grid::new([
        "REPLICA", "REVISION", "NODE", "PHASE", "READY", "RESTARTS", "ADDRESS", "WHY",
    ])
    .lesser(["RESTARTS", "NODE"]);
    for replica in checks {
        grid.row([
            replica.workload.to_string(),
            replica.revision.to_string(),
            dash(replica.node.as_ref()),
            replica.phase.name().to_owned(),
            match (replica.ready, replica.retiring) {
                (_, true) => "ends",
                (true, false) => "yes",
                (false, false) => "no",
            }
            .to_owned(),
            replica.restarts.to_string(),
            dash(replica.address.as_deref()),
            dash(replica.why.as_deref()),
        ]);
    }
    page.grid(&grid);
}

/// What an analysis found, in a word.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Insufficient => "insufficient",
        Outcome::Error => "error",
    }
}

/// What a condition is for, and what it says.
pub(super) fn judged(verdict: &Verdict) -> String {
    let purpose = match verdict.evidence.purpose {
        Purpose::Promote => "go on if",
        Purpose::Rollback => "go back if",
    };
    format!("{purpose} {}", verdict.evidence.condition)
}

fn verdicts(page: &mut Page, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    page.heading("ANALYSIS");
    let compared = verdicts.iter().any(|verdict| verdict.evidence.baseline.is_some());
    let mut header = vec!["CONDITION", "VERDICT", "WHEN", "MEASURED", "SAMPLES", "MESSAGE"];
    if compared {
        header.insert(4, "STABLE");
    }
    let mut grid = Grid::new(header).lesser(["WHEN", "SAMPLES", "STABLE", "MEASURED"]);
    for verdict in verdicts {
        let Evidence {
            condition,
            subject,
            baseline,
            ..
        } = &verdict.evidence;
        let samples = match subject.failed {
            Some(failed) => format!("{} ({failed} failed)", subject.count),
            None => subject.count.to_string(),
        };
        let mut cells = vec![
            judged(verdict),
            outcome(verdict.outcome).to_owned(),
            time::relative(verdict.at, page.now()),
            dash(measured(condition, subject)),
            samples,
            or_dash(verdict.message.clone()),
        ];
        if compared {
            cells.insert(
                4,
                dash(baseline.as_ref().and_then(|stable| measured(condition, stable))),
            );
        }
        grid.row(cells);
    }
    page.grid(&grid);
}
