//! What a condition is judged by: the proxy's counts from the metric store, replicas' own metrics, their health
//! ([`health`]), and what a Prometheus answers.

use std::sync::Arc;

use api::{
    ApiError, Span, Timestamp, WorkloadId,
    deploy::{Evidence, Sample, Service, Signal},
    op::MetricsRequest,
    time,
};
use rollout::drive::Question;
use telemetry::metrics::{Labels, Matcher, MetricStore};

use super::{counts, health, prometheus::Prometheus};
use crate::{
    hub::Hub,
    metrics::{Metrics, store_failed, understand},
    view::Within,
};

/// Where evidence is found.
pub struct Sources {
    /// The fleet.
    pub hub: Arc<Hub>,
    /// What was measured.
    pub metrics: Arc<Metrics>,
    /// Where queries are asked. `None`: no Prometheus was named.
    pub prometheus: Option<Prometheus>,
}

/// A count before the window is looked for so far back: counts are written every second while they grow, and every ten
/// otherwise.
const BEFORE_MS: i64 = 30_000;

/// What was counted so long after the end of a window was counted before the clock was set back: questions are answered
/// sooner.
const AHEAD_MS: i64 = 60_000;

/// Looks up what a question asks for. What can't be had says why, and isn't taken for anything.
pub async fn gather(sources: &Sources, service: &Service, question: &Question) -> Evidence {
    let mut evidence = Evidence {
        condition: question.condition.clone(),
        purpose: question.purpose,
        from: question.from,
        to: question.to,
        query: describe(service, question),
        subject: NOTHING,
        baseline: None,
        error: None,
    };
    let stable = async {
        let revision = question.baseline.filter(|_| compared(&question.condition.metric))?;
        Some(sample(sources, service, question, revision).await)
    };
    // Whoever doesn't answer is waited for once.
    let (subject, baseline) = tokio::join!(sample(sources, service, question, question.subject), stable);
    match subject {
        Ok(found) => evidence.subject = found,
        Err(error) => evidence.error = Some(words(&error)),
    }
    // Where that couldn't be had, the new revision is judged by itself.
    evidence.baseline = baseline.and_then(Result::ok);
    evidence
}

const NOTHING: Sample = Sample {
    count: 0,
    failed: None,
    value: None,
};

fn words(error: &ApiError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.message),
        None => error.message.clone(),
    }
}

/// Stands for the number of the revision that is looked at, in a query.
const REVISION: &str = "$revision";

/// Whether the stable revision over the same window says anything about the new one. A query that doesn't name the revision
/// has one answer for both: taken for the stable one's, it would excuse whatever it shows.
fn compared(signal: &Signal) -> bool {
    signal.of_one_revision() && !matches!(signal, Signal::Healthy | Signal::Restarts)
}

/// What is asked, in words that lead to the same numbers elsewhere.
fn describe(service: &Service, question: &Question) -> String {
    let of = format!(
        "{{namespace=\"{}\",service=\"{}\",revision=\"{}\"}}",
        service.namespace, service.name, question.subject
    );
    let window = time::between(question.from, question.to);
    match &question.condition.metric {
        Signal::ErrorRate => {
            format!("increase(service.errors{of}[{window}]) / increase(service.requests{of}[{window}])")
        }
        Signal::Latency { percentile } => {
            format!(
                "quantile({}, increase(service.latency.buckets{of}[{window}]))",
                percentile / 100.0
            )
        }
        Signal::RequestRate => format!("rate(service.requests{of}[{window}])"),
        Signal::Healthy => format!("ready replicas{of}"),
        Signal::Restarts => format!("restarts{of}[{window}]"),
        // A replica's own series don't tell its revision.
        Signal::Metric { name } => format!(
            "mean of {name} of the replicas of revision {} in {window}",
            question.subject
        ),
        Signal::Query { promql } => filled(promql, service, question.subject),
    }
}

