//! Queries: parsed, bounded, asked.

use std::time::{Duration, Instant};

use promql_parser::parser::{self, Expr, VectorSelector, value::ValueType};

use crate::metrics::{Matcher, MetricError, Series};

use super::{
    Answer, PromqlError,
    eval::{Eval, Grid, matchers},
    value::Value,
};

/// Longest query.
const LENGTH_MAX: usize = 64 << 10;
/// Most operators, calls and brackets: each may be a level of the expression's tree, which is walked by recursion.
const NODES_MAX: usize = 400;

/// Where series come from.
pub trait Source {
    /// Samples from `from_ms` to `to_ms`, both included, of the series that pass all matchers; times ascending, series
    /// in any order.
    ///
    /// # Errors
    /// They can't be read, or are too many.
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError>;
}

/// What a query may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples read, 16 bytes each.
    pub samples: u64,
    /// Points of the answer, and of what any part of the query comes to; 16 bytes each.
    pub points: u64,
    /// When it must be answered.
    pub deadline: Instant,
}

/// A query that has been understood.
#[derive(Debug, Clone)]
pub struct Query {
    expr: Expr,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`PromqlError::Invalid`], [`PromqlError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, PromqlError> {
        let too_long = |found, of, limit| PromqlError::TooLong { found, of, limit };
        if text.len() > LENGTH_MAX {
            return Err(too_long(text.len(), "bytes", LENGTH_MAX));
        }
        let nodes = nodes(text);
        if nodes > NODES_MAX {
            return Err(too_long(nodes, "operators and brackets", NODES_MAX));
        }
        if !spans_fit(text) {
            return Err(PromqlError::Invalid("a range that is no span of time".to_owned()));
        }
        let expr = parser::parse(text).map_err(PromqlError::Invalid)?;
        Ok(Self { expr })
    }

    /// Its value at one moment.
    ///
    /// # Errors
    /// Any but [`PromqlError::TooLong`].
    pub fn instant(&self, source: &dyn Source, at_ms: i64, limits: &Limits) -> Result<Answer, PromqlError> {
        let grid = Grid::new(at_ms, at_ms, 1)?;
        let eval = Eval::new(source, limits, (at_ms, at_ms));
        if self.expr.value_type() == ValueType::Matrix {
            return eval.samples(&self.expr, grid).map(Answer::Matrix);
        }
        Ok(match eval.value(&self.expr, grid)? {
            Value::Text(text) => Answer::Text(text),
            Value::Scalar(values) => Answer::Scalar(values.first().copied().unwrap_or(f64::NAN)),
            Value::Vector(rows) => {
                let valued = rows.into_iter().filter_map(|row| {
                    let value = row.values.first().copied().flatten()?;
                    Some((row.labels, value))
                });
                Answer::Vector(valued.collect())
            }
        })
    }

    /// Its values from `start_ms` every `step_ms` to `end_ms`: an [`Answer::Matrix`].
    ///
    /// # Errors
    /// As [`Self::instant`]; [`PromqlError::Range`].
    pub fn range(
        &self,
        source: &dyn Source,
        (start_ms, end_ms): (i64, i64),
        step_ms: i64,
        limits: &Limits,
    ) -> Result<Answer, PromqlError> {
        let kind = self.expr.value_type();
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return Err(PromqlError::Invalid(format!(
                "a {kind} has no values over time: it must be a scalar or an instant vector"
            )));
        }
        let grid = Grid::new(start_ms, end_ms, step_ms)?;
        let eval = Eval::new(source, limits, (start_ms, end_ms));
        eval.room(1, grid)?;
        let rows = match eval.value(&self.expr, grid)? {
            Value::Scalar(values) => vec![(Default::default(), grid.times().zip(values).collect())],
            Value::Vector(rows) => {
                let pointed = rows.into_iter().map(|row| {
                    let points = grid.times().zip(row.values);
                    (row.labels, points.filter_map(|(t, v)| Some((t, v?))).collect())
                });
                pointed.filter(|(_, points): &(_, Vec<_>)| !points.is_empty()).collect()
            }
            Value::Text(_) => Vec::new(),
        };
        Ok(Answer::Matrix(rows))
    }
}

/// The matchers of a selector alone, such as `up{node="a"}`: each list on its own selects, together they are a union.
///
/// # Errors
/// [`PromqlError::Invalid`]: it is more than a selector.
pub fn selector(text: &str) -> Result<Vec<Matcher>, PromqlError> {
    match Query::parse(text)?.expr {
        Expr::VectorSelector(
            selector @ VectorSelector {
                offset: None, at: None, ..
            },
        ) => matchers(&selector),
        _ => Err(PromqlError::Invalid(format!("{text} isn't a selector alone"))),
    }
}

/// A span as PromQL writes it: `5m`, `1h30m`. `None`: it isn't one.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    // Plain seconds are let through by the library, which panics where they are none.
    let unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    (unit && text.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| promql_parser::util::parse_duration(text).ok())
        .flatten()
}

/// What of a query isn't in quotes.
fn unquoted(text: &str) -> impl Iterator<Item = char> {
    let (mut quote, mut escaped) = (None, false);
    text.chars().filter(move |&c| {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None => return true,
        }
        false
    })
}

/// An upper bound of the levels that a query's tree may have.
fn nodes(text: &str) -> usize {
    let operators = unquoted(text).filter(|c| "([+-*/%^<>=!@".contains(*c)).count();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let sets = |word: &&str| {
        ["and", "or", "unless", "atan2"]
            .iter()
            .any(|w| word.eq_ignore_ascii_case(w))
    };
    operators + words.filter(sets).count()
}

/// Whether plain numbers in brackets are spans, in seconds: the parser panics on others.
fn spans_fit(text: &str) -> bool {
    let bare: String = unquoted(text).collect();
    let brackets = bare.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    let mut parts = brackets.flat_map(|inside| inside.split(':'));
    parts.all(|part| match part.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).is_ok(),
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_bounded() {
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        for text in [
            deep,
            vec!["a"; 500].join(" or "),
            vec!["1"; 500].join("-"),
            "a".repeat(70_000),
        ] {
            assert!(
                matches!(Query::parse(&text), Err(PromqlError::TooLong { .. })),
                "{text:.40}"
            );
        }
        let many = vec!["gpu-(1)"; 500].join("|");
        assert!(Query::parse(&format!("up{{node=~\"{many}\"}}")).is_ok());
    }

    #[test]
    fn what_is_no_query_is_told() {
        for text in [
            "",
            "up{",
            "rate(up)",
            "sum(1)",
            "up[1e300]",
            "up[5m:NaN]",
            "sum_over_time(up{a=\"[\"}[ 1e99 : 1m])",
            "up[-5]",
            "up{a=~\"(\"}",
            "{}",
            "1 > 2",
        ] {
            assert!(matches!(Query::parse(text), Err(PromqlError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn selectors_alone() {
        assert_eq!(selector("up{a=\"b\", c!~\"d\"}").unwrap().len(), 3);
        for text in ["up[5m]", "up offset 5m", "rate(up[5m])", "1"] {
            assert!(selector(text).is_err(), "{text}");
        }
    }
}
