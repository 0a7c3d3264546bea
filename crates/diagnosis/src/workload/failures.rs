//! How its runs ended, and what its output tells of errors.

use std::collections::BTreeMap;

use super::facts::{Attempt, ExitReason, Phase, WorkloadFacts};
use crate::patterns;
use crate::rule::{Rule, Section};
use crate::xid_finding::{Seen, Standing, findings};
use crate::{Evidence, Finding, Remedy, Severity, metric, words};

/// Failures in a row that make a loop.
const LOOP: usize = 3;
/// Failures to fetch an image in a row that make a loop: the second try says that it wasn't chance.
const PULL_LOOP: usize = 2;

pub(super) static RULES: &[Rule<WorkloadFacts>] = &[
    Rule {
        id: "crash-loop",
        section: Section::Failures,
        title: "it fails again and again",
        remedy: Remedy::FixProgram,
        advice: "Starting it again won't help: read the last lines of a failed run.",
        needs: &["attempts"],
        check: crash_loop,
    },
    Rule {
        id: "image-pull-loop",
        section: Section::Failures,
        title: "its image can't be fetched",
        remedy: Remedy::FixImage,
        advice: "Check the image's name and tag, and the registry's credentials.",
        needs: &["attempts"],
        check: pull_loop,
    },
    Rule {
        id: "oom-killed",
        section: Section::Failures,
        title: "it was killed at its memory limit",
        remedy: Remedy::MoreMemory,
        advice: "Raise the memory limit, or load less at once.",
        needs: &["attempts"],
        check: oom,
    },
    Rule {
        id: "killed",
        section: Section::Failures,
        title: "it was killed, and nobody says why",
        remedy: Remedy::FixProgram,
        advice: "Neither kernel nor engine tell of memory that ran out: look for what else sends signal 9.",
        needs: &["attempts"],
        check: killed,
    },
    Rule {
        id: "output",
        section: Section::Failures,
        title: "its output tells of errors",
        remedy: Remedy::FixProgram,
        advice: "",
        needs: &["output"],
        check: output,
    },
    Rule {
        id: "gpu-errors",
        section: Section::Failures,
        title: "its GPUs had errors",
        remedy: Remedy::Migrate,
        advice: "",
        needs: &["kernel log"],
        check: gpu_errors,
    },
];

/// Whether it ended in a way that its program, image or limits are to blame for.
fn is_failure(a: &Attempt) -> bool {
    use ExitReason::{Error, ImagePull, OomKilled, StartFailed, Unhealthy};
    matches!(a.reason, Some(Error | OomKilled | StartFailed | ImagePull | Unhealthy))
}

/// The latest attempts that ended and all fit; one that goes on is left aside.
fn row(facts: &WorkloadFacts, fits: impl Fn(&Attempt) -> bool) -> Vec<&Attempt> {
    let ended = facts.attempts.iter().rev().filter(|a| a.reason.is_some());
    ended.take_while(|a| fits(a)).collect()
}

/// Whether the latest attempt that ended failed, and none has been running since.
pub(super) fn has_failed(facts: &WorkloadFacts) -> bool {
    facts.phase != Phase::Running && !row(facts, is_failure).is_empty()
}

fn known(facts: &WorkloadFacts) -> Option<()> {
    (!facts.attempts.is_empty()).then_some(())
}

fn crash_loop(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    known(facts)?;
    let failed = row(facts, |a| is_failure(a) && a.reason != Some(ExitReason::ImagePull));
    let (Some(last), true) = (failed.first(), failed.len() >= LOOP) else {
        return Some(Vec::new());
    };
    // One that has been running for longer than any that failed may have got over it.
    let lived = |a: &&&Attempt| Some(a.ended_ms? - a.started_ms?);
    let longest = failed.iter().filter_map(|a| lived(&a)).max();
    if facts.phase == Phase::Running && longest.is_some_and(|l| facts.runs_for(2 * l.max(60_000))) {
        return Some(Vec::new());
    }
    let codes: Vec<String> = failed
        .iter()
        .take(5)
        .map(|a| a.exit_code.map_or_else(|| "none".to_owned(), |c| c.to_string()))
        .collect();
    let lasted = longest
        .map(|l| format!(", each within {}", words::duration(l)))
        .unwrap_or_default();
    let text = format!(
        "{} runs failed in a row{lasted}; exit codes, newest first: {}",
        failed.len(),
        codes.join(", ")
    );
    let evidence = Evidence::count("attempts", failed.len() as u64, text)
        .against(LOOP as f64)
        .at(last.ended_ms.unwrap_or(facts.now_ms));
    Some(vec![rule.finding(
        Severity::Critical,
        facts.target(),
        0.95,
        vec![evidence],
    )])
}

