//! Whether a condition holds for one target, by its readings: three-valued, with evidence.

use std::slice::Iter;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Span;
use super::condition::{Bound, Condition, Trend};
use super::reading::{Reading, Take};
use super::trend;
use super::unit::Unit;

/// What the readings say about a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It doesn't hold.
    Healthy,
    /// There is no data to tell by.
    Unknown,
    /// It holds.
    Broken,
}

/// One fact that an alert stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The metric, state or event.
    pub metric: String,
    /// Its value; `None` for a state.
    pub value: Option<f64>,
    /// The state; `None` for a number.
    pub state: Option<String>,
    /// What the value was compared with; `None` for a state.
    pub threshold: Option<f64>,
    /// When the value was measured.
    pub at: Timestamp,
    /// All of it, in a sentence.
    pub text: String,
}

/// A verdict and what it stands on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub verdict: Verdict,
    pub evidence: Vec<Evidence>,
    /// `None` for states.
    pub value: Option<f64>,
    pub limit: Option<f64>,
    /// Until the bound is crossed; for trends that are heading there.
    pub eta: Option<Span>,
    /// For states.
    pub state: Option<String>,
    pub unit: Unit,
}

impl Judged {
    const fn unknown() -> Self {
        Self {
            verdict: Verdict::Unknown,
            evidence: Vec::new(),
            value: None,
            limit: None,
            eta: None,
            state: None,
            unit: Unit::None,
        }
    }

    fn healthy() -> Self {
        Self {
            verdict: Verdict::Healthy,
            ..Self::unknown()
        }
    }

    /// Facts are worded only for what is wrong: nearly all is healthy nearly always.
    fn told(broken: bool, fact: impl FnOnce() -> Evidence) -> Self {
        if !broken {
            return Self::healthy();
        }
        let fact = fact();
        Self {
            verdict: Verdict::Broken,
            value: fact.value,
            limit: fact.threshold,
            evidence: vec![fact],
            ..Self::unknown()
        }
    }

    fn with_unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }
}

/// Judges a rule's condition: one verdict for each alternative of a topmost `any`, else one.
///
/// A reading older than `patience` is no reading.
pub(super) fn judge(condition: &Condition, readings: &[Reading], patience: Span, now: Timestamp) -> Vec<Judged> {
    let mut judge = Judge {
        readings: readings.iter(),
        patience,
        now,
    };
    match condition {
        Condition::Any { of } => of.iter().map(|part| judge.part(part)).collect(),
        other => vec![judge.part(other)],
    }
}

/// The verdict of alternatives. `because` are those that an alert has been broken by: these must be seen healthy,
/// while another that never had data (this device doesn't report it) is left out.
pub(super) fn overall(parts: &[Judged], because: impl Fn(usize) -> bool) -> Verdict {
    let mut any_healthy = false;
    let mut owed = false;
    for (index, part) in parts.iter().enumerate() {
        match part.verdict {
            Verdict::Broken => return Verdict::Broken,
            Verdict::Healthy => any_healthy = true,
            Verdict::Unknown => owed |= because(index),
        }
    }
    if any_healthy && !owed {
        Verdict::Healthy
    } else {
        Verdict::Unknown
    }
}

struct Judge<'a> {
    /// Taken one after the other, in the order of `Condition::needs`.
    readings: Iter<'a, Reading>,
    patience: Span,
    now: Timestamp,
}

