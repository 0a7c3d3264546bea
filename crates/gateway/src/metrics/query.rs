//! `metrics`: from what a person asks to series, points and one number.

use std::collections::BTreeMap;

use api::{
    ApiError, ErrorCode, GpuIndex, Span, Timestamp,
    metric::{self, Aggregate, Kind, OWN_PREFIX, Scope, label},
    op::{Aggregated, MetricInfo, MetricSeries, MetricsAnswer, MetricsRequest, Resolution},
    time,
};
use telemetry::metrics::{
    Aggregate as Kept, Labels, Matcher, MetricError, MetricStore, NAME_LABEL, Resolution as Source,
};

use super::{Metrics, held};
use crate::view::{View, Within};

/// What a range is where none is asked for.
const RANGE: Span = Span::secs(3_600);
/// Points that a range is cut into, about, where no step is asked for.
const POINTS: u64 = 120;
/// Steps that are easy to read, in seconds.
const STEPS: &[u64] = &[10, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400];

/// Metrics of machines that workloads have for themselves, too.
const OF_ITS_OWN: &[(&str, &str)] = &[("memory.usage", "workload.memory"), ("cpu.usage", "workload.cpu")];

/// What the store met, for a caller.
#[must_use]
pub fn store_failed(error: &MetricError) -> ApiError {
    match error {
        MetricError::InvalidPattern { .. }
        | MetricError::InvalidRange { .. }
        | MetricError::InvalidStep { .. }
        | MetricError::TooManySamples { .. }
        | MetricError::TooManyPoints { .. }
        | MetricError::NeedsRaw { .. } => ApiError::new(ErrorCode::InvalidArgument, error.to_string()),
        MetricError::StorageFull { .. } => ApiError::new(ErrorCode::StorageFull, error.to_string()),
        error => ApiError::internal("metrics can't be read").cause(error.to_string()),
    }
}

/// The metrics that are kept, and those that could be.
#[must_use]
pub fn list(metrics: &Metrics) -> Vec<MetricInfo> {
    let own = metrics.own();
    let kept: BTreeMap<String, u32> = metrics.store.names().into_iter().map(|(n, c)| (n, c as u32)).collect();
    let catalogue = metric::CATALOGUE.iter().map(|m| MetricInfo {
        name: m.name.to_owned(),
        prometheus: m.prometheus.to_owned(),
        unit: m.unit.name().to_owned(),
        kind: m.kind,
        scope: m.scope,
        series: kept.get(m.name).copied().unwrap_or(0),
        help: m.help.to_owned(),
    });
    let own = kept
        .iter()
        .filter(|(name, _)| name.starts_with(OWN_PREFIX))
        .map(|(name, series)| {
            let told = own.get(name);
            let kind = told.map_or(Kind::Gauge, |t| t.kind);
            MetricInfo {
                name: name.clone(),
                prometheus: api::exposition::own_name(name, kind),
                unit: told.and_then(|t| t.unit.clone()).unwrap_or_default(),
                kind,
                scope: Scope::Workload,
                series: *series,
                help: "Reported by workloads.".to_owned(),
            }
        });
    catalogue.chain(own).collect()
}

/// A question that is understood: what is meant, and where it is to be found.
pub struct Question {
    meant: Meant,
    from: Timestamp,
    to: Timestamp,
    step: Span,
    aggregate: Aggregate,
    limit: Option<u32>,
    parts: Vec<Part>,
    notes: Vec<String>,
}

