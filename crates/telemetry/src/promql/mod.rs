//! PromQL over the metric store, as Prometheus 2 answers it.
//!
//! The crate `promql-parser` reads the expression; here it is evaluated, step by step: each selector's samples
//! are read once for the whole range. Both ends of a range selector are included, and a sample counts for five
//! minutes, as in Prometheus 2. There: selectors with offset, the functions in `functions.rs`,
//! `sum avg min max count group quantile stddev stdvar topk bottomk`, arithmetic, comparisons and set operators
//! with `on`, `ignoring`, `group_left` and `group_right`. Not there: subqueries, `@`, `count_values`, `label_replace`
//! and others: each is refused by name. Only raw samples are read, not roll-ups.

mod aggregate;
mod binary;
mod error;
mod eval;
mod functions;

pub use error::PromqlError;
pub use eval::{Source, Value, instant, range};