fn filled(promql: &str, service: &Service, revision: u32) -> String {
    promql
        .replace(REVISION, &revision.to_string())
        .replace("$service", &service.name)
        .replace("$namespace", &service.namespace)
}

async fn sample(sources: &Sources, service: &Service, question: &Question, revision: u32) -> Result<Sample, ApiError> {
    let (from, to) = (question.from, question.to);
    match &question.condition.metric {
        Signal::Healthy => Ok(health::healthy(&sources.hub.view(), service, question)),
        Signal::Restarts => Ok(health::restarts(&sources.hub.view(), service, revision, from, to)),
        Signal::Query { promql } => {
            let prometheus = sources.prometheus.as_ref().ok_or_else(|| {
                ApiError::invalid("PROMETHEUS_URL", "no Prometheus is configured to ask")
                    .hint("start the gateway with --prometheus-url")
            })?;
            let value = prometheus.ask(&filled(promql, service, revision), to).await?;
            Ok(Sample {
                count: u64::from(value.is_some()),
                failed: None,
                value,
            })
        }
        Signal::Metric { name } => metric(sources, service, name, revision, from, to).await,
        counted => {
            let bound = question.condition.threshold;
            counts_of(sources, service, (counted, bound), revision, from, to).await
        }
    }
}

/// Requests to a revision, and those of them that failed.
///
/// # Errors
/// They can't be read.
pub async fn requests(
    sources: &Sources,
    service: &Service,
    revision: u32,
    from: Timestamp,
    to: Timestamp,
) -> Result<Sample, ApiError> {
    counts_of(sources, service, (&Signal::ErrorRate, 0.0), revision, from, to).await
}

async fn counts_of(
    sources: &Sources,
    service: &Service,
    (signal, bound): (&Signal, f64),
    revision: u32,
    from: Timestamp,
    to: Timestamp,
) -> Result<Sample, ApiError> {
    let (metrics, signal) = (Arc::clone(&sources.metrics), signal.clone());
    let labels = counts::labels(&service.namespace, &service.name, revision);
    let read = tokio::task::spawn_blocking(move || proxied(&metrics.store, (&signal, bound), &labels, from, to));
    read.await
        .map_err(|e| ApiError::internal("the counts couldn't be read").cause(e.to_string()))?
}