impl<'a> Judge<'a> {
    fn part(&mut self, condition: &Condition) -> Judged {
        match condition {
            Condition::Threshold(test) => {
                let value = self.value();
                let bound = self.bound(&test.bound);
                let (Some((value, at)), Some(bound)) = (value, bound) else {
                    return Judged::unknown();
                };
                let show = |number| test.unit.show(number);
                Judged::told(test.op.holds(value, bound), || {
                    let what = match (test.take, test.over) {
                        (Take::Last, _) | (_, None) => test.metric.clone(),
                        (take, Some(over)) => format!("{} of {} over {over}", word(take), test.metric),
                    };
                    let text = format!(
                        "{what} is {}, limit {}{}",
                        show(value),
                        show(bound),
                        origin(&test.bound)
                    );
                    fact(&test.metric, value, Some(bound), at, text)
                })
                .with_unit(test.unit)
            }
            Condition::Bits(test) => {
                let seen = if test.over.is_some() {
                    self.points().and_then(|points| {
                        let last = points.last()?;
                        let all = points
                            .iter()
                            .filter_map(|(_, v)| mask(*v))
                            .fold(0, |all, bits| all | bits);
                        Some((all, last.0))
                    })
                } else {
                    self.value().and_then(|(value, at)| Some((mask(value)?, at)))
                };
                let Some((bits, at)) = seen else {
                    return Judged::unknown();
                };
                Judged::told(bits & test.mask != 0, || {
                    let over = test
                        .over
                        .map_or_else(String::new, |over| format!(" in the last {over}"));
                    let text = format!(
                        "{} has 0x{:x} set{over}: {}",
                        test.metric,
                        bits & test.mask,
                        test.meaning
                    );
                    // Below 2^53: exact.
                    fact(&test.metric, bits as f64, None, at, text)
                })
            }
            Condition::Trend(test) => self.trend(test),
            Condition::Absent(test) => {
                let Some((count, at)) = self.value() else {
                    return Judged::unknown();
                };
                Judged::told(count <= 0.0, || {
                    let text = format!("no sample of {} in the last {}", test.metric, test.over);
                    fact(&test.metric, count, None, at, text)
                })
            }
            Condition::State(test) => {
                let Some(Reading::State { value, since }) = self.readings.next() else {
                    return Judged::unknown();
                };
                if test.unknown.contains(value) {
                    return Judged::unknown();
                }
                let judged = Judged::told(test.words.contains(value), || {
                    let since = since.filter(|since| *since <= self.now);
                    let how_long = since.map_or_else(String::new, |since| {
                        format!(" for {}", Span::between(since, self.now).rough())
                    });
                    Evidence {
                        metric: test.state.clone(),
                        value: None,
                        state: Some(value.clone()),
                        threshold: None,
                        at: self.now,
                        text: format!("{} has been {value}{how_long}", test.state),
                    }
                });
                Judged {
                    state: Some(value.clone()),
                    ..judged
                }
            }
            Condition::Events(test) => {
                let Some((count, at)) = self.value() else {
                    return Judged::unknown();
                };
                let bound = f64::from(test.at_least);
                Judged::told(count >= bound, || {
                    let (count_text, limit) = (Unit::None.show(count), test.at_least);
                    let text = format!("{count_text} × {} in the last {}, limit {limit}", test.event, test.over);
                    fact(&test.event, count, Some(bound), at, text)
                })
            }
            Condition::Any { of } => {
                let parts: Vec<Judged> = of.iter().map(|part| self.part(part)).collect();
                let verdict = overall(&parts, |_| false);
                joined(parts, verdict)
            }
            Condition::All { of } => {
                let parts: Vec<Judged> = of.iter().map(|part| self.part(part)).collect();
                // One that is healthy settles it, whatever the others are.
                let verdict = parts.iter().map(|p| p.verdict).min().unwrap_or(Verdict::Unknown);
                joined(parts, verdict)
            }
        }
    }

