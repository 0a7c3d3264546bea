//! When a rule is broken, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::reading::{Need, Take};
use super::unit::Unit;
use super::{Matcher, Span};

/// How a value is compared with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Above.
    #[serde(rename = ">")]
    Above,
    /// At or above.
    #[serde(rename = ">=")]
    AtLeast,
    /// Below.
    #[serde(rename = "<")]
    Below,
    /// At or below.
    #[serde(rename = "<=")]
    AtMost,
    /// The same number.
    #[serde(rename = "==")]
    Is,
    /// Another number.
    #[serde(rename = "!=")]
    IsNot,
}

impl Op {
    /// As it is written.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Is => "==",
            Self::IsNot => "!=",
        }
    }

    /// Whether `value` stands so to `bound`.
    #[must_use]
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
            #[expect(clippy::float_cmp, reason = "asked for: flags and counters are whole numbers")]
            Self::Is => value == bound,
            #[expect(clippy::float_cmp, reason = "asked for: flags and counters are whole numbers")]
            Self::IsNot => value != bound,
        }
    }

    /// 1 where growing breaks the bound, -1 where shrinking does, 0 for equality.
    pub(super) const fn direction(self) -> f64 {
        match self {
            Self::Above | Self::AtLeast => 1.0,
            Self::Below | Self::AtMost => -1.0,
            Self::Is | Self::IsNot => 0.0,
        }
    }
}

/// What a value is compared with: a number, or another metric of the same target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bound {
    /// In the metric's unit.
    Number(f64),
    /// `times` × the newest value of a metric, `plus` something.
    Metric(MetricBound),
}

/// A limit that the device itself reports, scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricBound {
    /// Dotted name; its series has the labels of the target.
    pub metric: String,
    /// Factor; 1 if unsaid.
    #[serde(default = "one")]
    pub times: f64,
    /// Added after the factor; 0 if unsaid.
    #[serde(default)]
    pub plus: f64,
}

impl fmt::Display for MetricBound {
    /// `0.95 × memory.total`, `gpu.temperature.slowdown - 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.times - 1.0).abs() >= f64::EPSILON {
            write!(f, "{} × ", self.times)?;
        }
        f.write_str(&self.metric)?;
        match self.plus {
            plus if plus > 0.0 => write!(f, " + {plus}"),
            plus if plus < 0.0 => write!(f, " - {}", -plus),
            _ => Ok(()),
        }
    }
}

const fn one() -> f64 {
    1.0
}

impl Bound {
    /// The newest value of `metric`, times a factor.
    #[must_use]
    pub fn share(times: f64, metric: &str) -> Self {
        Self::Metric(MetricBound {
            metric: metric.to_owned(),
            times,
            plus: 0.0,
        })
    }

    /// The newest value of `metric`, plus something.
    #[must_use]
    pub fn offset(metric: &str, plus: f64) -> Self {
        Self::Metric(MetricBound {
            metric: metric.to_owned(),
            times: 1.0,
            plus,
        })
    }

    fn need(&self) -> Option<Need> {
        match self {
            Self::Number(_) => None,
            Self::Metric(bound) => Some(Need::Metric {
                metric: bound.metric.clone(),
                labels: Vec::new(),
                take: Take::Last,
                over: None,
            }),
        }
    }
}

/// A value against a bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Threshold {
    /// Dotted name.
    pub metric: String,
    /// Which series; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// What is taken of the window.
    #[serde(default)]
    pub take: Take,
    /// The window; unsaid for `take: last` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Span>,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub bound: Bound,
    /// How values are written.
    #[serde(default)]
    pub unit: Unit,
}

/// Any of some bits of a bit mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bits {
    /// Dotted name of a metric whose values are bit masks (below 2^53).
    pub metric: String,
    /// Which series; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// Broken if a sample has any of these bits. Not 0, below 2^53.
    pub mask: u64,
    /// What the bits mean, in words.
    pub meaning: String,
    /// All samples of this window count; only the newest one if unsaid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Span>,
}

