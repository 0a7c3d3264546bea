//! Members of a gang that keep the others waiting.

use serde::{Deserialize, Serialize};

use super::facts::WorkloadFacts;
use crate::rule::{Rule, Section};
use crate::{Evidence, Finding, Remedy, Series, Severity, Target, metric, stats, words};

/// Members below which one can't be told from the others.
const MEMBERS_MIN: usize = 4;
/// So much slower than the middle a member counts as behind.
const SLOWER: f64 = 1.15;
/// And so many deviations.
const STRANGE: f64 = 4.0;

/// What is compared, in order: the first that tells one apart decides. In step, all members take as long as the
/// slowest; then its clock gives it away.
const TELLING: &[(&str, bool)] = &[
    (metric::REPORTED_STEP_TIME, true),
    (metric::REPORTED_THROUGHPUT, false),
    (metric::GPU_CLOCK_SM, false),
];

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[Rule {
    id: "straggler",
    section: Section::Performance,
    title: "one member keeps the others waiting",
    remedy: Remedy::Migrate,
    advice: "Diagnose its node; move the workload away from it.",
    needs: &["ranks"],
    check: stragglers,
}];

/// A member that keeps the others waiting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Straggler {
    /// Its number.
    pub rank: u32,
    /// Where it is.
    pub node: Option<String>,
    /// What gives it away.
    pub metric: String,
    /// Its level.
    pub value: f64,
    /// The middle of all members.
    pub usual: f64,
    /// How many times slower.
    pub times_slower: f64,
}

/// `None`: too few members, or nothing of theirs was measured.
pub(super) fn find(facts: &WorkloadFacts) -> Option<Vec<Straggler>> {
    let mut looked = false;
    for (metric, high_is_slow) in TELLING {
        // The middle of a member's GPUs, or its own.
        let level = |s: &crate::SeriesSet| {
            let all: Vec<f64> = s.all(metric).filter_map(Series::median).filter(|v| *v > 0.0).collect();
            stats::median(&all)
        };
        let all: Vec<_> = facts
            .ranks
            .iter()
            .filter_map(|r| Some((r, level(&r.series)?)))
            .collect();
        if all.len() < MEMBERS_MIN {
            continue;
        }
        looked = true;
        let levels: Vec<f64> = all.iter().map(|a| a.1).collect();
        let (Some(usual), Some(sigma)) = (stats::median(&levels), stats::robust_sigma(&levels)) else {
            continue;
        };
        let behind = |(r, value): &(&super::Rank, f64)| {
            let times_slower = if *high_is_slow { value / usual } else { usual / value };
            let far = (value - usual).abs() / sigma.max(0.02 * usual);
            (times_slower >= SLOWER && far >= STRANGE).then(|| Straggler {
                rank: r.rank,
                node: r.node.clone(),
                metric: (*metric).to_owned(),
                value: *value,
                usual,
                times_slower,
            })
        };
        let found: Vec<Straggler> = all.iter().filter_map(behind).collect();
        if !found.is_empty() {
            return Some(found);
        }
    }
    looked.then(Vec::new)
}

fn stragglers(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let finding = |s: Straggler| {
        let unit = metric::unit(&s.metric);
        let on = s.node.as_deref().map(|n| format!(" on {n}")).unwrap_or_default();
        let text = format!(
            "rank {}{on}: {} where {} is usual, {:.2} times slower",
            s.rank,
            words::value(s.value, unit),
            words::value(s.usual, unit),
            s.times_slower,
        );
        let evidence = Evidence {
            metric: s.metric.clone().into(),
            ..Evidence::value(metric::REPORTED_STEP_TIME, s.value, text)
                .unit(unit)
                .against(s.usual)
                .over(facts.window_ms)
                .by("median and MAD of the members")
        };
        let target = Target::Rank {
            workload: facts.id.clone(),
            rank: s.rank,
        };
        rule.finding(Severity::Warning, target, 0.8, vec![evidence])
    };
    Some(find(facts)?.into_iter().map(finding).collect())
}
