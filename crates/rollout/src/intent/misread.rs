//! Why a sentence isn't read.

use std::fmt;

use api::{ApiError, error::ErrorCode};

/// A sentence that isn't read, and what would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// What is wrong with it. Quotes the words that it is about.
    pub message: String,
    /// What to say instead.
    pub help: Option<String>,
    /// A full sentence of the kind that seems to be meant.
    pub example: &'static str,
}

impl Misread {
    pub(super) const fn new(message: String) -> Self {
        Self {
            message,
            help: None,
            example: "update model-server to v2.1, canary 10%, rollback if errors > 1%",
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        write!(f, " (for example: {})", self.example)
    }
}

impl std::error::Error for Misread {}

impl From<Misread> for ApiError {
    fn from(misread: Misread) -> Self {
        let hint = match misread.help {
            Some(help) => format!("{help}; for example: {}", misread.example),
            None => format!("for example: {}", misread.example),
        };
        Self {
            field: Some("intent".to_owned()),
            ..Self::new(ErrorCode::InvalidArgument, misread.message)
        }
        .hint(hint)
    }
}