/// A bound that will be crossed soon if it goes on like this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trend {
    /// Dotted name.
    pub metric: String,
    /// Which series; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// The past that the slope is taken from: at least six samples that cover half of it.
    pub over: Span,
    /// `>=` or `>` for something that fills, `<=` or `<` for something that runs out.
    pub op: Op,
    /// What will be crossed.
    pub bound: Bound,
    /// Broken if it is crossed within this time.
    pub within: Span,
    /// How values are written.
    #[serde(default)]
    pub unit: Unit,
}

/// No sample in a window, of a target that is known to exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Absent {
    /// Dotted name.
    pub metric: String,
    /// Which series; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// The window.
    pub over: Span,
}

/// Something is one of some words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateIs {
    /// Dotted name, such as `node.status`.
    pub state: String,
    /// Of which; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// The bad words.
    #[serde(rename = "in")]
    pub words: Vec<String>,
    /// Words that say nothing: no data, rather than healthy. `[unknown]` if unsaid.
    #[serde(default = "unknown")]
    pub unknown: Vec<String>,
}

pub(super) fn unknown() -> Vec<String> {
    vec!["unknown".to_owned()]
}

/// Something was recorded too often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Events {
    /// The event's reason, such as `OomKilled`.
    pub event: String,
    /// Of which; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Matcher>,
    /// The window.
    pub over: Span,
    /// Broken from this many on. Not 0.
    pub at_least: u32,
}

/// When a rule is broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Condition {
    /// A value against a bound.
    Threshold(Threshold),
    /// Bits of a bit mask.
    Bits(Bits),
    /// A bound that will be crossed.
    Trend(Trend),
    /// No sample.
    Absent(Absent),
    /// A bad state.
    State(StateIs),
    /// Too many events.
    Events(Events),
    /// At least one of these. One without data is left out, unless the alert fires because of it.
    Any {
        /// The alternatives.
        of: Vec<Condition>,
    },
    /// All of these.
    All {
        /// The parts.
        of: Vec<Condition>,
    },
}

impl Condition {
    /// Appends what it needs, in the order in which judging takes the readings.
    pub(super) fn needs(&self, into: &mut Vec<Need>) {
        match self {
            Self::Threshold(test) => {
                into.push(Need::Metric {
                    metric: test.metric.clone(),
                    labels: test.labels.clone(),
                    take: test.take,
                    over: test.over,
                });
                into.extend(test.bound.need());
            }
            Self::Bits(test) => into.push(match test.over {
                Some(over) => Need::Points {
                    metric: test.metric.clone(),
                    labels: test.labels.clone(),
                    over,
                },
                None => Need::Metric {
                    metric: test.metric.clone(),
                    labels: test.labels.clone(),
                    take: Take::Last,
                    over: None,
                },
            }),
            Self::Trend(test) => {
                into.push(Need::Points {
                    metric: test.metric.clone(),
                    labels: test.labels.clone(),
                    over: test.over,
                });
                into.extend(test.bound.need());
            }
            Self::Absent(test) => into.push(Need::Metric {
                metric: test.metric.clone(),
                labels: test.labels.clone(),
                take: Take::Count,
                over: Some(test.over),
            }),
            Self::State(test) => into.push(Need::State {
                state: test.state.clone(),
                labels: test.labels.clone(),
            }),
            Self::Events(test) => into.push(Need::Events {
                event: test.event.clone(),
                labels: test.labels.clone(),
                over: test.over,
            }),
            Self::Any { of } | Self::All { of } => of.iter().for_each(|part| part.needs(into)),
        }
    }

