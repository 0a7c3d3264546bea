//! Measuring: what is read of machine, GPUs and workloads becomes numbered ticks on their way to the gateway.
//!
//! Sources tell [`Reading`]s: numbers of the moment, and totals that only grow. [`Recorder`] makes rates of the
//! totals, names each series, and keeps the ticks until the gateway has them. What can't be measured is missing.
//!
//! - [`rates`]: changes a second, by a clock that never goes back
//! - [`recorder`]: ticks, the session's dictionary, the backlog
//! - [`own`]: what workloads report themselves, with a cap on their series
//! - [`prometheus`]: Prometheus' text format, as workloads serve it
//! - [`kernel`]: lines of the kernel's log that mean something

pub mod kernel;
mod own;
mod prometheus;
mod rates;
mod recorder;

use std::borrow::Cow;

pub(crate) use self::{
    own::{Own, Point, SERIES, labels},
    prometheus::{Sample, samples},
    recorder::{Labels, Raw, Recorder, Source},
};

/// A number that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it measures: a name of [`api::metric::CATALOGUE`].
    pub metric: &'static str,
    /// Which of the machine's parts, beside the labels that all readings of the source get.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The number.
    pub value: Value,
}

/// How a number is to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// As it is.
    Now(f64),
    /// Its growth a second is what counts. One that shrank began anew, and says nothing.
    Total(f64),
}

impl Reading {
    /// A number of the moment.
    #[must_use]
    pub fn now(metric: &'static str, value: impl Into<f64>) -> Self {
        Self {
            metric,
            labels: Vec::new(),
            value: Value::Now(value.into()),
        }
    }

    /// A number of the moment. Numbers above 2^53 lose their last digits.
    #[must_use]
    pub fn count(metric: &'static str, value: u64) -> Self {
        Self::now(metric, value as f64)
    }

    /// A number of which the growth a second counts.
    #[must_use]
    pub fn total(metric: &'static str, value: u64) -> Self {
        Self {
            metric,
            labels: Vec::new(),
            value: Value::Total(value as f64),
        }
    }

    /// With a label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// A number to the precision that it is measured with: one that is small keeps four digits, a large one is whole.
#[must_use]
pub(crate) fn rounded(value: f64) -> f64 {
    let places = match value.abs() {
        large if large >= 1000.0 => 0,
        large if large >= 10.0 => 2,
        _ => 4,
    };
    let scale = 10_f64.powi(places);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_precise_as_their_measurement() {
        for (value, wanted) in [
            (85_899_345_920.4, 85_899_345_920.0),
            (f64::from(402.617_f32), 402.62),
            (0.123_456, 0.1235),
            (-12.345_6, -12.35),
            (7.0, 7.0),
        ] {
            assert_eq!(rounded(value), wanted);
        }
    }
}
