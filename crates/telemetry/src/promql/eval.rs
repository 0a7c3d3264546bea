//! Expressions: walked from the leaves, each for all steps at once.

use std::{
    cell::Cell,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use promql_parser::{
    label::MatchOp,
    parser::{AtModifier, Call, Expr, Offset, VectorSelector, value::ValueType},
};

use crate::metrics::{Matcher, NAME_LABEL, Series};

use super::{
    LOOKBACK_MS, LabelSet, Limits, Points, PromqlError, SUBQUERY_STEP_MS, Source, aggregate, binary, instant,
    over_time,
    value::{Row, Value, label_set, merged, nameless},
};

/// The moments that an expression is computed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    start_ms: i64,
    step_ms: i64,
    /// At least 1.
    pub(super) steps: usize,
}

impl Grid {
    pub(super) fn new(start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Self, PromqlError> {
        if end_ms < start_ms {
            return Err(PromqlError::Range("it ends before its start"));
        }
        if step_ms <= 0 {
            return Err(PromqlError::Range("its step isn't above 0"));
        }
        let span = end_ms
            .checked_sub(start_ms)
            .ok_or(PromqlError::Range("it is too long"))?;
        Ok(Self {
            start_ms,
            step_ms,
            steps: usize::try_from(span / step_ms).unwrap_or(usize::MAX).saturating_add(1),
        })
    }

    pub(super) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.steps as i64).map(move |n| self.start_ms + n * self.step_ms)
    }
}

/// Series with samples, and the window of them that each step sees.
pub(super) struct Ranges {
    pub(super) series: Vec<(LabelSet, Points)>,
    /// End of each step's window, included.
    pub(super) ends_ms: Vec<i64>,
    /// Length of the windows; their start isn't included.
    pub(super) range_ms: i64,
}

/// One evaluation.
pub(super) struct Eval<'a> {
    source: &'a dyn Source,
    limits: &'a Limits,
    /// What `@ start()` and `@ end()` mean.
    bounds: (i64, i64),
    samples: Cell<u64>,
}

impl<'a> Eval<'a> {
    pub(super) fn new(source: &'a dyn Source, limits: &'a Limits, bounds: (i64, i64)) -> Self {
        Self {
            source,
            limits,
            bounds,
            samples: Cell::new(0),
        }
    }

    /// Whether there is time left.
    pub(super) fn in_time(&self) -> Result<(), PromqlError> {
        if Instant::now() >= self.limits.deadline {
            return Err(PromqlError::TimedOut);
        }
        Ok(())
    }

    /// Whether so many rows may be made.
    pub(super) fn room(&self, rows: usize, grid: Grid) -> Result<(), PromqlError> {
        let limit = self.limits.points;
        if (rows as u64).saturating_mul(grid.steps as u64) > limit {
            return Err(PromqlError::TooManyPoints { limit });
        }
        self.in_time()
    }

