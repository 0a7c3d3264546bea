//! What is wrong with a workload, and what holds it up.

mod bottleneck;
mod compare;
mod facts;
mod failures;
mod flood;
mod resources;
mod speed;
mod straggler;

use serde::{Deserialize, Serialize};

pub use bottleneck::{Bottleneck, Class, Signal};
pub use compare::{Change, Comparison, Verdict, compare};
pub use facts::{Attempt, ExitReason, Oom, Phase, Rank, Requests, WorkloadFacts};
pub use resources::{GpuUse, UseSection};
pub use speed::Performance;
pub use straggler::Straggler;

use crate::patterns::LogFact;
use crate::rule::{self, Rule, RuleInfo, Unchecked};
use crate::{Finding, Remedy, Severity, Status, command, finding, metric, stats};

/// What is known about a workload after looking closely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadDiagnosis {
    /// Its id.
    pub workload: String,
    /// As of when.
    pub now_ms: i64,
    /// Over how long.
    pub window_ms: i64,
    /// All told. `unknown` if nothing that it uses was measured, and it has not ended well.
    pub status: Status,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What it uses, beside what it asked for.
    pub resources: UseSection,
    /// What its output tells of errors.
    pub error_patterns: Vec<LogFact>,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// How fast it gets on.
    pub performance: Performance,
    /// What holds it up.
    pub bottleneck: Bottleneck,
    /// Members of the gang that keep the others waiting. `None`: that can't be told.
    pub stragglers: Option<Vec<Straggler>>,
    /// Beside another run. `None` if none was given.
    pub comparison: Option<Comparison>,
    /// What to do, each with the command that does it.
    pub recommendations: Vec<Recommendation>,
    /// Rules that couldn't be checked, for want of data.
    pub unchecked: Vec<Unchecked>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// Id of the finding that it answers.
    pub finding: String,
    /// What to do.
    pub text: String,
    /// The command that does it.
    pub command: String,
}

static RULES: &[&[Rule<WorkloadFacts>]] = &[
    failures::RULES,
    resources::RULES,
    flood::RULES,
    speed::RULES,
    bottleneck::RULES,
    straggler::RULES,
];

/// What can be found on a workload; what its output tells is in [`crate::patterns::TABLE`].
pub fn workload_rules() -> impl Iterator<Item = RuleInfo> {
    RULES.iter().flat_map(|rules| rules.iter()).map(Rule::info)
}

/// Looks closely at a workload, and beside another run if one is given.
#[must_use]
pub fn diagnose_workload(facts: &WorkloadFacts, baseline: Option<&WorkloadFacts>) -> WorkloadDiagnosis {
    let facts = &facts.cleaned();
    let comparison = baseline.map(|b| compare(facts, &b.cleaned()));
    let mut findings = Vec::new();
    let mut unchecked = Vec::new();
    for rules in RULES {
        let (f, u) = rule::check(facts, rules);
        findings.extend(f.into_iter().map(|(_, f)| f));
        unchecked.extend(u);
    }
    findings.extend(comparison.as_ref().and_then(|c| compare::finding(facts, c)));
    for f in &mut findings {
        f.commands = commands(facts, f);
    }
    finding::sort(&mut findings);
    WorkloadDiagnosis {
        workload: facts.id.clone(),
        now_ms: facts.now_ms,
        window_ms: facts.window_ms,
        status: finding::status(&findings, is_measured(facts)),
        resources: resources::section(facts),
        error_patterns: facts.logs.clone(),
        attempts: facts.attempts.clone(),
        performance: speed::section(facts),
        bottleneck: bottleneck::tell(facts),
        stragglers: straggler::find(facts),
        comparison,
        recommendations: recommendations(&findings),
        unchecked,
        findings,
    }
}

/// Whether enough was measured to call it healthy if nothing is found: its GPUs if it has some, else CPU or memory; or
/// it has ended well.
fn is_measured(facts: &WorkloadFacts) -> bool {
    let ended_well = facts.phase == Phase::Ended
        && facts
            .attempts
            .last()
            .is_some_and(|a| a.reason == Some(ExitReason::Completed));
    let host = facts.series.get(metric::WORKLOAD_CPU).is_some() || facts.series.get(metric::WORKLOAD_MEMORY).is_some();
    let gpus = facts.series.all(metric::GPU_UTILIZATION).next().is_some();
    ended_well || if facts.requests.gpus > 0 { gpus } else { host }
}

/// What to ask for instead of a limit that was too small: half as much again, in whole GiB up to 16, in eights above.
fn roomier_gib(bytes: f64) -> u64 {
    let gib = (bytes * 1.5 / (1024.0 * 1024.0 * 1024.0)).ceil().max(1.0) as u64;
    if gib <= 16 { gib } else { gib.div_ceil(8) * 8 }
}