    fn trend(&mut self, test: &Trend) -> Judged {
        let points = self.points();
        let bound = self.bound(&test.bound);
        let (Some(points), Some(bound)) = (points, bound) else {
            return Judged::unknown();
        };
        let patience = self.patience.max(Span::millis(test.over.as_millis() / 6));
        let fresh = points.last().filter(|(at, _)| Span::between(*at, self.now) <= patience);
        let (Some((at, _)), Some(line)) = (fresh, trend::line(points, test.over)) else {
            return Judged::unknown();
        };
        let there = test.op.holds(line.value, bound);
        let heading = line.steady && line.slope * test.op.direction() > 0.0;
        let eta = if there {
            Some(Span::ZERO)
        } else if heading {
            // At the most what a span holds: the cast saturates.
            Some(Span::millis(((bound - line.value) / line.slope * 1_000.0) as u64))
        } else {
            None
        };
        let Some(soon) = eta.filter(|eta| *eta <= test.within) else {
            return Judged::healthy();
        };
        let show = |value| test.unit.show(value);
        let judged = Judged::told(true, || {
            let way = if soon == Span::ZERO {
                "is there already".to_owned()
            } else {
                format!("would be there in {}", soon.rough())
            };
            let text = format!(
                "{} is {}, by its last {} it changes by {} an hour, limit {}{}: {way}",
                test.metric,
                show(line.value),
                test.over,
                show(line.slope * 3_600.0),
                show(bound),
                origin(&test.bound),
            );
            fact(&test.metric, line.value, Some(bound), *at, text)
        });
        Judged {
            eta,
            ..judged.with_unit(test.unit)
        }
    }

    /// The next reading, if it is a usable number.
    fn value(&mut self) -> Option<(f64, Timestamp)> {
        match self.readings.next()? {
            Reading::Value { value, at } if value.is_finite() && Span::between(*at, self.now) <= self.patience => {
                Some((*value, *at))
            }
            _ => None,
        }
    }

    fn points(&mut self) -> Option<&'a [(Timestamp, f64)]> {
        match self.readings.next()? {
            Reading::Points { points } if !points.is_empty() => Some(points),
            _ => None,
        }
    }

    fn bound(&mut self, bound: &Bound) -> Option<f64> {
        match bound {
            Bound::Number(value) => Some(*value),
            // Limits hardly change, and some are read once at start: of whatever age.
            Bound::Metric(bound) => match self.readings.next()? {
                Reading::Value { value, .. } if value.is_finite() => Some(bound.times * value + bound.plus),
                _ => None,
            },
        }
    }
}

/// A bit mask out of a sample; `None` for what is none.
fn mask(value: f64) -> Option<u64> {
    (value >= 0.0 && value < (1u64 << 53) as f64).then_some(value as u64)
}

fn fact(metric: &str, value: f64, threshold: Option<f64>, at: Timestamp, text: String) -> Evidence {
    Evidence {
        metric: metric.to_owned(),
        value: Some(value),
        state: None,
        threshold,
        at,
        text,
    }
}

const fn word(take: Take) -> &'static str {
    match take {
        Take::Last => "last",
        Take::Avg => "average",
        Take::Min => "minimum",
        Take::Max => "maximum",
        Take::Sum => "sum",
        Take::P95 => "95th percentile",
        Take::P99 => "99th percentile",
        Take::Increase => "increase",
        Take::Rate => "rate",
        Take::Count => "number of samples",
    }
}

/// Where a bound comes from: ` (0.9 × memory.total)`.
fn origin(bound: &Bound) -> String {
    match bound {
        Bound::Number(_) => String::new(),
        Bound::Metric(bound) => format!(" ({bound})"),
    }
}

