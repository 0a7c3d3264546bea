//! What expressions come to.

use std::collections::BTreeMap;

use crate::metrics::{Labels, NAME_LABEL};

use super::PromqlError;

/// Names and values of labels, with the metric's name as [`NAME_LABEL`] where it still has one.
pub type LabelSet = BTreeMap<String, String>;

/// (ms since 1970 UTC, value), times ascending.
pub type Points = Vec<(i64, f64)>;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A number.
    Scalar(f64),
    /// A string.
    Text(String),
    /// A value each of several series.
    Vector(Vec<(LabelSet, f64)>),
    /// Points of several series; none is without points.
    Matrix(Vec<(LabelSet, Points)>),
}

/// A series over the steps of a query. `None`: it has no value at that step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) labels: LabelSet,
    pub(super) values: Vec<Option<f64>>,
}

/// What an expression comes to over all steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number a step.
    Scalar(Vec<f64>),
    Vector(Vec<Row>),
    Text(String),
}

pub(super) fn label_set(labels: Labels) -> LabelSet {
    let mut set: LabelSet = labels.labels.into_iter().collect();
    if !labels.name.is_empty() {
        set.insert(NAME_LABEL.to_owned(), labels.name);
    }
    set
}

/// Rows whose labels have been changed: those that are alike now become one, where they never have a value at the
/// same step.
///
/// # Errors
/// Two have.
pub(super) fn merged(rows: Vec<Row>) -> Result<Vec<Row>, PromqlError> {
    let mut by_labels: BTreeMap<LabelSet, Vec<Option<f64>>> = BTreeMap::new();
    for row in rows {
        match by_labels.get_mut(&row.labels) {
            None => {
                by_labels.insert(row.labels, row.values);
            }
            Some(values) => {
                for (kept, more) in values.iter_mut().zip(row.values) {
                    if kept.is_some() && more.is_some() {
                        return Err(PromqlError::Matching(format!(
                            "two series of the answer have the same labels: {:?}",
                            row.labels
                        )));
                    }
                    *kept = kept.or(more);
                }
            }
        }
    }
    let rows = by_labels.into_iter().map(|(labels, values)| Row { labels, values });
    Ok(rows.collect())
}

/// Rows without the metric's name: what is computed from a metric isn't it.
pub(super) fn nameless(mut rows: Vec<Row>) -> Result<Vec<Row>, PromqlError> {
    for row in &mut rows {
        row.labels.remove(NAME_LABEL);
    }
    merged(rows)
}
