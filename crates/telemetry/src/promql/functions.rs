//! Functions of samples in a range, of vectors, and of nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use promql_parser::parser::{Call, Expr};

use super::PromqlError;
use super::eval::{Element, Eval, Val, between, mapped, nameless, window};
use crate::metrics::Labels;

/// A function of a series' samples in a range: samples, first and last time of the range, parameter.
type OfRange = fn(&[(i64, f64)], (i64, i64), f64) -> Option<f64>;

fn of_range(name: &str) -> Option<OfRange> {
    Some(match name {
        "rate" => |points, range, _| extrapolated(points, range, true, true),
        "increase" => |points, range, _| extrapolated(points, range, true, false),
        "delta" => |points, range, _| extrapolated(points, range, false, false),
        "irate" => |points, _, _| last_two(points, true),
        "idelta" => |points, _, _| last_two(points, false),
        "changes" => |points, _, _| Some(pairs(points, |a, b| a.to_bits() != b.to_bits())),
        "resets" => |points, _, _| Some(pairs(points, |a, b| b < a)),
        "avg_over_time" => |points, _, _| Some(sum(points) / points.len() as f64),
        "sum_over_time" => |points, _, _| Some(sum(points)),
        "count_over_time" => |points, _, _| Some(points.len() as f64),
        "min_over_time" => |points, _, _| points.iter().map(|(_, value)| *value).reduce(f64::min),
        "max_over_time" => |points, _, _| points.iter().map(|(_, value)| *value).reduce(f64::max),
        "last_over_time" => |points, _, _| points.last().map(|(_, value)| *value),
        "present_over_time" => |_, _, _| Some(1.0),
        "stdvar_over_time" => |points, _, _| Some(variance(points)),
        "stddev_over_time" => |points, _, _| Some(variance(points).sqrt()),
        "quantile_over_time" => {
            |points, _, share| Some(quantile(share, points.iter().map(|(_, value)| *value).collect()))
        }
        _ => return None,
    })
}

/// A function of each value of a vector, and two parameters.
type OfValue = fn(f64, f64, f64) -> f64;

fn of_value(name: &str) -> Option<OfValue> {
    Some(match name {
        "abs" => |value, _, _| value.abs(),
        "ceil" => |value, _, _| value.ceil(),
        "floor" => |value, _, _| value.floor(),
        "sqrt" => |value, _, _| value.sqrt(),
        "exp" => |value, _, _| value.exp(),
        "ln" => |value, _, _| value.ln(),
        "log2" => |value, _, _| value.log2(),
        "log10" => |value, _, _| value.log10(),
        "sgn" => |value, _, _| {
            if value == 0.0 || value.is_nan() {
                value
            } else {
                value.signum()
            }
        },
        // To the nearest multiple, halves up; without a parameter, of 1.
        "round" => |value, to, _| {
            let inverse = 1.0 / if to.is_nan() { 1.0 } else { to };
            (value * inverse + 0.5).floor() / inverse
        },
        "clamp" => |value, low, high| low.max(high.min(value)),
        "clamp_min" => |value, low, _| low.max(value),
        "clamp_max" => |value, high, _| high.min(value),
        _ => return None,
    })
}

/// Refuses what is not supported.
pub(super) fn check(call: &Call) -> Result<(), PromqlError> {
    let name = call.func.name;
    let known = of_range(name).is_some()
        || of_value(name).is_some()
        || matches!(
            name,
            "time" | "scalar" | "vector" | "absent" | "timestamp" | "sort" | "sort_desc" | "histogram_quantile"
        );
    if !known {
        return Err(PromqlError::Unsupported(format!("the function {name}")));
    }
    Ok(())
}

