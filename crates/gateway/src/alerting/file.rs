//! The file of `gateway serve --alerts`: own rules, rules that aren't wanted, and who is told.

use std::{collections::BTreeSet, fs, io, path::Path};

use api::metric::{self, OWN_PREFIX};
use diagnosis::alert::{Need, Receiver, Rule, RuleFile, RuleSet};
use serde::Deserialize;

/// States that rules may ask for.
const STATES: [&str; 2] = ["node.status", "gpu.health"];

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says. The default: the built-in rules, and nobody is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AlertsFile {
    /// Own rules. One with the name of a built-in rule replaces it.
    pub rules: Vec<Rule>,
    /// Names of built-in rules that are not wanted.
    pub off: Vec<String>,
    /// Who is told. `${NAME}` in an address stands for the environment's variable.
    pub receivers: Vec<Receiver>,
    /// What messages point to, such as the dashboard's address.
    pub link: Option<String>,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("the file can't be read")]
    Read(#[source] io::Error),
    /// It isn't what it should be. Says line and column, and what is accepted; quotes no line, as it may hold a secret.
    #[error("{0}")]
    Form(String),
    /// An address names a variable that isn't set, or has no end.
    #[error("the address of receiver {receiver:?} {flaw}")]
    Variable {
        /// Whose.
        receiver: String,
        /// What is wrong.
        flaw: String,
    },
}

impl AlertsFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let size = fs::metadata(path).map_err(FileError::Read)?.len();
        if size > MAX_BYTES {
            return Err(FileError::Form(format!("it is larger than {} KiB", MAX_BYTES >> 10)));
        }
        let text = fs::read_to_string(path).map_err(FileError::Read)?;
        Self::parse(&text, |name| std::env::var(name).ok())
    }

    /// Reads its text. `variable`: the environment.
    ///
    /// # Errors
    /// [`FileError`]
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, FileError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let read: Result<Option<Self>, _> = serde_saphyr::from_str_with_options(text, options);
        let mut file = read
            .map_err(|error| FileError::Form(error.without_snippet().to_string()))?
            .unwrap_or_default();
        for receiver in &mut file.receivers {
            receiver.url.0 = expand(&receiver.url.0, &variable).map_err(|flaw| FileError::Variable {
                receiver: receiver.name.clone(),
                flaw,
            })?;
        }
        Ok(file)
    }

    /// The rules that hold: the built-in ones as the file changes them.
    ///
    /// # Errors
    /// What is wrong, in words: a rule that can't be used, a metric that there isn't, receivers that don't fit.
    pub fn rule_set(&self) -> Result<RuleSet, String> {
        let rules = RuleSet::with(RuleFile {
            rules: self.rules.clone(),
            off: self.off.clone(),
        })
        .map_err(|error| chain(&error))?;
        for rule in &self.rules {
            rule.needs()
                .iter()
                .try_for_each(known)
                .map_err(|flaw| format!("rule {}: {flaw}", rule.name))?;
        }
        Receiver::check(&self.receivers).map_err(|error| error.to_string())?;
        Ok(rules)
    }

    /// Names of the file's own rules.
    #[must_use]
    pub fn own(&self) -> BTreeSet<String> {
        self.rules.iter().map(|rule| rule.name.clone()).collect()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Whether there is something that answers.
fn known(need: &Need) -> Result<(), String> {
    match need {
        Need::Metric { metric: name, .. } | Need::Points { metric: name, .. } => {
            if metric::find(name).is_some() || name.starts_with(OWN_PREFIX) {
                return Ok(());
            }
            let hint = metric::nearest(name).map_or_else(String::new, |near| format!(": did you mean {near:?}?"));
            Err(format!("there is no metric {name:?}{hint}"))
        }
        Need::State { state, .. } if STATES.contains(&state.as_str()) => Ok(()),
        Need::State { state, .. } => Err(format!("there is no state {state:?} (known: {})", STATES.join(", "))),
        // Reasons of events are open: later versions, and codes of workloads.
        Need::Events { .. } => Ok(()),
    }
}

/// Puts variables in: `https://hooks.slack.com/services/${SLACK_HOOK}`.
fn expand(text: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            return Err("has a ${ without }".to_owned());
        };
        let value = variable(name).ok_or_else(|| format!("names ${{{name}}}, which isn't set"))?;
        out.push_str(before);
        out.push_str(value.trim());
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AlertsFile, FileError> {
        AlertsFile::parse(text, |name| (name == "HOOK").then(|| "T0/B0/secret\n".to_owned()))
    }

    #[test]
    fn the_sample_can_be_used() {
        let sample = include_str!("../../../../docs/reference/alerts.yaml");
        let file = AlertsFile::parse(sample, |name| Some(format!("value-of-{name}"))).unwrap();
        let rules = file.rule_set().unwrap();
        assert!(!file.rules.is_empty() && !file.off.is_empty() && file.receivers.len() >= 3);
        assert!(file.own().iter().all(|name| rules.get(name).is_some()));
        assert!(
            file.receivers
                .iter()
                .any(|receiver| receiver.url.0.contains("value-of-"))
        );
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        for text in ["", "# nothing\n", "{}"] {
            let file = parse(text).unwrap();
            assert_eq!(file, AlertsFile::default());
            assert_eq!(file.rule_set().unwrap(), RuleSet::built_in().unwrap());
        }
    }

    #[test]
    fn variables_are_put_in() {
        let text = "receivers: [{name: ops, format: slack, url: 'https://hooks.example/${HOOK}'}]";
        assert_eq!(
            parse(text).unwrap().receivers[0].url.0,
            "https://hooks.example/T0/B0/secret"
        );
        for (bad, word) in [("${NONE}", "NONE"), ("${HOOK", "without }")] {
            let text = format!("receivers: [{{name: ops, format: slack, url: 'https://h/{bad}'}}]");
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("\"ops\""), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_secrets() {
        let text = "off: []\nreceivers:\n  - name: ops\n    format: slack\n    ulr: https://h/secret\n";
        let error = parse(text).unwrap_err().to_string();
        assert!(
            error.contains("ulr") && error.contains("url") && error.contains('5'),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
        for (text, word) in [
            ("off: [no-such-rule]", "no-such-rule"),
            (
                "rules: [{name: hot, severity: info, summary: x, by: [node], condition: {kind: threshold, metric: gpu.temp, op: '>', bound: 80}}]",
                "gpu.temperature",
            ),
            (
                "rules: [{name: odd, severity: info, summary: x, by: [node], condition: {kind: state, state: node.mood, in: [sad]}}]",
                "node.status",
            ),
            (
                "receivers: [{name: ops, format: slack, url: 'ftp://h/secret'}]",
                "http://",
            ),
        ] {
            let error = parse(text).unwrap().rule_set().unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_built_in_rules_ask_for_is_there() {
        for rule in RuleSet::built_in().unwrap().iter() {
            for need in rule.needs() {
                assert_eq!(known(&need), Ok(()), "{}", rule.name);
            }
        }
    }
}