    /// What an expression comes to.
    pub(super) fn value(&self, expr: &Expr, grid: Grid) -> Result<Value, PromqlError> {
        match expr {
            Expr::Paren(inner) => self.value(&inner.expr, grid),
            Expr::NumberLiteral(number) => Ok(Value::Scalar(vec![number.val; grid.steps])),
            Expr::StringLiteral(text) => Ok(Value::Text(text.val.clone())),
            Expr::Unary(inner) => match self.value(&inner.expr, grid)? {
                Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|v| -v).collect())),
                Value::Vector(rows) => Ok(Value::Vector(nameless(mapped(rows, |v| -v))?)),
                Value::Text(_) => Err(PromqlError::Invalid("a string has no sign".to_owned())),
            },
            Expr::VectorSelector(selector) => self.latest(selector, grid, |(_, value)| value).map(Value::Vector),
            Expr::Aggregate(aggregate) => aggregate::evaluate(self, aggregate, grid).map(Value::Vector),
            Expr::Binary(binary) => binary::evaluate(self, binary, grid),
            Expr::Call(call) => self.call(call, grid),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => Err(PromqlError::Invalid(
                "a range of samples where a vector is asked for".to_owned(),
            )),
            Expr::Extension(_) => Err(PromqlError::Unsupported("an extension of the language".to_owned())),
        }
    }

    /// What an expression comes to that must be a vector.
    pub(super) fn vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, PromqlError> {
        match self.value(expr, grid)? {
            Value::Vector(rows) => Ok(rows),
            Value::Scalar(_) | Value::Text(_) => Err(PromqlError::Invalid(format!("{expr} isn't a vector"))),
        }
    }

    /// What an expression comes to that must be a scalar.
    pub(super) fn scalar(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, PromqlError> {
        match self.value(expr, grid)? {
            Value::Scalar(values) => Ok(values),
            Value::Vector(_) | Value::Text(_) => Err(PromqlError::Invalid(format!("{expr} isn't a scalar"))),
        }
    }

    /// The samples of the only step of a range expression.
    pub(super) fn samples(&self, expr: &Expr, grid: Grid) -> Result<Vec<(LabelSet, Points)>, PromqlError> {
        let mut ranges = self.ranges(expr, grid)?;
        if let Some(end_ms) = ranges.ends_ms.first() {
            for (_, points) in &mut ranges.series {
                points.retain(|(at, _)| *at > end_ms - ranges.range_ms && at <= end_ms);
            }
        }
        ranges.series.retain(|(_, points)| !points.is_empty());
        Ok(ranges.series)
    }

    fn call(&self, call: &Call, grid: Grid) -> Result<Value, PromqlError> {
        let name = call.func.name;
        let args: Vec<&Expr> = call.args.args.iter().map(AsRef::as_ref).collect();
        if name == "timestamp"
            && let [arg] = args.as_slice()
        {
            return self.timestamp(arg, grid).map(Value::Vector);
        }
        if let Some(range) = args.iter().position(|arg| arg.value_type() == ValueType::Matrix) {
            let function = over_time::find(name).ok_or_else(|| PromqlError::Function { name: name.to_owned() })?;
            let ranges = self.ranges(args[range], grid)?;
            let parameter = args.iter().enumerate().find(|(at, _)| *at != range);
            let parameter = parameter.map(|(_, arg)| self.scalar(arg, grid)).transpose()?;
            self.room(ranges.series.len(), grid)?;
            if name == "absent_over_time" {
                let rows = over_time::rows(self, ranges, over_time::COUNT, None)?;
                return Ok(Value::Vector(vec![instant::absent(args[range], &rows, grid)]));
            }
            let rows = over_time::rows(self, ranges, function, parameter.as_deref())?;
            // The last of a metric's samples is still that metric.
            return Ok(Value::Vector(if name == "last_over_time" {
                merged(rows)?
            } else {
                nameless(rows)?
            }));
        }
        instant::call(self, name, &args, grid)
    }

    /// When the samples were measured that are the values of the moments.
    fn timestamp(&self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, PromqlError> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match expr {
            Expr::Paren(inner) => self.timestamp(&inner.expr, grid),
            Expr::VectorSelector(selector) => nameless(self.latest(selector, grid, |(at, _)| seconds(at))?),
            other => {
                let mut rows = self.vector(other, grid)?;
                for row in &mut rows {
                    for (value, at) in row.values.iter_mut().zip(grid.times()) {
                        *value = value.map(|_| seconds(at));
                    }
                }
                nameless(rows)
            }
        }
    }

    /// The samples that are the values of the moments, made into numbers by `pick`.
    fn latest(
        &self,
        selector: &VectorSelector,
        grid: Grid,
        pick: impl Fn((i64, f64)) -> f64,
    ) -> Result<Vec<Row>, PromqlError> {
        let moments = self.moments(selector.at.as_ref(), selector.offset.as_ref(), grid);
        let series = self.select(selector, &moments, LOOKBACK_MS)?;
        self.room(series.len(), grid)?;
        let mut rows = Vec::with_capacity(series.len());
        for one in series {
            self.in_time()?;
            let mut next = 0;
            let values = moments.iter().map(|&moment| {
                while one.points.get(next).is_some_and(|(at, _)| *at <= moment) {
                    next += 1;
                }
                let point = *one.points.get(next.checked_sub(1)?)?;
                (moment - point.0 < LOOKBACK_MS).then(|| pick(point))
            });
            let values: Vec<Option<f64>> = values.collect();
            if values.iter().any(Option::is_some) {
                rows.push(Row {
                    values,
                    labels: label_set(one.labels),
                });
            }
        }
        merged(rows)
    }

    /// The windows of a range selector or a subquery.
    pub(super) fn ranges(&self, expr: &Expr, grid: Grid) -> Result<Ranges, PromqlError> {
        match expr {
            Expr::Paren(inner) => self.ranges(&inner.expr, grid),
            Expr::MatrixSelector(selector) => {
                let ends_ms = self.moments(selector.vs.at.as_ref(), selector.vs.offset.as_ref(), grid);
                let range_ms = millis(selector.range);
                let series = self.select(&selector.vs, &ends_ms, range_ms)?;
                let series = series.into_iter().map(|one| (label_set(one.labels), one.points));
                Ok(Ranges {
                    series: series.collect(),
                    ends_ms,
                    range_ms,
                })
            }
            Expr::Subquery(subquery) => {
                let ends_ms = self.moments(subquery.at.as_ref(), subquery.offset.as_ref(), grid);
                let range_ms = millis(subquery.range);
                let step_ms = subquery.step.map_or(SUBQUERY_STEP_MS, millis).max(1);
                let (first, last) = span(&ends_ms);
                // Moments are multiples of the step, wherever the query begins.
                let start = (first.saturating_sub(range_ms)).div_euclid(step_ms).saturating_add(1);
                let start = start.saturating_mul(step_ms);
                if start > last {
                    return Ok(Ranges {
                        series: Vec::new(),
                        ends_ms,
                        range_ms,
                    });
                }
                let inner = Grid::new(start, last, step_ms)?;
                self.room(1, inner)?;
                let rows = match self.value(&subquery.expr, inner)? {
                    Value::Vector(rows) => rows,
                    Value::Scalar(values) => vec![Row {
                        labels: LabelSet::new(),
                        values: values.into_iter().map(Some).collect(),
                    }],
                    Value::Text(_) => return Err(PromqlError::Invalid("a string has no values over time".to_owned())),
                };
                let series = rows.into_iter().map(|row| {
                    let points = inner.times().zip(row.values);
                    (
                        row.labels,
                        points.filter_map(|(at, value)| Some((at, value?))).collect(),
                    )
                });
                Ok(Ranges {
                    series: series.collect(),
                    ends_ms,
                    range_ms,
                })
            }
            other => Err(PromqlError::Invalid(format!("{other} isn't a range of samples"))),
        }
    }

    /// The moments that a selector looks at, one for each step.
    fn moments(&self, at: Option<&AtModifier>, offset: Option<&Offset>, grid: Grid) -> Vec<i64> {
        let fixed = at.map(|at| match at {
            AtModifier::Start => self.bounds.0,
            AtModifier::End => self.bounds.1,
            AtModifier::At(time) => unix_ms(*time),
        });
        let back = match offset {
            None => 0,
            Some(Offset::Pos(offset)) => millis(*offset),
            Some(Offset::Neg(offset)) => -millis(*offset),
        };
        let times = grid.times();
        times.map(|time| fixed.unwrap_or(time).saturating_sub(back)).collect()
    }

    /// Series of a selector, with all that windows of this length before the moments may see.
    fn select(&self, selector: &VectorSelector, moments: &[i64], before_ms: i64) -> Result<Vec<Series>, PromqlError> {
        self.in_time()?;
        let (first, last) = span(moments);
        let from = first.saturating_sub(before_ms).saturating_add(1);
        let series = self.source.select(&matchers(selector)?, from, last)?;
        let read: usize = series.iter().map(|one| one.points.len()).sum();
        let samples = self.samples.get().saturating_add(read as u64);
        self.samples.set(samples);
        if samples > self.limits.samples {
            return Err(PromqlError::TooManySamples {
                limit: self.limits.samples,
            });
        }
        Ok(series)
    }
}

