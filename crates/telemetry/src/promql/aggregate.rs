//! Aggregations: `sum by (…)` and its like.

use std::collections::BTreeMap;

use promql_parser::parser::{AggregateExpr, LabelModifier};

use crate::metrics::NAME_LABEL;

use super::{
    LabelSet, PromqlError,
    eval::{Eval, Grid},
    value::{Row, Value, merged},
};

pub(super) fn evaluate(eval: &Eval<'_>, expr: &AggregateExpr, grid: Grid) -> Result<Vec<Row>, PromqlError> {
    let rows = eval.vector(&expr.expr, grid)?;
    let operator = expr.op.to_string();
    let mut groups: BTreeMap<LabelSet, Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups
            .entry(group(&row.labels, expr.modifier.as_ref()))
            .or_default()
            .push(row);
    }
    eval.in_time()?;
    let parameter = || match &expr.param {
        Some(param) => eval.scalar(param, grid),
        None => Err(PromqlError::Invalid(format!("{operator} needs a number"))),
    };
    let fold: fn(&mut Vec<f64>) -> f64 = match operator.as_str() {
        "sum" => |values| values.iter().sum(),
        "avg" => |values| mean(values),
        "min" => |values| {
            values
                .iter()
                .copied()
                .fold(f64::NAN, |a, b| if b < a || a.is_nan() { b } else { a })
        },
        "max" => |values| {
            values
                .iter()
                .copied()
                .fold(f64::NAN, |a, b| if b > a || a.is_nan() { b } else { a })
        },
        "count" => |values| values.len() as f64,
        "group" => |_| 1.0,
        "stdvar" => |values| variance(values),
        "stddev" => |values| variance(values).sqrt(),
        "quantile" => {
            let shares = parameter()?;
            let shared = |step: usize, values: &mut Vec<f64>| {
                quantile(shares.get(step).copied().unwrap_or(f64::NAN), std::mem::take(values))
            };
            return Ok(folded(groups, grid, shared));
        }
        "topk" | "bottomk" => {
            let counts = parameter()?;
            let kept = groups
                .into_values()
                .flat_map(|rows| most(rows, &counts, operator == "topk"));
            return Ok(kept.collect());
        }
        "count_values" => {
            let Some(Value::Text(label)) = expr.param.as_ref().map(|param| eval.value(param, grid)).transpose()? else {
                return Err(PromqlError::Invalid("count_values needs a label".to_owned()));
            };
            return values_counted(eval, groups, &label, grid);
        }
        other => return Err(PromqlError::Unsupported(other.to_owned())),
    };
    Ok(folded(groups, grid, |_, values| fold(values)))
}

/// The labels of the group that a series belongs to.
fn group(labels: &LabelSet, modifier: Option<&LabelModifier>) -> LabelSet {
    let kept = |label: &str| match modifier {
        None => false,
        Some(LabelModifier::Include(only)) => only.labels.iter().any(|l| l == label),
        Some(LabelModifier::Exclude(without)) => label != NAME_LABEL && !without.labels.iter().any(|l| l == label),
    };
    let labels = labels.iter().filter(|(label, _)| kept(label));
    labels.map(|(label, value)| (label.clone(), value.clone())).collect()
}

/// One row a group: what the values of its series come to at each step.
fn folded(groups: BTreeMap<LabelSet, Vec<Row>>, grid: Grid, fold: impl Fn(usize, &mut Vec<f64>) -> f64) -> Vec<Row> {
    let mut values = Vec::new();
    let rows = groups.into_iter().map(|(labels, rows)| {
        let folded = (0..grid.steps).map(|step| {
            values.clear();
            values.extend(rows.iter().filter_map(|row| row.values[step]));
            (!values.is_empty()).then(|| fold(step, &mut values))
        });
        Row {
            values: folded.collect(),
            labels,
        }
    });
    rows.collect()
}

/// The series with the largest values of a group, or the smallest; which they are is told anew at each step. The most
/// telling of the last step come first.
fn most(mut rows: Vec<Row>, counts: &[f64], largest: bool) -> Vec<Row> {
    let before = |a: f64, b: f64| {
        let order = if largest { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        // What isn't a number comes last.
        order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    };
    let mut places: Vec<(usize, f64)> = Vec::new();
    for (step, &count) in counts.iter().enumerate() {
        places.clear();
        places.extend(
            rows.iter()
                .enumerate()
                .filter_map(|(at, row)| Some((at, row.values[step]?))),
        );
        places.sort_by(|a, b| before(a.1, b.1));
        let kept = if count >= 1.0 { count as usize } else { 0 };
        for (at, _) in places.iter().skip(kept) {
            rows[*at].values[step] = None;
        }
    }
    rows.retain(|row| row.values.iter().any(Option::is_some));
    let last = |row: &Row| row.values.last().copied().flatten();
    rows.sort_by(|a, b| match (last(a), last(b)) {
        (Some(a), Some(b)) => before(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    rows
}

/// How often each value occurs in a group, the value being a label.
fn values_counted(
    eval: &Eval<'_>,
    groups: BTreeMap<LabelSet, Vec<Row>>,
    label: &str,
    grid: Grid,
) -> Result<Vec<Row>, PromqlError> {
    let mut counted = Vec::new();
    for (labels, rows) in groups {
        let mut by_value: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        for row in rows {
            for (step, value) in row.values.into_iter().enumerate() {
                let Some(value) = value else { continue };
                let value = value.to_string();
                if !by_value.contains_key(&value) {
                    eval.room(by_value.len() + 1, grid)?;
                    by_value.insert(value.clone(), vec![None; grid.steps]);
                }
                if let Some(count) = by_value.get_mut(&value).and_then(|counts| counts.get_mut(step)) {
                    *count = Some(count.unwrap_or(0.0) + 1.0);
                }
            }
        }
        for (value, values) in by_value {
            let mut labels = labels.clone();
            labels.insert(label.to_owned(), value);
            counted.push(Row { labels, values });
        }
    }
    merged(counted)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// Linear between the two nearest; infinite for shares that aren't between 0 and 1.
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
    // What isn't a number counts as the smallest.
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let place = share * (values.len() - 1) as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(values.len() - 1);
    let weight = place.fract();
    values[low] * (1.0 - weight) + values[high] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let values = vec![4.0, 1.0, 3.0, 2.0];
        for (share, value) in [
            (0.0, 1.0),
            (0.5, 2.5),
            (1.0, 4.0),
            (1.5, f64::INFINITY),
            (-0.1, f64::NEG_INFINITY),
        ] {
            assert_eq!(quantile(share, values.clone()), value, "{share}");
        }
        assert!(quantile(0.5, Vec::new()).is_nan());
        assert_eq!(quantile(1.0, vec![f64::NAN, 2.0, f64::NAN]), 2.0);
    }
}
