//! The faces of the gateway: HTTP/JSON, streams, node sessions, the OpenAPI document.

mod access;
mod alert_ops;
mod answers;
mod audit_ops;
mod cert_ops;
mod channel;
mod deliver;
mod deploy_ops;
mod deploying;
mod events;
mod exec;
mod face;
mod fleet;
mod health_ops;
mod listen;
mod metric_ops;
mod node_ops;
mod oidc_ops;
mod openapi;
mod places;
mod prometheus;
mod rows;
mod secret_ops;
mod service_ops;
mod session;
mod stream;
mod tokens;
mod unknown;
mod upgrade;
mod views;
mod workload_ops;

use std::sync::Arc;

use api::{ApiError, ErrorCode, Timestamp, auth::Identity, op::*};
use axum::{
    Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{any, get},
};

pub use access::{Access, Limits};
pub use listen::{Door, listen};
pub use rows::Rows;
pub use tokens::mint as mint_token;

use crate::{
    alerting::Alerting,
    audit::{self, Audit},
    control::PlannerHandle,
    deploy::{Doors, Reader},
    diagnose::Journal,
    hub::Hub,
    live::Nodes,
    metrics::Metrics,
    oidc::Provider,
    trust::Trust,
};

/// What every handler needs.
pub struct App {
    /// State.
    pub hub: Arc<Hub>,
    /// Nodes as of now.
    pub live: Arc<Nodes>,
    /// Workloads' output.
    pub logs: Arc<telemetry::logs::LogStore>,
    /// Numbers over time.
    pub metrics: Arc<Metrics>,
    /// Alerts.
    pub alerting: Arc<Alerting>,
    /// What went wrong on nodes in the last day.
    pub journal: Arc<Journal>,
    /// Keys, certificates, and whom they are given to.
    pub trust: Arc<Trust>,
    /// The identity provider at which people log in. `None`: there is none.
    pub oidc: Option<Provider>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// The scheduler's ear.
    pub planner: PlannerHandle,
    /// Where services are reached.
    pub doors: Arc<Doors>,
    /// The model that reads what the grammar can't. `None`: none was named.
    pub reader: Option<Reader>,
    /// Batches of measurements that are taken in at once.
    pub intakes: tokio::sync::Semaphore,
    /// Rows of lists that are already written.
    pub rows: Rows,
    /// Limits, and who has used how much of them.
    pub access: Access,
    /// When the gateway started.
    pub started_at: Timestamp,
    /// How often nodes give a sign of life.
    pub heartbeat: api::Span,
    /// After how long without one a node has fenced itself.
    pub fence: api::Span,
    /// Ends streams and sessions.
    pub stop: tokio_util::sync::CancellationToken,
}

impl App {
    /// Lets a caller in, and notes it where it isn't.
    ///
    /// # Errors
    /// Those of [`Access::admit`].
    async fn admitted(
        &self,
        action: &str,
        caller: &access::Caller<'_>,
        need: access::Need,
    ) -> Result<Identity, ApiError> {
        let refused = match self.access.admit(&self.hub.view(), caller, need) {
            Ok(identity) => return Ok(identity),
            Err(refused) => refused,
        };
        let entry = audit::entry(action, refused.who.as_deref(), caller.from).ended(Some(&refused.error));
        self.audited(entry, true).await?;
        Err(refused.error)
    }

