//! Prometheus' query API over the fleet's metrics, for Grafana: the data source's URL is `http://gateway/prometheus`.
//!
//! Calls are let in as those of `/metrics` are. Each runs apart from what serves sockets, within its time, and only so
//! many run at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{ApiError, auth::Scope, metric::Kind, op::Reach};
use axum::{
    Router,
    extract::{Path, Request, State},
    http::Method,
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::json;
use telemetry::{metrics::Labels, promql::Limits};
use tokio::sync::Semaphore;

use super::{
    super::{
        App,
        access::{Caller, Need},
    },
    asked::Asked,
    envelope::{Refusal, answer, sent, success},
};
use crate::{hub::now, metrics::Named};

/// Queries that are computed at once: each may hold a core and [`SAMPLES_MAX`].
const AT_ONCE: usize = 4;
/// Most samples that a query reads; 16 bytes each.
const SAMPLES_MAX: u64 = 10_000_000;
/// Most points that a query answers with; about 30 bytes each as JSON.
const POINTS_MAX: u64 = 2_000_000;
/// Most steps of a range; Prometheus' own bound.
const STEPS_MAX: i64 = 11_000;
/// The Prometheus whose API this is: Grafana decides by it which calls to make. It is the one that tests compare with.
const VERSION: &str = "2.42.0";

/// A call: the gateway, what is asked, and the label of the path where there is one.
struct Call {
    app: Arc<App>,
    asked: Asked,
    label: String,
    deadline: Instant,
}

impl Call {
    fn limits(&self) -> Limits {
        Limits {
            samples: SAMPLES_MAX,
            points: POINTS_MAX,
            deadline: self.deadline,
        }
    }
}

/// What computes an answer: JSON.
type Answering = fn(&Call) -> Result<String, Refusal>;

/// Adds the routes.
pub(in crate::serve) fn routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let faces: [(&str, Answering); 7] = [
        ("query", query),
        ("query_range", query_range),
        ("labels", labels),
        ("label/{label}/values", label_values),
        ("series", series),
        ("metadata", metadata),
        ("status/buildinfo", build_info),
    ];
    let mut router = router;
    for (path, answering) in faces {
        let places = Arc::clone(&places);
        let face = move |State(app): State<Arc<App>>, path: Option<Path<String>>, request: Request| async move {
            let label = path.map(|Path(label)| label).unwrap_or_default();
            match call(app, label, request, &places, answering).await {
                Ok(json) => sent(json),
                Err(refusal) => refusal.into_response(),
            }
        };
        router = router.route(&format!("/prometheus/api/v1/{path}"), any(face));
    }
    router.route("/prometheus/{*rest}", any(nothing))
}

async fn nothing(request: Request) -> Response {
    let path = request.uri().path();
    Refusal::Api(ApiError::not_found(format!("there is nothing at {path}"))).into_response()
}

async fn call(
    app: Arc<App>,
    label: String,
    request: Request,
    places: &Semaphore,
    answering: Answering,
) -> Result<String, Refusal> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::GET && parts.method != Method::POST {
        return Err(Refusal::BadData(format!(
            "it is called by GET or POST, not {}",
            parts.method
        )));
    }
    let caller = Caller::of(&parts.headers, &parts.extensions)?;
    app.access
        .admit_scraper(&app.hub.view(), &caller, Need::new(Scope::Read, Reach::Fleet))
        .map_err(ApiError::from)?;
    let asked = Asked::read(&parts, body, app.access.limits.body_bytes, now()).await?;
    let timeout = asked.timeout()?;
    let call = Call {
        deadline: Instant::now() + timeout,
        app,
        asked,
        label,
    };
    let late = || Refusal::Timeout("the query took too long".to_owned());
    let computed = async {
        let place = places.acquire().await;
        let computing = tokio::task::spawn_blocking(move || answering(&call));
        let done = computing.await;
        drop(place);
        done.unwrap_or_else(|error| {
            Err(Refusal::Api(
                ApiError::internal("the answer wasn't made").cause(error.to_string()),
            ))
        })
    };
    // The computation itself keeps the time; a little more is for what doesn't look at the clock.
    tokio::time::timeout(timeout + Duration::from_secs(5), computed)
        .await
        .map_err(|_| late())?
}

