//! `sum by (node) (…)` and the like.

use std::collections::BTreeMap;
use std::sync::Arc;

use promql_parser::parser::token::{
    T_AVG, T_BOTTOMK, T_COUNT, T_GROUP, T_MAX, T_MIN, T_QUANTILE, T_STDDEV, T_STDVAR, T_SUM, T_TOPK,
};
use promql_parser::parser::{AggregateExpr, LabelModifier};

use super::PromqlError;
use super::eval::{Element, nameless};
use super::functions::quantile;
use crate::metrics::{Labels, NAME_LABEL};

/// Refuses what is not supported.
pub(super) fn check(expr: &AggregateExpr) -> Result<(), PromqlError> {
    match expr.op.id() {
        T_SUM | T_AVG | T_MIN | T_MAX | T_COUNT | T_GROUP | T_STDDEV | T_STDVAR | T_TOPK | T_BOTTOMK | T_QUANTILE => {
            Ok(())
        }
        _ => Err(PromqlError::Unsupported(format!("the aggregation {}", expr.op))),
    }
}

pub(super) fn aggregate(
    expr: &AggregateExpr,
    elements: Vec<Element>,
    parameter: Option<f64>,
) -> Result<Vec<Element>, PromqlError> {
    let mut groups: BTreeMap<Labels, Vec<Element>> = BTreeMap::new();
    for element in elements {
        let group = group_of(&element.labels, expr.modifier.as_ref());
        groups.entry(group).or_default().push(element);
    }
    let parameter = parameter.unwrap_or(f64::NAN);
    let mut out = Vec::new();
    for (labels, members) in groups {
        let values: Vec<f64> = members.iter().map(|element| element.value).collect();
        let count = values.len() as f64;
        let sum: f64 = values.iter().sum();
        let variance = || {
            let mean = sum / count;
            values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
        };
        let value = match expr.op.id() {
            T_SUM => sum,
            T_AVG => sum / count,
            T_MIN => values.iter().copied().fold(f64::NAN, f64::min),
            T_MAX => values.iter().copied().fold(f64::NAN, f64::max),
            T_COUNT => count,
            T_GROUP => 1.0,
            T_STDVAR => variance(),
            T_STDDEV => variance().sqrt(),
            T_QUANTILE => quantile(parameter, values),
            id @ (T_TOPK | T_BOTTOMK) => {
                let mut ranked = members;
                // NaN goes last either way.
                ranked.sort_by(|a, b| {
                    let order = if id == T_TOPK {
                        b.value.total_cmp(&a.value)
                    } else {
                        a.value.total_cmp(&b.value)
                    };
                    a.value.is_nan().cmp(&b.value.is_nan()).then(order)
                });
                ranked.truncate(if parameter >= 1.0 { parameter as usize } else { 0 });
                out.extend(ranked);
                continue;
            }
            _ => return check(expr).map(|()| Vec::new()),
        };
        let labels = Arc::new(labels);
        out.push(Element { labels, value });
    }
    Ok(out)
}

/// The labels that a series keeps in its group.
fn group_of(labels: &Labels, modifier: Option<&LabelModifier>) -> Labels {
    match modifier {
        None => nameless(Vec::new()),
        Some(LabelModifier::Include(wanted)) => {
            let kept = |label: &&(String, String)| wanted.labels.contains(&label.0);
            Labels {
                name: if wanted.labels.iter().any(|label| label == NAME_LABEL) {
                    labels.name.clone()
                } else {
                    String::new()
                },
                labels: labels.labels.iter().filter(kept).cloned().collect(),
            }
        }
        Some(LabelModifier::Exclude(unwanted)) => {
            let kept = |label: &&(String, String)| !unwanted.labels.contains(&label.0);
            nameless(labels.labels.iter().filter(kept).cloned().collect())
        }
    }
}
