//! The rules as a rules file of Prometheus, for those who alert from there.
//!
//! Two things differ: a trend is `predict_linear` (least squares, so that outliers move it), and a missing sample
//! resolves. States are read as an `OpenMetrics` state set, that is a series with a label `state` for each word, whose
//! value is 1 for the present one; events as counters with the labels that the rule filters by, which begin with the first
//! one that is counted: one that is new in the window counts as a whole, since `increase` sees no growth to the first.

use std::fmt::Write as _;

use super::Span;
use super::condition::{Bound, Condition};
use super::matcher::Matcher;
use super::payload::label_name;
use super::reading::{Need, Take};
use super::rule::Rule;
use super::template::{self, Piece};
use super::unit::Unit;

/// What a metric, state or event is called in Prometheus.
#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusMetric {
    /// The series' name.
    pub name: String,
    /// What to multiply the series by to have the rule's unit: 1000 for a series in seconds and a rule in milliseconds.
    pub factor: f64,
    /// Labels that have other names there: ours, theirs. A rule's first metric speaks for all of its metrics.
    pub labels: &'static [(&'static str, &'static str)],
}

/// A rules file with all rules that `metric` has the names for; the others are named in a comment.
///
/// `metric` is given the dotted name of a metric or state, or an event's reason.
#[must_use]
pub fn to_prometheus_rules<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    metric: &dyn Fn(&str) -> Option<PrometheusMetric>,
) -> String {
    let mut left_out = Vec::new();
    let mut body = String::new();
    for rule in rules {
        let writer = Writer::new(rule, metric);
        match writer.expression(&rule.condition) {
            Ok(expression) => write_rule(&mut body, &writer, &expression),
            Err(missing) => left_out.push(format!("# Not here: {} (no series for {missing}).\n", rule.name)),
        }
    }
    let list = if body.is_empty() { " []\n" } else { "\n" };
    format!(
        "# Made from Clawbernetes' alert rules.\n{}groups:\n  - name: clawbernetes\n    rules:{list}{body}",
        left_out.concat()
    )
}

fn write_rule(out: &mut String, writer: &Writer<'_>, expression: &str) {
    let rule = writer.rule;
    let mut line = |indent: usize, text: &str| {
        // Writing to a string doesn't fail.
        let _ = writeln!(out, "{:indent$}{text}", "");
    };
    line(6, &format!("- alert: {}", quoted(&rule.name)));
    line(8, &format!("expr: {}", quoted(expression)));
    if rule.for_ > Span::ZERO {
        line(8, &format!("for: {}", rule.for_));
    }
    if rule.keep_firing_for > Span::ZERO {
        line(8, &format!("keep_firing_for: {}", rule.keep_firing_for));
    }
    line(8, "labels:");
    line(10, &format!("severity: {}", rule.severity.word()));
    for (name, value) in &rule.labels {
        line(10, &format!("{}: {}", label_name(name), quoted(&escaped_go(value))));
    }
    line(8, "annotations:");
    line(10, &format!("summary: {}", quoted(&sentence(writer, &rule.summary))));
    if !rule.description.is_empty() {
        line(
            10,
            &format!("description: {}", quoted(&sentence(writer, &rule.description))),
        );
    }
    if !rule.commands.is_empty() {
        let commands: Vec<String> = rule.commands.iter().map(|command| sentence(writer, command)).collect();
        line(10, &format!("commands: {}", quoted(&commands.join("\n"))));
    }
}

/// A JSON text is a YAML text in double quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A sentence as a template of Go.
fn sentence(writer: &Writer<'_>, text: &str) -> String {
    let rule = writer.rule;
    let Ok(pieces) = template::pieces(text) else {
        return escaped_go(text);
    };
    let facts = facts(&rule.condition);
    let label = |name: &str| format!("{{{{ $labels.{} }}}}", writer.label(name));
    let mut value = match facts.unit {
        Unit::Bytes => "{{ $value | humanize1024 }}B",
        Unit::BytesPerSecond => "{{ $value | humanize1024 }}B/s",
        Unit::Seconds => "{{ $value | humanizeDuration }}",
        Unit::None => "{{ $value | humanize }}",
        Unit::Percent => "{{ $value | humanize }}%",
        Unit::Celsius => "{{ $value | humanize }} °C",
        Unit::Milliseconds => "{{ $value | humanize }} ms",
        Unit::Watts => "{{ $value | humanize }} W",
    }
    .to_owned();
    if facts.within.is_some() {
        value.push_str(" by then");
    }
    pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => escaped_go(text),
            Piece::Place("value") => value.clone(),
            Piece::Place("why") if facts.mixed => "one of several signs is there".to_owned(),
            Piece::Place("why") => format!("value {value}"),
            Piece::Place("limit") => match facts.bound {
                Some(Bound::Number(number)) => facts.unit.show(*number),
                Some(Bound::Metric(bound)) => bound.to_string(),
                None => "none".to_owned(),
            },
            Piece::Place("target") => {
                let labels: Vec<String> = rule.by.iter().map(|name| format!("{name}={}", label(name))).collect();
                labels.join(" ")
            }
            Piece::Place("eta") => match facts.within {
                Some(within) => format!("less than {within}"),
                None => "a while".to_owned(),
            },
            Piece::Place("state") => facts.words.join(" or "),
            Piece::Place(name) => match rule.labels.get(name) {
                Some(value) => escaped_go(value),
                None if rule.by.iter().any(|by| by == name) => label(name),
                // The caller's own words aren't in any series.
                None => "see clawbernetes alerts list".to_owned(),
            },
        })
        .collect()
}

