//! Which series a query means.

use regex::Regex;

use super::MetricError;

/// The label under which a matcher finds the metric's name.
pub const NAME_LABEL: &str = "__name__";

/// A condition on one label. A label that a series doesn't have counts as empty, as in Prometheus.
#[derive(Debug, Clone)]
pub struct Matcher {
    pub(super) label: String,
    pub(super) test: Test,
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Eq(String),
    Ne(String),
    Re(Regex),
    Nre(Regex),
}

impl Matcher {
    /// The metric's name is `name`.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self::eq(NAME_LABEL, name)
    }

    /// The label is `value`.
    #[must_use]
    pub fn eq(label: &str, value: &str) -> Self {
        Self {
            label: label.to_owned(),
            test: Test::Eq(value.to_owned()),
        }
    }

    /// The label isn't `value`.
    #[must_use]
    pub fn ne(label: &str, value: &str) -> Self {
        Self {
            label: label.to_owned(),
            test: Test::Ne(value.to_owned()),
        }
    }

    /// The whole label matches `pattern`.
    ///
    /// # Errors
    /// [`MetricError::InvalidPattern`].
    pub fn re(label: &str, pattern: &str) -> Result<Self, MetricError> {
        Ok(Self {
            label: label.to_owned(),
            test: Test::Re(compile(label, pattern)?),
        })
    }

    /// The whole label doesn't match `pattern`.
    ///
    /// # Errors
    /// [`MetricError::InvalidPattern`].
    pub fn nre(label: &str, pattern: &str) -> Result<Self, MetricError> {
        Ok(Self {
            label: label.to_owned(),
            test: Test::Nre(compile(label, pattern)?),
        })
    }

    /// The label that it is about; [`NAME_LABEL`] for the metric's name.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The same condition on another label.
    #[must_use]
    pub fn on(&self, label: &str) -> Self {
        Self {
            label: label.to_owned(),
            test: self.test.clone(),
        }
    }

    /// Whether a value passes; `""` stands for an absent label.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match &self.test {
            Test::Eq(wanted) => value == wanted,
            Test::Ne(unwanted) => value != unwanted,
            Test::Re(pattern) => pattern.is_match(value),
            Test::Nre(pattern) => !pattern.is_match(value),
        }
    }
}

fn compile(label: &str, pattern: &str) -> Result<Regex, MetricError> {
    Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| MetricError::InvalidPattern {
        label: label.to_owned(),
        pattern: pattern.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored() {
        let matcher = Matcher::re("node", "gpu-[0-9]|x").unwrap();
        assert!(matcher.matches("gpu-1") && matcher.matches("x"));
        assert!(!matcher.matches("gpu-12") && !matcher.matches("ax") && !matcher.matches(""));
        assert!(Matcher::nre("node", "a.*").unwrap().matches(""));
        assert!(matches!(
            Matcher::re("node", "("),
            Err(MetricError::InvalidPattern { .. })
        ));
    }
}