/// What the proxy counted. `bound`: what a latency is compared with, in seconds.
fn proxied(
    store: &MetricStore,
    (signal, bound): (&Signal, f64),
    labels: &[(&'static str, String)],
    from: Timestamp,
    to: Timestamp,
) -> Result<Sample, ApiError> {
    let requests = increase(store, counts::REQUESTS, labels, from, to)?;
    match signal {
        Signal::ErrorRate => {
            let errors = increase(store, counts::ERRORS, labels, from, to)?;
            Ok(Sample {
                count: requests,
                failed: Some(errors),
                value: (requests > 0).then(|| errors as f64 / requests as f64),
            })
        }
        Signal::RequestRate => {
            let seconds = time::between(from, to).duration().as_secs_f64();
            Ok(Sample {
                count: requests,
                failed: None,
                value: (seconds > 0.0).then(|| requests as f64 / seconds),
            })
        }
        Signal::Latency { percentile } => {
            let mut buckets = vec![0u64; proxy::BUCKETS];
            for (series, grown) in increases(store, counts::BUCKETS, labels, from, to)? {
                let place = series.get(counts::BUCKET).and_then(|place| place.parse::<usize>().ok());
                if let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) {
                    *bucket += grown;
                }
            }
            Ok(Sample {
                count: buckets.iter().sum(),
                failed: Some(slower(&buckets, bound)),
                value: proxy::quantile(&buckets, percentile / 100.0).map(|at| at.as_secs_f64()),
            })
        }
        _ => Ok(NOTHING),
    }
}

/// Answers that took longer than `seconds`: those of the buckets above, and of the one that it falls into the part that is.
fn slower(buckets: &[u64], seconds: f64) -> u64 {
    let mut from = 0.0;
    let mut slower = 0.0;
    for (place, count) in buckets.iter().enumerate() {
        let to = proxy::bucket_bound(place).map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let above = if seconds <= from {
            1.0
        } else if seconds >= to || to.is_infinite() {
            0.0
        } else {
            (to - seconds) / (to - from)
        };
        slower += above * *count as f64;
        from = to;
    }
    slower.round() as u64
}

/// By how much a counter grew in a window, over all of its series.
fn increase(
    store: &MetricStore,
    name: &str,
    labels: &[(&'static str, String)],
    from: Timestamp,
    to: Timestamp,
) -> Result<u64, ApiError> {
    let all = increases(store, name, labels, from, to)?;
    Ok(all.into_iter().map(|(_, grown)| grown).sum())
}

/// By how much each series of a counter grew in a window.
fn increases(
    store: &MetricStore,
    name: &str,
    labels: &[(&'static str, String)],
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<(Labels, u64)>, ApiError> {
    let mut matchers = vec![Matcher::name(name)];
    matchers.extend(labels.iter().map(|(k, v)| Matcher::eq(k, v)));
    let (from, to) = (from.as_millisecond(), to.as_millisecond());
    // All that there is: nothing is kept of a moment before one that was kept.
    let mut series = store
        .select(&matchers, from - BEFORE_MS, i64::MAX)
        .map_err(|e| store_failed(&e))?;
    let latest = series.iter().filter_map(|s| s.points.last()).map(|(at, _)| *at).max();
    if let Some(ahead) = latest
        .map(|latest| latest.saturating_sub(to))
        .filter(|ahead| *ahead > AHEAD_MS)
    {
        let ahead = Span::secs(ahead.unsigned_abs() / 1000);
        return Err(ApiError::internal(format!(
            "the gateway's clock was set back: nothing is counted until it has caught up, in {ahead}"
        )));
    }
    series.iter_mut().for_each(|s| s.points.retain(|(at, _)| *at <= to));
    let whole = |grown: f64| grown.round().max(0.0) as u64;
    Ok(series
        .into_iter()
        .map(|s| (s.labels, whole(grown(&s.points, from))))
        .collect())
}

/// By how much a counter grew after a moment. One that fell was started anew at zero; one that is there for the first time
/// begins with a zero of its own, so that nothing of it is missed.
fn grown(points: &[(i64, f64)], from: i64) -> f64 {
    let mut grown = 0.0;
    let mut before: Option<f64> = None;
    for &(at, value) in points {
        if at > from
            && let Some(before) = before
        {
            grown += if value < before { value } else { value - before };
        }
        before = Some(value);
    }
    grown
}

/// A metric's mean over all that was measured of a revision's replicas.
async fn metric(
    sources: &Sources,
    service: &Service,
    name: &str,
    revision: u32,
    from: Timestamp,
    to: Timestamp,
) -> Result<Sample, ApiError> {
    let members = service.members.iter().filter(|m| m.revision == revision);
    let replicas = members.map(|m| m.workload.clone()).collect();
    let values = values(sources, service, name, replicas, from, to).await?;
    Ok(Sample {
        count: values.len() as u64,
        failed: None,
        value: mean(&values),
    })
}

/// `None`: of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// What was measured of a metric of some replicas, sample by sample.
///
/// # Errors
/// There is no such metric, or it can't be read.
pub async fn values(
    sources: &Sources,
    service: &Service,
    name: &str,
    replicas: Vec<WorkloadId>,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<f64>, ApiError> {
    let within = Within {
        namespace: &service.namespace,
        only: Some(&service.namespace),
    };
    let mut questions = Vec::with_capacity(replicas.len());
    for id in replicas {
        let request = MetricsRequest {
            name: name.to_owned(),
            workload: Some(id.to_string()),
            namespace: Some(service.namespace.clone()),
            from: Some(from),
            to: Some(to),
            ..MetricsRequest::default()
        };
        let view = sources.hub.view();
        questions.push(understand(&sources.metrics, &view, within, &request, to)?);
    }
    let metrics = Arc::clone(&sources.metrics);
    let answered = tokio::task::spawn_blocking(move || {
        let mut values = Vec::new();
        for question in questions {
            values.extend(question.samples(&metrics)?);
        }
        Ok(values)
    });
    answered
        .await
        .map_err(|e| ApiError::internal("the metrics couldn't be read").cause(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_names_no_revision_is_compared_with_nothing() {
        let query = |promql: &str| Signal::Query {
            promql: promql.to_owned(),
        };
        assert!(compared(&query("max(depth{revision=\"$revision\"})")));
        assert!(!compared(&query("max(depth{service=\"$service\"})")));
        assert!(compared(&Signal::ErrorRate) && !compared(&Signal::Restarts));
    }

    #[test]
    fn a_counter_grows_from_the_last_value_before_the_window() {
        let points = [(0, 0.0), (1_000, 5.0), (2_000, 9.0), (3_000, 9.0)];
        assert_eq!(grown(&points, 1_000), 4.0);
        assert_eq!(grown(&points, 0), 9.0);
        assert_eq!(grown(&points, 500), 9.0);
        assert_eq!(grown(&points, 3_000), 0.0);
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        // The gateway was started anew, wrote its zero, and counted on.
        let points = [(0, 0.0), (1_000, 50.0), (2_000, 0.0), (3_000, 7.0)];
        assert_eq!(grown(&points, 1_000), 7.0);
        // Even without its zero.
        assert_eq!(grown(&[(1_000, 50.0), (3_000, 7.0)], 1_000), 7.0);
    }

    #[test]
    fn answers_above_a_bound_are_counted_by_their_buckets() {
        let mut buckets = vec![0; proxy::BUCKETS];
        // 0 to 64 µs, 64 to 80 µs, 80 to 96 µs.
        buckets[..3].copy_from_slice(&[100, 10, 1]);
        for (micros, slower_than) in [(0.0, 111), (64.0, 11), (72.0, 6), (80.0, 1), (96.0, 0), (1e9, 0)] {
            assert_eq!(slower(&buckets, micros / 1e6), slower_than, "{micros} µs");
        }
        // Of what took longer than the last bound nothing more is known.
        buckets[proxy::BUCKETS - 1] = 7;
        assert_eq!(slower(&buckets, 1.0), 7);
    }

    #[test]
    fn what_was_counted_before_the_clock_was_set_back_is_taken_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = MetricStore::open(folder.path().join("metrics"), telemetry::metrics::Options::default()).unwrap();
        let labels = counts::labels("default", "web", 2);
        let of: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let series = store.series(counts::REQUESTS, &of).unwrap();
        // The store takes nothing that is old or of the future.
        let begun = time::before(crate::hub::now(), Span::secs(7200));
        let at = |second| time::after(begun, Span::secs(second));
        let counted = |second: u64, value: f64| telemetry::metrics::Sample {
            series,
            at_ms: at(second).as_millisecond(),
            value,
        };
        let samples = [counted(0, 0.0), counted(10, 50.0), counted(3_600, 90.0)];
        assert_eq!(store.append(&samples).unwrap().stored, 3);
        let grew = |to| increase(&store, counts::REQUESTS, &labels, at(0), at(to));
        assert_eq!(grew(3_600).unwrap(), 90);
        assert_eq!(
            grew(3_590).unwrap(),
            50,
            "the answer came ten seconds after the question"
        );
        let error = grew(600).unwrap_err();
        assert!(
            error
                .message
                .ends_with("clock was set back: nothing is counted until it has caught up, in 50m"),
            "{error}"
        );
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(grown(&[], 0), 0.0);
        assert_eq!(grown(&[(1_000, 50.0)], 0), 0.0);
    }
}
