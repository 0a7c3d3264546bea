//! Label matchers: `node=gpu-7`, `rule=~gpu-.*`, `severity!=info`, `team!~a|b`.
//!
//! As in Prometheus: a regular expression must match the whole value, and a label that isn't there is the empty text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Names and values that tell one series, target or alert from another.
pub type Labels = BTreeMap<String, String>;

/// Bytes that a compiled expression may take: it comes from a user and stays in memory.
const REGEX_SIZE_MAX: usize = 256 << 10;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`: the same text.
    Is,
    /// `!=`: another text.
    IsNot,
    /// `=~`: the expression matches the whole value.
    Like,
    /// `!~`: the expression doesn't match the whole value.
    NotLike,
}

impl MatchOp {
    /// As it is written.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Like => "=~",
            Self::NotLike => "!~",
        }
    }
}

/// One condition on one label. Written as one text, in serialised form too.
#[derive(Debug, Clone)]
pub struct Matcher {
    label: String,
    op: MatchOp,
    value: String,
    /// For `=~` and `!~`.
    regex: Option<Regex>,
}

/// A text that is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// No operator, or no label before it.
    #[error("{text:?} is no matcher (accepted: label=value label!=value label=~regex label!~regex)")]
    Form {
        /// What was given.
        text: String,
    },
    /// Not `[a-zA-Z_][a-zA-Z0-9_.]*`.
    #[error("{label:?} is no label name (letters, digits and _, not a digit first)")]
    Label {
        /// What was given.
        label: String,
    },
    /// The expression doesn't compile, or is too large.
    #[error("the expression {expression:?} can't be used: {why}")]
    Expression {
        /// What was given.
        expression: String,
        /// In the words of the library.
        why: String,
    },
}

impl Matcher {
    /// # Errors
    /// A label name or an expression that can't be used.
    pub fn new(label: &str, op: MatchOp, value: &str) -> Result<Self, MatcherError> {
        if !is_label_name(label) {
            return Err(MatcherError::Label {
                label: label.to_owned(),
            });
        }
        let regex = match op {
            MatchOp::Is | MatchOp::IsNot => None,
            MatchOp::Like | MatchOp::NotLike => Some(
                RegexBuilder::new(&format!("^(?:{value})$"))
                    .size_limit(REGEX_SIZE_MAX)
                    .build()
                    .map_err(|error| MatcherError::Expression {
                        expression: value.to_owned(),
                        why: error.to_string(),
                    })?,
            ),
        };
        Ok(Self {
            label: label.to_owned(),
            op,
            value: value.to_owned(),
            regex,
        })
    }

    /// The label that it looks at.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it compares.
    #[must_use]
    pub const fn op(&self) -> MatchOp {
        self.op
    }

    /// The text or expression that it compares with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether the labels satisfy it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.label).map_or("", String::as_str))
    }

    /// Whether a value of the label satisfies it.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let like = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.op {
            MatchOp::Is => value == self.value,
            MatchOp::IsNot => value != self.value,
            MatchOp::Like => like(),
            MatchOp::NotLike => !like(),
        }
    }
}

/// A condition on one label for a built-in rule. Nothing if it can't be built, which the rule's test sees.
pub(super) fn like(label: &str, expression: &str) -> Vec<Matcher> {
    Matcher::new(label, MatchOp::Like, expression).into_iter().collect()
}

/// Whether the text can name a label here and, dots replaced, in Prometheus.
pub(super) fn is_label_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.op, &self.value) == (&other.label, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.label, self.op.symbol(), self.value)
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    /// Quotes around the value are taken off: `node="gpu-7"`.
    fn from_str(text: &str) -> Result<Self, MatcherError> {
        let refuse = || MatcherError::Form { text: text.to_owned() };
        let start = text.find(['=', '!']).ok_or_else(refuse)?;
        let (label, rest) = text.split_at(start);
        // Longest first: `=~` begins with `=`.
        let (op, value) = [MatchOp::Like, MatchOp::NotLike, MatchOp::IsNot, MatchOp::Is]
            .into_iter()
            .find_map(|op| rest.strip_prefix(op.symbol()).map(|value| (op, value.trim())))
            .ok_or_else(refuse)?;
        let value = value
            .strip_prefix('"')
            .and_then(|inner| inner.strip_suffix('"'))
            .unwrap_or(value);
        Self::new(label.trim(), op, value)
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn each_operator() {
        let gpu_7 = labels(&[("node", "gpu-7")]);
        for (text, wanted) in [
            ("node=gpu-7", true),
            ("node = \"gpu-7\"", true),
            ("node=gpu", false),
            ("node!=gpu-7", false),
            ("node=~gpu-.*", true),
            ("node=~gpu", false),
            ("node!~gpu", true),
            ("node!~gpu-[0-9]", false),
            ("team=", true),
            ("team!=red", true),
            ("team=~.+", false),
        ] {
            assert_eq!(text.parse::<Matcher>().unwrap().matches(&gpu_7), wanted, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "node",
            "=x",
            "7up=x",
            "no de=x",
            "node=~(",
            "node!x",
            "node=~(a{500}){500}",
        ] {
            assert!(text.parse::<Matcher>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_alternative_stays_inside_the_anchors() {
        let matcher: Matcher = "node=~a|b".parse().unwrap();
        assert!(matcher.accepts("a") && matcher.accepts("b"));
        assert!(!matcher.accepts("ax") && !matcher.accepts("xb"));
    }
}
