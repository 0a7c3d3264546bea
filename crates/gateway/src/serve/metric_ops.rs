//! Operations on metrics.

use api::{
    ApiError, Timestamp,
    op::{Empty, MetricInfo, MetricsAnswer, MetricsRequest, MetricsUsage, Reach},
};

use super::face::Call;
use crate::{auth, hub::now, metrics};

/// `metrics.query`
pub async fn query(call: Call, request: MetricsRequest) -> Result<MetricsAnswer, ApiError> {
    let Call { app, identity, .. } = call;
    if request.workload.is_none() {
        // Of whom a number is can't be told where it is of no workload.
        auth::check_reach(&identity, Reach::Fleet).map_err(|e| e.hint("name one of its workloads: --workload NAME"))?;
    }
    let answer = move || {
        let within = auth::within(&identity, request.namespace.as_deref())?;
        let question = metrics::understand(&app.metrics, &app.hub.view(), within, &request, now())?;
        question.answer(&app.metrics)
    };
    blocking(answer).await
}

/// `metrics.list`
pub async fn list(call: Call, _: Empty) -> Result<Vec<MetricInfo>, ApiError> {
    let app = call.app;
    blocking(move || Ok(metrics::list(&app.metrics))).await
}

/// `metrics.usage`
pub async fn usage(call: Call, _: Empty) -> Result<MetricsUsage, ApiError> {
    let usage = call.app.metrics.store.usage();
    let dropped = usage.dropped;
    let counts = [
        ("not finite", dropped.not_finite),
        ("sent twice or out of order", dropped.not_newer),
        ("ahead of the clock", dropped.too_new),
        ("too old", dropped.too_old),
    ];
    Ok(MetricsUsage {
        disk_bytes: usage.disk_bytes,
        max_bytes: Some(usage.max_bytes),
        series: usage.series,
        oldest: usage.oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        dropped: counts.map(|(reason, count)| (reason.to_owned(), count)).into(),
    })
}

/// Runs what reads files apart from what serves sockets.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(run).await;
    done.unwrap_or_else(|error| Err(ApiError::internal("the answer wasn't made").cause(error.to_string())))
}
