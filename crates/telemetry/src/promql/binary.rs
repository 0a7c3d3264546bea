//! Operators between two expressions: arithmetic, comparisons, sets, and which series of one side meet which of the
//! other.

use std::collections::BTreeMap;

use promql_parser::parser::{BinModifier, BinaryExpr, LabelModifier, VectorMatchCardinality};

use crate::metrics::NAME_LABEL;

use super::{
    LabelSet, PromqlError,
    eval::{Eval, Grid},
    value::{Row, Value, merged, nameless},
};

/// An operator on numbers.
#[derive(Clone, Copy)]
enum Operator {
    Arithmetic(fn(f64, f64) -> f64),
    /// With `bool`: 0 or 1. Without: the left number, where it holds.
    Comparison(fn(f64, f64) -> bool, bool),
}

impl Operator {
    fn find(name: &str, bool: bool) -> Option<Self> {
        Some(match name {
            "+" => Self::Arithmetic(|a, b| a + b),
            "-" => Self::Arithmetic(|a, b| a - b),
            "*" => Self::Arithmetic(|a, b| a * b),
            "/" => Self::Arithmetic(|a, b| a / b),
            "%" => Self::Arithmetic(|a, b| a % b),
            "^" => Self::Arithmetic(f64::powf),
            "atan2" => Self::Arithmetic(f64::atan2),
            "==" => Self::Comparison(|a, b| a == b, bool),
            "!=" => Self::Comparison(|a, b| a != b, bool),
            ">" => Self::Comparison(|a, b| a > b, bool),
            "<" => Self::Comparison(|a, b| a < b, bool),
            ">=" => Self::Comparison(|a, b| a >= b, bool),
            "<=" => Self::Comparison(|a, b| a <= b, bool),
            _ => return None,
        })
    }

    /// `None`: the comparison doesn't hold. `kept`: what is left where it does.
    fn apply(self, left: f64, right: f64, kept: f64) -> Option<f64> {
        match self {
            Self::Arithmetic(compute) => Some(compute(left, right)),
            Self::Comparison(holds, true) => Some(f64::from(u8::from(holds(left, right)))),
            Self::Comparison(holds, false) => holds(left, right).then_some(kept),
        }
    }

    /// Whether what comes out is still the metric that went in.
    fn keeps_name(self) -> bool {
        matches!(self, Self::Comparison(_, false))
    }
}

pub(super) fn evaluate(eval: &Eval<'_>, expr: &BinaryExpr, grid: Grid) -> Result<Value, PromqlError> {
    let left = eval.value(&expr.lhs, grid)?;
    let right = eval.value(&expr.rhs, grid)?;
    eval.in_time()?;
    let name = expr.op.to_string();
    let usual = BinModifier::default();
    let modifier = expr.modifier.as_ref().unwrap_or(&usual);
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(PromqlError::Unsupported("'fill'".to_owned()));
    }
    let Some(operator) = Operator::find(&name, modifier.return_bool) else {
        return match (left, right) {
            (Value::Vector(left), Value::Vector(right)) => {
                set(&name, left, right, modifier.matching.as_ref(), grid).map(Value::Vector)
            }
            _ => Err(PromqlError::Invalid(format!("{name} stands between vectors"))),
        };
    };
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let both = left.into_iter().zip(right);
            Value::Scalar(both.map(|(a, b)| operator.apply(a, b, a).unwrap_or(f64::NAN)).collect())
        }
        (Value::Vector(rows), Value::Scalar(scalar)) => with_scalar(operator, rows, &scalar, |v, s| (v, s))?,
        (Value::Scalar(scalar), Value::Vector(rows)) => with_scalar(operator, rows, &scalar, |v, s| (s, v))?,
        (Value::Vector(left), Value::Vector(right)) => {
            Value::Vector(vectors(eval, operator, left, right, modifier, grid)?)
        }
        (Value::Text(_), _) | (_, Value::Text(_)) => {
            return Err(PromqlError::Invalid(format!("{name} doesn't take strings")));
        }
    })
}

fn with_scalar(
    operator: Operator,
    mut rows: Vec<Row>,
    scalar: &[f64],
    order: impl Fn(f64, f64) -> (f64, f64),
) -> Result<Value, PromqlError> {
    for row in &mut rows {
        for (value, scalar) in row.values.iter_mut().zip(scalar) {
            *value = value.and_then(|kept| {
                let (left, right) = order(kept, *scalar);
                operator.apply(left, right, kept)
            });
        }
    }
    rows.retain(|row| row.values.iter().any(Option::is_some));
    Ok(Value::Vector(if operator.keeps_name() {
        rows
    } else {
        nameless(rows)?
    }))
}

/// The labels by which series of both sides find each other.
fn signature(labels: &LabelSet, matching: Option<&LabelModifier>) -> LabelSet {
    let kept = |label: &str| match matching {
        None => label != NAME_LABEL,
        Some(LabelModifier::Include(on)) => on.labels.iter().any(|l| l == label),
        Some(LabelModifier::Exclude(ignoring)) => label != NAME_LABEL && !ignoring.labels.iter().any(|l| l == label),
    };
    let labels = labels.iter().filter(|(label, _)| kept(label));
    labels.map(|(label, value)| (label.clone(), value.clone())).collect()
}

