//! Workloads: crashing again and again, killed for memory, flooding their logs, waiting without end.

use super::super::Span;
use super::super::condition::{Bound, Condition, Events, Op};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{last, over, rule};

const WORKLOAD: &[&str] = &["namespace", "workload"];

/// Which gateway, where there are several.
const GATEWAY: &[&str] = &["gateway"];

pub(super) fn rules() -> Vec<Rule> {
    vec![crash_loop(), oom(), log_lines_lost(), queue_stuck()]
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
            "workload {workload} failed and restarted {value} times in 15 minutes",
            Condition::Events(Events {
                event: "Restarted".to_owned(),
                labels: Vec::new(),
                over: Span::minutes(15),
                at_least: 3,
            }),
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

/// By workload alone: its series have no namespace, and it may have ended when the loss is found.
fn log_lines_lost() -> Rule {
    Rule {
        description: "It writes more than its node can send and keep; its log has holes, which say how many lines \
                      are missing. Other workloads' lines aren't touched."
            .to_owned(),
        keep_firing_for: Span::minutes(10),
        commands: vec![
            "clawbernetes metrics workload.log.lines --workload {workload} --last 1h".to_owned(),
            "clawbernetes diagnose workload {workload}".to_owned(),
            "clawbernetes logs {workload} --tail 50".to_owned(),
        ],
        ..rule(
            "log-lines-lost",
            Severity::Warning,
            &["workload"],
            "workload {workload} lost {value} lines of its output in ten minutes",
            over(
                "workload.log.lost",
                Take::Increase,
                Span::minutes(10),
                Op::Above,
                Bound::Number(0.0),
                Unit::None,
            ),
        )
    }
}

/// A full fleet is no fault, so that its queue may be a day old. What could never be placed is told at submission.
/// `reasons`: why those wait that wait longest, as the scheduler explains it.
fn queue_stuck() -> Rule {
    Rule {
        context: vec!["reasons".to_owned()],
        description: "The fleet is too small, something holds GPUs that it doesn't use, or no node will ever fit."
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
            GATEWAY,
            "a workload has waited for more than a day ({value}); why most wait: {reasons}",
            last(
                "queue.wait",
                Op::Above,
                Bound::Number(Span::hours(24).as_seconds() * 1_000.0),
                Unit::Milliseconds,
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, run, value};
    use crate::alert::Phase;

    const WL: &[(&str, &str)] = &[("namespace", "default"), ("workload", "wl-1")];

    #[test]
    fn workload_crash_loop() {
        let fired = fires("workload-crash-loop", WL, |m| vec![value(3.0, m)]);
        assert_eq!(
            fired,
            Some((0, "workload wl-1 failed and restarted 3 times in 15 minutes".to_owned()))
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
    fn log_lines_lost() {
        let of = [("workload", "wl-1")];
        let (alert, fired) = run("log-lines-lost", &of, 40, |m| {
            vec![value(if m < 20 { 1_234.0 } else { 0.0 }, m)]
        })
        .unwrap();
        assert_eq!(fired, Some(0));
        assert_eq!(alert.phase, Phase::Resolved);
        assert_eq!(
            alert.summary,
            "workload wl-1 lost 1234 lines of its output in ten minutes"
        );
        assert_eq!(fires("log-lines-lost", &of, |m| vec![value(0.0, m)]), None);
    }

    #[test]
    fn queue_stuck() {
        let waits = |hours: f64| fires("queue-stuck", &[], |m| vec![value(hours * 3_600_000.0, m)]);
        let (minute, summary) = waits(24.5).unwrap();
        assert_eq!(minute, 5);
        assert!(
            summary.ends_with("; why most wait: unknown"),
            "nobody was asked: {summary}"
        );
        assert_eq!(waits(23.5), None);
    }
}