/// Rows with every value replaced.
pub(super) fn mapped(mut rows: Vec<Row>, map: impl Fn(f64) -> f64) -> Vec<Row> {
    for value in rows.iter_mut().flat_map(|row| &mut row.values) {
        *value = value.map(&map);
    }
    rows
}

/// What a selector asks of labels and of the name.
pub(super) fn matchers(selector: &VectorSelector) -> Result<Vec<Matcher>, PromqlError> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(PromqlError::Unsupported("'or' between matchers".to_owned()));
    }
    let mut made = Vec::with_capacity(selector.matchers.matchers.len() + 1);
    if let Some(name) = &selector.name {
        made.push(Matcher::name(name));
    }
    for matcher in &selector.matchers.matchers {
        let (label, value) = (&matcher.name, &matcher.value);
        made.push(match &matcher.op {
            MatchOp::Equal => Matcher::eq(label, value),
            MatchOp::NotEqual => Matcher::ne(label, value),
            MatchOp::Re(_) => Matcher::re(label, value)?,
            MatchOp::NotRe(_) => Matcher::nre(label, value)?,
        });
    }
    Ok(made)
}

/// The labels that every series of a selector has, as far as it says: its equalities.
pub(super) fn equalities(selector: &VectorSelector) -> LabelSet {
    let mut set = LabelSet::new();
    for matcher in &selector.matchers.matchers {
        // One that is named twice is told for neither.
        let twice = selector
            .matchers
            .matchers
            .iter()
            .filter(|m| m.name == matcher.name)
            .count()
            > 1;
        if matches!(matcher.op, MatchOp::Equal) && matcher.name != NAME_LABEL && !twice && !matcher.value.is_empty() {
            set.insert(matcher.name.clone(), matcher.value.clone());
        }
    }
    set
}

/// Earliest and latest.
fn span(moments: &[i64]) -> (i64, i64) {
    (
        moments.first().copied().unwrap_or(0),
        moments.last().copied().unwrap_or(0),
    )
}

fn millis(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}

fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}