    /// Notes what happened. `wait`: until it is on the disk.
    ///
    /// # Errors
    /// It can't be written, and was waited for.
    pub async fn audited(&self, entry: audit::Entry, wait: bool) -> Result<(), ApiError> {
        // What is refused for being too much isn't noted: the log must not grow with it.
        if entry.error.as_deref() == Some(ErrorCode::QuotaExceeded.as_str()) {
            return Ok(());
        }
        if wait || !entry.allowed {
            return self.audit.record(entry).await;
        }
        self.audit.note(entry).await;
        Ok(())
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(|| async { axum::Json(openapi::document()) }))
        .route("/metrics", get(prometheus::scrape))
        .route(NODE_SESSION_PATH, any(session::face))
        .route(EXEC_PATH, any(exec::face));
    let mut faces = face::Faces::new(cert_ops::routes(prometheus::routes(router)));
    faces.unary::<GatewayPing, _, _, _>(fleet::ping);
    faces.unary::<FleetStatus, _, _, _>(fleet::status);
    faces.unary::<FleetHealthGet, _, _, _>(health_ops::fleet);
    faces.unary::<NodeDiagnose, _, _, _>(health_ops::node);
    faces.unary::<WorkloadDiagnose, _, _, _>(health_ops::workload);
    faces.unary::<WhoAmI, _, _, _>(tokens::whoami);
    faces.unary::<TokenCreate, _, _, _>(tokens::create);
    faces.unary::<TokenList, _, _, _>(tokens::list);
    faces.unary::<TokenRevoke, _, _, _>(tokens::revoke);
    faces.unary::<JoinTokenCreate, _, _, _>(tokens::join_token);
    faces.open::<OidcGet, _, _>(oidc_ops::issuer);
    faces.open::<OidcExchange, _, _>(oidc_ops::exchange);
    faces.unary::<SecretSet, _, _, _>(secret_ops::set);
    faces.unary::<SecretGet, _, _, _>(secret_ops::get);
    faces.unary::<SecretList, _, _, _>(secret_ops::list);
    faces.unary::<SecretVersions, _, _, _>(secret_ops::versions);
    faces.unary::<SecretRotate, _, _, _>(secret_ops::rotate);
    faces.unary::<SecretDelete, _, _, _>(secret_ops::delete);
    faces.unary::<VaultGet, _, _, _>(secret_ops::status);
    faces.unary::<VaultRekey, _, _, _>(secret_ops::rekey);
    faces.unary::<CertIssue, _, _, _>(cert_ops::issue);
    faces.unary::<CertList, _, _, _>(cert_ops::list);
    faces.unary::<CertRotate, _, _, _>(cert_ops::rotate);
    faces.unary::<CertRevoke, _, _, _>(cert_ops::revoke);
    faces.unary::<CertCa, _, _, _>(cert_ops::ca);
    faces.unary::<CertCrl, _, _, _>(cert_ops::crl);
    faces.unary::<AuditList, _, _, _>(audit_ops::list);
    faces.unary::<AuditVerify, _, _, _>(audit_ops::verify);
    faces.unary::<NodeCertify, _, _, _>(node_ops::certify);
    faces.unary::<NodeJoin, _, _, _>(node_ops::join);
    faces.unary::<NodeList, _, _, _>(node_ops::list);
    faces.unary::<NodeGet, _, _, _>(node_ops::get);
    faces.unary::<NodeDrain, _, _, _>(node_ops::drain);
    faces.unary::<NodeUndrain, _, _, _>(node_ops::undrain);
    faces.unary::<NodeLabel, _, _, _>(node_ops::label);
    faces.unary::<NodeTaint, _, _, _>(node_ops::taint);
    faces.unary::<NodeRemove, _, _, _>(node_ops::remove);
    faces.unary::<WorkloadSubmit, _, _, _>(workload_ops::submit);
    faces.unary::<WorkloadList, _, _, _>(workload_ops::list);
    faces.unary::<WorkloadGet, _, _, _>(workload_ops::get);
    faces.unary::<WorkloadCancel, _, _, _>(workload_ops::cancel);
    faces.unary::<WorkloadUpdate, _, _, _>(workload_ops::update);
    faces.unary::<WorkloadMigrate, _, _, _>(workload_ops::migrate);
    faces.unary::<WorkloadExplain, _, _, _>(workload_ops::explain);
    faces.unary::<WorkloadUsage, _, _, _>(workload_ops::usage);
    faces.unary::<MetricsQuery, _, _, _>(metric_ops::query);
    faces.unary::<MetricsList, _, _, _>(metric_ops::list);
    faces.unary::<MetricsUsed, _, _, _>(metric_ops::usage);
    faces.unary::<AlertList, _, _, _>(alert_ops::list);
    faces.unary::<AlertRules, _, _, _>(alert_ops::rules);
    faces.unary::<AlertReceivers, _, _, _>(alert_ops::receivers);
    faces.unary::<AlertSilence, _, _, _>(alert_ops::silence);
    faces.unary::<AlertSilenceList, _, _, _>(alert_ops::silences);
    faces.unary::<AlertSilenceEnd, _, _, _>(alert_ops::end);
    faces.unary::<DeployPlan, _, _, _>(deploy_ops::plan);
    faces.unary::<DeployApply, _, _, _>(deploy_ops::apply);
    faces.unary::<DeployGet, _, _, _>(deploy_ops::get);
    faces.unary::<DeployList, _, _, _>(deploy_ops::list);
    faces.unary::<DeployPromote, _, _, _>(deploy_ops::promote);
    faces.unary::<DeployRollback, _, _, _>(deploy_ops::rollback);
    faces.unary::<DeployPause, _, _, _>(deploy_ops::pause);
    faces.unary::<DeployResume, _, _, _>(deploy_ops::resume);
    faces.unary::<DeployRetry, _, _, _>(deploy_ops::retry);
    faces.unary::<ServiceList, _, _, _>(service_ops::list);
    faces.unary::<ServiceGet, _, _, _>(service_ops::get);
    faces.unary::<ServiceDelete, _, _, _>(service_ops::delete);
    faces.unary::<EventList, _, _, _>(events::list);
    faces.streaming::<WorkloadLogs, _, _>(stream::logs);
    faces.streaming::<WorkloadWatch, _, _>(stream::watch);
    faces.streaming::<DeployWatch, _, _>(deploy_ops::watch);
    faces.streaming::<EventWatch, _, _>(events::watch);
    faces.finish().fallback(face::no_such_path).with_state(app)
}

async fn readyz(axum::extract::State(app): axum::extract::State<Arc<App>>) -> impl IntoResponse {
    match fleet::store_health(&app) {
        health if health == "ok" => (StatusCode::OK, "ok\n".to_owned()),
        health => (StatusCode::SERVICE_UNAVAILABLE, format!("{health}\n")),
    }
}
