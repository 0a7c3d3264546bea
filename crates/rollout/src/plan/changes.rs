//! What a plan changes, field by field.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    Cpu, Size, Span,
    deploy::{Autoscale, Change, Marks},
    workload::{HealthCheck, Probe, WorkloadSpec},
};
use serde_json::Value;

use super::steps;

/// The differences between two specifications, and what they are called. `from`: `None` where there is none yet, which
/// lists what is set.
pub(super) fn of_spec(
    from: Option<(&WorkloadSpec, Option<&str>)>,
    to: &WorkloadSpec,
    version: Option<&str>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(version) = version
        && from.and_then(|(_, version)| version) != Some(version)
    {
        changes.push(Change {
            field: "version".to_owned(),
            from: from.and_then(|(_, version)| version).map(str::to_owned),
            to: version.to_owned(),
        });
    }
    let old = fields(from.map_or(&WorkloadSpec::default(), |(spec, _)| spec));
    let new = fields(to);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    changes.extend(
        names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
            .map(|name| Change {
                field: name.clone(),
                from: from.and_then(|_| old.get(name).cloned()),
                to: new.get(name).map_or_else(|| "none".to_owned(), Clone::clone),
            }),
    );
    changes
}

/// A specification as names and texts: what a manifest holds, with `env` and `gpus` taken apart.
fn fields(spec: &WorkloadSpec) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let Ok(Value::Object(json)) = serde_json::to_value(spec) else {
        return fields;
    };
    for (name, value) in json {
        let text = match (name.as_str(), &value) {
            ("env", _) => {
                fields.extend(
                    spec.env
                        .iter()
                        .map(|var| (format!("env.{}", var.name), var.value.clone())),
                );
                continue;
            }
            ("gpus", _) => {
                fields.insert("gpus".to_owned(), spec.gpus.count.to_string());
                fields.extend(spec.gpus.model.clone().map(|model| ("gpuType".to_owned(), model)));
                fields.extend(
                    spec.gpus
                        .memory
                        .map(|memory| ("gpuMemory".to_owned(), memory.to_string())),
                );
                continue;
            }
            // Follows from the ports; one node is what there is without a word.
            ("dynamicPorts", _) => continue,
            ("nodes", _) if spec.nodes <= 1 => continue,
            ("healthCheck", _) => spec.health_check.as_ref().map_or_else(String::new, tried),
            ("readinessCheck", _) => spec.readiness.as_ref().map_or_else(String::new, tried),
            ("command", _) => spec.command.join(" "),
            ("memory", _) => spec.memory.map_or_else(String::new, |memory: Size| memory.to_string()),
            ("cpu", _) => spec.cpu.map_or_else(String::new, |cpu: Cpu| cpu.to_string()),
            ("timeout", _) => spec.timeout.map_or_else(String::new, |span: Span| span.to_string()),
            ("ports", _) => {
                let ports: Vec<String> = spec.ports.iter().map(|port| port.port.to_string()).collect();
                ports.join(", ")
            }
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        fields.insert(name, text);
    }
    fields
}

/// A check in words.
fn tried(check: &HealthCheck) -> String {
    let what = match &check.probe {
        Probe::Http(url) => format!("GET {url}"),
        Probe::Tcp(port) => format!("TCP {port}"),
        Probe::Command(command) => command.join(" "),
    };
    let HealthCheck {
        interval,
        timeout,
        failures,
        ..
    } = check;
    format!("{what}, every {interval}, {timeout} each, {failures} failures")
}

/// The differences between what replicas are marked with. `from`: `None` where there are none yet.
pub(super) fn of_marks(from: Option<&Marks>, to: &Marks) -> Vec<Change> {
    let none = Marks::default();
    let old = from.unwrap_or(&none);
    [
        ("label", &old.labels, &to.labels),
        ("annotation", &old.annotations, &to.annotations),
    ]
    .into_iter()
    .flat_map(|(kind, old, new)| {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        changed.map(move |key| Change {
            field: format!("{kind}.{key}"),
            from: old.get(key).cloned(),
            to: new.get(key).map_or_else(|| "none".to_owned(), Clone::clone),
        })
    })
    .collect()
}

/// The difference between two numbers of replicas. `from`: `None` where there are none yet.
pub(super) fn of_replicas(from: Option<u32>, to: u32) -> Option<Change> {
    (from != Some(to)).then(|| Change {
        field: "replicas".to_owned(),
        from: from.map(|n| n.to_string()),
        to: to.to_string(),
    })
}

/// The difference between two pairs of bounds.
pub(super) fn of_bounds(from: Option<&Autoscale>, to: Option<&Autoscale>) -> Option<Change> {
    (from != to).then(|| Change {
        field: "autoscale".to_owned(),
        from: from.map(steps::bounds),
        to: to.map_or_else(|| "none".to_owned(), steps::bounds),
    })
}
