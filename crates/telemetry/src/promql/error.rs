//! Why an expression has no answer.

use crate::metrics::MetricError;

/// Why an expression could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromqlError {
    /// It is not PromQL.
    #[error("invalid expression: {0}")]
    Syntax(String),
    /// It is PromQL, but this part of it isn't implemented.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// It means nothing for these series.
    #[error("cannot evaluate: {0}")]
    Evaluation(String),
    /// The end lies before the start, or the step is not positive, or there are too many steps.
    #[error("invalid range: {0}")]
    InvalidRange(&'static str),
    /// The samples could not be read.
    #[error("cannot read samples: {0}")]
    Read(#[from] MetricError),
}
