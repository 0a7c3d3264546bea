//! Command lines that help, as a person would type them.

use crate::Remedy;

/// Takes work off a node.
#[must_use]
pub fn drain(node: &str) -> String {
    format!("clawbernetes node drain {node}")
}

/// What happened on a node in the last day.
#[must_use]
pub fn events(node: &str) -> String {
    format!("clawbernetes node events {node} --since \"24h ago\"")
}

/// The course of a metric on a node.
#[must_use]
pub fn node_metric(metric: &str, node: &str, last: &str) -> String {
    format!("clawbernetes metrics {metric} --node {node} --last {last}")
}

/// The course of a metric of a workload.
#[must_use]
pub fn workload_metric(metric: &str, workload: &str) -> String {
    format!("clawbernetes metrics {metric} --workload {workload} --last 1h")
}

/// Stops a workload with grace and starts it elsewhere.
#[must_use]
pub fn migrate(workload: &str) -> String {
    format!("clawbernetes workload migrate {workload}")
}

/// Its error lines with what stands around them.
#[must_use]
pub fn errors(workload: &str) -> String {
    format!("clawbernetes logs {workload} --level error --context 10")
}

/// The end of its output.
#[must_use]
pub fn tail(workload: &str) -> String {
    format!("clawbernetes logs {workload} --tail 50")
}

/// Stops a workload.
#[must_use]
pub fn cancel(workload: &str) -> String {
    format!("clawbernetes workload cancel {workload}")
}

/// How a workload does, and how it came there.
#[must_use]
pub fn status(workload: &str) -> String {
    format!("clawbernetes workload status {workload}")
}

/// Gives a workload another memory limit, in whole GiB.
#[must_use]
pub fn more_memory(workload: &str, gib: u64) -> String {
    format!("clawbernetes workload update {workload} --memory {gib}Gi")
}

/// What to type on a node's finding, by what helps.
pub(crate) fn for_node(remedy: Remedy, node: &str, workload: Option<&str>) -> Vec<String> {
    match remedy {
        Remedy::ResetGpu | Remedy::RebootNode | Remedy::Replace => vec![drain(node), events(node)],
        Remedy::CheckCabling | Remedy::CheckPower => vec![events(node), drain(node)],
        Remedy::CheckCooling | Remedy::Migrate => workload
            .map(migrate)
            .into_iter()
            .chain([node_metric("gpu.temperature", node, "24h"), drain(node)])
            .collect(),
        Remedy::RestartWorkload | Remedy::FixProgram => {
            workload.map_or_else(|| vec![events(node)], |w| vec![errors(w), status(w)])
        }
        Remedy::MoreMemory => vec![
            node_metric("memory.usage", node, "24h"),
            format!("clawbernetes workload list --node {node}"),
        ],
        Remedy::FreeDisk => vec![node_metric("disk.used", node, "24h"), drain(node)],
        Remedy::FixClock => vec![format!("clawbernetes node info {node}")],
        _ => vec![
            events(node),
            format!("clawbernetes diagnose node {node} --verbose --history 24h"),
        ],
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The commands that findings may name, with their flags: the command line's contract.
    pub(crate) const KNOWN: &[(&str, &[&str])] = &[
        ("node drain", &["--force", "--timeout"]),
        ("node events", &["--since"]),
        ("node info", &[]),
        ("node list", &["--available"]),
        ("metrics", &["--last", "--node", "--workload", "--aggregate"]),
        ("diagnose node", &["--verbose", "--history"]),
        ("diagnose workload", &["--compare", "--recommendations"]),
        ("workload migrate", &["--target"]),
        ("workload status", &[]),
        ("workload cancel", &["--grace"]),
        ("workload list", &["--node", "--running"]),
        ("workload explain", &[]),
        ("workload update", &["--memory", "--timeout", "--priority"]),
        ("logs", &["--level", "--context", "--search", "--since", "--tail"]),
        ("run", &["--file", "--cpus", "--gpus", "--image", "--memory"]),
    ];

    /// Fails unless the command line exists.
    pub(crate) fn assert_known(line: &str) {
        let rest = line
            .strip_prefix("clawbernetes ")
            .unwrap_or_else(|| panic!("not ours: {line}"));
        let (_, flags) = KNOWN
            .iter()
            .find(|(verb, _)| rest.starts_with(&format!("{verb} ")))
            .unwrap_or_else(|| panic!("no such command: {line}"));
        for flag in rest.split(' ').filter(|w| w.starts_with("--")) {
            assert!(flags.contains(&flag), "no such flag {flag}: {line}");
        }
    }

    #[test]
    fn every_remedy_names_commands_that_exist() {
        for remedy in [
            Remedy::Ignore,
            Remedy::ResetGpu,
            Remedy::RebootNode,
            Remedy::Replace,
            Remedy::CheckCabling,
            Remedy::CheckCooling,
            Remedy::CheckPower,
            Remedy::RestartWorkload,
            Remedy::MoreMemory,
            Remedy::FreeDisk,
            Remedy::FixClock,
            Remedy::Watch,
        ] {
            for workload in [None, Some("wl-1")] {
                let lines = for_node(remedy, "gpu-7", workload);
                assert!(!lines.is_empty());
                lines.iter().for_each(|l| assert_known(l));
            }
        }
        for line in [
            migrate("w"),
            errors("w"),
            tail("w"),
            cancel("w"),
            status("w"),
            more_memory("w", 64),
            workload_metric("gpu.memory", "w"),
        ] {
            assert_known(&line);
        }
    }
}