/// Understands a question.
///
/// # Errors
/// `INVALID_ARGUMENT`: there is no such metric (the nearest is named), a range or step that is none; `NOT_FOUND`: no
/// such node or workload.
pub fn understand(
    metrics: &Metrics,
    view: &View,
    within: Within<'_>,
    request: &MetricsRequest,
    now: Timestamp,
) -> Result<Question, ApiError> {
    let mut notes = Vec::new();
    let mut name = request.name.as_str();
    if let (Some(_), Some((_, its))) = (&request.workload, OF_ITS_OWN.iter().find(|(of, _)| *of == name)) {
        notes.push(format!("{name} of a workload is its own share: {its}"));
        name = its;
    }
    let meant = meant(metrics, name)?;
    let to = request.to.unwrap_or(now);
    let from = request.from.unwrap_or_else(|| time::before(to, RANGE));
    if from >= to {
        let message = format!("the range would end at {to}, before it begins at {from}");
        return Err(ApiError::invalid("from", message));
    }
    let step = match request.step {
        Some(step) if step.is_zero() => {
            return Err(ApiError::invalid("step", "a step takes some time").hint("10s, 5m, 1h"));
        }
        Some(step) => step,
        None => step_for(time::between(from, to)),
    };
    Ok(Question {
        aggregate: request.aggregate.unwrap_or(meant.aggregate),
        parts: parts(view, within, request, &meant, from, to)?,
        meant,
        from,
        to,
        step,
        limit: request.limit,
        notes,
    })
}

impl Question {
    /// Answers it. Reads files.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: more than one answer may hold, or what only single samples tell where they are gone.
    pub fn answer(self, metrics: &Metrics) -> Result<MetricsAnswer, ApiError> {
        let Self {
            meant,
            aggregate,
            parts,
            mut notes,
            ..
        } = self;
        let mut asked = Asked {
            store: &metrics.store,
            aggregate,
            step_ms: millis(self.step),
            resolution: Resolution::Raw,
        };
        let mut series = Vec::new();
        for part in &parts {
            asked.series(part, &mut series)?;
        }
        if series.is_empty() {
            notes.push(format!("nothing was measured of {} in this range", meant.name));
        }
        let value = match aggregate {
            Aggregate::P95 => asked.percentile(&parts, 0.95)?,
            Aggregate::P99 => asked.percentile(&parts, 0.99)?,
            Aggregate::Avg => mean(&series),
            Aggregate::Max => series.iter().filter_map(|s| s.shown.value).reduce(f64::max),
            Aggregate::Min => series.iter().filter_map(|s| s.shown.value).reduce(f64::min),
        };
        let all = series.len();
        shorten(&mut series, aggregate, self.limit);
        Ok(MetricsAnswer {
            metric: meant.name,
            unit: meant.unit,
            from: self.from,
            to: self.to,
            step: self.step,
            resolution: asked.resolution,
            aggregate: Aggregated {
                function: aggregate,
                value,
            },
            left_out: (all - series.len()) as u32,
            series: series.into_iter().map(|s| s.shown).collect(),
            notes,
        })
    }
}

impl Question {
    /// The single samples, of all series. Reads files.
    ///
    /// # Errors
    /// They can't be read.
    pub fn samples(self, metrics: &Metrics) -> Result<Vec<f64>, ApiError> {
        samples(&metrics.store, &self.parts)
    }
}

fn samples(store: &MetricStore, parts: &[Part]) -> Result<Vec<f64>, ApiError> {
    let mut values = Vec::new();
    for part in parts {
        let series = store.select(&part.matchers, part.from_ms, part.to_ms);
        let series = series.map_err(|e| store_failed(&e))?;
        values.extend(series.into_iter().flat_map(|s| s.points).map(|(_, value)| value));
    }
    Ok(values)
}

/// What a name means.
struct Meant {
    name: String,
    unit: String,
    scope: Scope,
    aggregate: Aggregate,
}

fn meant(metrics: &Metrics, name: &str) -> Result<Meant, ApiError> {
    if let Some(metric) = metric::find(name) {
        return Ok(Meant {
            name: metric.name.to_owned(),
            unit: metric.unit.name().to_owned(),
            scope: metric.scope,
            aggregate: metric.aggregate,
        });
    }
    // A workload's own may be named without what they all begin with.
    let full = if name.starts_with(OWN_PREFIX) {
        name.to_owned()
    } else {
        format!("{OWN_PREFIX}{name}")
    };
    let named = name == full && metric::own_name(&full[OWN_PREFIX.len()..]).is_some();
    if named || metrics.store.series_count(NAME_LABEL, &full) > 0 {
        return Ok(Meant {
            unit: metrics
                .own()
                .get(&full)
                .and_then(|t| t.unit.clone())
                .unwrap_or_default(),
            name: full,
            scope: Scope::Workload,
            aggregate: Aggregate::Avg,
        });
    }
    let error = ApiError::invalid("name", format!("there is no metric '{name}'"));
    Err(match metric::nearest(name) {
        Some(nearest) => error.hint(format!("did you mean '{nearest}'? clawbernetes metrics list shows all")),
        None => error.hint("clawbernetes metrics list"),
    })
}

