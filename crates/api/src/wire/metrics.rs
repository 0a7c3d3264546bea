//! Measurements on their way to the gateway: a dictionary of series, and ticks aligned to it.
//!
//! A series is named once a session; from then on a tick holds only its value, at its position. 200 series make a
//! tick of about 1 KiB. Dictionaries end with their session, or with a batch that begins one anew.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metric::Kind;

/// Most series in a session's dictionary: a node with some hundred workloads that each have all the metrics of their
/// own that they may have.
pub const SERIES_MAX: usize = 20_000;

/// Most ticks in a batch.
pub const TICKS_MAX: usize = 360;

/// Most values in all ticks of a batch.
pub const VALUES_MAX: usize = 200_000;

/// Most labels of a series.
pub const LABELS_MAX: usize = 16;

/// Longest name of a metric, a label or a unit, and longest value of a label.
pub const NAME_MAX_BYTES: usize = 256;

/// A series of the dictionary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeriesKey {
    /// The metric's name: of the catalogue ([`crate::metric`]), or `custom.…`.
    #[serde(rename = "m")]
    pub metric: String,
    /// Its labels, without the node's name.
    #[serde(rename = "l", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Unit of a workload's own metric, in its words. `None`: the catalogue's, or not said.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How a workload's own metric moves. `None`: the catalogue's, or a gauge.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
}

/// What was measured at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    /// Position in the agent's own sequence, from 1; begins anew with each start of the agent. A hole is a tick that
    /// the agent couldn't keep.
    #[serde(rename = "n")]
    pub number: u64,
    /// Milliseconds since 1970 by the node's wall clock. It may lie before that of an earlier tick: a workload's own
    /// numbers have the time of their line, and clocks are set back.
    #[serde(rename = "t")]
    pub at_ms: i64,
    /// By position in the dictionary. `None`, and whatever is missing at the end: not measured.
    #[serde(rename = "v", serialize_with = "short", deserialize_with = "finite")]
    pub values: Vec<Option<f64>>,
}

/// Ticks, and the series that they are the first to have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricBatch {
    /// The dictionary begins anew with this batch; so it does with each session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// Goes to the dictionary's end, before the ticks are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub define: Vec<Arc<SeriesKey>>,
    /// In order.
    pub ticks: Vec<Tick>,
    /// Ticks since the agent's start that were dropped because the gateway was away for too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too many of something.
    #[error("{count} {what}, of at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A name or a label's value is empty or too long.
    #[error("series {position}: a {what} has {bytes} bytes, of 1 to {NAME_MAX_BYTES}")]
    Length {
        /// Which series of the dictionary.
        position: usize,
        /// Of what.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A tick has more values than the dictionary has series.
    #[error("tick {number} has {values} values for {series} series")]
    Undefined {
        /// Which tick.
        number: u64,
        /// How many values.
        values: usize,
        /// How many series are defined.
        series: usize,
    },
    /// Ticks aren't in order.
    #[error("tick {number} doesn't follow {before}")]
    Order {
        /// Which tick.
        number: u64,
        /// The tick before.
        before: u64,
    },
}

impl MetricBatch {
    /// Checks the batch against a dictionary of this many series; tells how many it has after it.
    ///
    /// # Errors
    /// The first thing that is wrong. Nothing of the batch should be used then.
    pub fn check(&self, known: usize) -> Result<usize, BatchError> {
        let at_most = |what, count, max| {
            if count > max {
                return Err(BatchError::TooMany { what, count, max });
            }
            Ok(())
        };
        let known = if self.anew { 0 } else { known };
        let series = known.saturating_add(self.define.len());
        at_most("series", series, SERIES_MAX)?;
        at_most("ticks", self.ticks.len(), TICKS_MAX)?;
        at_most(
            "values",
            self.ticks.iter().map(|tick| tick.values.len()).sum(),
            VALUES_MAX,
        )?;
        for (key, position) in self.define.iter().zip(known..) {
            at_most("labels", key.labels.len(), LABELS_MAX)?;
            let length = |what, text: &str, least: usize| {
                if (least..=NAME_MAX_BYTES).contains(&text.len()) {
                    return Ok(());
                }
                Err(BatchError::Length {
                    position,
                    what,
                    bytes: text.len(),
                })
            };
            length("metric's name", &key.metric, 1)?;
            length("unit", key.unit.as_deref().unwrap_or_default(), 0)?;
            for (name, value) in &key.labels {
                length("label's name", name, 1)?;
                length("label's value", value, 0)?;
            }
        }
        let mut before = 0;
        for tick in &self.ticks {
            let number = tick.number;
            if number <= before {
                return Err(BatchError::Order { number, before });
            }
            before = number;
            if tick.values.len() > series {
                let values = tick.values.len();
                return Err(BatchError::Undefined { number, values, series });
            }
        }
        Ok(series)
    }
}

