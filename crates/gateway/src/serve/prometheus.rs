//! What Prometheus reads: `/metrics`, every series of the fleet as it is now; and its API, for Grafana.

mod asked;
mod envelope;
mod query;

use std::sync::Arc;

use api::{
    ApiError, Timestamp,
    auth::Scope,
    exposition::{CONTENT_TYPE, Exposition},
    metric::{self, Kind, OWN_PREFIX},
    op::Reach,
};
use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use telemetry::metrics::{Aggregate, Matcher};

pub(super) use query::routes;

use super::{
    App,
    access::{Caller, Need},
    face::Failed,
    metric_ops::blocking,
};
use crate::{
    hub::now,
    metrics::{Metrics, store_failed},
};

/// What wasn't measured for so long isn't a value of now: some agents measure each half minute.
const FRESH_MS: i64 = 60_000;

/// `GET /metrics`
pub async fn scrape(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let caller = Caller::of(&parts.headers, &parts.extensions)?;
        app.access
            .admit_scraper(&app.hub.view(), &caller, Need::new(Scope::Read, Reach::Fleet))?;
        let metrics = Arc::clone(&app.metrics);
        blocking(move || exposition(&metrics, now())).await
    };
    match answer.await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => Failed(error).into_response(),
    }
}

fn exposition(metrics: &Metrics, now: Timestamp) -> Result<String, ApiError> {
    let mut exposition = Exposition::default();
    let to = now.as_millisecond() + 1;
    for (name, _) in metrics.store.names() {
        let latest = metrics
            .store
            .windows(&[Matcher::name(&name)], to - FRESH_MS, to, FRESH_MS, Aggregate::Last)
            .map_err(|e| store_failed(&e))?;
        let catalogue = metric::find(&name);
        let own = metrics.own().get(&name).cloned();
        for series in &latest.series {
            let Some((_, value)) = series.points.last() else {
                continue;
            };
            let labels = series.labels.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            match (catalogue, &own) {
                (Some(metric), _) => exposition.metric(metric, labels, *value),
                (None, Some(own)) => exposition.own(&name, own.unit.as_deref(), own.kind, labels, *value),
                // Of a node that hasn't named it since the gateway's start.
                (None, None) if name.starts_with(OWN_PREFIX) => {
                    exposition.own(&name, None, Kind::Gauge, labels, *value);
                }
                (None, None) => {}
            }
        }
    }
    Ok(exposition.finish())
}