/// What sentences may name.
#[derive(Default)]
struct Facts<'a> {
    unit: Unit,
    bound: Option<&'a Bound>,
    within: Option<Span>,
    words: &'a [String],
    /// The value may be of one kind or another.
    mixed: bool,
}

/// Of the condition's first part: its value is the expression's.
fn facts(condition: &Condition) -> Facts<'_> {
    match condition {
        Condition::Threshold(test) => Facts {
            unit: test.unit,
            bound: Some(&test.bound),
            ..Facts::default()
        },
        Condition::Trend(test) => Facts {
            unit: test.unit,
            bound: Some(&test.bound),
            within: Some(test.within),
            ..Facts::default()
        },
        Condition::State(test) => Facts {
            words: &test.words,
            ..Facts::default()
        },
        Condition::Bits(_) | Condition::Absent(_) | Condition::Events(_) => Facts::default(),
        // The value is that of whichever is broken.
        Condition::Any { of } => {
            let mut parts = of.iter().map(facts);
            let first = parts.next().unwrap_or_default();
            if parts.all(|part| part.unit == first.unit) {
                first
            } else {
                Facts {
                    mixed: true,
                    ..Facts::default()
                }
            }
        }
        Condition::All { of } => of.first().map(facts).unwrap_or_default(),
    }
}

/// Braces that mean themselves.
fn escaped_go(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

struct Writer<'a> {
    rule: &'a Rule,
    metric: &'a dyn Fn(&str) -> Option<PrometheusMetric>,
    labels: &'static [(&'static str, &'static str)],
}

impl<'a> Writer<'a> {
    fn new(rule: &'a Rule, metric: &'a dyn Fn(&str) -> Option<PrometheusMetric>) -> Self {
        let first = rule.needs().into_iter().next().and_then(|need| match need {
            Need::Metric { metric: name, .. } | Need::Points { metric: name, .. } => metric(&name),
            Need::State { state, .. } => metric(&state),
            Need::Events { event, .. } => metric(&event),
        });
        let labels = first.map_or(&[] as &[_], |series| series.labels);
        Self { rule, metric, labels }
    }

    /// A label's name there.
    fn label(&self, name: &str) -> String {
        let renamed = self.labels.iter().find(|(ours, _)| *ours == name);
        renamed.map_or_else(|| label_name(name), |(_, theirs)| (*theirs).to_owned())
    }

