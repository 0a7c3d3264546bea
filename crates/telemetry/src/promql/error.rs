//! What can go wrong with a query.

use crate::metrics::MetricError;

use super::FUNCTIONS;

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromqlError {
    /// It isn't PromQL, or asks for what doesn't fit together.
    #[error("invalid query: {0}")]
    Invalid(String),
    /// It is longer or more deeply nested than one may be.
    #[error("the query is too long: {found} {of}, of {limit} at most")]
    TooLong {
        /// How many there are.
        found: usize,
        /// Of what.
        of: &'static str,
        /// The bound.
        limit: usize,
    },
    /// PromQL that isn't understood here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A function that isn't there.
    #[error("the function {name}() is not supported; these are: {}", FUNCTIONS.join(", "))]
    Function {
        /// Its name.
        name: String,
    },
    /// A range with an end before its start, or without a step.
    #[error("invalid range: {0}")]
    Range(&'static str),
    /// It would answer with more points than one may.
    #[error("the query makes more than {limit} points: narrow its labels, shorten its time or widen its step")]
    TooManyPoints {
        /// The bound.
        limit: u64,
    },
    /// It would read more samples than one may.
    #[error("the query reads more than {limit} samples: narrow its labels or its time")]
    TooManySamples {
        /// The bound.
        limit: u64,
    },
    /// Its time is over.
    #[error("the query took too long")]
    TimedOut,
    /// Series that don't match as the query says they would.
    #[error("{0}")]
    Matching(String),
    /// The series can't be read.
    #[error("the series can't be read")]
    Source(#[source] MetricError),
}

impl From<MetricError> for PromqlError {
    fn from(error: MetricError) -> Self {
        match error {
            MetricError::InvalidPattern { .. } => Self::Invalid(error.to_string()),
            MetricError::TooManyPoints { limit } | MetricError::TooManySamples { limit } => {
                Self::TooManySamples { limit }
            }
            error => Self::Source(error),
        }
    }
}
