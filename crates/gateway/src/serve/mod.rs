//! The faces of the gateway: HTTP/JSON, streams, node sessions, the OpenAPI document.

mod access;
mod events;
mod exec;
mod face;
mod fleet;
mod listen;
mod node_ops;
mod openapi;
mod places;
mod session;
mod stream;
mod tokens;
mod unknown;
mod upgrade;
mod views;
mod workload_ops;

use std::sync::Arc;

use api::{Timestamp, op::*};
use axum::{
    Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{any, get},
};

pub use access::{Access, Limits};
pub use listen::listen;
pub use tokens::mint as mint_token;

use crate::{control::PlannerHandle, hub::Hub, live::Nodes};

/// What every handler needs.
pub struct App {
    /// State.
    pub hub: Arc<Hub>,
    /// Nodes as of now.
    pub live: Arc<Nodes>,
    /// Workloads' output.
    pub logs: Arc<telemetry::logs::LogStore>,
    /// The scheduler's ear.
    pub planner: PlannerHandle,
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

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(|| async { axum::Json(openapi::document()) }))
        .route(NODE_SESSION_PATH, any(session::face))
        .route(EXEC_PATH, any(exec::face));
    let mut faces = face::Faces::new(router);
    faces.unary::<GatewayPing, _, _>(fleet::ping);
    faces.unary::<FleetStatus, _, _>(fleet::status);
    faces.unary::<WhoAmI, _, _>(tokens::whoami);
    faces.unary::<TokenCreate, _, _>(tokens::create);
    faces.unary::<TokenList, _, _>(tokens::list);
    faces.unary::<TokenRevoke, _, _>(tokens::revoke);
    faces.unary::<JoinTokenCreate, _, _>(tokens::join_token);
    faces.unary::<NodeJoin, _, _>(node_ops::join);
    faces.unary::<NodeList, _, _>(node_ops::list);
    faces.unary::<NodeGet, _, _>(node_ops::get);
    faces.unary::<NodeDrain, _, _>(node_ops::drain);
    faces.unary::<NodeUndrain, _, _>(node_ops::undrain);
    faces.unary::<NodeLabel, _, _>(node_ops::label);
    faces.unary::<NodeTaint, _, _>(node_ops::taint);
    faces.unary::<NodeRemove, _, _>(node_ops::remove);
    faces.unary::<WorkloadSubmit, _, _>(workload_ops::submit);
    faces.unary::<WorkloadList, _, _>(workload_ops::list);
    faces.unary::<WorkloadGet, _, _>(workload_ops::get);
    faces.unary::<WorkloadCancel, _, _>(workload_ops::cancel);
    faces.unary::<WorkloadUpdate, _, _>(workload_ops::update);
    faces.unary::<WorkloadMigrate, _, _>(workload_ops::migrate);
    faces.unary::<WorkloadExplain, _, _>(workload_ops::explain);
    faces.unary::<WorkloadUsage, _, _>(workload_ops::usage);
    faces.unary::<EventList, _, _>(events::list);
    faces.streaming::<WorkloadLogs, _, _>(stream::logs);
    faces.streaming::<WorkloadWatch, _, _>(stream::watch);
    faces.streaming::<EventWatch, _, _>(events::watch);
    faces.finish().fallback(face::no_such_path).with_state(app)
}

async fn readyz(axum::extract::State(app): axum::extract::State<Arc<App>>) -> impl IntoResponse {
    match fleet::store_health(&app) {
        health if health == "ok" => (StatusCode::OK, "ok\n".to_owned()),
        health => (StatusCode::SERVICE_UNAVAILABLE, format!("{health}\n")),
    }
}
