//! A rule: what it looks for, what it needs for that, and what it says.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Evidence, Finding, Remedy, Severity, Target};

/// The part of a diagnosis that a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Temperature, throttling, fans, power.
    Thermal,
    /// RAM, swap, memory of GPUs.
    Memory,
    /// Errors of hardware, kernel, links, disks.
    Errors,
    /// Course and comparison with past and peers.
    Trends,
    /// What a workload uses and what it asked for.
    Resources,
    /// How a workload's runs ended, and what it logged.
    Failures,
    /// How fast a workload gets on, and what holds it up.
    Performance,
}

/// A rule over facts of type `F`. What it decides is in `check`, what it says in the data beside it.
pub(crate) struct Rule<F: ?Sized + 'static> {
    /// The finding's id.
    pub(crate) id: &'static str,
    pub(crate) section: Section,
    /// The finding's title.
    pub(crate) title: &'static str,
    pub(crate) remedy: Remedy,
    pub(crate) advice: &'static str,
    /// What it looks at.
    pub(crate) needs: &'static [&'static str],
    /// `None`: what it needs wasn't measured.
    pub(crate) check: fn(&F, &Rule<F>) -> Option<Vec<Finding>>,
}

impl<F: ?Sized> Rule<F> {
    /// Its finding. Commands are added later, by the target.
    pub(crate) fn finding(
        &self,
        severity: Severity,
        target: Target,
        confidence: f64,
        evidence: Vec<Evidence>,
    ) -> Finding {
        Finding {
            id: self.id.into(),
            severity,
            target,
            title: self.title.into(),
            evidence,
            remedy: self.remedy,
            advice: self.advice.into(),
            commands: Vec::new(),
            confidence,
        }
    }

    pub(crate) fn info(&self) -> RuleInfo {
        RuleInfo {
            id: self.id,
            section: self.section,
            title: self.title,
            remedy: self.remedy,
            advice: self.advice,
            needs: self.needs,
        }
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleInfo {
    /// The finding's id.
    pub id: &'static str,
    /// Where it is told.
    pub section: Section,
    /// The finding's title.
    pub title: &'static str,
    /// What helps.
    pub remedy: Remedy,
    /// What helps, in words.
    pub advice: &'static str,
    /// Metrics and kinds of facts that it looks at.
    pub needs: &'static [&'static str],
}

/// A rule that couldn't be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unchecked {
    /// The rule's id.
    pub rule: Cow<'static, str>,
    /// Where it would be told.
    pub section: Section,
    /// What it looks at, some of which wasn't measured.
    pub needs: Vec<Cow<'static, str>>,
}

/// Checks all rules, in their order.
pub(crate) fn check<F: ?Sized>(facts: &F, rules: &'static [Rule<F>]) -> (Vec<(Section, Finding)>, Vec<Unchecked>) {
    let mut found = Vec::new();
    let mut unchecked = Vec::new();
    for rule in rules {
        match (rule.check)(facts, rule) {
            Some(findings) => found.extend(findings.into_iter().map(|f| (rule.section, f))),
            None => unchecked.push(Unchecked {
                rule: rule.id.into(),
                section: rule.section,
                needs: rule.needs.iter().map(|n| Cow::Borrowed(*n)).collect(),
            }),
        }
    }
    (found, unchecked)
}
