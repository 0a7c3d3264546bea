//! Nodes: silent, degraded, short of memory, swapping, with a wrong clock.

use super::super::Span;
use super::super::condition::{Bound, Condition, Op, StateIs, unknown};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{inhibits, over, rule, words};

pub(super) fn rules() -> Vec<Rule> {
    vec![down(), degraded(), memory_low(), swap_storm(), clock_skew()]
}

fn status(bad: &[&str]) -> Condition {
    Condition::State(StateIs {
        state: "node.status".to_owned(),
        labels: Vec::new(),
        words: words(bad),
        // A gateway that has just started hasn't heard of it yet: that heals nothing.
        unknown: unknown(),
    })
}

/// The gateway calls a node unreachable after 30 s; another minute passes over a restart of its agent.
fn down() -> Rule {
    Rule {
        description: "The gateway has had no sign of life. Its work goes on for now; if it stays silent, the node \
                      stops it, and the gateway starts it elsewhere."
            .to_owned(),
        for_: Span::minutes(1),
        keep_firing_for: Span::minutes(1),
        commands: vec![
            "clawbernetes node info {node}".to_owned(),
            "clawbernetes node events {node} --since '1h ago'".to_owned(),
        ],
        inhibits: vec![inhibits(&["*"], &["node"])],
        ..rule(
            "node-down",
            Severity::Critical,
            &["node"],
            "node {node} is unreachable",
            status(&["unreachable"]),
        )
    }
}

fn degraded() -> Rule {
    Rule {
        description: "It works, but something on it needs attention; `node info` lists its conditions.".to_owned(),
        for_: Span::minutes(15),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes node info {node}".to_owned(),
            "clawbernetes diagnose node {node}".to_owned(),
        ],
        ..rule(
            "node-degraded",
            Severity::Warning,
            &["node"],
            "node {node} is {state}",
            status(&["degraded", "critical"]),
        )
    }
}

/// At 95 % the kernel is about to kill.
fn memory_low() -> Rule {
    Rule {
        description: "The kernel is about to kill a process, which may be a workload without a memory limit."
            .to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes metrics memory.usage --node {node} --last 1h".to_owned(),
            "clawbernetes workload list --node {node} --running".to_owned(),
        ],
        ..rule(
            "node-memory-low",
            Severity::Warning,
            &["node"],
            "node {node} is almost out of memory: {value}, limit {limit}",
            over(
                "memory.usage",
                Take::Avg,
                Span::minutes(5),
                Op::AtLeast,
                Bound::share(0.95, "memory.total"),
                Unit::Bytes,
            ),
        )
    }
}

/// Pages read back from swap are wanted: what only lies there costs nothing. 16 MiB/s is 4,096 faults a second that
/// wait for a disk.
fn swap_storm() -> Rule {
    Rule {
        description: "Processes wait for memory that lies on disk; work on this node is many times slower.".to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes metrics swap.in --node {node} --last 1h".to_owned(),
            "clawbernetes diagnose node {node}".to_owned(),
        ],
        ..rule(
            "node-swap-storm",
            Severity::Warning,
            &["node"],
            "node {node} swaps {value} back in",
            over(
                "swap.in",
                Take::Avg,
                Span::minutes(5),
                Op::AtLeast,
                Bound::Number(f64::from(16 << 20)),
                Unit::BytesPerSecond,
            ),
        )
    }
}

/// Nothing of ours rests on clocks that agree, but certificates, tokens and reading logs do. Half a second is far
/// beyond what any time service leaves.
fn clock_skew() -> Rule {
    let offset = |op, bound| {
        let bound = Bound::Number(bound);
        over(
            "clock.offset",
            Take::Avg,
            Span::minutes(5),
            op,
            bound,
            Unit::Milliseconds,
        )
    };
    Rule {
        description: "Times in its logs and metrics are off, and certificates may be refused.".to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes node info {node}".to_owned(),
            "ssh {node} timedatectl timesync-status".to_owned(),
        ],
        ..rule(
            "node-clock-skew",
            Severity::Warning,
            &["node"],
            "the clock of node {node} is off by {value}",
            Condition::Any {
                of: vec![offset(Op::AtLeast, 500.0), offset(Op::AtMost, -500.0)],
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, run, state, value};
    use crate::alert::Phase;

    const NODE: &[(&str, &str)] = &[("node", "gpu-7")];

    #[test]
    fn node_down() {
        let fired = fires("node-down", NODE, |_| vec![state("unreachable")]);
        assert_eq!(fired, Some((1, "node gpu-7 is unreachable".to_owned())));
        for word in ["healthy", "draining", "degraded", "unknown"] {
            assert_eq!(fires("node-down", NODE, |_| vec![state(word)]), None, "{word}");
        }
        // Half a minute is a restart.
        assert_eq!(
            fires("node-down", NODE, |m| vec![state(if m % 2 == 0 {
                "unreachable"
            } else {
                "healthy"
            })]),
            None
        );
    }

    #[test]
    fn a_gateway_that_has_just_started_resolves_nothing() {
        let words = |m| vec![state(if m < 5 { "unreachable" } else { "unknown" })];
        let (alert, _) = run("node-down", NODE, 15, words).unwrap();
        assert_eq!(alert.phase, Phase::Firing);
        assert!(alert.stale);
        let words = |m| vec![state(if m < 5 { "unreachable" } else { "healthy" })];
        assert_eq!(run("node-down", NODE, 15, words).unwrap().0.phase, Phase::Resolved);
    }

    #[test]
    fn node_degraded() {
        let fired = fires("node-degraded", NODE, |_| vec![state("critical")]);
        assert_eq!(fired, Some((15, "node gpu-7 is critical".to_owned())));
        assert_eq!(fires("node-degraded", NODE, |_| vec![state("healthy")]), None);
    }

    #[test]
    fn node_memory_low() {
        const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
        let at = |used: f64| move |m| vec![value(used * GIB, m), value(64.0 * GIB, m)];
        let fired = fires("node-memory-low", NODE, at(62.0)).unwrap();
        assert_eq!(
            fired,
            (
                5,
                "node gpu-7 is almost out of memory: 62 GiB, limit 60.8 GiB".to_owned()
            )
        );
        assert_eq!(fires("node-memory-low", NODE, at(60.0)), None);
    }

    #[test]
    fn node_swap_storm() {
        let at = |mib: f64| move |m| vec![value(mib * 1024.0 * 1024.0, m)];
        let fired = fires("node-swap-storm", NODE, at(20.0));
        assert_eq!(fired, Some((5, "node gpu-7 swaps 20 MiB/s back in".to_owned())));
        assert_eq!(fires("node-swap-storm", NODE, at(15.0)), None);
    }

    #[test]
    fn node_clock_skew() {
        let at = |ms: f64| move |m| vec![value(ms, m), value(ms, m)];
        for ms in [500.0, -700.0] {
            assert_eq!(
                fires("node-clock-skew", NODE, at(ms)),
                Some((5, format!("the clock of node gpu-7 is off by {ms} ms")))
            );
        }
        assert_eq!(fires("node-clock-skew", NODE, at(53.0)), None);
        assert_eq!(fires("node-clock-skew", NODE, at(-499.0)), None);
    }
}