pub(super) fn call(eval: &Eval, call: &Call, at_ms: i64) -> Result<Val, PromqlError> {
    let name = call.func.name;
    let arguments: Vec<&Expr> = call.args.args.iter().map(|argument| unwrapped(argument)).collect();
    if let Some(function) = of_range(name) {
        return over_range(eval, name, function, &arguments, at_ms);
    }
    let first = arguments.first().copied();
    let argument = || first.ok_or_else(|| PromqlError::Evaluation(format!("{name} wants an argument")));
    if let Some(function) = of_value(name) {
        if name == "clamp" && eval.scalar(arguments[1], at_ms)? > eval.scalar(arguments[2], at_ms)? {
            return Ok(Val::Vector(Vec::new()));
        }
        let parameter = |at: usize| arguments.get(at).map_or(Ok(f64::NAN), |expr| eval.scalar(expr, at_ms));
        let (a, b) = (parameter(1)?, parameter(2)?);
        return Ok(Val::Vector(mapped(eval.vector(argument()?, at_ms)?, |value| {
            function(value, a, b)
        })));
    }
    let now_s = at_ms as f64 / 1000.0;
    Ok(match name {
        "time" => Val::Scalar(now_s),
        "vector" => Val::Vector(vec![Element {
            labels: Arc::new(nameless(Vec::new())),
            value: eval.scalar(argument()?, at_ms)?,
        }]),
        "scalar" => match eval.vector(argument()?, at_ms)?.as_slice() {
            [element] => Val::Scalar(element.value),
            _ => Val::Scalar(f64::NAN),
        },
        "absent" => {
            let argument = argument()?;
            if eval.vector(argument, at_ms)?.is_empty() {
                let labels = Arc::new(wanted_labels(argument));
                Val::Vector(vec![Element { labels, value: 1.0 }])
            } else {
                Val::Vector(Vec::new())
            }
        }
        "timestamp" => {
            let timed = match argument()? {
                Expr::VectorSelector(selector) => eval.newest(selector, at_ms),
                other => eval
                    .vector(other, at_ms)?
                    .into_iter()
                    .map(|element| (element, at_ms))
                    .collect(),
            };
            let elements = timed.into_iter().map(|(element, at)| Element {
                labels: super::eval::without_name(&element.labels),
                value: at as f64 / 1000.0,
            });
            Val::Vector(elements.collect())
        }
        "sort" | "sort_desc" => {
            let mut elements = eval.vector(argument()?, at_ms)?;
            elements.sort_by(|a, b| {
                a.value
                    .is_nan()
                    .cmp(&b.value.is_nan())
                    .then(a.value.total_cmp(&b.value))
            });
            if name == "sort_desc" {
                let numbers = elements.partition_point(|element| !element.value.is_nan());
                elements[..numbers].reverse();
            }
            Val::Vector(elements)
        }
        "histogram_quantile" => {
            let share = eval.scalar(argument()?, at_ms)?;
            Val::Vector(histogram_quantile(share, eval.vector(arguments[1], at_ms)?))
        }
        _ => return check(call).map(|()| Val::Vector(Vec::new())),
    })
}

fn unwrapped(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}

fn over_range(eval: &Eval, name: &str, function: OfRange, arguments: &[&Expr], at_ms: i64) -> Result<Val, PromqlError> {
    let (parameter, range) = match arguments {
        [parameter, range] => (eval.scalar(parameter, at_ms)?, *range),
        [range] => (f64::NAN, *range),
        _ => return Err(PromqlError::Evaluation(format!("{name} wants a range of samples"))),
    };
    let Expr::MatrixSelector(matrix) = range else {
        return Err(PromqlError::Unsupported("subqueries".to_owned()));
    };
    let window = window(&matrix.vs, matrix.range.as_millis() as i64, at_ms);
    let mut elements = Vec::new();
    for one in eval.loaded(&matrix.vs) {
        let points = between(&one.points, window.0, window.1);
        if let Some(value) = (!points.is_empty())
            .then(|| function(points, window, parameter))
            .flatten()
        {
            // The last sample is still the metric.
            let labels = if name == "last_over_time" {
                &one.labels
            } else {
                &one.bare
            };
            let labels = Arc::clone(labels);
            elements.push(Element { labels, value });
        }
    }
    Ok(Val::Vector(elements))
}

fn sum(points: &[(i64, f64)]) -> f64 {
    points.iter().map(|(_, value)| value).sum()
}

fn variance(points: &[(i64, f64)]) -> f64 {
    let mean = sum(points) / points.len() as f64;
    points
        .iter()
        .map(|(_, value)| (value - mean) * (value - mean))
        .sum::<f64>()
        / points.len() as f64
}

fn pairs(points: &[(i64, f64)], counts: impl Fn(f64, f64) -> bool) -> f64 {
    points.windows(2).filter(|pair| counts(pair[0].1, pair[1].1)).count() as f64
}

/// Change between the last two samples; for a counter, a second.
fn last_two(points: &[(i64, f64)], counter: bool) -> Option<f64> {
    let [.., (before_ms, before), (last_ms, last)] = *points else {
        return None;
    };
    if !counter {
        return Some(last - before);
    }
    // A counter that fell began anew.
    let change = if last < before { last } else { last - before };
    Some(change / ((last_ms - before_ms) as f64 / 1000.0))
}