    /// An expression that has a series for each broken target; else the name that has no series.
    fn expression(&self, condition: &Condition) -> Result<String, String> {
        Ok(match condition {
            Condition::Threshold(test) => {
                let series = self.series(&test.metric)?;
                let value = taken(&self.selector(&series.name, &test.labels), test.take, test.over);
                let value = scaled(value, series.factor);
                // `increase` extrapolates: three may read as 2.98. Numbers of things are whole.
                let counts = test.take == Take::Increase && test.unit == Unit::None;
                let value = if counts { format!("round({value})") } else { value };
                self.compare(&value, test.op.symbol(), &test.bound)?
            }
            Condition::Bits(test) => {
                let series = self.series(&test.metric)?;
                let selector = self.selector(&series.name, &test.labels);
                let bits = (0..53).filter(|bit| test.mask & (1 << bit) != 0);
                // PromQL has no bitwise operators.
                let bits = bits.map(|bit| {
                    let is_set = format!("floor({selector} / {}) % 2", 1u64 << bit);
                    match test.over {
                        Some(over) => format!("max_over_time(({is_set})[{over}:15s]) == 1"),
                        None => format!("{is_set} == 1"),
                    }
                });
                bits.collect::<Vec<_>>().join(" or ")
            }
            Condition::Trend(test) => {
                let series = self.series(&test.metric)?;
                let selector = self.selector(&series.name, &test.labels);
                let value = format!(
                    "predict_linear({selector}[{}], {})",
                    test.over,
                    test.within.as_seconds()
                );
                self.compare(&scaled(value, series.factor), test.op.symbol(), &test.bound)?
            }
            Condition::Absent(test) => {
                let selector = self.selector(&self.series(&test.metric)?.name, &test.labels);
                // `absent()` would lose the target's labels.
                format!(
                    "count_over_time({selector}[1d]) unless count_over_time({selector}[{}])",
                    test.over
                )
            }
            Condition::State(test) => {
                let series = self.series(&test.state)?;
                let words: Vec<String> = test.words.iter().map(|word| regex::escape(word)).collect();
                let mut matchers: Vec<String> = test.labels.iter().map(|matcher| self.matcher(matcher)).collect();
                matchers.push(format!("state=~{}", quoted(&words.join("|"))));
                // One alert, whichever of the words it is.
                format!(
                    "max by ({}) ({}{{{}}}) == 1",
                    self.labels(),
                    series.name,
                    matchers.join(",")
                )
            }
            Condition::Events(test) => {
                let series = self.series(&test.event)?;
                let selector = self.selector(&series.name, &test.labels);
                let over = test.over;
                let value = format!("({selector} unless {selector} offset {over}) or increase({selector}[{over}])");
                format!("round(sum by ({}) ({value})) >= {}", self.labels(), test.at_least)
            }
            Condition::Any { of } => self.join(of, &format!(" or on ({}) ", self.labels()))?,
            Condition::All { of } => self.join(of, &format!(" and on ({}) ", self.labels()))?,
        })
    }

    fn join(&self, parts: &[Condition], word: &str) -> Result<String, String> {
        let parts: Result<Vec<String>, String> = parts
            .iter()
            .map(|part| Ok(format!("({})", self.expression(part)?)))
            .collect();
        Ok(parts?.join(word))
    }

    fn compare(&self, value: &str, op: &str, bound: &Bound) -> Result<String, String> {
        Ok(match bound {
            Bound::Number(number) => format!("{value} {op} {number}"),
            Bound::Metric(bound) => {
                let series = self.series(&bound.metric)?;
                let mut limit = scaled(series.name, series.factor * bound.times);
                if bound.plus != 0.0 {
                    let sign = if bound.plus < 0.0 { '-' } else { '+' };
                    limit = format!("({limit} {sign} {})", bound.plus.abs());
                }
                format!("{value} {op} on ({}) {limit}", self.labels())
            }
        })
    }

    /// The labels of a target.
    fn labels(&self) -> String {
        self.rule
            .by
            .iter()
            .map(|name| self.label(name))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn selector(&self, name: &str, labels: &[Matcher]) -> String {
        if labels.is_empty() {
            return name.to_owned();
        }
        let matchers: Vec<String> = labels.iter().map(|matcher| self.matcher(matcher)).collect();
        format!("{name}{{{}}}", matchers.join(","))
    }

    fn matcher(&self, matcher: &Matcher) -> String {
        format!(
            "{}{}{}",
            self.label(matcher.label()),
            matcher.op().symbol(),
            quoted(matcher.value())
        )
    }

    fn series(&self, name: &str) -> Result<PrometheusMetric, String> {
        (self.metric)(name).ok_or_else(|| name.to_owned())
    }
}

fn scaled(value: String, factor: f64) -> String {
    if (factor - 1.0).abs() < f64::EPSILON {
        value
    } else {
        format!("({value} * {factor})")
    }
}

fn taken(selector: &str, take: Take, over: Option<Span>) -> String {
    let Some(over) = over else {
        return selector.to_owned();
    };
    match take {
        Take::Last => selector.to_owned(),
        Take::Avg => format!("avg_over_time({selector}[{over}])"),
        Take::Min => format!("min_over_time({selector}[{over}])"),
        Take::Max => format!("max_over_time({selector}[{over}])"),
        Take::Sum => format!("sum_over_time({selector}[{over}])"),
        Take::P95 => format!("quantile_over_time(0.95, {selector}[{over}])"),
        Take::P99 => format!("quantile_over_time(0.99, {selector}[{over}])"),
        Take::Increase => format!("increase({selector}[{over}])"),
        Take::Rate => format!("rate({selector}[{over}])"),
        Take::Count => format!("count_over_time({selector}[{over}])"),
    }
}

#[cfg(test)]
mod tests;