fn query(call: &Call) -> Result<String, Refusal> {
    let at_ms = call.asked.time()?;
    let query = call.asked.query()?;
    let named = Named::new(&call.app.metrics);
    answer(&query.instant(&named, at_ms, &call.limits())?, at_ms)
}

fn query_range(call: &Call) -> Result<String, Refusal> {
    let (start_ms, end_ms) = call.asked.range()?;
    let step_ms = call.asked.step()?;
    if end_ms.saturating_sub(start_ms) / step_ms >= STEPS_MAX {
        return Err(Refusal::BadData(format!(
            "more than {STEPS_MAX} steps: shorten the range or widen the step"
        )));
    }
    let query = call.asked.query()?;
    let named = Named::new(&call.app.metrics);
    answer(
        &query.range(&named, (start_ms, end_ms), step_ms, &call.limits())?,
        end_ms,
    )
}

/// The series that the call's selectors mean. `None`: it has none.
fn selected(call: &Call, named: &Named<'_>) -> Result<Option<Vec<Labels>>, Refusal> {
    let (start_ms, end_ms) = call.asked.recent()?;
    let selectors = call.asked.selectors()?;
    if selectors.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for matchers in &selectors {
        let series = named.series(matchers, start_ms, end_ms);
        found.extend(series.map_err(|error| Refusal::Api(crate::metrics::store_failed(&error)))?);
        if Instant::now() >= call.deadline {
            return Err(Refusal::Timeout("the query took too long".to_owned()));
        }
    }
    found.sort();
    found.dedup();
    Ok(Some(found))
}

fn cut<T>(call: &Call, mut items: Vec<T>) -> Result<Vec<T>, Refusal> {
    if let Some(limit) = call.asked.limit()? {
        items.truncate(limit);
    }
    Ok(items)
}

fn labels(call: &Call) -> Result<String, Refusal> {
    let named = Named::new(&call.app.metrics);
    let names: BTreeSet<String> = match selected(call, &named)? {
        None => named.label_names(),
        Some(series) => series
            .into_iter()
            .flat_map(|labels| labels.labels.into_iter().map(|(name, _)| name))
            .chain(["__name__".to_owned()])
            .collect(),
    };
    success(&cut(call, names.into_iter().collect())?)
}

fn label_values(call: &Call) -> Result<String, Refusal> {
    let named = Named::new(&call.app.metrics);
    let values: BTreeSet<String> = match selected(call, &named)? {
        None => named.label_values(&call.label),
        Some(series) => series
            .iter()
            .filter_map(|labels| labels.get(&call.label).map(str::to_owned))
            .collect(),
    };
    success(&cut(call, values.into_iter().collect())?)
}

fn series(call: &Call) -> Result<String, Refusal> {
    let named = Named::new(&call.app.metrics);
    let Some(series) = selected(call, &named)? else {
        return Err(Refusal::BadData("no match[] parameter provided".to_owned()));
    };
    let series = series.into_iter().map(|labels| {
        let mut set: BTreeMap<String, String> = labels.labels.into_iter().collect();
        set.insert("__name__".to_owned(), labels.name);
        set
    });
    success(&cut(call, series.collect())?)
}

fn metadata(call: &Call) -> Result<String, Refusal> {
    let named = Named::new(&call.app.metrics);
    let wanted = named
        .names()
        .filter(|name| call.asked.metric().is_none_or(|metric| metric == name.shown));
    let told = wanted.map(|name| {
        let kind = match name.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        (
            name.shown.clone(),
            json!([{ "type": kind, "help": name.help, "unit": "" }]),
        )
    });
    let told: Vec<(String, serde_json::Value)> = told.collect();
    let told: BTreeMap<String, serde_json::Value> = cut(call, told)?.into_iter().collect();
    success(&told)
}

fn build_info(_: &Call) -> Result<String, Refusal> {
    success(&json!({
        "version": VERSION,
        "revision": concat!("clawbernetes ", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}
