//! Going through an expression at one moment after the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, Offset, VectorSelector};

use super::{PromqlError, aggregate, binary, functions};
use crate::metrics::{Labels, Matcher, MetricError, MetricStore, Series};

/// How long a sample counts when no newer one comes.
pub(super) const LOOKBACK_MS: i64 = 5 * 60_000;
/// Steps of a range at most, as in Prometheus.
const STEPS_MAX: i64 = 11_000;

/// Where samples come from: the store, or something before it that maps names.
pub trait Source {
    /// Raw samples from `from_ms` to `to_ms`, both included, of series that pass all matchers.
    ///
    /// # Errors
    /// As [`MetricStore::select`].
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError>;
}

impl Source for MetricStore {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        Self::select(self, matchers, from_ms, to_ms)
    }
}

/// What an expression comes to at one moment. A series without a name has an empty one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One number.
    Scalar(f64),
    /// A number for each series, sorted by labels unless the expression sorts.
    Vector(Vec<(Labels, f64)>),
    /// The samples of each series in the time that was asked for.
    Matrix(Vec<Series>),
    /// A text.
    Text(String),
}

/// A series' value at a moment.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) labels: Arc<Labels>,
    pub(super) value: f64,
}

#[derive(Debug, Clone)]
pub(super) enum Val {
    Scalar(f64),
    Vector(Vec<Element>),
    Text(String),
}

/// A series of a selector, with its labels as they are and without the name.
pub(super) struct Loaded {
    pub(super) labels: Arc<Labels>,
    pub(super) bare: Arc<Labels>,
    pub(super) points: Vec<(i64, f64)>,
}

