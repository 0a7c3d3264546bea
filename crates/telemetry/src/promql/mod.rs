//! PromQL over any [`Source`] of series: the part of the language that dashboards and alert rules are written in.
//!
//! ```text
//! text ──parse──▶ Query ──select──▶ Source (the metric store, under whatever names and units)
//!                   └────eval──▶ every expression for all its steps at once: rows of values, one a step
//! ```
//!
//! Syntax is the library's, the meaning is ours and that of Prometheus' documentation: selectors with `offset` and
//! `@`, subqueries, arithmetic, comparisons, sets, vector matching, all aggregations but `limitk` and `limit_ratio`,
//! and the functions that [`FUNCTIONS`] lists. Ranges are open at their start, as in Prometheus 3. There are no native
//! histograms and no staleness marks: a value holds for [`LOOKBACK_MS`] at most.

mod aggregate;
mod binary;
mod error;
mod eval;
mod instant;
mod over_time;
mod query;
#[cfg(test)]
mod tests;
mod value;

pub use error::PromqlError;
pub use query::{Limits, Query, Source, duration, selector};
pub use value::{Answer, LabelSet, Points};

/// For how long a sample is the value of a moment; Prometheus' own default.
pub const LOOKBACK_MS: i64 = 300_000;

/// The step of a subquery that names none; Prometheus' own default evaluation interval.
const SUBQUERY_STEP_MS: i64 = 60_000;

/// The functions that can be called.
pub const FUNCTIONS: &[&str] = &[
    "abs",
    "absent",
    "absent_over_time",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "count_over_time",
    "delta",
    "deriv",
    "exp",
    "floor",
    "idelta",
    "increase",
    "irate",
    "label_join",
    "label_replace",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "max_over_time",
    "min_over_time",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rate",
    "resets",
    "round",
    "scalar",
    "sgn",
    "sort",
    "sort_desc",
    "sqrt",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
    "time",
    "timestamp",
    "vector",
];