/// A part of an answer: the series that match, in a range.
struct Part {
    matchers: Vec<Matcher>,
    from_ms: i64,
    to_ms: i64,
    /// Labels that tell a workload's members apart, where the series themselves don't.
    extra: Vec<(&'static str, String)>,
}

fn parts(
    view: &View,
    within: Within<'_>,
    request: &MetricsRequest,
    meant: &Meant,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Part>, ApiError> {
    let node = match &request.node {
        Some(text) => Some(view.find_node(text)?.name.clone()),
        None => None,
    };
    // The gateway's word on GPUs and workloads: its series are theirs, too.
    let of = |what: &str| meant.scope == Scope::Gateway && meant.name.starts_with(what);
    if request.gpu.is_some() && meant.scope != Scope::Gpu && !of("gpu.") {
        return Err(ApiError::invalid(
            "gpu",
            format!("{} isn't a metric of GPUs", meant.name),
        ));
    }
    let mut base = vec![Matcher::name(&meant.name)];
    if let Some(node) = &node {
        base.push(Matcher::eq(label::NODE, node.as_str()));
    }
    if let Some(gpu) = request.gpu {
        base.push(Matcher::eq(label::GPU, &gpu.to_string()));
    }
    let whole = |matchers| Part {
        matchers,
        from_ms: from.as_millisecond(),
        to_ms: to.as_millisecond(),
        extra: Vec::new(),
    };
    let Some(text) = &request.workload else {
        return Ok(vec![whole(base)]);
    };
    let workload = view.find_workload(text, within)?;
    match meant.scope {
        Scope::Gateway if !of("workload.") => Err(ApiError::invalid(
            "workload",
            format!("{} is the gateway's alone", meant.name),
        )),
        Scope::Workload | Scope::Gateway => {
            base.push(Matcher::eq(label::WORKLOAD, workload.id.as_str()));
            Ok(vec![whole(base)])
        }
        Scope::Gpu | Scope::Node => {
            let mut parts = Vec::new();
            for had in held(workload) {
                let (begin, end) = (from.max(had.from), had.to.unwrap_or(to).min(to));
                let wanted_node = node.as_ref().is_none_or(|n| *n == had.node);
                if begin >= end || !wanted_node || (meant.scope == Scope::Gpu && had.gpus.is_empty()) {
                    continue;
                }
                let mut matchers = base.clone();
                matchers.push(Matcher::eq(label::NODE, had.node.as_str()));
                if meant.scope == Scope::Gpu {
                    matchers.push(one_of(&had.gpus)?);
                }
                parts.push(Part {
                    matchers,
                    from_ms: begin.as_millisecond(),
                    to_ms: end.as_millisecond(),
                    extra: vec![
                        (label::WORKLOAD, workload.id.to_string()),
                        (label::ATTEMPT, had.attempt.to_string()),
                        (label::RANK, had.rank.to_string()),
                    ],
                });
            }
            Ok(parts)
        }
    }
}

fn one_of(gpus: &[GpuIndex]) -> Result<Matcher, ApiError> {
    let pattern: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    Matcher::re(label::GPU, &pattern.join("|")).map_err(|e| store_failed(&e))
}

/// How a question is put to the store.
struct Asked<'a> {
    store: &'a MetricStore,
    aggregate: Aggregate,
    step_ms: i64,
    /// The coarsest that was met.
    resolution: Resolution,
}

/// A series of the answer, and how many samples it stands on.
struct Found {
    shown: MetricSeries,
    samples: f64,
}

impl Asked<'_> {
    /// Adds the series of a part, with points and summary.
    fn series(&mut self, part: &Part, out: &mut Vec<Found>) -> Result<(), ApiError> {
        let points = self.windows(part, self.step_ms, kept(self.aggregate))?;
        if points.is_empty() {
            return Ok(());
        }
        let range = (part.to_ms - part.from_ms).max(1);
        let wanted = kept(self.aggregate);
        let mut whole = |aggregate| self.windows(part, range, aggregate);
        let (min, avg, max) = (whole(Kept::Min)?, whole(Kept::Avg)?, whole(Kept::Max)?);
        let (count, value) = (whole(Kept::Count)?, whole(wanted)?);
        // The latest of a long range isn't worth its reading where only five-minute values are left.
        let last = match self.resolution {
            Resolution::Raw => self.windows(part, range, Kept::Last)?,
            Resolution::FiveMinutes => BTreeMap::new(),
        };
        let only = |of: &BTreeMap<Labels, Vec<(i64, f64)>>, labels: &Labels| {
            of.get(labels).and_then(|points| points.last()).map(|(_, value)| *value)
        };
        for (labels, points) in points {
            let mut shown: BTreeMap<String, String> = labels.labels.iter().cloned().collect();
            shown.extend(part.extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
            out.push(Found {
                samples: only(&count, &labels).unwrap_or(0.0),
                shown: MetricSeries {
                    labels: shown,
                    value: only(&value, &labels),
                    min: only(&min, &labels),
                    avg: only(&avg, &labels),
                    max: only(&max, &labels),
                    last: only(&last, &labels),
                    points: points.into_iter().filter_map(|(t, v)| Some((at(t)?, v))).collect(),
                },
            });
        }
        Ok(())
    }

    fn windows(
        &mut self,
        part: &Part,
        step_ms: i64,
        aggregate: Kept,
    ) -> Result<BTreeMap<Labels, Vec<(i64, f64)>>, ApiError> {
        let windows = self
            .store
            .windows(&part.matchers, part.from_ms, part.to_ms, step_ms, aggregate)
            .map_err(|e| store_failed(&e))?;
        if windows.resolution == Source::Rollup {
            self.resolution = Resolution::FiveMinutes;
        }
        Ok(windows.series.into_iter().map(|s| (s.labels, s.points)).collect())
    }

    /// Over the samples of all series.
    fn percentile(&self, parts: &[Part], share: f64) -> Result<Option<f64>, ApiError> {
        Ok(percentile(&mut samples(self.store, parts)?, share))
    }
}

/// Linear between the two nearest, as the store's own.
fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let place = share * last as f64;
    let (low, high) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
    Some(low + (high - low) * place.fract())
}

