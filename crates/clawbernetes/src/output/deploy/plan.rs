//! A plan, before it is applied.

use std::collections::BTreeMap;

use api::{
    deploy::{Plan, PlannedReplica, Strategy},
    op::Planned,
};
use serde::{Serialize, Serializer};

use super::{
    super::{
        Grid, Page, Render,
        cells::{dash, or_dash, span_of},
        workload::asked,
    },
    words::{autoscale, batches, conditions, deed, each, goes_on, percent, replicas, scheduled},
};

/// A plan for people, with how it was understood; the plan alone for programs.
pub(crate) struct PlanShown<'a>(pub(crate) &'a Planned);

impl Serialize for PlanShown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.plan.serialize(serializer)
    }
}

impl Render for PlanShown<'_> {
    fn render(&self, page: &mut Page) {
        let Planned {
            understood,
            read_by,
            plan,
        } = self.0;
        let mut fields = vec![("Understood", understood.clone())];
        if let Some(model) = read_by {
            fields.push((
                "Read by",
                format!("the model {model}: check what it made of your words"),
            ));
        }
        fields.extend(about(plan, page));
        page.fields(fields);
        steps(page, plan);
        if !plan.changes.is_empty() {
            page.heading("CHANGES");
            let mut grid = Grid::new(["FIELD", "FROM", "TO"]);
            for change in &plan.changes {
                grid.row([
                    change.field.clone(),
                    dash(change.from.as_deref()),
                    or_dash(change.to.clone()),
                ]);
            }
            page.grid(&grid);
        }
        if !plan.steps.is_empty() {
            page.heading("WHAT HAPPENS");
            for (i, step) in plan.steps.iter().enumerate() {
                page.line(format!("  {}. {step}", i + 1));
            }
        }
        placement(page, &plan.placement);
        if !plan.warnings.is_empty() || !plan.missing.is_empty() {
            page.line("");
        }
        for warning in &plan.warnings {
            page.line(format!("warning: {warning}"));
        }
        for missing in &plan.missing {
            page.line(format!("missing: {missing}"));
        }
        if !plan.missing.is_empty() {
            page.line("It can't be applied as long as something is missing.");
        }
    }

    fn names(&self) -> Vec<String> {
        vec![self.0.plan.workload.clone()]
    }
}

fn about(plan: &Plan, page: &Page) -> Vec<(&'static str, String)> {
    let target = if plan.batch { "Batch job" } else { "Service" };
    let mut fields = vec![
        ("Action", deed(plan)),
        (target, format!("{}/{}", plan.namespace, plan.workload)),
        ("Version", dash(plan.version.as_deref())),
        ("Image", or_dash(plan.image.clone())),
    ];
    if let Some(revision) = plan.to_revision {
        fields.push(("Goes back to", format!("revision {revision}")));
    }
    if !plan.batch {
        fields.push(("Replicas", plan.replicas.to_string()));
    }
    fields.push((
        if plan.batch { "It gets" } else { "Each gets" },
        or_dash(each(&plan.resources).unwrap_or_default()),
    ));
    // What it runs, as far as it isn't told above.
    let told = [
        "Command",
        "Environment",
        "Secret",
        "Mount",
        "Node labels",
        "Node",
        "Health check",
    ];
    fields.extend(
        asked(&plan.spec)
            .into_iter()
            .filter(|(label, value)| told.contains(label) && value != "-"),
    );
    fields.push(("Priority", plan.priority.name().to_owned()));
    match (plan.timeout, plan.batch) {
        (Some(timeout), true) => fields.push(("Timeout", format!("it runs {} at most", span_of(timeout)))),
        (Some(timeout), false) => fields.push(("Timeout", format!("it must be done within {}", span_of(timeout)))),
        (None, _) => fields.push(("Timeout", "none".to_owned())),
    }
    if let Some(manner) = super::words::manner(plan) {
        fields.push(("Strategy", manner));
    }
    if let Some(goes_on) = goes_on(plan) {
        fields.push(("Goes on", goes_on));
    }
    if plan.strategy == Strategy::Canary && plan.canary.is_some() {
        fields.push(("Then rolling", batches(plan)));
    }
    if !plan.rollback_conditions.is_empty() {
        fields.push(("Goes back if", conditions(&plan.rollback_conditions, " or ")));
    }
    if let Some(bounds) = &plan.autoscale {
        fields.push(("Autoscaling", autoscale(bounds)));
    }
    let begins = plan.schedule.as_ref().map(|schedule| scheduled(schedule, page.now()));
    fields.push(("Begins", begins.unwrap_or_else(|| "at once".to_owned())));
    fields
}

/// The steps of a canary, with what they come to.
fn steps(page: &mut Page, plan: &Plan) {
    let Some(canary) = &plan.canary else { return };
    page.heading("STEPS");
    let mut grid = Grid::new(["STEP", "REQUESTS", "REPLICAS", "OF ALL REPLICAS"]);
    for (i, step) in canary.steps.iter().enumerate() {
        grid.row([
            (i + 1).to_string(),
            percent(step.percentage),
            format!("{} of {}", step.replicas, plan.replicas),
            percent(step.effective_percentage),
        ]);
    }
    grid.row(["then", "100%", &format!("{0} of {0}", plan.replicas), "100%"]);
    page.grid(&grid);
}

/// Where the replicas would go, those of a node together.
fn placement(page: &mut Page, placement: &[PlannedReplica]) {
    if placement.is_empty() {
        return;
    }
    let mut nodes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, u32> = BTreeMap::new();
    for replica in placement {
        let (map, key) = match &replica.node {
            Some(node) => (&mut nodes, node.as_str()),
            None => (&mut waiting, replica.why.as_deref().unwrap_or("it isn't known why")),
        };
        *map.entry(key).or_default() += 1;
    }
    page.heading("WHERE THE NEW REPLICAS WOULD GO NOW");
    let mut grid = Grid::bare();
    for (node, count) in nodes {
        grid.row([format!("  {node}"), replicas(count)]);
    }
    for (why, count) in waiting {
        grid.row(["  (waits)".to_owned(), format!("{}: {why}", replicas(count))]);
    }
    page.grid(&grid);
}
