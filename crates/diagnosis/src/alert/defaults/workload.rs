//! Workloads: crashing again and again, killed for memory, waiting without end.

use super::super::Span;
use super::super::condition::{Bound, Condition, Events, Op, Threshold};
use super::super::matcher::{like, unlike};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{over, rule};

const WORKLOAD: &[&str] = &["namespace", "workload"];

pub(super) fn rules() -> Vec<Rule> {
    vec![crash_loop(), oom(), queue_stuck()]
}

fn commands(more: &[&str]) -> Vec<String> {
    [
        "clawbernetes workload status {workload}",
        "clawbernetes logs {workload} --level error --tail 50",
    ]
    .iter()
    .chain(more)
    .map(|command| (*command).to_owned())
    .collect()
}

/// Three in a quarter of an hour: waits between retries grow, so that a loop doesn't make many more.
fn crash_loop() -> Rule {
    Rule {
        description: "It fails, is started again and fails again, and holds its GPUs meanwhile.".to_owned(),
        keep_firing_for: Span::minutes(15),
        commands: commands(&["clawbernetes workload cancel {workload}"]),
        ..rule(
            "workload-crash-loop",
            Severity::Warning,
            WORKLOAD,
            "workload {workload} restarted {value} times in 15 minutes",
            over(
                "workload.restarts",
                Take::Increase,
                Span::minutes(15),
                Op::AtLeast,
                Bound::Number(3.0),
                Unit::None,
            ),
        )
    }
}

fn oom() -> Rule {
    Rule {
        description: "The kernel killed it at its memory limit. It will fail again with the same limit and input."
            .to_owned(),
        commands: commands(&["clawbernetes diagnose workload {workload} --recommendations"]),
        ..rule(
            "workload-oom",
            Severity::Warning,
            WORKLOAD,
            "workload {workload} ran out of memory ({value} times in the last hour)",
            Condition::Events(Events {
                event: "OOM_KILLED".to_owned(),
                labels: Vec::new(),
                over: Span::hours(1),
                at_least: 1,
            }),
        )
    }
}

/// Why the oldest workload of a reason waits. A full fleet is no fault, so that its queue may be a day old; whatever
/// else holds work back should be gone within a quarter of an hour.
fn queue_stuck() -> Rule {
    let older = |labels, limit: Span| {
        Condition::Threshold(Threshold {
            metric: "queue.oldest.age".to_owned(),
            labels,
            take: Take::Last,
            over: None,
            op: Op::Above,
            bound: Bound::Number(limit.as_seconds()),
            unit: Unit::Seconds,
        })
    };
    const FULL: &str = "NO_GPUS_AVAILABLE";
    Rule {
        description: "Work waits longer than it should. Without room (NO_GPUS_AVAILABLE) the fleet is too small or \
                      something holds GPUs that it doesn't use; with another reason no node will ever fit."
            .to_owned(),
        for_: Span::minutes(5),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes workload list --pending".to_owned(),
            "clawbernetes node list --available".to_owned(),
        ],
        ..rule(
            "queue-stuck",
            Severity::Warning,
            &["reason"],
            "work has waited for {value} ({reason})",
            Condition::Any {
                of: vec![
                    older(unlike("reason", FULL), Span::minutes(15)),
                    older(like("reason", FULL), Span::hours(24)),
                ],
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, rule, run, value};
    use crate::alert::scene::labels;
    use crate::alert::{Need, Phase, Reading, Series, gather, scene};

    const WL: &[(&str, &str)] = &[("namespace", "default"), ("workload", "wl-1")];

    #[test]
    fn workload_crash_loop() {
        let fired = fires("workload-crash-loop", WL, |m| vec![value(3.0, m)]);
        assert_eq!(
            fired,
            Some((0, "workload wl-1 restarted 3 times in 15 minutes".to_owned()))
        );
        assert_eq!(fires("workload-crash-loop", WL, |m| vec![value(2.0, m)]), None);
    }

    #[test]
    fn workload_oom() {
        let (alert, fired) = run("workload-oom", WL, 90, |m| {
            vec![value(if m < 60 { 1.0 } else { 0.0 }, m)]
        })
        .unwrap();
        assert_eq!(fired, Some(0));
        assert_eq!(alert.phase, Phase::Resolved);
        assert_eq!(alert.evidence[0].text, "1 × OOM_KILLED in the last 1h, limit 1");
        assert_eq!(fires("workload-oom", WL, |m| vec![value(0.0, m)]), None);
    }

    #[test]
    fn queue_stuck() {
        let rule = rule("queue-stuck");
        // What a store answers: each question has its own filter.
        let fired = |reason: &str, seconds: f64| {
            fires("queue-stuck", &[("reason", reason)], |m| {
                let needs = rule.needs();
                let answers: Vec<Option<Vec<Series>>> = (needs.iter())
                    .map(|need| {
                        let Need::Metric { labels: filter, .. } = need else {
                            panic!("{need:?}")
                        };
                        let labels = labels(&[("reason", reason)]);
                        let kept = filter.iter().all(|matcher| matcher.matches(&labels));
                        let reading = value(seconds + 60.0 * m as f64, m);
                        Some(if kept {
                            vec![Series { labels, reading }]
                        } else {
                            Vec::new()
                        })
                    })
                    .collect();
                gather(&rule, &answers, &[], scene::at(m)).remove(0).readings
            })
        };
        let (minute, summary) = fired("NO_NODE", 900.0).unwrap();
        assert_eq!(minute, 6);
        assert!(summary.ends_with("(NO_NODE)"), "{summary}");
        assert_eq!(fired("NO_GPUS_AVAILABLE", 7_200.0), None);
        assert_eq!(fired("NO_GPUS_AVAILABLE", 86_400.0).unwrap().0, 6);
        // Two hours of half a minute each.
        let young = |m| vec![value(30.0, m), Reading::Missing];
        assert_eq!(fires("queue-stuck", &[("reason", "NO_NODE")], young), None);
    }
}