/// Several judgements as one: the facts of those that made the verdict, the values of the first of them.
fn joined(parts: Vec<Judged>, verdict: Verdict) -> Judged {
    let mut out = Judged {
        verdict,
        ..Judged::unknown()
    };
    for part in parts.into_iter().filter(|part| part.verdict == verdict) {
        if out.evidence.is_empty() {
            out = Judged { verdict, ..part };
        } else {
            out.evidence.extend(part.evidence);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-02-16T14:00:00Z".parse().unwrap()
    }

    fn ask(condition: &str, readings: &[Reading]) -> Judged {
        let condition: Condition = serde_json::from_str(condition).unwrap();
        let mut needs = Vec::new();
        condition.needs(&mut needs);
        assert_eq!(needs.len(), readings.len(), "{needs:?}");
        judge(&condition, readings, Span::minutes(5), now()).remove(0)
    }

    fn value(value: f64) -> Reading {
        Reading::Value { value, at: now() }
    }

    #[test]
    fn a_device_is_measured_by_its_own_limit() {
        let hot = r#"{"kind":"threshold","metric":"gpu.temperature","op":">=","unit":"celsius",
            "bound":{"metric":"gpu.temperature.slowdown","plus":-3}}"#;
        let judged = ask(hot, &[value(91.0), value(93.0)]);
        assert_eq!(judged.verdict, Verdict::Broken);
        assert_eq!(
            judged.evidence[0].text,
            "gpu.temperature is 91 °C, limit 90 °C (gpu.temperature.slowdown - 3)"
        );
        assert_eq!(ask(hot, &[value(89.0), value(93.0)]).verdict, Verdict::Healthy);
        assert_eq!(ask(hot, &[value(91.0), Reading::Missing]).verdict, Verdict::Unknown);
        assert_eq!(ask(hot, &[value(f64::NAN), value(93.0)]).verdict, Verdict::Unknown);
    }

    #[test]
    fn an_old_sample_is_no_sample() {
        let old = Reading::Value {
            value: 5.0,
            at: "2026-02-16T13:54:59Z".parse().unwrap(),
        };
        let test = r#"{"kind":"threshold","metric":"m","op":">","bound":1}"#;
        assert_eq!(ask(test, &[old]).verdict, Verdict::Unknown);
    }

    #[test]
    fn bits_of_one_sample_or_of_a_window() {
        let test = r#"{"kind":"bits","metric":"gpu.throttle","mask":72,"meaning":"too hot"}"#;
        assert_eq!(ask(test, &[value(64.0)]).verdict, Verdict::Broken);
        assert_eq!(ask(test, &[value(4.0)]).verdict, Verdict::Healthy);
        assert_eq!(ask(test, &[value(-1.0)]).verdict, Verdict::Unknown);
        let test = r#"{"kind":"bits","metric":"gpu.throttle","mask":72,"meaning":"too hot","over":"1m"}"#;
        let points = |values: &[f64]| Reading::Points {
            points: values.iter().map(|v| (now(), *v)).collect(),
        };
        let judged = ask(test, &[points(&[0.0, 8.0, 4.0])]);
        assert_eq!(judged.verdict, Verdict::Broken);
        assert_eq!(
            judged.evidence[0].text,
            "gpu.throttle has 0x8 set in the last 1m: too hot"
        );
        assert_eq!(ask(test, &[points(&[4.0])]).verdict, Verdict::Healthy);
        assert_eq!(ask(test, &[points(&[])]).verdict, Verdict::Unknown);
    }

    #[test]
    fn all_is_settled_by_one_that_is_healthy() {
        let both = r#"{"kind":"all","of":[{"kind":"threshold","metric":"a","op":">","bound":1},
            {"kind":"threshold","metric":"b","op":">","bound":1}]}"#;
        assert_eq!(ask(both, &[value(2.0), value(2.0)]).verdict, Verdict::Broken);
        assert_eq!(ask(both, &[value(2.0), value(2.0)]).evidence.len(), 2);
        assert_eq!(ask(both, &[value(0.0), Reading::Missing]).verdict, Verdict::Healthy);
        assert_eq!(ask(both, &[value(2.0), Reading::Missing]).verdict, Verdict::Unknown);
    }

    #[test]
    fn an_alternative_that_fired_must_be_seen_healthy() {
        let part = |verdict| Judged {
            verdict,
            ..Judged::unknown()
        };
        let parts = [part(Verdict::Unknown), part(Verdict::Healthy)];
        assert_eq!(overall(&parts, |_| false), Verdict::Healthy);
        assert_eq!(overall(&parts, |part| part == 0), Verdict::Unknown);
        assert_eq!(overall(&parts, |part| part == 1), Verdict::Healthy);
        assert_eq!(overall(&parts[..1], |_| false), Verdict::Unknown);
    }
}