/// Change over the range, drawn out to its ends as Prometheus does: by at most half a distance between samples
/// where none is near an end, and for a counter not below zero.
fn extrapolated(points: &[(i64, f64)], (from_ms, to_ms): (i64, i64), counter: bool, per_second: bool) -> Option<f64> {
    let [(first_ms, first), .., (last_ms, last)] = *points else {
        return None;
    };
    let mut change = last - first;
    if counter {
        let fallen = points.windows(2).filter(|pair| pair[1].1 < pair[0].1);
        change += fallen.map(|pair| pair[0].1).sum::<f64>();
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_start = seconds(first_ms - from_ms);
    let to_end = seconds(to_ms - last_ms);
    let sampled = seconds(last_ms - first_ms);
    let between = sampled / (points.len() - 1) as f64;
    if counter && change > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / change));
    }
    let near = between * 1.1;
    let more = |gap: f64| if gap < near { gap } else { between / 2.0 };
    let factor = (sampled + more(to_start) + more(to_end)) / sampled;
    let factor = if per_second {
        factor / seconds(to_ms - from_ms)
    } else {
        factor
    };
    Some(change * factor)
}

/// Linear between the two nearest ranks; infinite outside of 0 to 1, NaN of nothing.
pub(super) fn quantile(share: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || share.is_nan() {
        return f64::NAN;
    }
    if share < 0.0 {
        return f64::NEG_INFINITY;
    }
    if share > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(f64::total_cmp);
    let rank = share * (values.len() - 1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    let part = rank - rank.floor();
    values[low] * (1.0 - part) + values[high] * part
}

/// The labels that a selector asks to be equal to something.
fn wanted_labels(expr: &Expr) -> Labels {
    use promql_parser::label::{METRIC_NAME, MatchOp};
    let selector = match expr {
        Expr::VectorSelector(selector) => selector,
        _ => return nameless(Vec::new()),
    };
    let equal = selector
        .matchers
        .matchers
        .iter()
        .filter(|matcher| matches!(matcher.op, MatchOp::Equal));
    let mut labels: BTreeMap<String, Option<String>> = BTreeMap::new();
    for matcher in equal.filter(|matcher| matcher.name != METRIC_NAME && !matcher.value.is_empty()) {
        // A label asked for twice says nothing.
        let entry = labels.entry(matcher.name.clone());
        entry
            .and_modify(|value| *value = None)
            .or_insert(Some(matcher.value.clone()));
    }
    nameless(
        labels
            .into_iter()
            .filter_map(|(label, value)| Some((label, value?)))
            .collect(),
    )
}

/// Of buckets by their `le`, counting up.
fn histogram_quantile(share: f64, buckets: Vec<Element>) -> Vec<Element> {
    let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for bucket in buckets {
        let Some(bound) = bucket.labels.get("le").and_then(|le| le.parse::<f64>().ok()) else {
            continue;
        };
        let kept = bucket.labels.labels.iter().filter(|(label, _)| label != "le");
        let labels = nameless(kept.cloned().collect());
        histograms.entry(labels).or_default().push((bound, bucket.value));
    }
    let quantile = |(labels, mut buckets): (Labels, Vec<(f64, f64)>)| Element {
        value: bucket_quantile(share, &mut buckets),
        labels: Arc::new(labels),
    };
    histograms.into_iter().map(quantile).collect()
}

fn bucket_quantile(share: f64, buckets: &mut [(f64, f64)]) -> f64 {
    if share.is_nan() {
        return f64::NAN;
    }
    if share < 0.0 {
        return f64::NEG_INFINITY;
    }
    if share > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Rates of buckets read a moment apart may fall.
    let mut most = f64::NEG_INFINITY;
    for (_, count) in buckets.iter_mut() {
        most = most.max(*count);
        *count = most;
    }
    let Some(&(top, observations)) = buckets.last() else {
        return f64::NAN;
    };
    if top != f64::INFINITY || buckets.len() < 2 || observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = share * observations;
    let at = buckets.partition_point(|(_, count)| *count < rank);
    if at + 1 >= buckets.len() {
        return buckets[buckets.len() - 2].0;
    }
    let (end, mut count) = buckets[at];
    if at == 0 && end <= 0.0 {
        return end;
    }
    let mut start = 0.0;
    if at > 0 {
        let (below, fewer) = buckets[at - 1];
        start = below;
        count -= fewer;
        rank -= fewer;
    }
    start + (end - start) * (rank / count)
}
