//! The built-in rules. One place each, with its test.
//!
//! Metrics that they stand on, beside the usual ones of nodes (label `node`) and GPUs (labels `node`, `gpu`, `uuid`):
//!
//! | name | unit | labels |
//! | --- | --- | --- |
//! | state `node.status` | the words of `node list` | `node` |
//! | state `gpu.health` | `ok`, `degraded`, `failed` (also where it is no more there), `unknown` | `node`, `gpu`, `uuid` |
//! | event `Xid` | of a node's kernel log | `node`, `gpu`, `uuid`, `xid` |
//! | event `OOM_KILLED` | an attempt's end | `namespace`, `workload` |
//! | event `Restarted` | an attempt that failed and is followed by another one | `namespace`, `workload`, `reason` |
//! | `workload.log.lost` | counter | `workload`, `attempt`, `rank` |
//! | `queue.wait` | ms, of the workload that waits longest | – |
//! | `gateway.disk.used`, `gateway.disk.total` | bytes, of the file system of its data | – |
//! | `gateway.metrics.lost` | counter | – |
//! | `cert.remaining` | seconds, until a certificate ends | `name` |

mod cert;
mod disk;
mod gateway;
mod gpu;
mod node;
mod workload;

use std::collections::BTreeMap;

use super::Span;
use super::condition::{Bound, Condition, Op, Threshold};
use super::reading::Take;
use super::rule::{Inhibition, Rule, Severity};
use super::unit::Unit;

/// All of them.
pub(super) fn rules() -> Vec<Rule> {
    [
        node::rules(),
        gpu::rules(),
        disk::rules(),
        workload::rules(),
        gateway::rules(),
        cert::rules(),
    ]
    .concat()
}

/// A rule with nothing but what each must say; the rest by functional update.
fn rule(name: &str, severity: Severity, by: &[&str], summary: &str, condition: Condition) -> Rule {
    Rule {
        name: name.to_owned(),
        severity,
        summary: summary.to_owned(),
        description: String::new(),
        by: words(by),
        condition,
        for_: Span::ZERO,
        keep_firing_for: Span::ZERO,
        stale_after: Span::minutes(5),
        commands: Vec::new(),
        labels: BTreeMap::new(),
        context: Vec::new(),
        inhibits: Vec::new(),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn inhibits(rules: &[&str], equal: &[&str]) -> Inhibition {
    Inhibition {
        rules: words(rules),
        equal: words(equal),
    }
}

/// The newest value.
fn last(metric: &str, op: Op, bound: Bound, unit: Unit) -> Condition {
    threshold(metric, Take::Last, None, op, bound, unit)
}

/// Something of a window.
fn over(metric: &str, take: Take, over: Span, op: Op, bound: Bound, unit: Unit) -> Condition {
    threshold(metric, take, Some(over), op, bound, unit)
}

fn threshold(metric: &str, take: Take, over: Option<Span>, op: Op, bound: Bound, unit: Unit) -> Condition {
    Condition::Threshold(Threshold {
        metric: metric.to_owned(),
        labels: Vec::new(),
        take,
        over,
        op,
        bound,
        unit,
    })
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::super::rule::RuleSet;
    use super::*;

    #[test]
    fn they_are_a_set() {
        let set = RuleSet::built_in().unwrap();
        let names: Vec<&str> = set.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "certificate-expiring disk-filling disk-full disk-inodes-filling disk-inodes-full gateway-storage-full gpu-ecc-uncorrected gpu-lost gpu-power-brake \
             gpu-row-remap-failed gpu-thermal gpu-xid-critical log-lines-lost metrics-lost node-clock-skew node-degraded node-down \
             node-memory-low node-swap-storm queue-stuck workload-crash-loop workload-oom"
        );
        // Whatever a name was given to twice would be missing.
        assert_eq!(set.iter().count(), rules().len());
        for rule in set.iter() {
            assert!(
                !rule.description.is_empty() && !rule.commands.is_empty(),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn they_are_data() {
        for rule in rules() {
            let yaml = serde_saphyr::to_string(&rule).unwrap();
            assert_eq!(serde_saphyr::from_str::<Rule>(&yaml).unwrap(), rule, "{yaml}");
        }
    }
}