/// Evaluates at one moment, ms since 1970 UTC.
///
/// # Errors
/// [`PromqlError`]
pub fn instant(source: &impl Source, expression: &str, at_ms: i64) -> Result<Value, PromqlError> {
    let expr = promql_parser::parser::parse(expression).map_err(PromqlError::Syntax)?;
    let eval = Eval::load(source, &expr, at_ms, at_ms)?;
    if let Expr::MatrixSelector(matrix) = bare(&expr) {
        let (from_ms, to_ms) = window(&matrix.vs, matrix.range.as_millis() as i64, at_ms);
        let series = eval.loaded(&matrix.vs).iter().map(|one| Series {
            labels: Labels::clone(&one.labels),
            points: between(&one.points, from_ms, to_ms).to_vec(),
        });
        return Ok(Value::Matrix(
            series.filter(|series| !series.points.is_empty()).collect(),
        ));
    }
    Ok(match eval.eval(&expr, at_ms)? {
        Val::Scalar(value) => Value::Scalar(value),
        Val::Text(text) => Value::Text(text),
        Val::Vector(mut elements) => {
            check_distinct(&elements)?;
            if !sorts(&expr) {
                elements.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            let pair = |element: Element| (Arc::unwrap_or_clone(element.labels), element.value);
            Value::Vector(elements.into_iter().map(pair).collect())
        }
    })
}

/// Evaluates every `step_ms` from `start_ms` to `end_ms`, both included; sorted by labels. A scalar is a series
/// without labels.
///
/// # Errors
/// [`PromqlError`]
pub fn range(
    source: &impl Source,
    expression: &str,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<Vec<Series>, PromqlError> {
    if step_ms <= 0 {
        return Err(PromqlError::InvalidRange("the step must be above 0"));
    }
    if end_ms < start_ms {
        return Err(PromqlError::InvalidRange("it ends before it starts"));
    }
    if end_ms.saturating_sub(start_ms) / step_ms >= STEPS_MAX {
        return Err(PromqlError::InvalidRange("more than 11,000 steps: widen the step"));
    }
    let expr = promql_parser::parser::parse(expression).map_err(PromqlError::Syntax)?;
    let eval = Eval::load(source, &expr, start_ms, end_ms)?;
    let mut series: BTreeMap<Arc<Labels>, Vec<(i64, f64)>> = BTreeMap::new();
    let mut at_ms = start_ms;
    while at_ms <= end_ms {
        let elements = match eval.eval(&expr, at_ms)? {
            Val::Scalar(value) => vec![Element {
                labels: Arc::new(nameless(Vec::new())),
                value,
            }],
            Val::Vector(elements) => elements,
            Val::Text(_) => return Err(PromqlError::Evaluation("a text has no range".to_owned())),
        };
        check_distinct(&elements)?;
        for element in elements {
            series.entry(element.labels).or_default().push((at_ms, element.value));
        }
        at_ms = at_ms.saturating_add(step_ms);
    }
    let one = |(labels, points)| Series {
        labels: Arc::unwrap_or_clone(labels),
        points,
    };
    Ok(series.into_iter().map(one).collect())
}

pub(super) fn nameless(labels: Vec<(String, String)>) -> Labels {
    Labels {
        name: String::new(),
        labels,
    }
}

fn check_distinct(elements: &[Element]) -> Result<(), PromqlError> {
    let mut seen = HashSet::with_capacity(elements.len());
    if elements.iter().all(|element| seen.insert(&*element.labels)) {
        return Ok(());
    }
    Err(PromqlError::Evaluation(
        "two series of the answer have the same labels".to_owned(),
    ))
}

fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}

/// Whether the expression itself says in which order its answer comes.
fn sorts(expr: &Expr) -> bool {
    use promql_parser::parser::token::{T_BOTTOMK, T_TOPK};
    match bare(expr) {
        Expr::Call(call) => matches!(call.func.name, "sort" | "sort_desc"),
        Expr::Aggregate(aggregate) => matches!(aggregate.op.id(), T_TOPK | T_BOTTOMK),
        _ => false,
    }
}

/// The points from `from_ms` to `to_ms`, both included.
pub(super) fn between(points: &[(i64, f64)], from_ms: i64, to_ms: i64) -> &[(i64, f64)] {
    let start = points.partition_point(|(at, _)| *at < from_ms);
    let end = points.partition_point(|(at, _)| *at <= to_ms);
    points.get(start..end).unwrap_or_default()
}

fn offset_ms(selector: &VectorSelector) -> i64 {
    match &selector.offset {
        None => 0,
        Some(Offset::Pos(span)) => span.as_millis() as i64,
        Some(Offset::Neg(span)) => -(span.as_millis() as i64),
    }
}

/// First and last time of what a selector sees at `at_ms`.
pub(super) fn window(selector: &VectorSelector, span_ms: i64, at_ms: i64) -> (i64, i64) {
    let to_ms = at_ms.saturating_sub(offset_ms(selector));
    (to_ms.saturating_sub(span_ms), to_ms)
}

pub(super) struct Eval {
    /// By the selector's place in the expression.
    loaded: HashMap<usize, Vec<Loaded>>,
}

fn place(selector: &VectorSelector) -> usize {
    std::ptr::from_ref(selector).addr()
}

impl Eval {
    fn load(source: &impl Source, expr: &Expr, start_ms: i64, end_ms: i64) -> Result<Self, PromqlError> {
        let mut selectors = Vec::new();
        collect(expr, &mut selectors)?;
        let mut loaded = HashMap::new();
        for (selector, span_ms) in selectors {
            let (from_ms, _) = window(selector, span_ms, start_ms);
            let (_, to_ms) = window(selector, span_ms, end_ms);
            let series = source.select(&matchers(selector)?, from_ms, to_ms)?;
            let series = series.into_iter().map(|one| Loaded {
                bare: Arc::new(nameless(one.labels.labels.clone())),
                labels: Arc::new(one.labels),
                points: one.points,
            });
            loaded.insert(place(selector), series.collect());
        }
        Ok(Self { loaded })
    }

    pub(super) fn loaded(&self, selector: &VectorSelector) -> &[Loaded] {
        self.loaded.get(&place(selector)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The series' newest samples, each with its time.
    pub(super) fn newest(&self, selector: &VectorSelector, at_ms: i64) -> Vec<(Element, i64)> {
        let (from_ms, to_ms) = window(selector, LOOKBACK_MS, at_ms);
        let newest = |one: &Loaded| {
            let &(at, value) = between(&one.points, from_ms, to_ms).last()?;
            let labels = Arc::clone(&one.labels);
            Some((Element { labels, value }, at))
        };
        self.loaded(selector).iter().filter_map(newest).collect()
    }

    pub(super) fn eval(&self, expr: &Expr, at_ms: i64) -> Result<Val, PromqlError> {
        match expr {
            Expr::Paren(paren) => self.eval(&paren.expr, at_ms),
            Expr::NumberLiteral(number) => Ok(Val::Scalar(number.val)),
            Expr::StringLiteral(text) => Ok(Val::Text(text.val.clone())),
            Expr::VectorSelector(selector) => {
                let newest = self.newest(selector, at_ms).into_iter();
                Ok(Val::Vector(newest.map(|(element, _)| element).collect()))
            }
            Expr::Unary(unary) => Ok(match self.eval(&unary.expr, at_ms)? {
                Val::Scalar(value) => Val::Scalar(-value),
                Val::Vector(elements) => Val::Vector(mapped(elements, |value| -value)),
                Val::Text(_) => return Err(PromqlError::Evaluation("a text has no negative".to_owned())),
            }),
            Expr::Call(call) => functions::call(self, call, at_ms),
            Expr::Aggregate(expr) => {
                let parameter = match &expr.param {
                    Some(parameter) => Some(self.scalar(parameter, at_ms)?),
                    None => None,
                };
                aggregate::aggregate(expr, self.vector(&expr.expr, at_ms)?, parameter).map(Val::Vector)
            }
            Expr::Binary(expr) => {
                let (left, right) = (self.eval(&expr.lhs, at_ms)?, self.eval(&expr.rhs, at_ms)?);
                binary::binary(expr, left, right)
            }
            Expr::MatrixSelector(_) => Err(PromqlError::Evaluation("a range of samples is no value".to_owned())),
            Expr::Subquery(_) => Err(PromqlError::Unsupported("subqueries".to_owned())),
            Expr::Extension(_) => Err(PromqlError::Unsupported("extensions".to_owned())),
        }
    }

    pub(super) fn vector(&self, expr: &Expr, at_ms: i64) -> Result<Vec<Element>, PromqlError> {
        match self.eval(expr, at_ms)? {
            Val::Vector(elements) => Ok(elements),
            other => Err(PromqlError::Evaluation(format!("expected a vector, got {other:?}"))),
        }
    }

    pub(super) fn scalar(&self, expr: &Expr, at_ms: i64) -> Result<f64, PromqlError> {
        match self.eval(expr, at_ms)? {
            Val::Scalar(value) => Ok(value),
            other => Err(PromqlError::Evaluation(format!("expected a scalar, got {other:?}"))),
        }
    }
}

/// Every element's value changed and its name dropped.
pub(super) fn mapped(elements: Vec<Element>, change: impl Fn(f64) -> f64) -> Vec<Element> {
    let map = |element: Element| Element {
        labels: without_name(&element.labels),
        value: change(element.value),
    };
    elements.into_iter().map(map).collect()
}

pub(super) fn without_name(labels: &Arc<Labels>) -> Arc<Labels> {
    if labels.name.is_empty() {
        return Arc::clone(labels);
    }
    Arc::new(nameless(labels.labels.clone()))
}

/// All selectors with the time that each looks back; refuses what is not supported before anything is read.
fn collect<'a>(expr: &'a Expr, into: &mut Vec<(&'a VectorSelector, i64)>) -> Result<(), PromqlError> {
    let mut selector = |selector: &'a VectorSelector, span_ms| {
        if selector.at.is_some() {
            return Err(PromqlError::Unsupported("the @ modifier".to_owned()));
        }
        into.push((selector, span_ms));
        Ok(())
    };
    match expr {
        Expr::VectorSelector(vector) => selector(vector, LOOKBACK_MS),
        Expr::MatrixSelector(matrix) => selector(&matrix.vs, matrix.range.as_millis() as i64),
        Expr::Paren(paren) => collect(&paren.expr, into),
        Expr::Unary(unary) => collect(&unary.expr, into),
        Expr::Aggregate(aggregate) => {
            aggregate::check(aggregate)?;
            if let Some(parameter) = &aggregate.param {
                collect(parameter, into)?;
            }
            collect(&aggregate.expr, into)
        }
        Expr::Binary(binary) => {
            binary::check(binary)?;
            collect(&binary.lhs, into)?;
            collect(&binary.rhs, into)
        }
        Expr::Call(call) => {
            functions::check(call)?;
            call.args.args.iter().try_for_each(|argument| collect(argument, into))
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Subquery(_) => Err(PromqlError::Unsupported("subqueries".to_owned())),
        Expr::Extension(_) => Err(PromqlError::Unsupported("extensions".to_owned())),
    }
}

fn matchers(selector: &VectorSelector) -> Result<Vec<Matcher>, PromqlError> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(PromqlError::Unsupported("`or` between matchers".to_owned()));
    }
    let mut matchers: Vec<Matcher> = selector.name.iter().map(|name| Matcher::name(name)).collect();
    for matcher in &selector.matchers.matchers {
        let (label, value) = (&matcher.name, &matcher.value);
        matchers.push(match matcher.op {
            MatchOp::Equal => Matcher::eq(label, value),
            MatchOp::NotEqual => Matcher::ne(label, value),
            MatchOp::Re(_) => Matcher::re(label, value)?,
            MatchOp::NotRe(_) => Matcher::nre(label, value)?,
        });
    }
    Ok(matchers)
}