/// Whole numbers without `.0`; what is no number isn't there.
fn short<S: Serializer>(values: &[Option<f64>], serializer: S) -> Result<S::Ok, S::Error> {
    // Whole numbers up to here are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Short {
        Whole(i64),
        Broken(f64),
    }
    serializer.collect_seq(values.iter().map(|value| {
        let value = value.filter(|value| value.is_finite())?;
        Some(if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
            Short::Whole(value as i64)
        } else {
            Short::Broken(value)
        })
    }))
}

fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Option<f64>>, D::Error> {
    let mut values: Vec<Option<f64>> = Vec::deserialize(deserializer)?;
    for value in &mut values {
        *value = value.filter(|value| value.is_finite());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(metric: &str) -> Arc<SeriesKey> {
        Arc::new(SeriesKey {
            metric: metric.to_owned(),
            labels: BTreeMap::from([("gpu".to_owned(), "0".to_owned())]),
            unit: None,
            kind: None,
        })
    }

    fn batch() -> MetricBatch {
        MetricBatch {
            define: vec![key("gpu.temperature"), key("gpu.power")],
            ticks: vec![Tick {
                number: 7,
                at_ms: 1_771_250_400_000,
                values: vec![Some(61.0), Some(402.5)],
            }],
            ..MetricBatch::default()
        }
    }

    #[test]
    fn numbers_are_short_and_come_back() {
        let mut sent = batch();
        sent.ticks[0].values = vec![
            Some(61.0),
            None,
            Some(f64::NAN),
            Some(0.1),
            Some(85_899_345_920.0),
            Some(-3.0),
        ];
        let text = serde_json::to_string(&sent.ticks[0]).unwrap();
        assert_eq!(
            text,
            r#"{"n":7,"t":1771250400000,"v":[61,null,null,0.1,85899345920,-3]}"#
        );
        let back: Tick = serde_json::from_str(&text).unwrap();
        assert_eq!(
            back.values,
            [Some(61.0), None, None, Some(0.1), Some(85_899_345_920.0), Some(-3.0)]
        );
    }

    #[test]
    fn a_recorded_batch_is_read() {
        let text = r#"{"define":[{"m":"gpu.temperature","l":{"gpu":"0"}},{"m":"gpu.power","l":{"gpu":"0"}}],"ticks":[{"n":7,"t":1771250400000,"v":[61,402.5]}]}"#;
        assert_eq!(serde_json::from_str::<MetricBatch>(text).unwrap(), batch());
        assert_eq!(serde_json::to_string(&batch()).unwrap(), text);
    }

    #[test]
    fn bounds() {
        assert_eq!(batch().check(0), Ok(2));
        assert_eq!(batch().check(5), Ok(7));
        let anew = MetricBatch { anew: true, ..batch() };
        assert_eq!(anew.check(SERIES_MAX), Ok(2));
        assert!(matches!(
            batch().check(SERIES_MAX),
            Err(BatchError::TooMany { what: "series", .. })
        ));

        let mut undefined = batch();
        undefined.ticks[0].values.push(None);
        let refused = undefined.check(0).unwrap_err();
        assert_eq!(refused.to_string(), "tick 7 has 3 values for 2 series");
        assert_eq!(undefined.check(1), Ok(3));

        let mut order = batch();
        order.ticks.push(order.ticks[0].clone());
        assert_eq!(order.check(0), Err(BatchError::Order { number: 7, before: 7 }));

        let mut long = batch();
        let mut named = (*long.define[1]).clone();
        named.labels.insert("path".to_owned(), "x".repeat(NAME_MAX_BYTES + 1));
        long.define[1] = Arc::new(named);
        assert!(matches!(long.check(3), Err(BatchError::Length { position: 4, .. })));

        let many = MetricBatch {
            ticks: vec![Tick::default(); TICKS_MAX + 1],
            ..MetricBatch::default()
        };
        assert!(matches!(many.check(0), Err(BatchError::TooMany { what: "ticks", .. })));
    }
}