fn pull_loop(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    known(facts)?;
    let failed = row(facts, |a| a.reason == Some(ExitReason::ImagePull));
    if facts.phase == Phase::Running || failed.len() < PULL_LOOP {
        return Some(Vec::new());
    }
    let last = failed.first().and_then(|a| a.ended_ms).unwrap_or(facts.now_ms);
    let text = format!("fetching the image failed {} times in a row", failed.len());
    let evidence = Evidence::count("attempts", failed.len() as u64, text)
        .against(PULL_LOOP as f64)
        .at(last);
    Some(vec![rule.finding(
        Severity::Critical,
        facts.target(),
        0.95,
        vec![evidence],
    )])
}

fn oom(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    known(facts)?;
    // Only kernel's or engine's own word counts: an exit code of 137 alone doesn't.
    let killed: Vec<&Attempt> = facts
        .attempts
        .iter()
        .filter(|a| a.oom.is_some() || a.reason == Some(ExitReason::OomKilled))
        .collect();
    let Some(last) = killed.last() else {
        return Some(Vec::new());
    };
    let severity = if has_failed(facts) || killed.len() > 1 {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let oom = last.oom.unwrap_or_default();
    let size = |b: Option<f64>| b.map_or_else(|| "unknown".to_owned(), words::bytes);
    let text = format!(
        "killed {} times for want of memory; limit {}, peak {}",
        killed.len(),
        size(oom.limit_bytes),
        size(oom.peak_bytes)
    );
    let mut evidence = Evidence::count(metric::WORKLOAD_MEMORY, killed.len() as u64, text);
    evidence.at_ms = last.ended_ms;
    if let Some(peak) = oom.peak_bytes {
        evidence.value = Some(peak);
        evidence.unit = metric::Unit::Bytes;
        evidence.threshold = oom.limit_bytes;
    }
    Some(vec![rule.finding(severity, facts.target(), 1.0, vec![evidence])])
}

fn killed(facts: &WorkloadFacts, rule: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    known(facts)?;
    let unexplained = |a: &&Attempt| a.exit_code == Some(137) && a.reason == Some(ExitReason::Error) && a.oom.is_none();
    let Some(last) = facts.attempts.iter().rev().find(unexplained) else {
        return Some(Vec::new());
    };
    let at = last.ended_ms.unwrap_or(facts.now_ms);
    let evidence = Evidence::event(
        "attempts",
        at,
        format!("attempt {} ended with exit code 137", last.number),
    );
    Some(vec![rule.finding(Severity::Info, facts.target(), 0.6, vec![evidence])])
}

/// A finding a pattern, in the pattern's own words.
fn output(facts: &WorkloadFacts, _: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let failed = has_failed(facts);
    let by_kernel = facts.attempts.iter().any(|a| a.oom.is_some());
    let known: Vec<_> = facts
        .logs
        .iter()
        .filter_map(|l| Some((l, patterns::by_id(&l.pattern)?)))
        .collect();
    // What only says that there was an error says nothing beside what says which.
    let named = known.iter().any(|(_, p)| p.fatal && p.id != "traceback");
    let finding = |(fact, p): &(&patterns::LogFact, &patterns::Pattern)| {
        let said_better = (p.id == "host-oom" && by_kernel) || (p.id == "traceback" && named);
        if said_better || fact.count == 0 {
            return None;
        }
        let severity = if p.fatal && failed {
            Severity::Critical
        } else {
            p.severity
        };
        let text = format!("{} lines, the last: {}", fact.count, fact.sample);
        let evidence = Evidence::count("output", fact.count, text)
            .at(fact.last_ms)
            .over(fact.last_ms - fact.first_ms)
            .by("words in the output");
        Some(Finding {
            id: p.id.into(),
            severity,
            target: facts.target(),
            title: p.title.into(),
            evidence: vec![evidence],
            remedy: p.remedy,
            advice: p.advice.into(),
            commands: Vec::new(),
            confidence: if p.fatal && failed { 0.9 } else { 0.7 },
        })
    };
    Some(known.iter().filter_map(finding).collect())
}

/// XID errors of its GPUs: its own fault, or the hardware's, from which it moves away.
fn gpu_errors(facts: &WorkloadFacts, _: &Rule<WorkloadFacts>) -> Option<Vec<Finding>> {
    let mut by: BTreeMap<(Option<u32>, Option<&str>), Vec<Seen<'_>>> = BTreeMap::new();
    for seen in facts.kernel.iter().filter_map(Seen::of) {
        by.entry((seen.gpu, seen.pci)).or_default().push(seen);
    }
    if by.is_empty() {
        return None;
    }
    let failed = has_failed(facts);
    let judged = |mut f: Finding| {
        if f.remedy > Remedy::RestartWorkload {
            f.remedy = Remedy::Migrate;
            f.advice = "The GPU's fault, not the program's: start it elsewhere from its last checkpoint.".into();
        } else if f.severity == Severity::Info && f.remedy == Remedy::RestartWorkload {
            f.severity = Severity::Warning;
            f.remedy = Remedy::FixProgram;
        }
        if failed && f.severity == Severity::Warning {
            f.severity = Severity::Critical;
        }
        f
    };
    let all = by
        .into_values()
        .flat_map(|seen| findings(&seen, &facts.target(), |_| Standing::Now));
    Some(all.map(judged).collect())
}