/// The mean of all samples: each series counts by how many it has.
fn mean(series: &[Found]) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for found in series {
        if let Some(avg) = found.shown.avg {
            sum += avg * found.samples;
            count += found.samples;
        }
    }
    (count > 0.0).then(|| sum / count)
}

/// Leaves the most telling series: the largest first, the smallest where the smallest were asked for.
fn shorten(series: &mut Vec<Found>, aggregate: Aggregate, limit: Option<u32>) {
    let Some(limit) = limit.map(|l| l as usize) else { return };
    if series.len() > limit {
        let value = |found: &Found| found.shown.value.unwrap_or(f64::NEG_INFINITY);
        series.sort_by(|a, b| match aggregate {
            Aggregate::Min => value(a).total_cmp(&value(b)),
            _ => value(b).total_cmp(&value(a)),
        });
        series.truncate(limit);
    }
}

fn kept(aggregate: Aggregate) -> Kept {
    match aggregate {
        Aggregate::Avg => Kept::Avg,
        Aggregate::Max => Kept::Max,
        Aggregate::Min => Kept::Min,
        Aggregate::P95 => Kept::P95,
        Aggregate::P99 => Kept::P99,
    }
}

fn step_for(range: Span) -> Span {
    let seconds = range.millis() / 1000 / POINTS;
    let step = STEPS.iter().find(|step| **step >= seconds).or(STEPS.last());
    Span::secs(step.copied().unwrap_or(60))
}

fn millis(span: Span) -> i64 {
    i64::try_from(span.millis()).unwrap_or(i64::MAX)
}

fn at(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}