/// What to type, by what helps.
fn commands(facts: &WorkloadFacts, finding: &Finding) -> Vec<String> {
    let id = facts.id.as_str();
    let look = |metric: &str| command::workload_metric(metric, id);
    match finding.remedy {
        Remedy::MoreMemory => {
            let needed = facts.memory_needed().map(|b| command::more_memory(id, roomier_gib(b)));
            needed.into_iter().chain([look("memory.usage")]).collect()
        }
        Remedy::AskLess if finding.id == resources::OVER_ASKED => {
            let peak = facts.memory_peak().map(|b| command::more_memory(id, roomier_gib(b)));
            peak.into_iter().chain([look("memory.usage")]).collect()
        }
        Remedy::AskLess => vec![command::cancel(id), look("gpu.utilization")],
        Remedy::LessGpuMemory => vec![
            look("gpu.memory"),
            "clawbernetes node list --available".to_owned(),
            format!("clawbernetes logs {id} --search \"out of memory\" --context 10"),
        ],
        Remedy::TuneData => {
            let cpus = facts.requests.cpu_cores.filter(|_| bottleneck::cpu_bound(facts));
            let more = cpus.map(|c| format!("clawbernetes run --file workload.yaml --cpus {:.0}", (c * 2.0).ceil()));
            more.into_iter().chain([look("cpu.usage"), look("disk.iops")]).collect()
        }
        Remedy::TuneCommunication => vec![look("network.throughput"), command::migrate(id)],
        Remedy::Migrate | Remedy::RestartWorkload | Remedy::CheckCooling => std::iter::once(command::migrate(id))
            .chain(facts.nodes.first().map(|n| format!("clawbernetes diagnose node {n}")))
            .collect(),
        Remedy::CheckCabling | Remedy::FreeDisk | Remedy::ResetGpu => {
            let node = facts.nodes.first().map(|n| format!("clawbernetes diagnose node {n}"));
            node.into_iter().chain([command::migrate(id)]).collect()
        }
        _ if finding.id == flood::FLOOD => vec![look(metric::WORKLOAD_LOG_LINES), command::tail(id)],
        Remedy::FixImage => vec![command::status(id), command::cancel(id)],
        _ => vec![command::errors(id), command::status(id)],
    }
}

/// The first command of each finding that has one, worst first.
fn recommendations(findings: &[Finding]) -> Vec<Recommendation> {
    let of = |f: &Finding| {
        Some(Recommendation {
            finding: f.id.to_string(),
            text: f.advice.to_string(),
            command: f.commands.first()?.clone(),
        })
    };
    findings
        .iter()
        .filter(|f| f.severity >= Severity::Warning || f.remedy == Remedy::AskLess)
        .filter_map(of)
        .collect()
}

/// Medians of the GPUs' medians of a metric, of the time when it was under way.
fn gpu_level(facts: &WorkloadFacts, metric: &str) -> Option<f64> {
    let levels: Vec<f64> = facts.steady().all(metric).filter_map(crate::Series::median).collect();
    stats::median(&levels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evidence, Target};

    #[test]
    fn every_remedy_names_commands_that_exist() {
        let facts = WorkloadFacts {
            id: "wl-1".into(),
            nodes: vec!["gpu-1".into()],
            requests: Requests {
                gpus: 1,
                cpu_cores: Some(8.0),
                memory_bytes: Some(1e9),
            },
            ..WorkloadFacts::default()
        };
        for remedy in [
            Remedy::Watch,
            Remedy::FixProgram,
            Remedy::FixImage,
            Remedy::TuneData,
            Remedy::TuneCommunication,
            Remedy::MoreMemory,
            Remedy::AskLess,
            Remedy::LessGpuMemory,
            Remedy::RestartWorkload,
            Remedy::Migrate,
            Remedy::FreeDisk,
            Remedy::CheckCabling,
            Remedy::UpdateDriver,
        ] {
            for id in ["x", resources::OVER_ASKED, flood::FLOOD] {
                let finding = Finding {
                    id: id.into(),
                    severity: Severity::Warning,
                    target: Target::Workload {
                        workload: "wl-1".into(),
                    },
                    title: "".into(),
                    evidence: vec![Evidence::event("x", 0, "x")],
                    remedy,
                    advice: "".into(),
                    commands: Vec::new(),
                    confidence: 1.0,
                };
                let lines = commands(&facts, &finding);
                assert!(!lines.is_empty(), "{remedy:?}");
                lines.iter().for_each(|l| command::tests::assert_known(l));
            }
        }
    }

    #[test]
    fn a_larger_limit_is_a_round_number() {
        let gib = 1024.0 * 1024.0 * 1024.0;
        assert_eq!([0.5, 4.0, 32.0, 50.0].map(|g| roomier_gib(g * gib)), [1, 6, 48, 80]);
    }

    #[test]
    fn no_rule_is_told_twice() {
        let mut ids: Vec<&str> = workload_rules().chain(crate::node_rules()).map(|r| r.id).collect();
        ids.extend(crate::patterns::TABLE.iter().map(|p| p.id));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
