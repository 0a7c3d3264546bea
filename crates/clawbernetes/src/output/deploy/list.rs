//! Deployments in lists, and the past of a service.

use api::{op::DeploymentSummary, time};
use serde::Serialize;

use super::{
    super::{
        Grid, Page, Render,
        cells::{dash, span_of},
    },
    status::lasted,
    words::revision,
};

fn version(summary: &DeploymentSummary) -> String {
    dash(revision(summary.version.as_deref(), summary.revision))
}

fn strategy(summary: &DeploymentSummary) -> String {
    // What replaces nothing has no strategy: what it does says more than a dash.
    let named = summary.strategy.map(|strategy| strategy.name());
    named.unwrap_or(summary.action.name()).to_owned()
}

/// Whether they are of more than one namespace.
fn several(all: &[DeploymentSummary]) -> bool {
    all.windows(2).any(|pair| pair[0].namespace != pair[1].namespace)
}

impl Render for Vec<DeploymentSummary> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No deployments.");
            return;
        }
        let namespaces = several(self);
        let mut header = vec!["ID", "SERVICE", "PHASE", "VERSION", "STRATEGY", "READY", "ASKED", "BY"];
        if namespaces {
            header.insert(1, "NAMESPACE");
        }
        let mut grid = Grid::new(header).lesser(["BY", "ASKED"]);
        for summary in self {
            let mut cells = vec![
                summary.id.to_string(),
                summary.workload.clone(),
                summary.phase.name().to_owned(),
                version(summary),
                strategy(summary),
                summary
                    .ready
                    .map_or_else(|| "-".to_owned(), |ready| format!("{ready}/{}", summary.replicas)),
                time::relative(summary.created_at, page.now()),
                summary.by.clone(),
            ];
            if namespaces {
                cells.insert(1, summary.namespace.clone());
            }
            grid.row(cells);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|summary| summary.id.to_string()).collect()
    }
}

/// The deployments of one service, newest first.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct History(pub(crate) Vec<DeploymentSummary>);

impl Render for History {
    fn render(&self, page: &mut Page) {
        let namespaces = several(&self.0);
        let mut header = vec![
            "ID", "ASKED", "VERSION", "STRATEGY", "DURATION", "OUTCOME", "BY", "REASON",
        ];
        if namespaces {
            header.insert(1, "NAMESPACE");
        }
        let mut grid = Grid::new(header).lesser(["DURATION", "STRATEGY"]);
        for summary in &self.0 {
            let mut cells = vec![
                summary.id.to_string(),
                time::relative(summary.created_at, page.now()),
                version(summary),
                strategy(summary),
                dash(lasted(summary, page.now()).map(span_of)),
                summary.phase.name().to_owned(),
                summary.by.clone(),
                dash(summary.reason.as_deref()),
            ];
            if namespaces {
                cells.insert(1, summary.namespace.clone());
            }
            grid.row(cells);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|summary| summary.id.to_string()).collect()
    }
}