/// Steps at which each signature has a value on a side.
fn present(rows: &[Row], matching: Option<&LabelModifier>, grid: Grid) -> BTreeMap<LabelSet, Vec<bool>> {
    let mut found: BTreeMap<LabelSet, Vec<bool>> = BTreeMap::new();
    for row in rows {
        let steps = found
            .entry(signature(&row.labels, matching))
            .or_insert_with(|| vec![false; grid.steps]);
        for (there, value) in steps.iter_mut().zip(&row.values) {
            *there |= value.is_some();
        }
    }
    found
}

/// `and`, `or`, `unless`.
fn set(
    name: &str,
    mut left: Vec<Row>,
    mut right: Vec<Row>,
    matching: Option<&LabelModifier>,
    grid: Grid,
) -> Result<Vec<Row>, PromqlError> {
    // Of the rows, what stands where the other side has a value, or has none.
    let keep = |rows: &mut Vec<Row>, other: &BTreeMap<LabelSet, Vec<bool>>, wanted: bool| {
        for row in rows.iter_mut() {
            let there = other.get(&signature(&row.labels, matching));
            for (step, value) in row.values.iter_mut().enumerate() {
                if there.is_some_and(|there| there[step]) != wanted {
                    *value = None;
                }
            }
        }
        rows.retain(|row| row.values.iter().any(Option::is_some));
    };
    match name {
        "and" => keep(&mut left, &present(&right, matching, grid), true),
        "unless" => keep(&mut left, &present(&right, matching, grid), false),
        "or" => {
            keep(&mut right, &present(&left, matching, grid), false);
            left.append(&mut right);
            return merged(left);
        }
        other => return Err(PromqlError::Unsupported(other.to_owned())),
    }
    Ok(left)
}

fn vectors(
    eval: &Eval<'_>,
    operator: Operator,
    left: Vec<Row>,
    right: Vec<Row>,
    modifier: &BinModifier,
    grid: Grid,
) -> Result<Vec<Row>, PromqlError> {
    let matching = modifier.matching.as_ref();
    // From here on, many series of the first side may meet one of the second.
    let (many, one, swapped, taken) = match &modifier.card {
        VectorMatchCardinality::OneToOne => (left, right, false, None),
        VectorMatchCardinality::ManyToOne(taken) => (left, right, false, Some(&taken.labels)),
        VectorMatchCardinality::OneToMany(taken) => (right, left, true, Some(&taken.labels)),
        VectorMatchCardinality::ManyToMany => {
            return Err(PromqlError::Unsupported("many-to-many matching of numbers".to_owned()));
        }
    };
    let mut ones: BTreeMap<LabelSet, Vec<&Row>> = BTreeMap::new();
    for row in &one {
        ones.entry(signature(&row.labels, matching)).or_default().push(row);
    }
    let mut met: BTreeMap<LabelSet, Vec<Option<f64>>> = BTreeMap::new();
    // Without `group_left` or `group_right`, one series of each side.
    let mut used: BTreeMap<LabelSet, Vec<bool>> = BTreeMap::new();
    for row in many {
        eval.in_time()?;
        let key = signature(&row.labels, matching);
        let Some(others) = ones.get(&key) else { continue };
        for (step, value) in row.values.iter().enumerate() {
            let Some(value) = *value else { continue };
            let mut there = others.iter().filter_map(|other| Some((other, other.values[step]?)));
            let Some((other, against)) = there.next() else { continue };
            if there.next().is_some() {
                return Err(PromqlError::Matching(format!(
                    "several series of one side match {key:?}: name more labels to match by"
                )));
            }
            let (a, b) = if swapped { (against, value) } else { (value, against) };
            let Some(result) = operator.apply(a, b, a) else {
                continue;
            };
            if taken.is_none() {
                let used = used.entry(key.clone()).or_insert_with(|| vec![false; grid.steps]);
                if std::mem::replace(&mut used[step], true) {
                    return Err(PromqlError::Matching(format!(
                        "several series match {key:?}: say group_left or group_right where that is meant"
                    )));
                }
            }
            let labels = result_labels(&row.labels, &other.labels, operator, matching, taken);
            if !met.contains_key(&labels) {
                eval.room(met.len() + 1, grid)?;
                met.insert(labels.clone(), vec![None; grid.steps]);
            }
            if let Some(place) = met.get_mut(&labels).and_then(|values| values.get_mut(step))
                && place.replace(result).is_some()
            {
                return Err(PromqlError::Matching(format!(
                    "several series of the answer would be {labels:?}: group by labels that tell them apart"
                )));
            }
        }
    }
    Ok(met.into_iter().map(|(labels, values)| Row { labels, values }).collect())
}

fn result_labels(
    many: &LabelSet,
    one: &LabelSet,
    operator: Operator,
    matching: Option<&LabelModifier>,
    taken: Option<&Vec<String>>,
) -> LabelSet {
    let mut labels = many.clone();
    if !operator.keeps_name() {
        labels.remove(NAME_LABEL);
    }
    match (taken, matching) {
        (None, Some(LabelModifier::Include(on))) => labels.retain(|label, _| on.labels.contains(label)),
        (None, Some(LabelModifier::Exclude(ignoring))) => labels.retain(|label, _| !ignoring.labels.contains(label)),
        (None, None) => {}
        (Some(taken), _) => {
            for label in taken {
                match one.get(label) {
                    Some(value) => labels.insert(label.clone(), value.clone()),
                    None => labels.remove(label),
                };
            }
        }
    }
    labels
}