    /// What is wrong with it, in words; `None` if it can be used.
    pub(super) fn flaw(&self, depth: usize) -> Option<String> {
        let window = |take: Take, over: Option<Span>| match (take, over) {
            (Take::Last, Some(_)) => Some("`take: last` has no window: leave `over` out, or take something else"),
            (Take::Last, None) => None,
            (_, None) => Some("`take` needs a window: say `over`"),
            (_, Some(span)) if span == Span::ZERO => Some("`over` is 0"),
            _ => None,
        };
        let number = |bound: &Bound| match bound {
            Bound::Number(value) if !value.is_finite() => Some("`bound` is no number"),
            Bound::Metric(bound) if !(bound.times.is_finite() && bound.plus.is_finite()) => {
                Some("`times` and `plus` must be numbers")
            }
            _ => None,
        };
        let flaw = match self {
            Self::Threshold(test) => window(test.take, test.over).or_else(|| number(&test.bound)),
            Self::Bits(test) => {
                (test.mask == 0 || test.mask >= 1 << 53).then_some("`mask` must be above 0 and below 2^53")
            }
            Self::Trend(test) if test.op.direction() == 0.0 => Some("a trend's `op` is one of > >= < <="),
            Self::Trend(test) if test.over == Span::ZERO || test.within == Span::ZERO => {
                Some("`over` and `within` must not be 0")
            }
            Self::Trend(test) => number(&test.bound),
            Self::Absent(test) => (test.over == Span::ZERO).then_some("`over` is 0"),
            Self::State(test) => test.words.is_empty().then_some("`in` names no state"),
            Self::Events(test) if test.at_least == 0 => Some("`atLeast` is 0: it would always be true"),
            Self::Events(test) => (test.over == Span::ZERO).then_some("`over` is 0"),
            Self::Any { of } | Self::All { of } if of.is_empty() => Some("`of` is empty"),
            Self::Any { .. } | Self::All { .. } if depth >= 3 => Some("conditions nest at most three deep"),
            Self::Any { of } | Self::All { of } => return of.iter().find_map(|part| part.flaw(depth + 1)),
        };
        flaw.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators() {
        for (op, below, same, above) in [
            (Op::Above, false, false, true),
            (Op::AtLeast, false, true, true),
            (Op::Below, true, false, false),
            (Op::AtMost, true, true, false),
            (Op::Is, false, true, false),
            (Op::IsNot, true, false, true),
        ] {
            assert_eq!(
                (op.holds(1.0, 2.0), op.holds(2.0, 2.0), op.holds(3.0, 2.0)),
                (below, same, above)
            );
        }
    }

    #[test]
    fn flaws_are_named() {
        for (text, word) in [
            (
                r#"{"kind":"threshold","metric":"m","take":"avg","op":">","bound":1}"#,
                "over",
            ),
            (
                r#"{"kind":"threshold","metric":"m","over":"5m","op":">","bound":1}"#,
                "window",
            ),
            (r#"{"kind":"bits","metric":"m","mask":0,"meaning":"x"}"#, "mask"),
            (
                r#"{"kind":"trend","metric":"m","over":"1h","op":"==","bound":1,"within":"1h"}"#,
                "op",
            ),
            (r#"{"kind":"state","state":"s","in":[]}"#, "in"),
            (r#"{"kind":"events","event":"e","over":"1h","atLeast":0}"#, "atLeast"),
            (r#"{"kind":"any","of":[]}"#, "of"),
            (
                r#"{"kind":"all","of":[{"kind":"absent","metric":"m","over":"0"}]}"#,
                "over",
            ),
        ] {
            let condition: Condition = serde_json::from_str(text).unwrap();
            let flaw = condition.flaw(0).unwrap();
            assert!(flaw.contains(word), "{text}: {flaw}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            r#"{"kind":"absent","metric":"m","over":"1h","ower":1}"#,
            r#"{"kind":"any","of":[],"off":1}"#,
            r#"{"kind":"threshold","metric":"m","op":">","bound":{"metric":"x","time":2}}"#,
            r#"{"kind":"guess"}"#,
        ] {
            assert!(serde_json::from_str::<Condition>(text).is_err(), "{text}");
        }
    }
}
