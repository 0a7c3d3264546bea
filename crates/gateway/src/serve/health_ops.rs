//! Operations that tell how things do.

use api::{
    ApiError, NodeName, Span,
    op::{DiagnoseNodeRequest, DiagnoseWorkloadRequest, Empty, FleetHealth, NodeDiagnosis, WorkloadDiagnosis},
};

use super::{face::Call, metric_ops::blocking};
use crate::{
    auth,
    diagnose::{self, Looked, Sources},
    hub::now,
    serve::App,
    view::View,
};

/// How far back a node is looked at where nobody says, at least and at most.
const HISTORY: Span = Span::secs(3_600);
const HISTORY_MIN: Span = Span::secs(60);
const HISTORY_MAX: Span = Span::secs(7 * 86_400);

fn sources(app: &App) -> Sources<'_> {
    Sources {
        metrics: &app.metrics.store,
        logs: &app.logs,
        journal: &app.journal,
    }
}

/// `fleet.health`
pub async fn fleet(call: Call, _: Empty) -> Result<FleetHealth, ApiError> {
    let app = call.app;
    app.journal.ready().await?;
    let look = move || {
        let now = now();
        let (nodes, held, workloads) = {
            let view = app.hub.view();
            let nodes: Vec<Looked> = view.nodes().map(|n| Looked::at(&view, &app.live, n)).collect();
            let held = diagnose::holders(&view, &nodes, &app.journal, now);
            (nodes, held, diagnose::troubled(&view, now))
        };
        let alerts = diagnose::firing_alerts(&app.alerting, now);
        diagnose::health(
            &nodes,
            &held,
            workloads,
            alerts,
            (&app.metrics.store, &app.journal),
            now,
        )
    };
    blocking(look).await
}

/// `node.diagnose`
pub async fn node(call: Call, request: DiagnoseNodeRequest) -> Result<NodeDiagnosis, ApiError> {
    let app = call.app;
    let window = request.history.unwrap_or(HISTORY);
    if window < HISTORY_MIN || window > HISTORY_MAX {
        let message = format!("history is {HISTORY_MIN} to {HISTORY_MAX}, and not {window}");
        return Err(ApiError::invalid("history", message));
    }
    app.journal.ready().await?;
    let look = move || {
        let now = now();
        let (looked, held, alike) = {
            let view = app.hub.view();
            let looked = Looked::at(&view, &app.live, view.find_node(&request.id)?);
            let held = diagnose::holders(&view, std::slice::from_ref(&looked), &app.journal, now);
            let alike = alike(&view, &looked);
            (looked, held, alike)
        };
        diagnose::diagnose_node(sources(&app), &looked, &held, &alike, window, request.verbose, now)
    };
    blocking(look).await
}

/// Other nodes with GPUs of the same models.
fn alike(view: &View, looked: &Looked) -> Vec<NodeName> {
    let models = |node: &api::node::Node| -> Vec<String> {
        let gpus = node.inventory.as_ref().map(|i| i.gpus.as_slice()).unwrap_or_default();
        let mut models: Vec<String> = gpus.iter().map(|g| g.model.clone()).collect();
        models.sort();
        models.dedup();
        models
    };
    let wanted = models(&looked.node);
    if wanted.is_empty() {
        return Vec::new();
    }
    let others = view.nodes().filter(|n| n.name != looked.node.name);
    others.filter(|n| models(n) == wanted).map(|n| n.name.clone()).collect()
}

/// `workload.diagnose`
pub async fn workload(call: Call, request: DiagnoseWorkloadRequest) -> Result<WorkloadDiagnosis, ApiError> {
    let Call { app, identity, .. } = call;
    app.journal.ready().await?;
    let look = move || {
        let within = auth::within(&identity, request.namespace.as_deref())?;
        let (ran, baseline) = {
            let view = app.hub.view();
            let look = |text: &str| diagnose::look_at_workload(&view, text, within);
            (look(&request.id)?, request.compare.as_deref().map(look).transpose()?)
        };
        let (sources, wanted) = (sources(&app), request.recommendations);
        diagnose::diagnose_workload(sources, &app.metrics, &ran, baseline.as_ref(), wanted, now())
    };
    blocking(look).await
}
